package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 10 * time.Second

// relayed starts a relay in front of far, and returns the address to dial.
func relayed(t *testing.T, far net.Listener) string {
	t.Helper()
	near, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := near.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = relay(strconv.Itoa(int(file.Fd())), far.Addr().String()) }()
	return near.Addr().String()
}

func served(t *testing.T, serve func(*net.TCPConn)) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(connection.(*net.TCPConn))
		}
	}()
	return listener
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	connection, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	_ = connection.SetDeadline(time.Now().Add(patience))
	return connection.(*net.TCPConn)
}

// The far side answers only after the end of what it is sent.
func TestAnEndedDirectionLeavesTheOtherOpen(t *testing.T) {
	address := relayed(t, served(t, func(connection *net.TCPConn) {
		defer connection.Close()
		received, _ := io.ReadAll(connection)
		_, _ = connection.Write(received)
	}))
	sent := bytes.Repeat([]byte("towline "), 1<<17)
	connection := dial(t, address)
	if _, err := connection.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := connection.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	received, err := io.ReadAll(connection)
	if err != nil || !bytes.Equal(received, sent) {
		t.Fatalf("%d of %d bytes came back, %v", len(received), len(sent), err)
	}
}

func TestAResetArrivesAsOne(t *testing.T) {
	address := relayed(t, served(t, func(connection *net.TCPConn) {
		_, _ = connection.Read(make([]byte, 1))
		reset(connection)
	}))
	connection := dial(t, address)
	if _, err := connection.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_, err := connection.Read(make([]byte, 1))
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v, not a reset", err)
	}
}

func TestNobodyThereIsAReset(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	connection, err := net.DialTimeout("tcp", relayed(t, gone), patience)
	if err == nil { // else the reset came before the connection was reported
		defer connection.Close()
		_ = connection.SetDeadline(time.Now().Add(patience))
		_, err = connection.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v, not a reset", err)
	}
}

func TestHundredsOfConnectionsAtOnce(t *testing.T) {
	address := relayed(t, served(t, func(connection *net.TCPConn) {
		defer connection.Close()
		_, _ = io.Copy(connection, connection)
	}))
	var all sync.WaitGroup
	for range 400 {
		connection := dial(t, address)
		all.Go(func() {
			got := make([]byte, 4)
			if _, err := connection.Write([]byte("ping")); err != nil {
				t.Error(err)
			} else if _, err := io.ReadFull(connection, got); err != nil || string(got) != "ping" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	all.Wait()
}

func BenchmarkBulk(b *testing.B) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan int64)
	go func() {
		connection, _ := listener.Accept()
		received, _ := io.Copy(io.Discard, connection)
		done <- received
	}()
	near, _ := net.Listen("tcp", "127.0.0.1:0")
	file, _ := near.(*net.TCPListener).File()
	go func() { _ = relay(strconv.Itoa(int(file.Fd())), listener.Addr().String()) }()
	connection, err := net.Dial("tcp", near.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, 1<<20)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := connection.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	connection.Close()
	<-done
}
