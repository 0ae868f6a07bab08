package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"
)

// heldAtMost connections wait at once, over all ports; more are reset.
const heldAtMost = 1024

// Mode says where connections to the reverse ports go.
type Mode string

// The modes of the control method `route`.
const (
	ToClient Mode = "client"
	Hold     Mode = "hold"
	Pass     Mode = "pass"
)

// Route is the whole of what `route` sets.
type Route struct {
	Mode    Mode
	HoldFor time.Duration
	// Targets of Pass: port → addresses.
	Targets map[int][]string
}

// Port is how one reverse listener stands.
type Port struct {
	Port  int
	Error error
}

// Reverse listens on the ports whose connections belong to the laptop, and
// brings each to a channel, to a line of waiters, or to the original.
type Reverse struct {
	budget *Budget
	// Waiting is told that connections wait for channels; it must not block.
	waiting func(port, connections int)

	mu       sync.Mutex
	route    Route
	ports    map[int]*port
	order    []int
	original map[int][]string
	held     int
	arrival  time.Time // of the last connection
	passed   map[*net.TCPConn]struct{}
	// taking are the ports that a process has yet to leave; see left.go.
	taking map[int]*taking
}

type port struct {
	listeners []net.Listener
	err       error
	// passes: no laptop is behind it, only the original.
	passes bool
	// left is there where a process of the container was behind it and the next one may be;
	// it ends that.
	left *time.Timer
	// Channels that wait for connections, and connections that wait for channels,
	// oldest first; both at once only while the mode is Hold.
	channels    []*waiter
	connections []*held
}

// waiter is a channel that waits for a connection.
type waiter struct {
	stream *stream
	taken  chan struct{}
	// Set before taken is closed.
	socket  *net.TCPConn
	waiting int
}

// held is a connection that waits for a channel, or for a new route.
type held struct {
	socket  *net.TCPConn
	since   time.Time
	timeout *time.Timer
}

// NewReverse listens on nothing yet.
func NewReverse(budget *Budget, holdFor time.Duration, waiting func(port, connections int)) *Reverse {
	return &Reverse{
		budget: budget, waiting: waiting, ports: map[int]*port{},
		route: Route{Mode: ToClient, HoldFor: holdFor}, passed: map[*net.TCPConn]struct{}{},
		taking: map[int]*taking{},
	}
}

// Listen opens a port on all addresses. A port that is taken is no reason to
// end: the client is told, and says so.
func (r *Reverse) Listen(number int) {
	listener, err := listenEverywhere(number)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.order = append(r.order, number)
	if err != nil {
		r.ports[number] = &port{err: err}
		return
	}
	r.open(number, &port{listeners: []net.Listener{listener}})
}

func (p *port) close() {
	for _, listener := range p.listeners {
		_ = listener.Close()
	}
}

func (r *Reverse) open(number int, port *port) {
	r.ports[number] = port
	for _, listener := range port.listeners {
		go r.accept(number, listener)
	}
}

// Keep makes an original that is kept the target of what is not for the laptop: of
// everything until SetRoute says otherwise, and of all connections to ports that Listen
// was not asked for. A port of those that another container has is that one's.
func (r *Reverse) Keep(original map[int][]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.original = original
	r.route.Mode = Pass
	for number := range original {
		if r.ports[number] != nil {
			continue
		}
		if listener, err := listenEverywhere(number); err == nil {
			r.open(number, &port{listeners: []net.Listener{listener}, passes: true})
		}
	}
}

// ToOriginal passes everything on to an original that is kept, what is held included.
func (r *Reverse) ToOriginal() int {
	return r.SetRoute(Route{Mode: Pass})
}

// listenEverywhere is [::] with both families, or 0.0.0.0 where IPv6 is off.
func listenEverywhere(number int) (net.Listener, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(number)))
	if err != nil {
		return nil, fmt.Errorf("open reverse listener on %d: %w", number, err)
	}
	return listener, nil
}

// Ports tells how each listener stands, in the order they were asked for.
func (r *Reverse) Ports() []Port {
	r.mu.Lock()
	defer r.mu.Unlock()
	result := make([]Port, 0, len(r.order))
	for _, number := range r.order {
		result = append(result, Port{Port: number, Error: r.ports[number].err})
	}
	return result
}

// Listens tells whether connections may come to that port for a client.
func (r *Reverse) Listens(number int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	port := r.ports[number]
	return port != nil && port.err == nil && !port.passes && port.left == nil
}

// Held counts the connections that wait.
func (r *Reverse) Held() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

func (r *Reverse) accept(number int, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(acceptPause)
			continue
		}
		r.arrived(number, conn.(*net.TCPConn))
	}
}

// acceptPause keeps a lack of descriptors from becoming a busy loop.
const acceptPause = 50 * time.Millisecond

// arrived brings a new connection where the route says.
func (r *Reverse) arrived(number int, socket *net.TCPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arrival = time.Now()
	port := r.ports[number]
	switch {
	case port == nil:
		// Accepted while the port was given back to a process.
		r.bring(number, &held{socket: socket, since: time.Now()})
	case r.route.Mode == Pass || port.passes:
		r.pass(number, socket)
	case r.route.Mode == ToClient && len(port.channels) > 0:
		r.give(port, socket)
	case r.held >= heldAtMost:
		r.giveUp(number, socket)
	default:
		r.hold(number, port, socket)
		if r.route.Mode == ToClient && port.left == nil {
			r.waiting(number, len(port.connections))
		}
	}
}

// give hands the connection to the oldest channel.
func (r *Reverse) give(port *port, socket *net.TCPConn) {
	waiter := port.channels[0]
	port.channels[0] = nil
	port.channels = port.channels[1:]
	waiter.socket, waiter.waiting = socket, len(port.connections)
	close(waiter.taken)
}

// header stands ahead of the connection's bytes: how many more wait, and the
// peer's address.
func (w *waiter) header() []byte {
	peer := w.socket.RemoteAddr().String()
	head := binary.BigEndian.AppendUint16(nil, uint16(min(w.waiting, 65535)))
	return append(binary.BigEndian.AppendUint16(head, uint16(len(peer))), peer...)
}

func (r *Reverse) hold(number int, port *port, socket *net.TCPConn) {
	waiting := &held{socket: socket, since: time.Now()}
	waiting.timeout = time.AfterFunc(r.route.HoldFor, func() { r.tooLong(number, waiting) })
	port.connections = append(port.connections, waiting)
	r.held++
}

// giveUp is for a connection that nobody takes: an original that is kept, else a reset.
func (r *Reverse) giveUp(number int, socket *net.TCPConn) {
	if r.original != nil {
		r.pass(number, socket)
		return
	}
	go Reset(socket)
}

// tooLong gives up a connection that nobody took.
func (r *Reverse) tooLong(number int, waiting *held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	port := r.ports[number]
	if port == nil {
		return // brought to a process in this very moment
	}
	for i, other := range port.connections {
		if other == waiting {
			port.connections = append(port.connections[:i], port.connections[i+1:]...)
			r.held--
			r.giveUp(number, waiting.socket)
			return
		}
	}
}

// offer lets a channel wait, or gives it the oldest waiting connection.
func (r *Reverse) offer(number int, waiter *waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	port := r.ports[number]
	port.channels = append(port.channels, waiter)
	if r.route.Mode == ToClient {
		r.match(port)
	}
}

// withdraw forgets a channel that its client closed, unless it was just taken.
func (r *Reverse) withdraw(number int, waiter *waiter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	port := r.ports[number]
	for i, other := range port.channels {
		if other == waiter {
			port.channels = append(port.channels[:i], port.channels[i+1:]...)
			return true
		}
	}
	return false
}

// match brings waiting connections and channels together.
func (r *Reverse) match(port *port) {
	for len(port.channels) > 0 && len(port.connections) > 0 {
		r.give(port, r.next(port))
	}
}

func (r *Reverse) next(port *port) *net.TCPConn {
	waiting := port.connections[0]
	port.connections[0] = nil
	port.connections = port.connections[1:]
	waiting.timeout.Stop()
	r.held--
	return waiting.socket
}

// SetRoute changes where connections go, those that wait already included, and
// returns how many wait now.
func (r *Reverse) SetRoute(route Route) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.route = route
	for number, port := range r.ports {
		switch route.Mode {
		case ToClient:
			r.match(port)
		case Pass:
			for len(port.connections) > 0 {
				r.pass(number, r.next(port))
			}
		}
		for _, waiting := range port.connections {
			waiting.timeout.Reset(time.Until(waiting.since.Add(route.HoldFor)))
		}
		if route.Mode == ToClient && port.left == nil && len(port.connections) > 0 {
			r.waiting(number, len(port.connections))
		}
	}
	return r.held
}

// pass relays a connection to the original, whose addresses are tried from a
// random one on; those of one that is kept are tried in their order.
func (r *Reverse) pass(number int, socket *net.TCPConn) {
	targets, first := r.route.Targets[number], 0
	if len(targets) > 0 {
		first = rand.IntN(len(targets))
	} else {
		targets = r.original[number]
	}
	r.passed[socket] = struct{}{}
	go func() {
		defer func() {
			r.mu.Lock()
			delete(r.passed, socket)
			r.mu.Unlock()
		}()
		target, err := dialAny(targets, first)
		if err != nil {
			Reset(socket)
			return
		}
		join(socket, target)
	}()
}

var errNoTarget = errors.New("the route has no address for this port")

func dialAny(targets []string, first int) (*net.TCPConn, error) {
	err := errNoTarget
	ctx, cancel := context.WithTimeout(context.Background(), dialWithin)
	defer cancel()
	for i := range targets {
		var conn net.Conn
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, "tcp", targets[(first+i)%len(targets)])
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
	}
	return nil, err
}

// join relays between two sockets; the kernel moves the bytes (splice).
func join(a, b *net.TCPConn) {
	broken := make(chan error, 2)
	carry := func(to, from *net.TCPConn) {
		_, err := io.Copy(to, from)
		if err == nil {
			err = to.CloseWrite()
		}
		broken <- err
	}
	go carry(a, b)
	go carry(b, a)
	for range 2 {
		if err := <-broken; err != nil {
			Reset(a)
			Reset(b)
			return
		}
	}
	_ = a.Close()
	_ = b.Close()
}

// Open counts the connections under way, held ones included.
func (r *Reverse) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int(r.budget.sockets.Load()) + len(r.passed) + r.held
}

// LastArrival is when the last connection came; zero when none did.
func (r *Reverse) LastArrival() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.arrival
}

// StopListening takes no more connections.
func (r *Reverse) StopListening() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for number := range r.taking {
		r.takeNot(number)
	}
	for _, port := range r.ports {
		port.close()
	}
}
