package agent

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"slices"
	"testing"

	"towline.dev/agent/internal/control"
	"towline.dev/agent/internal/sockets"
)

// asker says one line to the control subsystem, and gives what comes back line by line.
type asker struct {
	io.Reader
	said chan []byte
}

func (a *asker) Write(line []byte) (int, error) {
	a.said <- bytes.Clone(line)
	return len(line), nil
}

func TestAChangeOfThePortsIsToldAfterTheyWereAskedFor(t *testing.T) {
	ask, asking := io.Pipe()
	channel := &asker{ask, make(chan []byte, 100)}
	events := &control.Events{}
	asked := &methods{&Agent{events: events, listeners: &listeners{events: events, ports: sockets.Ports}}, nil}
	go func() { _ = control.Serve(channel, asked, events) }()
	defer asking.Close()
	if _, err := asking.Write([]byte(`{"id":1,"method":"listening"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	told := func(there bool) {
		for line := range channel.said {
			var event listeningEvent
			if err := json.Unmarshal(line, &event); err != nil {
				t.Fatal(err)
			}
			if event.Event == "listening" && slices.Contains(event.Ports, port) == there {
				return
			}
		}
	}
	told(true)
	listener.Close()
	told(false)
}
