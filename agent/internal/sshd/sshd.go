// Package sshd is the SSH server that runs in each line.
package sshd

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"towline.dev/agent/internal/command"
	"towline.dev/agent/internal/control"
	"towline.dev/agent/internal/files"
	foldersync "towline.dev/agent/internal/sync"
	"towline.dev/agent/internal/tunnel"
)

const (
	user             = "towline"
	controlSubsystem = "towline-control"
	filesSubsystem   = "towline-files"
	syncSubsystem    = "towline-sync"
	sftpSubsystem    = "sftp"
	// triesAtMost: the client has one key.
	triesAtMost = 3
	// envAtMost entries may be set for one command.
	envAtMost = 256
	// portsEntry names the ports that Services lead to and the command is to listen on. It is
	// said by `env`, which is the one request that every client can send ahead of `exec`.
	portsEntry = "TOWLINE_PORTS"
)

// Server serves SSH to whoever has the session's key.
type Server struct {
	config  *ssh.ServerConfig
	Tunnels *tunnel.Tunnels
	Events  *control.Events
	// Methods makes the control methods for a connection; owner tells whose they are.
	Methods func(owner any) control.Methods
	// Boot is another one for each start of the agent.
	Boot string
}

var errOtherKey = errors.New("not the session's key")

// New makes a server with exactly the algorithms of docs/protocol.md.
func New(hostKey ssh.Signer, clientKey ssh.PublicKey) *Server {
	wanted := clientKey.Marshal()
	config := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: []string{ssh.KeyExchangeCurve25519},
			Ciphers:      []string{ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305},
			// Both ciphers authenticate by themselves; a MAC must be named all the same.
			MACs: []string{ssh.HMACSHA256ETM},
		},
		MaxAuthTries:            triesAtMost,
		PublicKeyAuthAlgorithms: []string{ssh.KeyAlgoED25519},
		ServerVersion:           "SSH-2.0-towline",
		PublicKeyCallback: func(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if conn.User() != user || subtle.ConstantTimeCompare(key.Marshal(), wanted) != 1 {
				return nil, errOtherKey
			}
			return nil, nil
		},
	}
	config.AddHostKey(hostKey)
	return &Server{config: config}
}

// Serve speaks SSH on a line until it ends.
func (s *Server) Serve(ctx context.Context, line net.Conn) error {
	defer line.Close()
	conn, channels, requests, err := ssh.NewServerConn(line, s.config)
	if err != nil {
		return fmt.Errorf("greet the client: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go ssh.DiscardRequests(requests)
	for channel := range channels {
		switch channel.ChannelType() {
		case "direct-tcpip":
			go s.Tunnels.Serve(ctx, channel)
		case "session":
			go s.session(channel, line)
		default:
			_ = channel.Reject(ssh.UnknownChannelType, "towline knows session and direct-tcpip")
		}
	}
	return conn.Wait()
}

// session serves one session channel: requests until exec, shell or subsystem,
// then those that go with a running command.
func (s *Server) session(incoming ssh.NewChannel, owner any) {
	channel, requests, err := incoming.Accept()
	if err != nil {
		return
	}
	session := &command.Session{Channel: channel}
	var running sync.WaitGroup
	started := false
	for request := range requests {
		ok := false
		switch request.Type {
		case "exec", "shell", "subsystem":
			if started {
				break
			}
			var run func()
			if run, ok = s.starts(request, session, owner); ok {
				started = true
				_ = request.Reply(true, nil)
				running.Go(run)
				continue
			}
		default:
			ok = s.prepares(request, session, started)
		}
		_ = request.Reply(ok, nil)
	}
	// The client closed the channel, or the line ended.
	session.HangUp()
	running.Wait()
}

type textPayload struct{ Text string }

// starts gives what an exec, shell or subsystem request runs.
func (s *Server) starts(request *ssh.Request, session *command.Session, owner any) (run func(), ok bool) {
	var payload textPayload
	if request.Type != "shell" && ssh.Unmarshal(request.Payload, &payload) != nil {
		return nil, false
	}
	if request.Type != "subsystem" {
		return func() { session.Run(payload.Text) }, true
	}
	var serve func()
	switch payload.Text {
	case controlSubsystem:
		serve = func() { _ = control.Serve(session.Channel, s.Methods(owner), s.Events) }
	case syncSubsystem:
		serve = func() { _ = foldersync.Serve(session.Channel, s.Boot) }
	case sftpSubsystem:
		serve = func() { serveFiles(session.Channel) }
	case filesSubsystem:
		serve = func() { _ = files.Serve(session.Channel) }
	default:
		return nil, false
	}
	return func() {
		serve()
		_ = session.Channel.Close()
	}, true
}

// serveFiles is what sftp and scp ask for: the image need not have sftp-server. It sees
// and may do what the container's user does.
func serveFiles(channel ssh.Channel) {
	folder, err := os.Getwd()
	if err != nil {
		folder = "/"
	}
	server, err := sftp.NewServer(channel, sftp.WithServerWorkingDirectory(folder))
	if err == nil {
		err = server.Serve()
	}
	status := uint32(0)
	if err != nil && !errors.Is(err, io.EOF) {
		status = 1
	}
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

// prepares serves the requests around a command.
func (s *Server) prepares(request *ssh.Request, session *command.Session, started bool) bool {
	switch request.Type {
	case "pty-req":
		terminal, err := command.ParseTerminal(request.Payload)
		if started || err != nil {
			return false
		}
		session.Terminal = terminal
		return true
	case "env":
		var entry struct{ Name, Value string }
		if started || ssh.Unmarshal(request.Payload, &entry) != nil || len(session.Env) >= envAtMost {
			return false
		}
		if entry.Name == portsEntry {
			return s.givesPorts(entry.Value, session)
		}
		session.Env = append(session.Env, entry.Name+"="+entry.Value)
		return true
	case "window-change":
		size, err := command.ParseSize(request.Payload)
		if err != nil {
			return false
		}
		session.Resize(size)
		return true
	case "signal":
		var payload textPayload
		return ssh.Unmarshal(request.Payload, &payload) == nil && session.Signal(payload.Text)
	}
	return false
}

// givesPorts lets the command have these ports while it runs; they are held here once it
// has ended, without a round trip to ask the client.
func (s *Server) givesPorts(text string, session *command.Session) bool {
	var ports []int
	for _, word := range strings.Fields(text) {
		number, err := strconv.ParseUint(word, 10, 16)
		if err != nil || number == 0 {
			return false
		}
		ports = append(ports, int(number))
	}
	session.Life = s.Tunnels.Reverse.Lend(ports)
	return true
}
