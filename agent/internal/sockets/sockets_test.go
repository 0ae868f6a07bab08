package sockets

import (
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestListeningIsForOthersOnly(t *testing.T) {
	open, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	ports := Ports()
	if !slices.Contains(ports, open.Addr().(*net.TCPAddr).Port) {
		t.Errorf("%v is not among %v", open.Addr(), ports)
	}
	if slices.Contains(ports, own.Addr().(*net.TCPAddr).Port) {
		t.Errorf("%v is among %v", own.Addr(), ports)
	}
}

// A process that has inherited a listening socket, and sleeps on it.
func listeningChild(t *testing.T) (port int, end func()) {
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = file.Close(), listener.Close()
	end = func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}
	t.Cleanup(end)
	return listener.Addr().(*net.TCPAddr).Port, end
}

func TestASharedSocketOutlivesItsProcessWithAllThatWaitsThere(t *testing.T) {
	port, end := listeningChild(t)
	shared := Share(port)
	if len(shared) != 1 {
		t.Fatal("a process does not get its child's socket: is there no pidfd_getfd here?")
	}
	defer shared[0].Close()
	if shared[0].IsOurs() {
		t.Fatal("its process has it still")
	}
	early, err := net.Dial("tcp", net.JoinHostPort("localhost", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	end()
	late, err := net.Dial("tcp", net.JoinHostPort("localhost", strconv.Itoa(port)))
	if err != nil {
		t.Fatalf("refused behind its process: %v", err)
	}
	defer late.Close()
	if !shared[0].IsOurs() {
		t.Fatal("nobody else has it any more")
	}
	listener, err := shared[0].Listener()
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for range 2 {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("held"))
		_ = conn.Close()
	}
	for _, conn := range []net.Conn{early, late} {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if answer, err := io.ReadAll(conn); string(answer) != "held" {
			t.Errorf("%q, %v", answer, err)
		}
	}
}
