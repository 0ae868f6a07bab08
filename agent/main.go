// Command agent runs as the first process of the dev container: it carries the
// tunnels between the pod and the laptop, runs commands, and keeps the gate. With
// -guard it watches over a session from a pod of its own instead; with -prepare it fills
// the dev pod's folders before that and ends, with -install it copies itself there.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"towline.dev/agent/internal/agent"
	"towline.dev/agent/internal/config"
	"towline.dev/agent/internal/guard"
	"towline.dev/agent/internal/kube"
	"towline.dev/agent/internal/memory"
	"towline.dev/agent/internal/prepare"
)

func main() {
	folder := flag.String("session", "/towline/session", "the session's `folder`: config.json and keys")
	var settings guard.Settings
	flag.StringVar(&settings.Record, "guard", "", "be the guard of the session with this `record`")
	flag.StringVar(&settings.Lease, "lease", "", "the `name` of the session's lease")
	flag.DurationVar(&settings.GiveBackAfter, "give-back-after", 2*time.Minute, "let the original serve again")
	flag.DurationVar(&settings.KeepFor, "keep-for", 10*time.Minute, "end the session")
	installed := flag.String("install", "", "copy this program to `path`, and end")
	task := flag.String("prepare", "", "fill folders and put files in place as this `JSON` says, and end")
	flag.BoolVar(&settings.OriginalIsKept, "original-is-kept", false, "see to it that Services lead to a ready pod")
	flag.Parse()
	run := func() error { return serve(*folder) }
	if settings.Record != "" {
		run = func() error { return watch(settings) }
	}
	if *task != "" {
		run = func() error { return prepare.Run(*task, os.Stderr) }
	}
	if *installed != "" {
		run = func() error { return prepare.Install(*installed) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "towline agent:", err)
		os.Exit(1)
	}
}

func serve(folder string) error {
	session, err := config.Read(folder)
	if err != nil {
		return err
	}
	made, err := agent.New(session)
	if err != nil {
		return err
	}
	return made.Run(func(told string) { fmt.Fprintln(os.Stderr, told) })
}

func watch(settings guard.Settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log.SetPrefix("towline guard: ")
	log.SetFlags(log.LstdFlags | log.LUTC)
	memory.Tune()
	client, err := kube.InCluster()
	if err != nil {
		return err
	}
	log.Printf("watching %s: gives back after %s, ends the session after %s", settings.Record, settings.GiveBackAfter, settings.KeepFor)
	guard.New(client, settings).Run(ctx)
	return nil
}
