// Package files is the subsystem `towline-files`: it reads the container's files
// that a client names, and tells them anew when they change. docs/protocol.md has
// the messages. Nothing outside of the named roots is read, wherever links lead.
package files

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	// lookEvery is half of what a change may take to be seen on the laptop.
	lookEvery = time.Second
	// triesAtMost: the kubelet replaces a version while it is read, once in a minute.
	triesAtMost = 5
	// askAtMost bytes for the client's one line.
	askAtMost = 1 << 20
	// entriesAtMost of one root: more is a mistake, such as the image's whole disk.
	entriesAtMost = 20_000
	// current is the kubelet's link to the version that is in force.
	current = "..data"
)

// Root is a path whose files are told.
type Root struct {
	Path string `json:"path"`
	// Watch tells them again when they change.
	Watch bool `json:"watch"`
}

// Ask is the client's one line.
type Ask struct {
	Roots      []Root `json:"roots"`
	LimitBytes int64  `json:"limit_bytes"`
}

// begin, entry and end are what a root is told in; an entry's bytes follow its line.
type begin struct {
	Begin int  `json:"begin"`
	File  bool `json:"file,omitempty"`
}

type entry struct {
	Name string `json:"name"`
	Link string `json:"link,omitempty"`
	Mode uint32 `json:"mode,omitempty"`
	Size int    `json:"size"`
}

type end struct {
	End     int      `json:"end"`
	Error   string   `json:"error,omitempty"`
	LeftOut []string `json:"left_out,omitempty"`
}

type settled struct {
	Settled bool `json:"settled"`
}

var (
	errTooLarge = errors.New("larger than the limit")
	errTooMany  = fmt.Errorf("more than %d files", entriesAtMost)
)

// Serve answers one client until its channel ends.
func Serve(channel io.ReadWriter) error {
	in := bufio.NewReaderSize(channel, 1<<12)
	line, err := readLine(in)
	if err != nil {
		return fmt.Errorf("read what is wanted: %w", err)
	}
	var ask Ask
	if err := json.Unmarshal(line, &ask); err != nil {
		return fmt.Errorf("read what is wanted: %w", err)
	}
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(gone)
	}()
	served := &server{ask: ask, out: bufio.NewWriterSize(channel, 1<<16), told: map[int]string{}}
	if err := served.round(); err != nil {
		return err
	}
	if err := served.send(settled{true}, nil); err != nil {
		return err
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if err := served.out.Flush(); err != nil {
			return fmt.Errorf("tell the files: %w", err)
		}
		select {
		case <-gone:
			return nil
		case <-ticker.C:
		}
		if err := served.round(); err != nil {
			return err
		}
	}
}

func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, more, err := in.ReadLine()
		if err != nil {
			return nil, err
		}
		line = append(line, part...)
		if len(line) > askAtMost {
			return nil, errTooLarge
		}
		if !more {
			return line, nil
		}
	}
}

type server struct {
	ask  Ask
	out  *bufio.Writer
	told map[int]string
}

// round tells every root that is new or has changed.
func (s *server) round() error {
	for number, root := range s.ask.Roots {
		was, known := s.told[number]
		if known && !root.Watch {
			continue
		}
		now := version(root.Path)
		if known && now == was {
			continue
		}
		if err := s.tell(number, root); err != nil {
			return fmt.Errorf("tell %s: %w", root.Path, err)
		}
		s.told[number] = now
	}
	return nil
}

// version changes whenever what is below a path does. It is taken before the
// files are read: what changes meanwhile is told once more.
func version(place string) string {
	if target, err := os.Readlink(path.Join(place, current)); err == nil {
		return target
	}
	var state strings.Builder
	count := 0
	_ = filepath.WalkDir(place, func(name string, found fs.DirEntry, err error) error {
		if count++; err != nil || count > entriesAtMost {
			return fs.SkipDir
		}
		if info, err := found.Info(); err == nil {
			fmt.Fprintf(&state, "%s %d %d %v\n", name, info.Size(), info.ModTime().UnixNano(), info.Mode())
		}
		return nil
	})
	return state.String()
}

// tell tells one root; a version that went away while it was read is begun again.
func (s *server) tell(number int, root Root) error {
	for try := 1; ; try++ {
		reading := &reading{server: s, root: root.Path, left: s.ask.LimitBytes}
		info, err := os.Stat(root.Path)
		if err == nil {
			if err := s.send(begin{number, !info.IsDir()}, nil); err != nil {
				return err
			}
			err = reading.read(info)
		} else if err := s.send(begin{number, false}, nil); err != nil {
			return err
		}
		var lost *writeError
		if errors.As(err, &lost) {
			return err
		}
		if errors.Is(err, fs.ErrNotExist) && info != nil && try < triesAtMost {
			continue
		}
		ended := end{End: number, LeftOut: reading.leftOut}
		if err != nil {
			ended.Error = reason(err)
		}
		return s.send(ended, nil)
	}
}

// reason without the path, which the client knows.
func reason(err error) string {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return failed.Err.Error()
	}
	return err.Error()
}

// writeError is the client's channel failing, and not the file.
type writeError struct{ error }

func (s *server) send(message any, data []byte) error {
	line, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if _, err := s.out.Write(append(line, '\n')); err != nil {
		return &writeError{err}
	}
	if _, err := s.out.Write(data); err != nil {
		return &writeError{err}
	}
	return nil
}

// reading is one pass over one root.
type reading struct {
	*server
	root    string
	left    int64
	count   int
	leftOut []string
}

func (r *reading) read(info fs.FileInfo) error {
	if !info.IsDir() {
		return r.single()
	}
	root, err := os.OpenRoot(r.root)
	if err != nil {
		return err
	}
	defer root.Close()
	if target, err := root.Readlink(current); err == nil {
		return r.kubelets(root, target)
	}
	return r.folder(root, ".")
}

// single is a file mounted by subPath, or named by itself.
func (r *reading) single() error {
	file, err := os.Open(r.root)
	if err != nil {
		return err
	}
	defer file.Close()
	return r.file(file, path.Base(r.root))
}

// kubelets is a volume that the kubelet keeps: the version in force whole, then
// the links to it.
func (r *reading) kubelets(root *os.Root, target string) error {
	if !filepath.IsLocal(target) {
		return fmt.Errorf("%s leads out of the volume", current)
	}
	if err := r.folder(root, target); err != nil {
		return err
	}
	listed, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, found := range listed {
		if found.Type()&fs.ModeSymlink == 0 {
			continue // older versions, and mounts within this one
		}
		if err := r.link(root, found.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) folder(root *os.Root, place string) error {
	return fs.WalkDir(root.FS(), place, func(name string, found fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if r.count++; r.count > entriesAtMost {
			return errTooMany
		}
		switch {
		case found.IsDir():
			if name != place && r.isRoot(name) {
				return fs.SkipDir
			}
			return nil
		case found.Type()&fs.ModeSymlink != 0:
			return r.link(root, name)
		case found.Type().IsRegular():
			if r.isRoot(name) {
				return nil
			}
			file, err := root.Open(name)
			if err != nil {
				return err
			}
			defer file.Close()
			return r.file(file, name)
		}
		r.leftOut = append(r.leftOut, name)
		return nil
	})
}

// isRoot tells whether a name is told by itself.
func (r *reading) isRoot(name string) bool {
	whole := path.Join(r.root, name)
	for _, each := range r.ask.Roots {
		if each.Path == whole {
			return true
		}
	}
	return false
}

func (r *reading) link(root *os.Root, name string) error {
	target, err := root.Readlink(name)
	if err != nil {
		return err
	}
	if path.IsAbs(target) || !filepath.IsLocal(path.Join(path.Dir(name), target)) {
		r.leftOut = append(r.leftOut, name)
		return nil
	}
	return r.send(entry{Name: name, Link: target}, nil)
}

func (r *reading) file(file *os.File, name string) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		r.leftOut = append(r.leftOut, name)
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(file, r.left+1))
	if err != nil {
		return err
	}
	if r.left -= int64(len(data)); r.left < 0 {
		return errTooLarge
	}
	return r.send(entry{Name: name, Mode: uint32(info.Mode().Perm()), Size: len(data)}, data)
}
