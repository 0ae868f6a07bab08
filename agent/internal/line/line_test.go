package line

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"towline.dev/agent/internal/frame"
)

// peer is a client that speaks frames by hand.
type peer struct {
	t      *testing.T
	conn   net.Conn
	reader *frame.Reader
	key    frame.Key
	agent  frame.Nonce
}

func serve(t *testing.T, keepFor time.Duration) (server *Server, dial func() *peer, lines chan *Line) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	lines = make(chan *Line, maxLines+1)
	server = &Server{
		KeepFor: keepFor, Key: frame.Key{1, 2, 3},
		Serve: func(l *Line) { lines <- l }, Present: func(bool) {},
	}
	go server.Accept(listener)
	return server, func() *peer {
		t.Helper()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		return &peer{t: t, conn: conn, reader: frame.NewReader(conn), key: server.Key}
	}, lines
}

func (p *peer) next() frame.Frame {
	p.t.Helper()
	f, err := p.reader.Next()
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

func (p *peer) send(f frame.Frame, body []byte) {
	p.t.Helper()
	f.Length = len(body)
	if _, err := p.conn.Write(append(f.Append(nil), body...)); err != nil {
		p.t.Fatal(err)
	}
}

// hello greets, and returns what the agent answers.
func (p *peer) hello(id frame.LineID, received uint64) frame.Frame {
	p.t.Helper()
	p.agent = p.next().Nonce
	client := frame.Nonce{9}
	p.send(frame.Frame{
		Type: frame.Hello, Version: frame.Version, LineID: id, Nonce: client, Received: received,
		MAC: frame.HelloMAC(p.key, p.agent, client, frame.Version, id, received),
	}, nil)
	return p.next()
}

func (p *peer) welcomed(id frame.LineID, received, has uint64) {
	p.t.Helper()
	welcome := p.hello(id, received)
	if welcome.Type != frame.Welcome || welcome.Received != has {
		p.t.Fatalf("%+v, not WELCOME with %d", welcome, has)
	}
	if !welcome.MAC.Equal(frame.WelcomeMAC(p.key, frame.Nonce{9}, p.agent, has)) {
		p.t.Fatal("WELCOME's proof is wrong")
	}
}

// data reads frames until so many bytes of DATA came, and returns them.
func (p *peer) data(offset uint64, length int) []byte {
	p.t.Helper()
	var got []byte
	for len(got) < length {
		f := p.next()
		if f.Type != frame.Data {
			continue
		}
		if f.Offset != offset+uint64(len(got)) {
			p.t.Fatalf("DATA at %d, not %d", f.Offset, offset+uint64(len(got)))
		}
		body := make([]byte, f.Length)
		for n := 0; n < len(body); {
			m, err := p.reader.Body(body[n:])
			if err != nil {
				p.t.Fatal(err)
			}
			n += m
		}
		got = append(got, body...)
	}
	return got
}

// ended waits for the carrier's end.
func (p *peer) ended() {
	p.t.Helper()
	for {
		if _, err := p.reader.Next(); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				p.t.Fatal("the carrier did not end")
			}
			return
		}
	}
}

var id = frame.LineID{7}

func TestBothDirectionsResume(t *testing.T) {
	_, dial, lines := serve(t, time.Minute)
	first := dial()
	first.welcomed(id, 0, 0)
	line := <-lines
	first.send(frame.Frame{Type: frame.Data}, []byte("from the lap"))
	buffer := make([]byte, 12)
	if _, err := io.ReadFull(line, buffer); err != nil || string(buffer) != "from the lap" {
		t.Fatalf("%q, %v", buffer, err)
	}
	if _, err := line.Write([]byte("from the pod")); err != nil {
		t.Fatal(err)
	}
	if got := first.data(0, 12); string(got) != "from the pod" {
		t.Fatalf("%q", got)
	}
	first.conn.Close()

	// The client says it has but 5 bytes; what it sends overlaps what is here.
	second := dial()
	second.welcomed(id, 5, 12)
	if got := second.data(5, 7); string(got) != "the pod" {
		t.Fatalf("%q", got)
	}
	second.send(frame.Frame{Type: frame.Data, Offset: 9}, []byte("laptop"))
	if _, err := io.ReadFull(line, buffer[:3]); err != nil || string(buffer[:3]) != "top" {
		t.Fatalf("%q, %v", buffer[:3], err)
	}
}

func TestANewCarrierEndsTheOldOne(t *testing.T) {
	_, dial, lines := serve(t, time.Minute)
	first := dial()
	first.welcomed(id, 0, 0)
	line := <-lines
	second := dial()
	second.welcomed(id, 0, 0)
	first.ended()
	if _, err := line.Write([]byte("here")); err != nil {
		t.Fatal(err)
	}
	if got := second.data(0, 4); string(got) != "here" {
		t.Fatalf("%q", got)
	}
}

func TestRefusals(t *testing.T) {
	cases := []struct {
		name   string
		greet  func(t *testing.T, p *peer) frame.Frame
		reason frame.Reason
	}{
		{"an unknown line", func(_ *testing.T, p *peer) frame.Frame { return p.hello(frame.LineID{1}, 1) }, frame.UnknownLine},
		{"another key", func(_ *testing.T, p *peer) frame.Frame {
			p.key[0]++
			return p.hello(frame.LineID{1}, 0)
		}, frame.Denied},
		{"more than was sent", func(_ *testing.T, p *peer) frame.Frame { return p.hello(id, 1) }, frame.OutOfRange},
		{"another version", func(_ *testing.T, p *peer) frame.Frame {
			p.next()
			p.send(frame.Frame{Type: frame.Hello, Version: 2}, nil)
			return p.next()
		}, frame.WrongVersion},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, dial, _ := serve(t, time.Minute)
			dial().welcomed(id, 0, 0)
			refused := dial()
			if gone := c.greet(t, refused); gone.Type != frame.Gone || gone.Reason != c.reason {
				t.Fatalf("%+v, not GONE %d", gone, c.reason)
			}
			refused.ended()
		})
	}
}

func TestTooManyLines(t *testing.T) {
	_, dial, _ := serve(t, time.Minute)
	for n := range maxLines {
		dial().welcomed(frame.LineID{byte(n), 1}, 0, 0)
	}
	if gone := dial().hello(frame.LineID{99}, 0); gone.Type != frame.Gone || gone.Reason != frame.TooMany {
		t.Fatalf("%+v, not GONE", gone)
	}
}

func TestWhoSaysNothingIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	_, dial, _ := serve(t, time.Minute)
	silent := make([]*peer, greetAtOnce)
	for i := range silent {
		silent[i] = dial()
		silent[i].next()
	}
	// One more is not even greeted, until the silent ones are given up.
	if _, err := dial().reader.Next(); err == nil {
		t.Fatal("a fifth was greeted")
	}
	began := time.Now()
	for _, p := range silent {
		p.ended()
	}
	if took := time.Since(began); took > greetWithin+time.Second {
		t.Fatalf("given up after %s", took)
	}
	dial().welcomed(id, 0, 0)
}

func TestWhatBreaksTheRulesEndsTheCarrierAndNotTheLine(t *testing.T) {
	cases := map[string]func(p *peer){
		"a gap":                 func(p *peer) { p.send(frame.Frame{Type: frame.Data, Offset: 1}, []byte("x")) },
		"an ACK of the unsent":  func(p *peer) { p.send(frame.Frame{Type: frame.Ack, Received: 1}, nil) },
		"a frame for beginners": func(p *peer) { p.send(frame.Frame{Type: frame.Hello}, nil) },
		"no frame at all":       func(p *peer) { _, _ = p.conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")) },
	}
	for name, breaks := range cases {
		t.Run(name, func(t *testing.T) {
			_, dial, _ := serve(t, time.Minute)
			first := dial()
			first.welcomed(id, 0, 0)
			breaks(first)
			first.ended()
			dial().welcomed(id, 0, 0)
		})
	}
}

func TestTheWriterWaitsAt8MiBAndAnAckLetsItGoOn(t *testing.T) {
	_, dial, lines := serve(t, time.Minute)
	p := dial()
	p.welcomed(id, 0, 0)
	line := <-lines
	wrote := make(chan struct{})
	go func() {
		_, _ = line.Write(make([]byte, maxUnacknowledged+1))
		close(wrote)
	}()
	p.data(0, maxUnacknowledged)
	select {
	case <-wrote:
		t.Fatal("more than 8 MiB are unacknowledged")
	case <-time.After(50 * time.Millisecond):
	}
	p.send(frame.Frame{Type: frame.Ack, Received: 100}, nil)
	<-wrote
	p.data(maxUnacknowledged, 1)
}

func TestTooMuchUnacknowledgedEndsTheCarrier(t *testing.T) {
	_, dial, _ := serve(t, time.Minute)
	p := dial()
	p.welcomed(id, 0, 0)
	for offset := uint64(0); offset < maxUnacknowledged; offset += 1 << 19 {
		p.send(frame.Frame{Type: frame.Data, Offset: offset}, make([]byte, 1<<19))
	}
	p.send(frame.Frame{Type: frame.Data, Offset: maxUnacknowledged}, []byte("x"))
	p.ended()
}

func TestAcknowledged200msAfterTheFirstByte(t *testing.T) {
	_, dial, lines := serve(t, time.Minute)
	p := dial()
	p.welcomed(id, 0, 0)
	line := <-lines
	p.send(frame.Frame{Type: frame.Data}, []byte("abc"))
	began := time.Now()
	_, _ = line.Read(make([]byte, 10))
	f := p.next()
	if took := time.Since(began); f.Type != frame.Ack || f.Received != 3 || took > time.Second {
		t.Fatalf("%+v after %s", f, took)
	}
}

func TestPingIsAnsweredAndAsked(t *testing.T) {
	t.Parallel()
	_, dial, _ := serve(t, time.Minute)
	p := dial()
	p.welcomed(id, 0, 0)
	p.send(frame.Frame{Type: frame.Ping, Token: 77}, nil)
	if f := p.next(); f.Type != frame.Pong || f.Token != 77 {
		t.Fatalf("%+v, not PONG 77", f)
	}
	if f := p.next(); f.Type != frame.Ping {
		t.Fatalf("%+v, not PING after a second of silence", f)
	}
	p.ended() // silentAtMost later
}

func TestCloseSendsTheRestAndEndsTheLine(t *testing.T) {
	server, dial, lines := serve(t, time.Minute)
	p := dial()
	p.welcomed(id, 0, 0)
	line := <-lines
	_, _ = line.Write([]byte("bye"))
	_ = line.Close()
	if got := p.data(0, 3); string(got) != "bye" {
		t.Fatalf("%q", got)
	}
	if f := p.next(); f.Type != frame.Close {
		t.Fatalf("%+v, not CLOSE", f)
	}
	p.conn.Close()
	<-line.Done()
	if server.Lines() != 0 {
		t.Fatal("the line is still there")
	}
}

func TestAClientsCloseIsTheReadersEnd(t *testing.T) {
	_, dial, lines := serve(t, time.Minute)
	p := dial()
	p.welcomed(id, 0, 0)
	line := <-lines
	p.send(frame.Frame{Type: frame.Data}, []byte("last"))
	p.send(frame.Frame{Type: frame.Close}, nil)
	got, err := io.ReadAll(line)
	if string(got) != "last" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestALineWithoutACarrierIsGivenUp(t *testing.T) {
	_, dial, lines := serve(t, 50*time.Millisecond)
	p := dial()
	p.welcomed(id, 0, 0)
	line := <-lines
	p.conn.Close()
	<-line.Done()
	if _, err := line.Read(make([]byte, 1)); !errors.Is(err, ErrEnded) {
		t.Fatal(err)
	}
	if gone := dial().hello(id, 5); gone.Type != frame.Gone || gone.Reason != frame.UnknownLine {
		t.Fatalf("%+v", gone)
	}
}

// TestNothingIsLostOverManyCarriers echoes bytes while carriers are cut at random.
func TestNothingIsLostOverManyCarriers(t *testing.T) {
	_, dial, lines := serve(t, time.Minute)
	random := rand.New(rand.NewPCG(3, 4))
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	var got []byte
	p := dial()
	p.welcomed(id, 0, 0)
	go func() {
		line := <-lines
		_, _ = io.Copy(line, line)
	}()
	var has uint64
	for len(got) < len(sent) {
		_ = p.conn.SetDeadline(time.Now().Add(10 * time.Second))
		// Send from what the agent has, read some of what comes back, cut.
		chunk := sent[has:min(int(has)+64<<10+random.IntN(200<<10), len(sent))]
		if len(chunk) > 0 {
			p.send(frame.Frame{Type: frame.Data, Offset: has}, chunk)
		}
		if want := random.IntN(100 << 10); len(got)+want < int(has) {
			got = append(got, p.data(uint64(len(got)), want)...)
		} else if len(chunk) == 0 {
			got = append(got, p.data(uint64(len(got)), len(sent)-len(got))...)
			break
		}
		p.conn.Close()
		p = dial()
		welcome := p.hello(id, uint64(len(got)))
		if welcome.Type != frame.Welcome || welcome.Received < has {
			t.Fatalf("%+v", welcome)
		}
		has = welcome.Received
	}
	if !bytes.Equal(got, sent) {
		t.Fatal("the echo is not what was sent")
	}
}
