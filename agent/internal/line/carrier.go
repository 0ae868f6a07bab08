package line

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"towline.dev/agent/internal/frame"
)

const (
	// pingAfter of silence asks for a sign of life.
	pingAfter = time.Second
	// silentAtMost: then the carrier is taken for dead, although the kubelet may
	// hold it open for minutes; the client gives it up after 2 s.
	silentAtMost = 4 * time.Second
)

// carrier is one connection that bytes of a line travel on.
type carrier struct {
	conn   net.Conn
	reader *frame.Reader
	line   *Line
	// done is closed when the reader has ended.
	done chan struct{}

	started time.Time
	heard   atomic.Int64 // nanoseconds after started
	watch   *time.Timer

	pingDue   atomic.Bool
	pongDue   atomic.Bool
	pongToken atomic.Uint64

	// Only whoever flushes uses these.
	closeSent bool
	head      [128]byte
	body      [][]byte
	iov       net.Buffers
	small     []byte
}

func newCarrier(conn net.Conn) *carrier {
	return &carrier{conn: conn, reader: frame.NewReader(conn), done: make(chan struct{}), started: time.Now()}
}

// stop ends the carrier; its reader notices and detaches.
func (c *carrier) stop() { _ = c.conn.Close() }

// live begins to watch for signs of life. It is called with the line's lock.
func (c *carrier) live() {
	c.heard.Store(int64(time.Since(c.started)))
	c.watch = time.AfterFunc(pingAfter, c.look)
}

func (c *carrier) look() {
	quiet := time.Since(c.started) - time.Duration(c.heard.Load())
	if quiet >= silentAtMost {
		c.stop()
		return
	}
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	if c.line.carrier != c {
		return
	}
	if quiet >= pingAfter {
		c.pingDue.Store(true)
		c.line.kick()
		c.watch.Reset(pingAfter)
		return
	}
	c.watch.Reset(pingAfter - quiet)
}

// control appends the PING and PONG that are due.
func (c *carrier) control(head []byte) []byte {
	if c.pongDue.CompareAndSwap(true, false) {
		head = (&frame.Frame{Type: frame.Pong, Token: c.pongToken.Load()}).Append(head)
	}
	if c.pingDue.CompareAndSwap(true, false) {
		head = (&frame.Frame{Type: frame.Ping, Token: uint64(time.Since(c.started))}).Append(head)
	}
	return head
}

// smallWrite: up to this much one copy is cheaper than a vector.
const smallWrite = 4 << 10

func (c *carrier) write(head []byte, body [][]byte) error {
	size := len(head)
	for _, piece := range body {
		size += len(piece)
	}
	if size <= smallWrite {
		c.small = append(c.small[:0], head...)
		for _, piece := range body {
			c.small = append(c.small, piece...)
		}
		_, err := c.conn.Write(c.small)
		return err
	}
	c.iov = append(append(c.iov[:0], head), body...)
	kept := c.iov
	_, err := c.iov.WriteTo(c.conn)
	clear(kept)
	c.iov, c.body = kept[:0], body[:0]
	return err
}

// read takes frames until the carrier ends, and tells why it did.
func (c *carrier) read() error {
	for {
		f, err := c.reader.Next()
		if err != nil {
			return err
		}
		c.heard.Store(int64(time.Since(c.started)))
		switch f.Type {
		case frame.Data:
			err = c.line.receiveData(c.reader, f.Offset, f.Length)
		case frame.Ack:
			err = c.line.receiveAck(f.Received)
		case frame.Ping:
			c.pongToken.Store(f.Token)
			c.pongDue.Store(true)
			c.line.mu.Lock()
			c.line.kick()
			c.line.mu.Unlock()
		case frame.Pong:
		case frame.Close:
			c.line.receiveClose()
		default:
			err = fmt.Errorf("%w: 0x%02x after WELCOME", frame.ErrUnknownType, f.Type)
		}
		if err != nil {
			return err
		}
	}
}

// greet sends GREETING and reads the HELLO that answers it.
func (c *carrier) greet() (hello frame.Frame, nonce frame.Nonce, err error) {
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand ends the process instead
	greeting := frame.Frame{Type: frame.Greeting, Version: frame.Version, Nonce: nonce}
	if _, err = c.conn.Write(greeting.Append(nil)); err != nil {
		return hello, nonce, fmt.Errorf("send GREETING: %w", err)
	}
	if hello, err = c.reader.Next(); err != nil {
		return hello, nonce, fmt.Errorf("read HELLO: %w", err)
	}
	if hello.Type != frame.Hello {
		return hello, nonce, fmt.Errorf("%w: 0x%02x instead of HELLO", frame.ErrUnknownType, hello.Type)
	}
	return hello, nonce, nil
}

// Boot makes 16 random bytes as a number pair's text, to tell starts apart.
func Boot() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%016x%016x", binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:]))
}
