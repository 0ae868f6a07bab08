package gate

import (
	"bufio"
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

// asker is a probe's connection.
type asker struct {
	t    *testing.T
	conn net.Conn
	read *bufio.Reader
}

func serve(t *testing.T, g *Gate) func() *asker {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); listener.Close() })
	go g.Serve(ctx, listener)
	return func() *asker {
		t.Helper()
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		return &asker{t, conn, bufio.NewReader(conn)}
	}
}

func (a *asker) ask(request string) {
	a.t.Helper()
	if _, err := a.conn.Write([]byte(request)); err != nil {
		a.t.Fatal(err)
	}
}

// status reads one answer and returns its status.
func (a *asker) status() string {
	a.t.Helper()
	line, err := a.read.ReadString('\n')
	if err != nil {
		a.t.Fatal(err)
	}
	for {
		header, err := a.read.ReadString('\n')
		if err != nil {
			a.t.Fatal(err)
		}
		if header == "\r\n" {
			break
		}
	}
	if _, err := a.read.ReadString('\n'); err != nil {
		a.t.Fatal(err)
	}
	return strings.Fields(line)[1]
}

const probe = "GET /towline/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

func silent(bool) {}

func TestTheFirstAnswerAfterAChangeIsAtOnceTheNextIsHeld(t *testing.T) {
	g := New("/towline/ready", time.Hour, silent)
	dial := serve(t, g)
	first := dial()
	first.ask(probe)
	if got := first.status(); got != "503" {
		t.Fatal(got)
	}
	second := dial()
	second.ask(probe)
	began := time.Now()
	time.AfterFunc(100*time.Millisecond, func() { g.Set(true, "line") })
	if got := second.status(); got != "200" || time.Since(began) > 2*time.Second {
		t.Fatalf("%s after %s", got, time.Since(began))
	}
	g.Set(false, nil)
	third := dial()
	third.ask(probe)
	if got := third.status(); got != "503" {
		t.Fatal(got)
	}
}

func TestAHeldAnswerComesInTheEnd(t *testing.T) {
	g := New("/towline/ready", time.Hour, silent)
	g.holdFor = 80 * time.Millisecond
	dial := serve(t, g)
	for _, atLeast := range []time.Duration{0, g.holdFor - 10*time.Millisecond} {
		a := dial()
		a.ask(probe)
		began := time.Now()
		if got := a.status(); got != "503" || time.Since(began) < atLeast {
			t.Fatalf("%s after %s", got, time.Since(began))
		}
	}
}

func TestOpen(t *testing.T) {
	g := New("/towline/ready", time.Hour, silent)
	g.Set(true, "line")
	dial := serve(t, g)
	cases := []struct{ name, request, status string }{
		{"the probe", probe, "200"},
		{"HTTP/1.0", "GET /towline/ready HTTP/1.0\r\n\r\n", "200"},
		{"a query", "GET /towline/ready?x=1 HTTP/1.1\r\n\r\n", "200"},
		{"another path", "GET / HTTP/1.1\r\n\r\n", "404"},
		{"another method", "POST /towline/ready HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"},
		{"two in one connection", strings.Repeat("GET /towline/ready HTTP/1.1\r\n\r\n", 2), "200"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := dial()
			a.ask(c.request)
			for range strings.Count(c.request, "HTTP/1") {
				if got := a.status(); got != c.status {
					t.Errorf("%s, not %s", got, c.status)
				}
			}
		})
	}
}

func TestWhatIsNoRequestIsHungUpOn(t *testing.T) {
	dial := serve(t, New("/towline/ready", time.Hour, silent))
	for _, request := range []string{"\r\n", "GET\r\n\r\n", "SSH-2.0-x\r\n", strings.Repeat("x", 2*headSize)} {
		a := dial()
		_, _ = a.conn.Write([]byte(request))
		if _, err := a.read.ReadByte(); err == nil {
			t.Errorf("%.20q was answered", request)
		}
	}
}

func TestItShutsByItself(t *testing.T) {
	changes := make(chan bool, 4)
	g := New("/towline/ready", 30*time.Millisecond, func(open bool) { changes <- open })
	g.Carriers(true)
	g.Set(true, "mine")
	if !<-changes {
		t.Fatal("not opened")
	}
	g.LineEnded("another's")
	g.Carriers(false)
	g.Carriers(true) // back in time
	time.Sleep(60 * time.Millisecond)
	if !g.IsOpen() {
		t.Fatal("shut though a carrier was there")
	}
	g.Carriers(false)
	if <-changes {
		t.Fatal("not shut when no carrier was there")
	}
	g.Set(true, "mine")
	g.LineEnded("mine")
	if g.IsOpen() {
		t.Fatal("open after its line ended")
	}
}
