package line

import (
	"errors"
	"net"
	"sync"
	"time"

	"towline.dev/agent/internal/frame"
)

const (
	// greetWithin bounds an unauthenticated carrier, and greetAtOnce how many
	// there are: anybody in the pod can connect.
	greetWithin = 2 * time.Second
	greetAtOnce = 4
	// maxLines at most: each may keep 8 MiB in each direction.
	maxLines = 16
)

// Server accepts carriers and keeps their lines.
type Server struct {
	Key     frame.Key
	KeepFor time.Duration
	// Serve is called in a goroutine of its own for each new line, and closes it.
	Serve func(*Line)
	// Present is told when the first carrier comes and the last one goes. It may
	// be called with a line's lock, so it calls nothing of this package.
	Present func(bool)

	mu       sync.Mutex
	lines    map[frame.LineID]*Line
	greeting int
	attached int
}

type goneError struct {
	reason frame.Reason
	text   string
}

func (e *goneError) Error() string { return e.text }

// Accept serves the listener until it is closed.
func (s *Server) Accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(acceptPause)
			continue
		}
		go s.Handle(conn)
	}
}

// acceptPause keeps a lack of descriptors from becoming a busy loop.
const acceptPause = 50 * time.Millisecond

// Handle runs one carrier to its end.
func (s *Server) Handle(conn net.Conn) {
	c := newCarrier(conn)
	defer conn.Close()
	if !s.mayGreet() {
		return
	}
	line, err := s.welcome(c)
	s.greeted()
	if err != nil {
		var gone *goneError
		if errors.As(err, &gone) {
			refusal := frame.Frame{Type: frame.Gone, Reason: gone.reason, Text: gone.text}
			_, _ = conn.Write(refusal.Append(nil))
		}
		return
	}
	_ = c.read()
	c.stop()
	line.detach(c)
	close(c.done)
}

func (s *Server) mayGreet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.greeting >= greetAtOnce {
		return false
	}
	s.greeting++
	return true
}

func (s *Server) greeted() {
	s.mu.Lock()
	s.greeting--
	s.mu.Unlock()
}

// welcome authenticates the carrier and attaches it to its line.
func (s *Server) welcome(c *carrier) (*Line, error) {
	_ = c.conn.SetDeadline(time.Now().Add(greetWithin))
	hello, nonce, err := c.greet()
	if err != nil {
		return nil, err
	}
	if hello.Version != frame.Version {
		return nil, &goneError{frame.WrongVersion, "this agent speaks version 1"}
	}
	proof := frame.HelloMAC(s.Key, nonce, hello.Nonce, hello.Version, hello.LineID, hello.Received)
	if !proof.Equal(hello.MAC) {
		return nil, &goneError{frame.Denied, "the key is another one"}
	}
	line, fresh, err := s.find(hello.LineID, hello.Received)
	if err != nil {
		return nil, err
	}
	c.line = line
	err = line.attach(c, hello.Received, func(received uint64) error {
		welcome := frame.Frame{
			Type: frame.Welcome, Received: received,
			MAC: frame.WelcomeMAC(s.Key, hello.Nonce, nonce, received),
		}
		_, err := c.conn.Write(welcome.Append(nil))
		return err
	})
	if fresh {
		if err != nil {
			line.end(err)
		} else {
			go s.Serve(line)
		}
	}
	if err != nil {
		return nil, err
	}
	_ = c.conn.SetDeadline(time.Time{})
	return line, nil
}

// find gives the line of that id, made where the client has received nothing yet.
func (s *Server) find(id frame.LineID, received uint64) (line *Line, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line := s.lines[id]; line != nil {
		return line, false, nil
	}
	if received > 0 {
		return nil, false, &goneError{frame.UnknownLine, "no such line here: the container was restarted, or the line was given up"}
	}
	if len(s.lines) >= maxLines {
		return nil, false, &goneError{frame.TooMany, "too many lines"}
	}
	if s.lines == nil {
		s.lines = map[frame.LineID]*Line{}
	}
	line = newLine(s, id)
	s.lines[id] = line
	return line, true, nil
}

func (s *Server) forget(line *Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines[line.ID] == line {
		delete(s.lines, line.ID)
	}
}

// carriers counts, and tells when there is one at all.
func (s *Server) carriers(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.attached
	s.attached += change
	if (before == 0) != (s.attached == 0) {
		s.Present(s.attached > 0)
	}
}

// Lines counts the lines there are.
func (s *Server) Lines() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

// End ends all lines, for the agent's own end; what was written still goes out.
func (s *Server) End() []*Line {
	s.mu.Lock()
	lines := make([]*Line, 0, len(s.lines))
	for _, line := range s.lines {
		lines = append(lines, line)
	}
	s.mu.Unlock()
	for _, line := range lines {
		_ = line.Close()
	}
	return lines
}
