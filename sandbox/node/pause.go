package main

import (
	"os"
	"os/signal"
	"syscall"
)

// pause holds a pod's namespaces open, reaps what is orphaned in them (it is
// process 1 where a pod shares its process namespace), and ends on a signal.
func pause() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}
