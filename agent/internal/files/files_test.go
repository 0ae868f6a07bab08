package files

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type message struct {
	Begin   *int
	File    bool
	Name    string
	Link    string
	Mode    uint32
	Size    int
	End     *int
	Error   string
	LeftOut []string `json:"left_out"`
	Settled bool
}

// asked serves one client, and gives what it is told as lines of text.
func asked(t *testing.T, ask Ask) *bufio.Reader {
	t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(theirs) }()
	t.Cleanup(func() {
		_ = ours.Close()
		<-served
	})
	text, _ := json.Marshal(ask)
	if _, err := ours.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(ours)
}

// next is one message as text, and its bytes behind it.
func next(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	line, err := in.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatal(err)
	}
	switch {
	case m.Settled:
		return "settled"
	case m.Begin != nil:
		return fmt.Sprintf("begin %d file %v", *m.Begin, m.File)
	case m.End != nil:
		return strings.TrimSpace(fmt.Sprintf("end %d %s %s", *m.End, m.Error, strings.Join(m.LeftOut, ",")))
	case m.Link != "":
		return m.Name + " -> " + m.Link
	}
	data := make([]byte, m.Size)
	if _, err := io.ReadFull(in, data); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %o %s", m.Name, m.Mode, data)
}

func expect(t *testing.T, in *bufio.Reader, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if got := next(t, in); got != want {
			t.Fatalf("told %q, not %q", got, want)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// volume is as the kubelet writes one.
func volume(t *testing.T, folder, version, text string) {
	t.Helper()
	write(t, filepath.Join(folder, version, "app.yml"), text)
	link(t, version, filepath.Join(folder, "..data_tmp"))
	if err := os.Rename(filepath.Join(folder, "..data_tmp"), filepath.Join(folder, "..data")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(folder, "app.yml")); err != nil {
		link(t, "..data/app.yml", filepath.Join(folder, "app.yml"))
	}
}

func TestAVolumeIsToldWholeAndAgainWhenItIsSwitched(t *testing.T) {
	folder := t.TempDir()
	volume(t, folder, "..1", "one")
	in := asked(t, Ask{Roots: []Root{{folder, true}}, LimitBytes: 100})
	expect(t, in, "begin 0 file false", "..1/app.yml 644 one", "..data -> ..1", "app.yml -> ..data/app.yml", "end 0", "settled")
	begun := time.Now()
	volume(t, folder, "..2", "two")
	expect(t, in, "begin 0 file false", "..2/app.yml 644 two", "..data -> ..2", "app.yml -> ..data/app.yml", "end 0")
	if took := time.Since(begun); took > 1900*time.Millisecond {
		t.Errorf("told after %v", took)
	}
}

func TestNothingOutsideIsRead(t *testing.T) {
	outside, folder := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "secret"), "not for you")
	link(t, filepath.Join(outside, "secret"), filepath.Join(folder, "absolute"))
	link(t, "../../../../../../../etc/passwd", filepath.Join(folder, "climbing"))
	link(t, outside, filepath.Join(folder, "folder"))
	write(t, filepath.Join(folder, "mine"), "mine")
	in := asked(t, Ask{Roots: []Root{{folder, false}}, LimitBytes: 100})
	expect(t, in, "begin 0 file false", "mine 644 mine", "end 0  absolute,climbing,folder", "settled")
	link(t, outside, filepath.Join(folder, "..data"))
	in = asked(t, Ask{Roots: []Root{{folder, false}}, LimitBytes: 100})
	expect(t, in, "begin 0 file false", "end 0 ..data leads out of the volume", "settled")
}

func TestAFileByItselfAndWhatIsTooLargeOrMissing(t *testing.T) {
	folder := t.TempDir()
	write(t, filepath.Join(folder, "a"), "12345")
	write(t, filepath.Join(folder, "b"), "678901")
	in := asked(t, Ask{Roots: []Root{
		{filepath.Join(folder, "a"), true}, {folder, false}, {filepath.Join(folder, "no"), true},
	}, LimitBytes: 5})
	expect(t, in, "begin 0 file true", "a 644 12345", "end 0")
	// The file that is a root of its own is told there.
	expect(t, in, "begin 1 file false", "end 1 larger than the limit")
	expect(t, in, "begin 2 file false", "end 2 no such file or directory", "settled")
	write(t, filepath.Join(folder, "a"), "6")
	expect(t, in, "begin 0 file true", "a 644 6", "end 0")
}
