package command

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWords(t *testing.T) {
	cases := []struct {
		line string
		want []string
	}{
		{"ls -l", []string{"ls", "-l"}},
		{"  a\t'b c'  d\"e f\"g ", []string{"a", "b c", "de fg"}},
		{`echo 'it'"'"'s' ''`, []string{"echo", "it's", ""}},
		{`a\ b "x\"y\\z\q"`, []string{"a b", `x"y\z\q`}},
		{"/app/server --port=80 a,b:c@d%e+f", []string{"/app/server", "--port=80", "a,b:c@d%e+f"}},
		{"a | b", nil}, {"a && b", nil}, {"a > f", nil}, {"echo $HOME", nil}, {`echo "$HOME"`, nil},
		{"echo `id`", nil}, {"ls *", nil}, {"A=1 b", nil}, {"'open", nil}, {`"open`, nil}, {`a\`, nil}, {"", nil}, {"  ", nil},
	}
	for _, c := range cases {
		got, err := words(c.line)
		if !slices.Equal(got, c.want) || (err != nil) != (c.want == nil) {
			t.Errorf("%q: %q, %v, not %q", c.line, got, err, c.want)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add(`a 'b' "c\"" d\e`)
	f.Fuzz(func(t *testing.T, line string) {
		if list, err := words(line); err == nil && len(list) == 0 {
			t.Error("nothing to run, and no error")
		}
	})
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	path := []string{"A=1", "PATH=/nowhere:" + dir}
	cases := []struct {
		name string
		env  []string
		want string
		err  error
	}{
		{"program", path, program, nil},
		{"./program", nil, program, nil},
		{program, nil, program, nil},
		{"program", []string{"PATH="}, "", fs.ErrNotExist},
		{"program", []string{"PATH=.:/bin"}, program, nil},
		{"text", path, "", fs.ErrPermission},
		{"gone", path, "", fs.ErrNotExist},
		{dir, nil, dir, fs.ErrPermission},
	}
	for _, c := range cases {
		if got, err := lookup(c.name, c.env, dir); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v, not %q, %v", c.name, got, err, c.want, c.err)
		}
	}
}

func TestPasswdShell(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	text := "root:x:0:0::/root:/bin/bash\nbroken\napp:x:1000:1000::/:/sbin/nologin\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[int]string{0: "/bin/bash", 1000: "/sbin/nologin", 7: ""} {
		if got := passwdShell(file, uid); got != want {
			t.Errorf("%d: %q, not %q", uid, got, want)
		}
	}
}

// TestOrphansAreReapedAndOurOwnAreNot makes this process a subreaper, as PID 1 is.
func TestOrphansAreReapedAndOurOwnAreNot(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	go Reap()
	for n := range 30 {
		// The shell ends at once; the child it leaves becomes ours.
		cmd := exec.Command("/bin/sh", "-c", "(sleep 0.0$1; exit 5) & exit 3", "sh", string(rune('0'+n%5)))
		if err := start(cmd); err != nil {
			t.Fatal(err)
		}
		_ = wait(cmd)
		if code := cmd.ProcessState.ExitCode(); code != 3 {
			t.Fatalf("exit code %d, not 3: somebody else waited", code)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.ECHILD {
			return // nothing is left, dead or alive
		}
		if time.Now().After(deadline) {
			t.Fatal("orphans were not reaped")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

type lifeTold struct{ told []string }

func (l *lifeTold) Starting()    { l.told = append(l.told, "starting") }
func (l *lifeTold) Interrupted() { l.told = append(l.told, "interrupted") }
func (l *lifeTold) Typed()       { l.told = append(l.told, "typed") }
func (l *lifeTold) Ended()       { l.told = append(l.told, "ended") }

func TestInterruptsAreToldFromWhatIsTyped(t *testing.T) {
	for input, want := range map[string]string{
		"\x03": "interrupted", "\x03\x03": "interrupted", "\x1c": "interrupted",
		"y\r": "typed", "\x03y": "typed", "y\x03": "typed", "\x04": "typed",
	} {
		life, written := &lifeTold{}, &bytes.Buffer{}
		session := &Session{Life: life, Terminal: &Terminal{}}
		if _, err := session.input(written).Write([]byte(input)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(life.told, []string{want}) || written.String() != input {
			t.Errorf("%q: told %v, written %q", input, life.told, written)
		}
	}
}
