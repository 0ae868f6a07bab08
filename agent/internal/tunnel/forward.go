package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"golang.org/x/crypto/ssh"
)

// The names of docs/protocol.md for channels opened ahead of need.
const (
	spareHost   = "towline-spare"
	reverseHost = "towline-reverse"
)

// dialWithin bounds connecting to a target: longer than a node's SYN retries
// need (1, 3, 7 s), shorter than a person's patience.
const dialWithin = 10 * time.Second

// Tunnels serves the tunnel channels of all clients.
type Tunnels struct {
	// Permit is what may be dialled; nil permits anything.
	Permit  *Permit
	Budget  *Budget
	Reverse *Reverse
}

// open is the extra data of direct-tcpip, RFC 4254 §7.2.
type open struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

// Serve takes one direct-tcpip channel to its end.
func (t *Tunnels) Serve(ctx context.Context, incoming ssh.NewChannel) {
	var target open
	if err := ssh.Unmarshal(incoming.ExtraData(), &target); err != nil || target.Port > 65535 {
		_ = incoming.Reject(ssh.ConnectionFailed, "not a target")
		return
	}
	switch target.Host {
	case spareHost:
		t.spare(ctx, incoming)
	case reverseHost:
		t.reverse(ctx, incoming, int(target.Port))
	default:
		t.forward(ctx, incoming, target)
	}
}

// forward is what an ordinary SSH client opens: dialled before it is confirmed.
func (t *Tunnels) forward(ctx context.Context, incoming ssh.NewChannel, target open) {
	if !t.Permit.Allows(target.Host, int(target.Port)) {
		_ = incoming.Reject(ssh.Prohibited, errNotPermitted.Error())
		return
	}
	socket, err := dial(ctx, target.Host, int(target.Port))
	if err != nil {
		_ = incoming.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := incoming.Accept()
	if err != nil {
		_ = socket.Close()
		return
	}
	newStream(ctx, channel, requests, t.Budget, false).relay(socket)
}

// spare waits for the client to name its target.
func (t *Tunnels) spare(ctx context.Context, incoming ssh.NewChannel) {
	channel, requests, err := incoming.Accept()
	if err != nil {
		return
	}
	stream := newStream(ctx, channel, requests, t.Budget, true)
	host, port, err := readTarget(channel)
	if err != nil {
		_ = channel.Close()
		return
	}
	if !t.Permit.Allows(host, port) {
		stream.resetChannel(errNotPermitted.Error())
		return
	}
	socket, err := dial(stream.closed, host, port)
	if err != nil {
		stream.resetChannel(err.Error())
		return
	}
	stream.relay(socket)
}

var errHostTooLong = errors.New("a host name of more than 255 bytes")

func readTarget(from io.Reader) (host string, port int, err error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return "", 0, err
	}
	length := int(binary.BigEndian.Uint16(head[2:]))
	if length > 255 {
		return "", 0, errHostTooLong
	}
	name := make([]byte, length)
	if _, err := io.ReadFull(from, name); err != nil {
		return "", 0, err
	}
	return string(name), int(binary.BigEndian.Uint16(head[:])), nil
}

// reverse lets the channel wait for a connection to the port.
func (t *Tunnels) reverse(ctx context.Context, incoming ssh.NewChannel, port int) {
	if !t.Reverse.Listens(port) {
		_ = incoming.Reject(ssh.ConnectionFailed, "the agent does not listen on this port")
		return
	}
	channel, requests, err := incoming.Accept()
	if err != nil {
		return
	}
	stream := newStream(ctx, channel, requests, t.Budget, true)
	waiter := &waiter{stream: stream, taken: make(chan struct{})}
	t.Reverse.offer(port, waiter)
	select {
	case <-waiter.taken:
	case <-stream.closed.Done():
		if t.Reverse.withdraw(port, waiter) {
			return
		}
		<-waiter.taken
	}
	if _, err := channel.Write(waiter.header()); err != nil {
		Reset(waiter.socket)
		return
	}
	stream.relay(waiter.socket)
}
