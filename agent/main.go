// Command agent runs as the first process of the dev container: it carries the
// tunnels between the pod and the laptop, runs commands, and keeps the gate.
package main

import (
	"flag"
	"fmt"
	"os"

	"towline.dev/agent/internal/agent"
	"towline.dev/agent/internal/config"
)

func main() {
	folder := flag.String("session", "/towline/session", "the session's `folder`: config.json and keys")
	flag.Parse()
	if err := run(*folder); err != nil {
		fmt.Fprintln(os.Stderr, "towline agent:", err)
		os.Exit(1)
	}
}

func run(folder string) error {
	session, err := config.Read(folder)
	if err != nil {
		return err
	}
	return agent.New(session).Run(func(told string) { fmt.Fprintln(os.Stderr, told) })
}
