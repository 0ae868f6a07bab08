package tunnel

import (
	"context"
	"math"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"towline.dev/agent/internal/sockets"
)

// Ports of the container's own process: held here between its end and what comes next, so
// that who comes meanwhile waits and is not refused.

const (
	// leavingFor is how long a process that ends may keep its port: children that outlive
	// it do, or it is only asked to end.
	leavingFor = 15 * time.Second
	// interruptedFor: who still listens so long after an interrupt has caught it, and goes on.
	interruptedFor = 3 * time.Second
	// leftPause is what a connection may find nobody for, on a machine that is not busy. A
	// try is one system call.
	leftPause = 100 * time.Microsecond
	// hurryFor is how long it is tried that often; most servers close their port at once.
	hurryFor = time.Second
	// sharedPause is what connections wait for: a socket that is shared is not away.
	sharedPause = 2 * time.Millisecond
	// bringPause is between two looks whether the next process listens.
	bringPause = 20 * time.Millisecond
	// newcomersPause is between two looks at the container's processes: shorter than a new
	// one takes from fork to listen, for which it has to be executed first.
	newcomersPause = time.Millisecond
	// forGood: no process gets the port any more.
	forGood time.Duration = math.MaxInt64
)

// taking is a port that is taken once its process has left it.
type taking struct {
	since, until time.Time
	// holds is for how long.
	holds time.Duration
	// shared are the process's own sockets. Where there are none, a port is free for the
	// moment between two tries.
	shared []sockets.Shared
	// socket is bound to address once that works; -1 when it is used up.
	socket  int
	address unix.Sockaddr
}

// ListenOnceFree takes over a port that a process of the container is about to leave, or
// has left, unless it is listened on here already. No process gets it any more.
func (r *Reverse) ListenOnceFree(number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(number, leavingFor, forGood)
}

// take takes over a port that is left within some time.
func (r *Reverse) take(number int, within, holds time.Duration) {
	if port := r.ports[number]; port != nil && port.err == nil && !port.passes {
		if port.left != nil {
			r.keepLeft(number, port, holds)
		}
		return
	}
	now := time.Now()
	if it := r.taking[number]; it != nil {
		it.until, it.holds = now.Add(within), holds
		r.takes(number, it)
		return
	}
	it := &taking{since: now, until: now.Add(within), holds: holds}
	it.openSocket(number)
	r.taking[number] = it
	if r.takes(number, it) {
		return
	}
	it.shared = sockets.Share(number)
	isShared := len(it.shared) > 0
	go func() {
		for isOver := false; !isOver; {
			if !isShared && time.Since(it.since) < hurryFor {
				time.Sleep(leftPause)
			} else {
				time.Sleep(sharedPause)
			}
			r.mu.Lock()
			isOver = r.takes(number, it)
			r.mu.Unlock()
		}
	}()
}

// takes tries it once, and tells whether there is nothing left to try.
func (r *Reverse) takes(number int, it *taking) bool {
	if r.taking[number] != it {
		return true
	}
	listeners := it.listen(number)
	if len(listeners) == 0 && time.Now().Before(it.until) {
		return false
	}
	r.takeNot(number)
	if len(listeners) > 0 {
		taken := &port{listeners: listeners}
		r.open(number, taken)
		r.keepLeft(number, taken, it.holds)
	}
	return true
}

// takeNot ends the tries for a port.
func (r *Reverse) takeNot(number int) {
	if it := r.taking[number]; it != nil {
		it.close()
		delete(r.taking, number)
	}
}

// openSocket makes a socket for both families, or for IPv4 where the other is off.
func (t *taking) openSocket(number int) {
	const kind = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	var err error
	t.address = &unix.SockaddrInet6{Port: number}
	if t.socket, err = unix.Socket(unix.AF_INET6, kind, 0); err == nil {
		_ = unix.SetsockoptInt(t.socket, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	} else {
		t.address = &unix.SockaddrInet4{Port: number}
		t.socket, err = unix.Socket(unix.AF_INET, kind, 0)
	}
	if err != nil {
		t.socket = -1
		return
	}
	_ = unix.SetsockoptInt(t.socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
}

// listen gives what listens on the port if its process does not any more.
func (t *taking) listen(number int) (listeners []net.Listener) {
	for i := range t.shared {
		if !t.shared[i].IsOurs() {
			return nil
		}
	}
	for i := range t.shared {
		if listener, err := t.shared[i].Listener(); err == nil {
			listeners = append(listeners, listener)
		}
	}
	if len(listeners) == 0 {
		if listener, err := t.bind(number); err == nil {
			listeners = append(listeners, listener)
		}
	}
	return listeners
}

// bind is net.Listen, with what makes it slow done before: that takes longer than all the
// rest of the time that nobody listens.
func (t *taking) bind(number int) (net.Listener, error) {
	if t.socket < 0 {
		return listenEverywhere(number)
	}
	if err := unix.Bind(t.socket, t.address); err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(t.socket), "")
	t.socket = -1
	defer file.Close()
	// Where somebody bound it too and was faster, this fails; a socket is bound only once.
	if err := unix.Listen(int(file.Fd()), unix.SOMAXCONN); err != nil {
		return nil, err
	}
	return net.FileListener(file)
}

func (t *taking) close() {
	for i := range t.shared {
		t.shared[i].Close()
	}
	t.shared = nil
	if t.socket >= 0 {
		_ = unix.Close(t.socket)
		t.socket = -1
	}
}

// keepLeft says for how long a port is held.
func (r *Reverse) keepLeft(number int, port *port, holds time.Duration) {
	if port.left != nil {
		port.left.Stop()
		port.left = nil
	}
	if holds == forGood {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(holds, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if port.left == timer {
			r.leave(number, port)
		}
	})
	port.left = timer
}

// leaveTo gives ports back to a process that is to listen on them, or may want to.
func (r *Reverse) leaveTo(numbers []int) {
	for _, number := range numbers {
		if it := r.taking[number]; it != nil && it.holds != forGood {
			if len(it.shared) > 0 {
				// The process may have closed its socket just now, and somebody waits in ours.
				r.takes(number, it)
			}
			r.takeNot(number)
		}
		if port := r.ports[number]; port != nil && port.left != nil {
			r.leave(number, port)
		}
	}
}

func (r *Reverse) leave(number int, port *port) {
	port.left.Stop()
	port.left = nil
	delete(r.ports, number)
	for _, listener := range port.listeners {
		for _, socket := range queued(listener) {
			r.bring(number, &held{socket: socket, since: time.Now()})
		}
	}
	port.close()
	for _, waiting := range port.connections {
		waiting.timeout.Stop()
		r.held--
		r.bring(number, waiting)
	}
}

// queued are the connections that nobody has accepted yet: they would be reset with their
// listener.
func queued(listener net.Listener) []*net.TCPConn {
	raw, err := listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil
	}
	var sockets []*net.TCPConn
	_ = raw.Control(func(fd uintptr) {
		for {
			accepted, _, err := unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if err != nil {
				return
			}
			file := os.NewFile(uintptr(accepted), "")
			if conn, err := net.FileConn(file); err == nil {
				sockets = append(sockets, conn.(*net.TCPConn))
			}
			_ = file.Close()
		}
	})
	return sockets
}

// Left are the ports that are only held for a process.
func (r *Reverse) Left() map[int]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := map[int]bool{}
	for number, port := range r.ports {
		if port.left != nil {
			left[number] = true
		}
	}
	return left
}

// bring relays a connection to the container's next process once it listens where the
// connection came to, or gives it up when it was held for long enough.
func (r *Reverse) bring(number int, waiting *held) {
	r.passed[waiting.socket] = struct{}{}
	ctx, cancel := context.WithDeadline(context.Background(), waiting.since.Add(r.route.HoldFor))
	go func() {
		defer cancel()
		target := dialOnceListening(ctx, waiting.socket.LocalAddr().String())
		if target != nil {
			join(waiting.socket, target)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.passed, waiting.socket)
		if target == nil {
			r.giveUp(number, waiting.socket)
		}
	}()
}

func dialOnceListening(ctx context.Context, address string) *net.TCPConn {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.(*net.TCPConn)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(bringPause):
		}
	}
}

// Lent are ports that belong to one command of the container while it runs.
type Lent struct {
	reverse *Reverse
	ports   []int

	mu sync.Mutex
	// watch ends the look for newcomers.
	watch context.CancelFunc
}

// Lend makes ports those of a command.
func (r *Reverse) Lend(ports []int) *Lent {
	return &Lent{reverse: r, ports: ports, watch: func() {}}
}

// Starting leaves the ports to the command, with what waits there.
func (l *Lent) Starting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveBack()
}

func (l *Lent) giveBack() {
	l.watch()
	l.reverse.mu.Lock()
	defer l.reverse.mu.Unlock()
	l.reverse.leaveTo(l.ports)
}

// Interrupted is called just before somebody asks the command to end. Many a server closes
// its port first and ends later, behind a package manager that ends later still. A port that
// is left now is held, unless somebody might want it again: whoever was started since, or
// what is told to do so (Typed).
func (l *Lent) Interrupted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch()
	there := processes()
	ctx, cancel := context.WithTimeout(context.Background(), interruptedFor+l.hold(interruptedFor, true))
	l.watch = cancel
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			time.Sleep(newcomersPause)
			if !hasNewcomers(there) {
				continue
			}
			l.mu.Lock()
			if ctx.Err() == nil {
				l.giveBack()
			}
			l.mu.Unlock()
			return
		}
	}()
}

// Typed is called just before the command gets input that is no interrupt.
func (l *Lent) Typed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveBack()
}

// Ended holds the ports: only another command can want them.
func (l *Lent) Ended() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch()
	l.hold(leavingFor, false)
}

// hold takes the ports over, for as long as connections are held: by then somebody has said
// what comes next, or nobody answers.
func (l *Lent) hold(within time.Duration, onlyTaken bool) time.Duration {
	r := l.reverse
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, number := range l.ports {
		if onlyTaken && isFree(number) {
			continue // a command that is about to listen is in no hurry to leave
		}
		r.take(number, within, r.route.HoldFor)
	}
	return r.route.HoldFor
}

func isFree(number int) bool {
	listener, err := listenEverywhere(number)
	if err == nil {
		_ = listener.Close()
	}
	return err == nil
}

// processes are those of the container, threads not counted.
func processes() map[int]bool {
	found := map[int]bool{}
	folder, err := os.Open("/proc")
	if err != nil {
		return found
	}
	defer folder.Close()
	names, _ := folder.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			found[pid] = true
		}
	}
	return found
}

func hasNewcomers(before map[int]bool) bool {
	for pid := range processes() {
		if !before[pid] {
			return true
		}
	}
	return false
}
