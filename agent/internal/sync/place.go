package sync

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// place is a root. Every path is walked from its descriptor, name by name, and no link is
// followed: what is asked for is in the root, or is refused (ELOOP, ENOTDIR).
type place struct {
	path string
	fd   int
	dev  uint64
	// temporary begins the names of this channel's staged files.
	temporary string
	made      atomic.Int64
	// last are the folders that were opened last, for the many files that are in one.
	mu   gosync.Mutex
	last [slots]opened
}

// slots is how many folders are kept open, and how many writers there are.
const slots = 4

type opened struct {
	path string
	fd   int
}

// slot is the folder's place among those that are kept.
func slot(folder string) int {
	sum := fnv.New32a()
	_, _ = io.WriteString(sum, folder)
	return int(sum.Sum32() % slots)
}

// refusedRoots are no folders to be synced into.
var refusedRoots = []string{"/", "/proc", "/sys", "/dev", "/towline"}

func openPlace(path string) (*place, error) {
	clean := filepath.Clean(path)
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s is not an absolute path", path)
	}
	for _, refused := range refusedRoots {
		if clean == refused || refused != "/" && strings.HasPrefix(clean, refused+"/") {
			return nil, fmt.Errorf("%s cannot be synced", clean)
		}
	}
	if err := os.MkdirAll(clean, 0o755); err != nil {
		return nil, err
	}
	// The root itself may be a link of the image's; where that leads it must not be refused.
	real, err := filepath.EvalSymlinks(clean)
	if err != nil {
		return nil, err
	}
	if real != clean {
		return openPlace(real)
	}
	fd, err := unix.Open(real, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: real, Err: err}
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	random := make([]byte, 6)
	_, _ = rand.Read(random)
	return &place{
		path: real, fd: fd, dev: stat.Dev,
		temporary: ownPrefix + "tmp-" + hex.EncodeToString(random) + "-",
	}, nil
}

func (p *place) close() {
	p.forgetLast()
	_ = unix.Close(p.fd)
}

// forgetLast must be called before a path may lead to another folder.
func (p *place) forgetLast() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for each := range p.last {
		if p.last[each].path != "" {
			_ = unix.Close(p.last[each].fd)
			p.last[each].path = ""
		}
	}
}

// isThere tells whether the root's path still leads to what was opened.
func (p *place) isThere() error {
	var now, opened unix.Stat_t
	if err := unix.Lstat(p.path, &now); err != nil {
		return fmt.Errorf("root-gone: %s is gone", p.path)
	}
	if now.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("root-is-no-folder: %s is no folder any more", p.path)
	}
	if err := unix.Fstat(p.fd, &opened); err != nil {
		return err
	}
	if now.Dev != opened.Dev || now.Ino != opened.Ino {
		return fmt.Errorf("root-on-another-disk: %s is another folder than before", p.path)
	}
	return nil
}

// remember keeps a folder open, so that the next file in it does not walk to it again.
func (p *place) remember(path string, fd int) {
	if path == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := &p.last[slot(path)]
	if kept.path == path {
		return
	}
	if again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		if kept.path != "" {
			_ = unix.Close(kept.fd)
		}
		*kept = opened{path, again}
	}
}

// kept opens a folder that is open already, or gives -1.
func (p *place) kept(path string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if kept := &p.last[slot(path)]; path != "" && kept.path == path {
		return unix.FcntlInt(uintptr(kept.fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	return -1, nil
}

// folder opens a folder in the root; the caller closes it.
func (p *place) folder(path string) (int, error) {
	if fd, err := p.kept(path); fd >= 0 || err != nil {
		return fd, err
	}
	fd, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil || path == "" {
		return fd, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := openFolder(fd, name)
		_ = unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

func openFolder(at int, name string) (int, error) {
	return unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// in runs do with the folder that a path is in, and the path's own name.
func (p *place) in(path string, do func(folder int, name string) error) error {
	fd, err := p.folder(parent(path))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd, base(path))
}

// nearest gives the deepest folder above a path that is there.
func (p *place) nearest(path string) (string, int, error) {
	for {
		path = parent(path)
		fd, err := p.folder(path)
		if err == nil || path == "" {
			return path, fd, err
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return "", -1, err
		}
	}
}

func (p *place) nextTemporary() string {
	return fmt.Sprintf("%s%d", p.temporary, p.made.Add(1))
}

// names lists a folder.
func names(fd int) ([]string, error) {
	// A descriptor of its own: os.File closes it, and reading moves its place.
	again, err := openFolder(fd, ".")
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(again), ".")
	defer file.Close()
	return file.Readdirnames(-1)
}

func readLink(at int, name string) (string, error) {
	buffer := make([]byte, pathAtMost+1)
	n, err := unix.Readlinkat(at, name, buffer)
	return string(buffer[:max(n, 0)]), err
}
