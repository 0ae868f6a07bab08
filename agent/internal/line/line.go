// Package line is the agent's side of the line: a reliable, ordered byte stream
// over a succession of carriers. It knows nothing of SSH. docs/protocol.md is
// the contract.
package line

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"towline.dev/agent/internal/frame"
)

const (
	// maxUnacknowledged bytes are kept for resending; above it the writer waits.
	maxUnacknowledged = 8 << 20
	// maxFrame bytes of data go into one frame: enough that its cost vanishes,
	// little enough that a PONG behind it is not late.
	maxFrame = 256 << 10
	// ackEvery bytes handed up, or ackWithin after the first of them.
	ackEvery  = 256 << 10
	ackWithin = 200 * time.Millisecond
	// inlineAtMost: a small write on a quiet line is sent by its writer, which
	// saves a thread's wake-up in every answer; more is left to the sender, so
	// that encryption and sending overlap and writes join.
	inlineAtMost = 8 << 10
	// sshBuffer is the size of the write buffer in golang.org/x/crypto/ssh. A
	// write of just that size is the front of a longer packet, whose rest comes
	// at once: sending it by itself would cost a frame.
	sshBuffer = 4096
	// restWithin is how long that rest is believed in.
	restWithin = time.Millisecond
)

// ErrEnded is what reads and writes give after the line ended.
var ErrEnded = errors.New("the line has ended")

// Line is one line. It is a net.Conn for SSH; deadlines do nothing, since the
// line alone decides what is too long.
type Line struct {
	ID     frame.LineID
	server *Server

	// attaching is held while one carrier takes over from another.
	attaching sync.Mutex

	mu       sync.Mutex
	readable *sync.Cond
	writable *sync.Cond
	idle     *sync.Cond

	// Sending: out holds [acked, acked+out.size); up to sent is on its way.
	out     queue
	acked   uint64
	sent    uint64
	flushes bool // somebody sends now

	// Receiving: in holds [handed, handed+in.size).
	in       queue
	handed   uint64
	ackSent  uint64
	ackDue   bool
	ackTimer *time.Timer

	carrier *carrier
	keep    *time.Timer
	partial bool
	rest    *time.Timer
	closing bool // Close was called: CLOSE goes out behind the last byte
	peerEnd bool // the client sent CLOSE
	ended   error
	done    chan struct{}
	kicks   chan struct{}
}

func newLine(server *Server, id frame.LineID) *Line {
	l := &Line{ID: id, server: server, done: make(chan struct{}), kicks: make(chan struct{}, 1)}
	l.readable, l.writable, l.idle = sync.NewCond(&l.mu), sync.NewCond(&l.mu), sync.NewCond(&l.mu)
	go l.sender()
	return l
}

// Done is closed when the line has ended, for whatever reason.
func (l *Line) Done() <-chan struct{} { return l.done }

// Read hands up what arrived, and waits while there is nothing.
func (l *Line) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.in.size == 0 {
		if l.ended != nil {
			return 0, l.ended
		}
		if l.peerEnd {
			return 0, io.EOF
		}
		l.readable.Wait()
	}
	n := l.in.read(p)
	l.in.drop(n)
	l.handed += uint64(n)
	l.acknowledgeLater()
	return n, nil
}

// acknowledgeLater sees to it that the client hears of what was handed up.
func (l *Line) acknowledgeLater() {
	if l.ackDue || l.ended != nil {
		return
	}
	if l.handed-l.ackSent >= ackEvery {
		l.ackDue = true
		l.kick()
		return
	}
	if l.ackTimer == nil {
		l.ackTimer = time.AfterFunc(ackWithin, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.ackTimer = nil
			if l.handed > l.ackSent {
				l.ackDue = true
				l.kick()
			}
		})
	}
}

// Write takes all of p, and waits while the client has too much to acknowledge.
func (l *Line) Write(p []byte) (int, error) {
	l.mu.Lock()
	written := 0
	for len(p) > 0 {
		for l.out.size >= maxUnacknowledged && l.ended == nil {
			l.kick()
			l.writable.Wait()
		}
		if l.ended != nil {
			l.mu.Unlock()
			return written, l.ended
		}
		if l.closing {
			l.mu.Unlock()
			return written, net.ErrClosed
		}
		n := min(len(p), maxUnacknowledged-l.out.size)
		l.out.append(p[:n])
		p = p[n:]
		written += n
	}
	l.partial = written == sshBuffer
	waiting := l.acked + uint64(l.out.size) - l.sent
	switch {
	case l.partial:
		if l.rest == nil {
			l.rest = time.AfterFunc(restWithin, l.restIsLate)
		} else {
			l.rest.Reset(restWithin)
		}
	case l.flushes || l.carrier == nil:
		// Who sends now takes it along; a carrier that comes will.
	case waiting <= inlineAtMost:
		l.flush()
	default:
		l.kick()
	}
	l.mu.Unlock()
	return written, nil
}

func (l *Line) restIsLate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.partial {
		l.partial = false
		l.kick()
	}
}

// kick wakes the sender.
func (l *Line) kick() {
	if l.flushes {
		return
	}
	select {
	case l.kicks <- struct{}{}:
	default:
	}
}

func (l *Line) sender() {
	for {
		select {
		case <-l.kicks:
			l.mu.Lock()
			if !l.flushes {
				l.flush()
			}
			l.mu.Unlock()
		case <-l.done:
			return
		}
	}
}

// flush sends all there is on the carrier. It is called with the lock, which it
// lets go while it writes; flushes keeps others out meanwhile.
func (l *Line) flush() {
	l.flushes = true
	defer func() {
		l.flushes = false
		l.idle.Broadcast()
	}()
	for {
		c := l.carrier
		if c == nil || l.ended != nil {
			return
		}
		head, body := l.next(c)
		if len(head) == 0 {
			return
		}
		l.mu.Unlock()
		err := c.write(head, body)
		l.mu.Lock()
		if err != nil {
			c.stop()
			return
		}
	}
}

// next is what is to be sent on the carrier: control frames and at most one DATA.
//
// One DATA at a time: a block is reused when it is acknowledged, which for a
// frame that is still being written cannot be.
func (l *Line) next(c *carrier) (head []byte, body [][]byte) {
	head = c.control(c.head[:0])
	if l.ackDue && l.handed > l.ackSent {
		head = (&frame.Frame{Type: frame.Ack, Received: l.handed}).Append(head)
		l.ackSent = l.handed
	}
	l.ackDue = false
	from := int(l.sent - l.acked)
	n := min(l.out.size-from, maxFrame)
	if n > 0 && !(l.partial && n == sshBuffer) {
		head = (&frame.Frame{Type: frame.Data, Offset: l.sent, Length: n}).Append(head)
		body = l.out.slices(c.body[:0], from, n)
		l.sent += uint64(n)
		return head, body
	}
	if l.closing && n == 0 && !c.closeSent {
		c.closeSent = true
		head = (&frame.Frame{Type: frame.Close}).Append(head)
	}
	return head, nil
}

// attach makes c the line's carrier: the old one is ended and waited for, then
// c's WELCOME is sent. The client has received that many bytes.
func (l *Line) attach(c *carrier, received uint64, welcome func(received uint64) error) error {
	l.attaching.Lock()
	defer l.attaching.Unlock()

	l.mu.Lock()
	old := l.carrier
	l.mu.Unlock()
	if old != nil {
		old.stop()
		<-old.done
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	for l.flushes {
		l.idle.Wait()
	}
	if l.ended != nil {
		return &goneError{frame.UnknownLine, "the line has ended"}
	}
	if received < l.acked || received > l.sent {
		return &goneError{frame.OutOfRange, fmt.Sprintf("received %d is outside %d to %d", received, l.acked, l.sent)}
	}
	l.acknowledged(received)
	handed := l.handed
	l.mu.Unlock()
	err := welcome(handed)
	l.mu.Lock()
	if err != nil {
		return err
	}
	if l.ended != nil {
		return l.ended
	}
	if l.keep != nil {
		l.keep.Stop()
		l.keep = nil
	}
	l.ackSent = max(l.ackSent, handed)
	l.sent = l.acked
	l.partial = false
	l.carrier = c
	c.live()
	l.server.carriers(+1)
	l.kick()
	return nil
}

// detach is called by the carrier's reader when it ends.
func (l *Line) detach(c *carrier) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.carrier != c {
		return
	}
	l.carrier = nil
	l.server.carriers(-1)
	if l.closing || l.peerEnd {
		go l.end(ErrEnded)
		return
	}
	if l.ended == nil {
		var timer *time.Timer
		timer = time.AfterFunc(l.server.KeepFor, func() {
			l.mu.Lock()
			expired := l.keep == timer
			l.mu.Unlock()
			if expired {
				l.end(fmt.Errorf("%w: no carrier for %s", ErrEnded, l.server.KeepFor))
			}
		})
		l.keep = timer
	}
}

// acknowledged drops what the client has.
func (l *Line) acknowledged(upTo uint64) {
	l.out.drop(int(upTo - l.acked))
	l.acked = upTo
	if l.out.size < maxUnacknowledged {
		l.writable.Broadcast()
	}
}

func (l *Line) receiveAck(upTo uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if upTo > l.sent {
		return fmt.Errorf("ACK of %d, but only %d was sent", upTo, l.sent)
	}
	if upTo > l.acked {
		l.acknowledged(upTo)
	}
	return nil
}

// receiveData takes a DATA frame's body as it comes.
func (l *Line) receiveData(reader *frame.Reader, offset uint64, length int) error {
	l.mu.Lock()
	end := l.handed + uint64(l.in.size)
	if offset > end {
		l.mu.Unlock()
		return fmt.Errorf("a gap: DATA at %d, but only %d was received", offset, end)
	}
	if offset+uint64(length) > l.handed+maxUnacknowledged && offset+uint64(length) > end {
		l.mu.Unlock()
		return fmt.Errorf("more than %d bytes unacknowledged", maxUnacknowledged)
	}
	skip := int(min(end-offset, uint64(length)))
	l.mu.Unlock()
	for skip > 0 {
		// Resent after a carrier was lost; it is here already.
		var waste [512]byte
		n, err := reader.Body(waste[:min(skip, len(waste))])
		if err != nil {
			return err
		}
		skip -= n
		length -= n
	}
	for length > 0 {
		l.mu.Lock()
		space := l.in.space()
		l.mu.Unlock()
		// Only this reader appends, so the space stays ours while Read drops at
		// the front.
		n, err := reader.Body(space[:min(length, len(space))])
		l.mu.Lock()
		l.in.filled(n)
		if err != nil {
			l.mu.Unlock()
			return err
		}
		length -= n
		if l.ended == nil {
			l.readable.Signal()
		}
		l.mu.Unlock()
	}
	return nil
}

func (l *Line) receiveClose() {
	l.mu.Lock()
	l.peerEnd = true
	l.readable.Broadcast()
	l.mu.Unlock()
}

// Close ends the line in order: what was written still goes out, then CLOSE.
func (l *Line) Close() error {
	l.mu.Lock()
	if l.closing || l.ended != nil {
		l.mu.Unlock()
		return nil
	}
	l.closing = true
	l.partial = false
	nobody := l.carrier == nil || l.peerEnd
	l.kick()
	l.mu.Unlock()
	if nobody {
		l.end(ErrEnded)
		return nil
	}
	time.AfterFunc(closeWithin, func() { l.end(ErrEnded) })
	return nil
}

// closeWithin is what the last bytes have to leave after Close.
const closeWithin = time.Second

// end ends the line at once.
func (l *Line) end(reason error) {
	l.mu.Lock()
	if l.ended != nil {
		l.mu.Unlock()
		return
	}
	l.ended = reason
	c := l.carrier
	for _, timer := range []*time.Timer{l.keep, l.ackTimer, l.rest} {
		if timer != nil {
			timer.Stop()
		}
	}
	l.readable.Broadcast()
	l.writable.Broadcast()
	l.mu.Unlock()
	if c != nil {
		c.stop()
	}
	close(l.done)
	l.server.forget(l)
}

type address struct{}

func (address) Network() string { return "line" }
func (address) String() string  { return "line" }

// LocalAddr is a name only: a line has no address.
func (l *Line) LocalAddr() net.Addr { return address{} }

// RemoteAddr is a name only.
func (l *Line) RemoteAddr() net.Addr { return address{} }

// SetDeadline does nothing.
func (l *Line) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (l *Line) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (l *Line) SetWriteDeadline(time.Time) error { return nil }
