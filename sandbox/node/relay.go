package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const dialTimeout = 5 * time.Second

// relay passes every connection of an inherited listening socket on to address.
//
// The socket was made on the host, and a socket stays in the network namespace
// it was made in: so one process listens there and dials here, without setns.
// Between two TCP sockets io.Copy is splice(2), so bulk data never comes into
// this process, whose CPU is part of every benchmark.
func relay(listenerFD, address string) error {
	fd, err := strconv.Atoi(listenerFD)
	if err != nil {
		return fmt.Errorf("listener: %w", err)
	}
	listener, err := net.FileListener(os.NewFile(uintptr(fd), "listener"))
	if err != nil {
		return fmt.Errorf("listener: %w", err)
	}
	for {
		near, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // out of descriptors, or reset before it was accepted
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go pass(near.(*net.TCPConn), address)
	}
}

func pass(near *net.TCPConn, address string) {
	defer near.Close()
	dialled, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		reset(near) // the nearest thing to the refusal that a direct client gets
		return
	}
	far := dialled.(*net.TCPConn)
	defer far.Close()
	var directions sync.WaitGroup
	directions.Go(func() { half(far, near) })
	directions.Go(func() { half(near, far) })
	directions.Wait()
}

// half copies one direction to its end: an end of stream is passed on as one,
// a reset as one.
func half(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(to)
		reset(from)
		return
	}
	_ = to.CloseWrite()
}

func reset(connection *net.TCPConn) {
	_ = connection.SetLinger(0)
	_ = connection.Close()
}
