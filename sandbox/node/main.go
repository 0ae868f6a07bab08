// Command node holds the small programs that a node needs beside Kubernetes':
//
//	node pause              the process that keeps a pod's namespaces
//	node relay LISTENER_FD  host connections → an address inside the node
//	node certificates DIR   keys and certificates, described on standard input
//
// The standard library only: it builds in a second, and is static.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func run(arguments []string) error {
	// The pause image has this binary as /pause, and nothing else.
	if filepath.Base(arguments[0]) == "pause" {
		return pause()
	}
	switch {
	case len(arguments) == 2 && arguments[1] == "pause":
		return pause()
	case len(arguments) == 4 && arguments[1] == "relay":
		return relay(arguments[2], arguments[3])
	case len(arguments) == 3 && arguments[1] == "certificates":
		return certificates(arguments[2], os.Stdin)
	}
	return fmt.Errorf("usage: node pause | node relay LISTENER_FD ADDRESS | node certificates DIR <SPEC")
}

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}
