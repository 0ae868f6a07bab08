// Package gate is the agent's answer to "may the cluster send traffic here now?".
//
// The kubelet asks over HTTP. net/http is not used: it would make the agent half
// as large again, for one path and two answers.
package gate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// holdAnswerFor is how long an answer is held back while shut. The probe's own
	// time-out is longer, so that the kubelet gets 503 and not a failed connection.
	holdAnswerFor = 8 * time.Second
	// readRequestWithin bounds a peer that connects and says nothing.
	readRequestWithin = 10 * time.Second
	// headSize is more than any probe sends.
	headSize = 8 << 10
	// askersAtOnce: the kubelet has one probe under way; the rest are strangers.
	askersAtOnce = 64
)

// Gate is open or shut; its methods may be called from anywhere.
type Gate struct {
	path     string
	onChange func(open bool)
	// StandsIn: the agent passes connections on while shut, so the pod is ready all the
	// time. Set before Serve.
	StandsIn bool

	mu sync.Mutex
	// changed is closed, and replaced, whenever the gate moves.
	changed chan struct{}
	open    bool
	shutAt  time.Time
	owner   any
	// told: the kubelet has had an answer since the last change.
	told bool

	lostAfter time.Duration
	lost      *time.Timer
	holdFor   time.Duration
}

// New makes a shut gate. It shuts by itself lostAfter the last carrier went;
// onChange is told of every change, and must not call back.
func New(path string, lostAfter time.Duration, onChange func(open bool)) *Gate {
	return &Gate{path: path, onChange: onChange, changed: make(chan struct{}), lostAfter: lostAfter, holdFor: holdAnswerFor}
}

// Set opens or shuts. While it is open the gate belongs to owner.
func (g *Gate) Set(open bool, owner any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set(open, owner)
}

func (g *Gate) set(open bool, owner any) {
	if open {
		g.owner = owner
	} else {
		g.owner = nil
	}
	if g.open == open {
		return
	}
	g.open, g.told = open, false
	if !open {
		g.shutAt = time.Now()
	}
	close(g.changed)
	g.changed = make(chan struct{})
	g.onChange(open)
}

// ShutAt is when the gate was shut last; zero when it never was open.
func (g *Gate) ShutAt() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shutAt
}

// IsOpen tells how it stands.
func (g *Gate) IsOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// LineEnded shuts the gate if that line had opened it.
func (g *Gate) LineEnded(owner any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open && g.owner == owner {
		g.set(false, nil)
	}
}

// Carriers tells whether any line has a carrier now.
func (g *Gate) Carriers(present bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lost != nil {
		g.lost.Stop()
		g.lost = nil
	}
	if present {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(g.lostAfter, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.lost == timer {
			g.set(false, nil)
		}
	})
	g.lost = timer
}

// answer waits until there is something to tell the kubelet.
func (g *Gate) answer(ctx context.Context) bool {
	g.mu.Lock()
	open, told, changed := g.open || g.StandsIn, g.told, g.changed
	g.told = true
	g.mu.Unlock()
	if open || !told {
		return open
	}
	hold := time.NewTimer(g.holdFor)
	defer hold.Stop()
	select {
	case <-changed:
	case <-hold.C:
	case <-ctx.Done():
	}
	// An answer that says "shut" after a change to open and back is still true.
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = true
	return g.open
}

// Serve answers on the listener until it is closed.
func (g *Gate) Serve(ctx context.Context, listener net.Listener) {
	slots := make(chan struct{}, askersAtOnce)
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(acceptPause)
			continue
		}
		select {
		case slots <- struct{}{}:
			go func() {
				defer func() { <-slots }()
				g.serve(ctx, conn)
			}()
		default:
			conn.Close()
		}
	}
}

// acceptPause keeps a lack of descriptors from becoming a busy loop.
const acceptPause = 50 * time.Millisecond

func (g *Gate) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReaderSize(conn, 1<<10)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(readRequestWithin))
		request, err := readHead(reader)
		if err != nil {
			return
		}
		status := "404 Not Found"
		if request.method != "GET" && request.method != "HEAD" {
			status, request.keep = "405 Method Not Allowed", false
		} else if request.path == g.path {
			status = "503 Service Unavailable"
			if g.answer(ctx) {
				status = "200 OK"
			}
		}
		_ = conn.SetWriteDeadline(time.Now().Add(readRequestWithin))
		if err := respond(conn, status, request); err != nil || !request.keep {
			return
		}
	}
}

type request struct {
	method, path string
	keep         bool
}

var errBadRequest = errors.New("not a request")

// readHead reads a request line and its headers; a body is not expected.
func readHead(reader *bufio.Reader) (request, error) {
	line, size, err := readLine(reader, 0)
	if err != nil {
		return request{}, err
	}
	fields := bytes.Fields(line)
	if len(fields) != 3 || !bytes.HasPrefix(fields[2], []byte("HTTP/1.")) {
		return request{}, errBadRequest
	}
	target, _, _ := bytes.Cut(fields[1], []byte("?"))
	result := request{method: string(fields[0]), path: string(target), keep: string(fields[2]) == "HTTP/1.1"}
	for {
		if line, size, err = readLine(reader, size); err != nil {
			return request{}, err
		}
		if len(line) == 0 {
			return result, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("connection")) && bytes.EqualFold(bytes.TrimSpace(value), []byte("close")),
			bytes.EqualFold(name, []byte("content-length")) && string(bytes.TrimSpace(value)) != "0",
			bytes.EqualFold(name, []byte("transfer-encoding")):
			result.keep = false
		}
	}
}

func readLine(reader *bufio.Reader, size int) ([]byte, int, error) {
	var line []byte
	for {
		part, err := reader.ReadSlice('\n')
		line = append(line, part...)
		size += len(part)
		if size > headSize {
			return nil, size, errBadRequest
		}
		if err == nil {
			return bytes.TrimRight(line, "\r\n"), size, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, size, err
		}
	}
}

func respond(conn net.Conn, status string, to request) error {
	body := status[4:] + "\n"
	connection := "close"
	if to.keep {
		connection = "keep-alive"
	}
	head := "HTTP/1.1 " + status + "\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nConnection: " +
		connection + "\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n"
	if to.method == "HEAD" {
		body = ""
	}
	_, err := conn.Write([]byte(head + body))
	return err
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}
