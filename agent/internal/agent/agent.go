// Package agent joins the parts: listeners, lines, SSH, tunnels, gate.
package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"towline.dev/agent/internal/command"
	"towline.dev/agent/internal/config"
	"towline.dev/agent/internal/control"
	"towline.dev/agent/internal/environ"
	"towline.dev/agent/internal/gate"
	"towline.dev/agent/internal/line"
	"towline.dev/agent/internal/memory"
	"towline.dev/agent/internal/sockets"
	"towline.dev/agent/internal/sshd"
	"towline.dev/agent/internal/tunnel"
)

const (
	// drainFor: open connections get this long after SIGTERM. The pod's own grace
	// period (30 s) is longer; a developer waits for `down`.
	drainFor = 5 * time.Second
	// drainKept: with an original that is kept its connections go through here, and
	// nobody waits for this pod to end. plan/keep.py has the pod's grace period.
	drainKept = 30 * time.Second
	// nodesFollow: kube-proxy brings a changed Service to a node's tables at most once
	// a second. Until then connections still come to a pod that is no endpoint any
	// more, and would be refused.
	nodesFollow = 1200 * time.Millisecond
	// drainLook is how often it is seen whether any are left.
	drainLook = 20 * time.Millisecond
	// lastWords is what the lines' CLOSE has to leave.
	lastWords = 200 * time.Millisecond
)

// Agent is the whole of it.
type Agent struct {
	session *config.Session
	boot    string
	started time.Time

	gate      *gate.Gate
	lines     *line.Server
	reverse   *tunnel.Reverse
	events    *control.Events
	listeners *listeners
	ssh       *sshd.Server
}

// New makes an agent that listens on nothing yet.
func New(session *config.Session) (*Agent, error) {
	var permit *tunnel.Permit
	if session.Permit != nil {
		var err error
		domain := environ.ClusterDomain(environ.SearchDomains())
		if permit, err = tunnel.NewPermit(*session.Permit, domain); err != nil {
			return nil, err
		}
	}
	a := &Agent{session: session, boot: line.Boot(), started: time.Now(), events: &control.Events{}}
	a.listeners = &listeners{events: a.events, ports: a.listening}
	budget := tunnel.NewBudget(memory.Tune())
	a.gate = gate.New(session.Gate.Path, time.Duration(session.CarrierLostShut), func(open bool) {
		a.events.Emit(gateEvent{"gate", open})
		a.lead(open)
	})
	a.gate.StandsIn = a.keepsOriginal()
	a.reverse = tunnel.NewReverse(budget, time.Duration(session.HoldFor), func(port, waiting int) {
		a.events.Emit(reverseEvent{"reverse", port, waiting})
	})
	a.ssh = sshd.New(session.HostKey, session.ClientKey)
	a.ssh.Tunnels = &tunnel.Tunnels{Budget: budget, Reverse: a.reverse, Permit: permit}
	a.ssh.Events = a.events
	a.ssh.Boot = a.boot
	a.ssh.Methods = func(owner any) control.Methods { return &methods{a, owner} }
	a.lines = &line.Server{
		Key: session.LineKey, KeepFor: time.Duration(session.KeepFor), Present: a.gate.Carriers,
	}
	return a, nil
}

// keepsOriginal: the original is up beside this pod, and gets what the laptop does not.
func (a *Agent) keepsOriginal() bool { return len(a.session.Original) > 0 }

// lead brings connections to the laptop while the gate is open, else to an original that
// is kept.
func (a *Agent) lead(open bool) {
	switch {
	case !a.keepsOriginal():
	case open:
		a.reverse.SetRoute(tunnel.Route{Mode: tunnel.ToClient, HoldFor: time.Duration(a.session.HoldFor)})
	default:
		a.reverse.ToOriginal()
	}
}

// listening gives the ports that the pod's processes listen on; on one that is only held
// for a process nobody does.
func (a *Agent) listening() []int {
	left := a.reverse.Left()
	return slices.DeleteFunc(sockets.Ports(), func(port int) bool { return left[port] })
}

// Run serves until SIGTERM or SIGINT.
func (a *Agent) Run(listening func(string)) error {
	// Before anything else: a signal in the first milliseconds must not kill
	// (PID 1 ignores it, anybody else dies without shutting the gate).
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM, syscall.SIGINT)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a.lines.Serve = func(l *line.Line) {
		_ = a.ssh.Serve(ctx, l)
		a.gate.LineEnded(l)
	}
	local, err := a.listenForLines()
	if err != nil {
		return err
	}
	for _, listener := range local {
		go a.lines.Accept(listener)
	}
	probed, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(a.session.Gate.Port)))
	if err != nil {
		return fmt.Errorf("open the gate's port: %w", err)
	}
	go a.gate.Serve(ctx, probed)
	for _, port := range a.session.Reverse {
		a.reverse.Listen(port)
	}
	if a.keepsOriginal() {
		a.reverse.Keep(a.session.Original)
	}
	go command.Reap()
	listening(fmt.Sprintf("towline agent: listening, line on %d, gate on %d", a.session.LinePort, a.session.Gate.Port))
	<-ending
	a.end(local)
	return nil
}

// listenForLines listens on both loopback addresses; one is enough where a
// family is off.
func (a *Agent) listenForLines() ([]net.Listener, error) {
	var listeners []net.Listener
	var failures []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(a.session.LinePort)))
		if err != nil {
			failures = append(failures, err)
			continue
		}
		listeners = append(listeners, listener)
	}
	if len(listeners) == 0 {
		return nil, fmt.Errorf("open the line's port: %w", errors.Join(failures...))
	}
	return listeners, nil
}

// end gives open connections some time, then ends all.
func (a *Agent) end(local []net.Listener) {
	a.gate.Set(false, nil)
	patience := drainFor
	if a.keepsOriginal() {
		patience = drainKept
	}
	a.events.Emit(stoppingEvent{"stopping", patience.Seconds()})
	deadline := time.Now().Add(patience)
	for a.mayStillBeSent() && time.Now().Before(deadline) {
		time.Sleep(drainLook)
	}
	a.reverse.StopListening()
	for a.reverse.Open() > 0 && time.Now().Before(deadline) {
		time.Sleep(drainLook)
	}
	for _, listener := range local {
		_ = listener.Close()
	}
	last := time.After(lastWords)
	for _, line := range a.lines.End() {
		select {
		case <-line.Done():
		case <-last:
			return
		}
	}
}

// mayStillBeSent tells whether nodes may not have followed the shut gate yet.
func (a *Agent) mayStillBeSent() bool {
	shut := a.gate.ShutAt()
	if shut.IsZero() {
		return false // no Service ever led here
	}
	return time.Since(shut) < nodesFollow || time.Since(a.reverse.LastArrival()) < nodesFollow
}
