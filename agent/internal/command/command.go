package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"towline.dev/agent/internal/environ"
)

const (
	// hangUpStep is between SIGHUP, SIGTERM and SIGKILL for a command whose client
	// is gone: time to save, and no orphan that holds the container's memory.
	hangUpStep = 5 * time.Second
	// lateOutput: what children of an ended command still hold of its output pipes
	// is waited for this long. OpenSSH waits for ever, and hangs on a background job.
	lateOutput = 100 * time.Millisecond
	copyBuffer = 32 << 10
)

// Life is what happens to a command. Its methods are called in time: Starting, Interrupted
// and Typed just before, Ended right after; they must not block.
type Life interface {
	Starting()
	// Interrupted: by Ctrl-C or a signal.
	Interrupted()
	// Typed: anything else came from its terminal.
	Typed()
	Ended()
}

// Session is what a session channel asked for before its command starts.
type Session struct {
	Channel  ssh.Channel
	Terminal *Terminal
	Env      []string
	// Life is told of the command's; nil where nobody wants to know.
	Life Life

	mu      sync.Mutex
	process *os.Process
	ours    *os.File // the terminal's side here
	// early are signals that came before the process was there: a client sends them
	// as soon as its exec was answered.
	early []syscall.Signal
	ended bool
	gone  bool
}

// Run runs the command line, or a shell for an empty one, to its end, and tells
// the client how it ended.
func (s *Session) Run(line string) {
	cmd, err := s.prepare(line)
	if err == nil {
		err = s.run(cmd)
	}
	if err != nil {
		s.refuse(err)
	}
	_ = s.Channel.Close()
}

// notStarted is a command that could not be started, with a shell's exit code.
type notStarted struct {
	code int
	text string
}

func (e *notStarted) Error() string { return e.text }

func (s *Session) refuse(err error) {
	code := notFound
	var known *notStarted
	if errors.As(err, &known) {
		code = known.code
	}
	fmt.Fprintf(s.Channel.Stderr(), "towline: %s\n", err)
	s.exited(code)
}

func (s *Session) exited(code int) {
	_, _ = s.Channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(code)}))
}

// prepare decides what is run, and with what.
func (s *Session) prepare(line string) (*exec.Cmd, error) {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	env := environ.First()
	if s.Terminal != nil && s.Terminal.Name != "" {
		env = environ.With(env, "TERM="+s.Terminal.Name)
	}
	env = environ.With(env, s.Env...)
	path, args, err := program(line, env, dir)
	if err != nil {
		return nil, err
	}
	return &exec.Cmd{Path: path, Args: args, Env: env, Dir: dir}, nil
}

func program(line string, env []string, dir string) (path string, args []string, err error) {
	if line == "" {
		// Not a login shell: Debian's /etc/profile would replace the image's PATH.
		if path = shell(env, dir); path == "" {
			return "", nil, &notStarted{notFound, "this image has no shell; name a command that it has"}
		}
		return path, []string{path}, nil
	}
	// A program by itself needs no shell, and must have none: dash does not exec its last
	// command, and Ctrl-C would kill it under a REPL or a debugger that handles the signal.
	if args, err = words(line); err == nil {
		if path, err = lookup(args[0], env, dir); err == nil {
			return path, args, nil
		}
	}
	if path = posixShell(env, dir); path != "" {
		return path, []string{"sh", "-c", line}, nil
	}
	if args, err = words(line); err != nil {
		return "", nil, &notStarted{notFound, fmt.Sprintf("this image has no shell, and %q is more than a command with arguments", line)}
	}
	path, err = lookup(args[0], env, dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", nil, &notStarted{notExecutable, args[0] + ": cannot be executed"}
	case err != nil:
		return "", nil, &notStarted{notFound, args[0] + ": not found in this image (it has no shell either)"}
	}
	return path, args, nil
}

func (s *Session) run(cmd *exec.Cmd) error {
	streams, err := s.connect(cmd)
	if err != nil {
		return err
	}
	defer streams.close()
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return &notStarted{notFound, "the client is gone"}
	}
	if s.Life != nil {
		s.Life.Starting()
	}
	err = start(cmd)
	streams.started()
	if err != nil {
		s.mu.Unlock()
		s.tellEnded()
		return startError(cmd, err)
	}
	s.process, s.ours = cmd.Process, streams.terminal
	for _, signal := range s.early {
		_ = unix.Kill(-cmd.Process.Pid, signal)
	}
	s.mu.Unlock()

	streams.pump(s.Channel, s.input(streams.stdin))
	err = wait(cmd)
	s.tellEnded()
	s.mu.Lock()
	s.process, s.ended = nil, true
	s.mu.Unlock()
	streams.drain()
	s.tellEnd(cmd, err)
	return nil
}

// input is where the client's input goes: to the command, whose life is told what comes.
func (s *Session) input(stdin io.Writer) io.Writer {
	if s.Life == nil || s.Terminal == nil {
		return stdin
	}
	return typed{stdin, s.Life}
}

type typed struct {
	io.Writer
	life Life
}

// Write looks for the keys' bytes: programs that read single keys have no signals for them.
func (t typed) Write(data []byte) (int, error) {
	if len(bytes.Trim(data, interruptKeys)) == 0 {
		t.life.Interrupted()
	} else {
		t.life.Typed()
	}
	return t.Writer.Write(data)
}

// interruptKeys are Ctrl-C and Ctrl-\.
const interruptKeys = "\x03\x1c"

func (s *Session) tellEnded() {
	if s.Life != nil {
		s.Life.Ended()
	}
}

func startError(cmd *exec.Cmd, err error) error {
	code := notExecutable
	if errors.Is(err, fs.ErrNotExist) {
		code = notFound
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return &notStarted{code, fmt.Sprintf("%s: %s", cmd.Path, errno)}
	}
	return &notStarted{code, err.Error()}
}

func (s *Session) tellEnd(cmd *exec.Cmd, err error) {
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || err != nil && cmd.ProcessState == nil {
		s.exited(255)
		return
	}
	if status.Signaled() {
		_, _ = s.Channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name    string
			Core    bool
			Message string
			Lang    string
		}{strings.TrimPrefix(unix.SignalName(status.Signal()), "SIG"), status.CoreDump(), status.Signal().String(), ""}))
		return
	}
	s.exited(status.ExitStatus())
}

// Resize follows the client's window.
func (s *Session) Resize(size Size) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Terminal != nil {
		s.Terminal.Size = size
	}
	if s.ours != nil {
		if raw, err := s.ours.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { resize(int(fd), size) })
		}
	}
}

// Signal sends a signal by its name without SIG to the command and its group.
func (s *Session) Signal(name string) bool {
	signal := unix.SignalNum("SIG" + name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if signal == 0 || s.ended {
		return false
	}
	if s.process == nil {
		s.early = append(s.early, signal)
		return true
	}
	if s.Life != nil {
		s.Life.Interrupted()
	}
	// The command leads its group (or session), so its pid names it.
	return unix.Kill(-s.process.Pid, signal) == nil
}

// HangUp ends the command of a client that is gone.
func (s *Session) HangUp() {
	s.mu.Lock()
	s.gone = true
	running := s.process != nil
	s.mu.Unlock()
	if !running {
		return
	}
	for _, name := range []string{"HUP", "TERM", "KILL"} {
		if !s.Signal(name) {
			return
		}
		if name != "KILL" {
			time.Sleep(hangUpStep)
		}
	}
}

// streams are a command's ends here: a terminal, or three pipes.
type streams struct {
	terminal *os.File
	stdin    *os.File
	outputs  []output
	theirs   []*os.File
	pumped   sync.WaitGroup
}

type output struct {
	from *os.File
	to   func(ssh.Channel) io.Writer
}

func toStdout(channel ssh.Channel) io.Writer { return channel }
func toStderr(channel ssh.Channel) io.Writer { return channel.Stderr() }

func (s *Session) connect(cmd *exec.Cmd) (*streams, error) {
	if s.Terminal != nil {
		ours, theirs, err := openTerminal(s.Terminal)
		if err != nil {
			return nil, &notStarted{notExecutable, err.Error()}
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		return &streams{
			terminal: ours, stdin: ours, theirs: []*os.File{theirs},
			outputs: []output{{ours, toStdout}},
		}, nil
	}
	pipes := &streams{}
	for i, set := range []func(*os.File){
		func(f *os.File) { cmd.Stdin = f },
		func(f *os.File) { cmd.Stdout = f },
		func(f *os.File) { cmd.Stderr = f },
	} {
		read, write, err := os.Pipe()
		if err != nil {
			pipes.started()
			pipes.close()
			return nil, &notStarted{notExecutable, fmt.Sprintf("open pipes for the command: %s", err)}
		}
		switch i {
		case 0:
			pipes.stdin = write
			read, write = write, read
		case 1:
			pipes.outputs = append(pipes.outputs, output{read, toStdout})
		case 2:
			pipes.outputs = append(pipes.outputs, output{read, toStderr})
		}
		pipes.theirs = append(pipes.theirs, write)
		set(write)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return pipes, nil
}

// started closes what belongs to the command alone.
func (p *streams) started() {
	for _, file := range p.theirs {
		_ = file.Close()
	}
	p.theirs = nil
}

// pump carries input until the client's EOF, and output until drain.
func (p *streams) pump(channel ssh.Channel, input io.Writer) {
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{input}, struct{ io.Reader }{channel}, make([]byte, copyBuffer))
		if p.terminal == nil {
			_ = p.stdin.Close()
		} else {
			// A terminal has no end of its own: say it as a person would, so that
			// `towline exec -t … < file` ends. VEOF counts at a line's start.
			_, _ = p.terminal.Write([]byte{endOfTransmission})
		}
	}()
	for _, o := range p.outputs {
		p.pumped.Add(1)
		go func() {
			defer p.pumped.Done()
			pump(o.to(channel), o.from)
		}()
	}
}

const endOfTransmission = 4

// pump copies until the end, or until drain set a deadline and nothing is left.
func pump(to io.Writer, from *os.File) {
	buffer := make([]byte, copyBuffer)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, werr := to.Write(buffer[:n]); werr != nil {
				// Nobody listens. The command must not block on a full pipe.
				to = io.Discard
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			rest(to, from, buffer)
			return
		}
		if err != nil {
			return
		}
	}
}

// rest copies what lies in the pipe now, without waiting for more.
func rest(to io.Writer, from *os.File, buffer []byte) {
	_ = from.SetReadDeadline(time.Time{})
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	for {
		n := 0
		if err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), buffer)
			return true
		}); err != nil || n <= 0 {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// drain waits for the rest of the output of a command that has ended.
func (p *streams) drain() {
	for _, o := range p.outputs {
		_ = o.from.SetReadDeadline(time.Now().Add(lateOutput))
	}
	p.pumped.Wait()
}

func (p *streams) close() {
	if p.stdin != nil {
		_ = p.stdin.Close()
	}
	for _, o := range p.outputs {
		_ = o.from.Close()
	}
}
