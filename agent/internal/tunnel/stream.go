package tunnel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// The channel requests of docs/protocol.md.
const (
	resetRequest  = "reset@towline"
	creditRequest = "credit@towline"
)

// stream is one tunnel channel, from its opening on, and later its socket too.
//
// Three goroutines: one takes the channel's requests, one carries bytes from the
// channel to the socket, one the other way.
type stream struct {
	channel  ssh.Channel
	budget   *Budget
	credited bool

	mu      sync.Mutex
	granted *sync.Cond
	credit  int64 // what may still be sent to the client
	socket  *net.TCPConn
	sentEOF bool
	gotEOF  bool
	reset   bool // the client said so
	over    bool // the channel was closed, by whichever side
	breaks  sync.Once

	// closed ends when the client closed the channel, or the line ended.
	closed context.Context
}

func newStream(ctx context.Context, channel ssh.Channel, requests <-chan *ssh.Request, budget *Budget, credited bool) *stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &stream{channel: channel, budget: budget, credited: credited, credit: toClientCredit, closed: ctx}
	s.granted = sync.NewCond(&s.mu)
	go func() {
		defer cancel()
		s.serveRequests(requests)
	}()
	return s
}

// serveRequests runs until the client closed the channel, or the line ended.
func (s *stream) serveRequests(requests <-chan *ssh.Request) {
	for request := range requests {
		switch request.Type {
		case creditRequest:
			if len(request.Payload) == 4 {
				s.mu.Lock()
				s.credit += int64(binary.BigEndian.Uint32(request.Payload))
				s.granted.Signal()
				s.mu.Unlock()
			}
		case resetRequest:
			s.mu.Lock()
			s.reset = true
			s.mu.Unlock()
			s.resetSocket()
		}
		_ = request.Reply(false, nil)
	}
	s.mu.Lock()
	// After our own EOF the client may close in order: what it sent before still
	// has to be written. Otherwise nobody is left who could read what comes.
	inOrder := s.sentEOF && !s.reset
	s.over = true
	s.granted.Broadcast()
	s.mu.Unlock()
	if !inOrder {
		s.resetSocket()
	}
}

// resetSocket makes the other end of the socket see ECONNRESET.
func (s *stream) resetSocket() {
	s.mu.Lock()
	s.over = true
	socket := s.socket
	s.granted.Broadcast()
	s.mu.Unlock()
	if socket != nil {
		Reset(socket)
	}
}

// Reset closes a connection so that its peer sees a reset and not an end.
func Reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// resetChannel tells the client that the connection broke, and why.
func (s *stream) resetChannel(reason string) {
	_, _ = s.channel.SendRequest(resetRequest, false, ssh.Marshal(struct{ Reason string }{reason}))
	_ = s.channel.Close()
	s.mu.Lock()
	s.over = true
	s.granted.Broadcast()
	s.mu.Unlock()
}

// use gives the stream its socket; false when the client is gone already.
func (s *stream) use(socket *net.TCPConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.socket = socket
	return true
}

// relay carries bytes both ways until both have ended, or one broke.
func (s *stream) relay(socket *net.TCPConn) {
	if !s.use(socket) {
		Reset(socket)
		return
	}
	open := s.budget.sockets.Add(1)
	defer s.budget.sockets.Add(-1)
	if open > s.budget.socketsAtMost {
		s.resetChannel(fmt.Sprintf("more than %d connections do not fit in the dev container's memory", s.budget.socketsAtMost))
		Reset(socket)
		return
	}
	if open > roomySockets && s.credited {
		_ = socket.SetReadBuffer(narrowReceive)
		_ = socket.SetWriteBuffer(narrowSend)
	}
	up := make(chan error, 1)
	go func() { up <- s.carry(s.toSocket) }()
	down := s.carry(s.toChannel)
	if down != nil || <-up != nil {
		return
	}
	_ = s.channel.Close()
	_ = socket.Close()
}

// carry runs one direction; when it breaks, so does the other, which may wait
// for bytes or credit that never come.
func (s *stream) carry(direction func() error) error {
	err := direction()
	if err != nil {
		s.breaks.Do(func() { s.broke(err) })
	}
	return err
}

// broke resets both sides.
func (s *stream) broke(err error) {
	if errors.Is(err, errChannel) || s.isOver() {
		s.resetSocket()
		_ = s.channel.Close()
		return
	}
	s.resetChannel(plain(err))
	Reset(s.socket)
}

// errChannel: the channel ended, so that there is nobody to tell.
var errChannel = errors.New("the channel has ended")

// plain is the part of a network error that means something on the laptop.
func plain(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// toChannel carries what the pod's side sends to the client.
func (s *stream) toChannel() error {
	raw, err := s.socket.SyscallConn()
	if err != nil {
		return err
	}
	full, wide := 0, false
	defer func() {
		if wide {
			s.budget.ended(s.budget.wide)
		}
	}()
	for {
		allowed, err := s.mayWrite()
		if err != nil {
			return err
		}
		buffers := narrowPool
		switch {
		case !s.credited:
			buffers = writePool
		case wide:
			buffers = widePool
		}
		buffer, n, err := s.receive(raw, buffers, allowed)
		if n > 0 {
			full++
			if n < min(narrowChunk, allowed) {
				full = 0
			}
			if s.credited {
				s.mu.Lock()
				s.credit -= int64(n)
				s.mu.Unlock()
			}
			_, werr := s.channel.Write((*buffer)[:n])
			s.release(buffers, buffer)
			if werr != nil {
				return errChannel
			}
			if !wide && s.credited && full >= wideAfter {
				wide = s.budget.bulk(s.budget.wide)
				full = 0
			}
			continue
		}
		if err == nil {
			err = s.trueEnd(raw)
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.sentEOF = true
		s.mu.Unlock()
		if s.channel.CloseWrite() != nil {
			return errChannel
		}
		return nil
	}
}

// trueEnd tells the end of the peer's bytes from a reset whose error the other
// direction's write was given: the kernel tells it once, then reads end "clean".
func (s *stream) trueEnd(raw syscall.RawConn) error {
	s.mu.Lock()
	halfClosed := s.gotEOF
	s.mu.Unlock()
	if halfClosed {
		return nil // nobody writes; and both ends together look like a reset here
	}
	state := 0
	if err := raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = int(info.State)
		}
	}); err != nil {
		return err
	}
	if state == tcpClosed {
		return syscall.ECONNRESET
	}
	return nil
}

// tcpClosed is TCP_CLOSE of Linux's include/net/tcp_states.h.
const tcpClosed = 7

// mayWrite waits for credit.
func (s *stream) mayWrite() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.credited && s.credit <= 0 && !s.over {
		s.granted.Wait()
	}
	if s.over {
		return 0, errChannel
	}
	if !s.credited {
		return wideChunk, nil
	}
	return int(min(s.credit, wideChunk)), nil
}

// receive waits until there is something to read, and only then takes a buffer:
// an idle connection holds none.
func (s *stream) receive(raw syscall.RawConn, buffers *sync.Pool, limit int) (*[]byte, int, error) {
	var (
		buffer *[]byte
		n      int
		err    error
	)
	ready := func(fd uintptr) bool {
		if s.credited {
			s.budget.read <- struct{}{}
		}
		buffer = buffers.Get().(*[]byte)
		for {
			n, err = syscall.Read(int(fd), (*buffer)[:min(limit, len(*buffer))])
			if err != syscall.EINTR {
				break
			}
		}
		if n > 0 {
			return true
		}
		n = 0
		s.release(buffers, buffer)
		return err != syscall.EAGAIN
	}
	if rawErr := raw.Read(ready); rawErr != nil {
		return nil, 0, rawErr
	}
	return buffer, n, err
}

func (s *stream) release(buffers *sync.Pool, buffer *[]byte) {
	buffers.Put(buffer)
	if s.credited {
		<-s.budget.read
	}
}

// toSocket carries what the client sends to the pod's side.
func (s *stream) toSocket() error {
	grants := grants{stream: s, window: toAgentCredit, began: time.Now()}
	defer grants.end()
	small := make([]byte, requestChunk)
	for {
		n, err := s.channel.Read(small)
		if n > 0 {
			if err := s.send(small[:n], &grants); err != nil {
				return err
			}
			if n == len(small) {
				if err := s.burst(&grants); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			if !s.halfClosed() {
				return errChannel
			}
			if err := s.socket.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
				return err
			}
			return nil
		}
		if err != nil {
			return errChannel
		}
	}
}

// halfClosed tells EOF from CLOSE, which golang.org/x/crypto/ssh both reports as
// the end of the bytes: taken for EOF, a reset would reach the pod as a clean end.
//
// CLOSE is answered before the bytes end, so then a request is refused; a grant of
// nothing is one that means nothing. After CLOSE it is in order to go on only if our
// own EOF came first: nobody is left to read.
func (s *stream) halfClosed() bool {
	_, err := s.channel.SendRequest(creditRequest, false, make([]byte, 4))
	if err != nil {
		<-s.closed.Done() // serveRequests knows of a reset, and acts on it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gotEOF = true
	return !s.over || s.sentEOF && !s.reset
}

// burst goes on with a large buffer for as long as it pays.
func (s *stream) burst(grants *grants) error {
	if !s.budget.bulk(s.budget.busy) {
		return nil
	}
	buffer := writePool.Get().(*[]byte)
	defer func() {
		writePool.Put(buffer)
		s.budget.ended(s.budget.busy)
	}()
	for {
		n, err := s.channel.Read(*buffer)
		if n > 0 {
			if err := s.send((*buffer)[:n], grants); err != nil {
				return err
			}
		}
		if err != nil || n < len(*buffer) {
			// Nothing more is there: waiting must not hold the buffer. An end is
			// told again to the next read.
			return nil
		}
	}
}

func (s *stream) send(p []byte, grants *grants) error {
	if _, err := s.socket.Write(p); err != nil {
		return err
	}
	return grants.wrote(len(p))
}

func (s *stream) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

const (
	// A whole window within fastWithin means that credit is what bounds the
	// channel; it covers round trips of some 300 ms. Longer than slowAfter means
	// that what was given is better lent to others.
	fastWithin = 500 * time.Millisecond
	slowAfter  = 5 * time.Second
)

// grants is the credit that the client has for one channel.
type grants struct {
	stream *stream
	// window is what the client may have under way; what is above toAgentCredit
	// was taken from the budget.
	window int64
	// owed was written and not granted yet; run was written since it began.
	owed, run int64
	began     time.Time
}

// wrote grants anew what was written, and twice as much to a channel that is
// fast: so it reaches the most in seven round trips.
func (g *grants) wrote(n int) error {
	if !g.stream.credited {
		return nil
	}
	g.owed += int64(n)
	g.run += int64(n)
	if g.owed < g.window/2 {
		return nil
	}
	if g.run >= g.window {
		g.resize(time.Now())
	}
	if g.owed <= 0 {
		return nil
	}
	payload := binary.BigEndian.AppendUint32(nil, uint32(g.owed))
	g.owed = 0
	if _, err := g.stream.channel.SendRequest(creditRequest, false, payload); err != nil {
		return errChannel
	}
	return nil
}

func (g *grants) resize(now time.Time) {
	took := now.Sub(g.began)
	g.began, g.run = now, 0
	switch {
	case took <= fastWithin && g.window < creditAtMost && g.stream.budget.takeCredit(g.window):
		g.owed += g.window
		g.window *= 2
	case took > slowAfter && g.window > toAgentCredit:
		g.window /= 2
		g.owed -= g.window
		g.stream.budget.giveCredit(g.window)
	}
}

func (g *grants) end() { g.stream.budget.giveCredit(g.window - toAgentCredit) }

// dial connects to a target as seen from the container.
//
// "localhost" and no host at all mean both families, 127.0.0.1 first: programs
// listen on either, and an image may have no /etc/hosts to say so.
func dial(ctx context.Context, host string, port int) (*net.TCPConn, error) {
	hosts := []string{host}
	if host == "" || host == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	var dialer net.Dialer
	var first error
	for _, host := range hosts {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, fmt.Errorf("connect to %s: %w", net.JoinHostPort(host, fmt.Sprint(port)), first)
}
