package sshd

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"towline.dev/agent/internal/control"
)

func keys(t testing.TB) (host, client ssh.Signer) {
	t.Helper()
	made := make([]ssh.Signer, 2)
	for i := range made {
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		if made[i], err = ssh.NewSignerFromKey(private); err != nil {
			t.Fatal(err)
		}
	}
	return made[0], made[1]
}

// pair is a connection and its other end. A pipe would not do: both sides of SSH speak
// first.
func pair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if near, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	_ = near.SetDeadline(time.Now().Add(5 * time.Second))
	return near, far
}

// FuzzHandshake is what whoever has the line's key may send before SSH knows them.
func FuzzHandshake(f *testing.F) {
	host, client := keys(f)
	f.Add([]byte("SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		server := New(host, client.PublicKey())
		near, far := pair(t)
		_ = near.SetDeadline(time.Now().Add(5 * time.Second))
		go func() { _, _ = io.Copy(io.Discard, near) }()
		go func() {
			_, _ = near.Write(sent)
			_ = near.Close()
		}()
		if err := server.Serve(context.Background(), far); err == nil {
			t.Error("served without a key")
		}
	})
}

// FuzzRequests is what a client that is known may ask for on a session channel.
func FuzzRequests(f *testing.F) {
	host, client := keys(f)
	f.Add("subsystem", []byte("\x00\x00\x00\x0ftowline-control"), []byte(`{"id": 1, "method": "hello"}`+"\n"))
	f.Add("subsystem", []byte("\x00\x00\x00\x0dtowline-files"), []byte(`{"roots": [{"path": "/nowhere"}]}`+"\n"))
	f.Add("subsystem", []byte("\x00\x00\x00\x0ctowline-sync"), []byte("\x00\x00\x00\x01\x01"))
	f.Add("pty-req", []byte("\x00\x00\x00\x05xterm"), []byte{})
	f.Add("env", []byte("\x00\x00\x00\x01a\x00\x00\x00\x01b"), []byte{})
	f.Add("window-change", []byte{1, 2, 3}, []byte{})
	f.Fuzz(func(t *testing.T, kind string, payload, sent []byte) {
		if kind == "exec" || kind == "shell" {
			return // those run what they say
		}
		server := New(host, client.PublicKey())
		server.Events = &control.Events{}
		server.Methods = func(any) control.Methods { return nothing{} }
		near, far := pair(t)
		defer near.Close()
		go func() { _ = server.Serve(context.Background(), far) }()
		conn, channels, requests, err := ssh.NewClientConn(near, "agent", &ssh.ClientConfig{
			User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(client)},
			HostKeyCallback: ssh.FixedHostKey(host.PublicKey()),
		})
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(requests)
		go func() {
			for each := range channels {
				_ = each.Reject(ssh.Prohibited, "")
			}
		}()
		channel, asked, err := conn.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(asked)
		go func() { _, _ = io.Copy(io.Discard, channel) }()
		_, _ = channel.SendRequest(kind, true, payload)
		_, _ = channel.Write(sent)
		_ = channel.Close()
		// Whatever that was, the connection goes on.
		if _, _, err := conn.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.Errorf("%q %q %q ended the connection: %v", kind, payload, sent, err)
		}
	})
}

type nothing struct{}

func (nothing) Call(string, json.RawMessage) (any, error) { return map[string]any{}, nil }
