package sync

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	gosync "sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const watchFor = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB |
	unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_DELETE_SELF |
	unix.IN_MOVE_SELF | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

// readEvery: while files are staged, each makes half a dozen events, of temporary names. Read
// one by one they cost more than the files: a wake-up each. The queue holds 16,384.
const readEvery = 20 * time.Millisecond

// eventsAhead of batches that wait for the session, which may be hashing.
const eventsAhead = 64

// event is a path to look at again. isOpen: its writer still has it open. isNamed: it got
// that name, as a file that was renamed or a folder that was made; what is in it is told
// by events of its own.
type event struct {
	path    string
	isOpen  bool
	isNamed bool
}

// watcher tells which paths to look at again. An empty path is all of them.
type watcher struct {
	file   *os.File
	fd     int
	Dirty  chan []event
	mu     gosync.Mutex
	folder map[int32]string
	// failed is why a folder could not be watched: then the session polls.
	failed error
	// isStaging: most of what happens is ours.
	isStaging atomic.Bool
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &watcher{
		file: os.NewFile(uintptr(fd), "inotify"), fd: fd,
		Dirty: make(chan []event, eventsAhead), folder: map[int32]string{},
	}
	go w.read()
	return w, nil
}

// Watch begins to watch a folder that is open. It comes before the folder is read, so
// that nothing falls in between; again is right after a rename.
func (w *watcher) Watch(path string, fd int) {
	// By its descriptor: the path could lead elsewhere by now.
	wd, err := unix.InotifyAddWatch(w.fd, fmt.Sprintf("/proc/self/fd/%d", fd), watchFor)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if !errors.Is(err, unix.ENOENT) && w.failed == nil {
			w.failed = err
		}
		return
	}
	w.folder[int32(wd)] = path
}

// Failed gives why not everything is watched, or nil.
func (w *watcher) Failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// Close ends it; Dirty is closed then.
func (w *watcher) Close() { _ = w.file.Close() }

func (w *watcher) read() {
	defer close(w.Dirty)
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buffer)
		if err != nil {
			return
		}
		if paths := w.paths(buffer[:n]); len(paths) > 0 {
			w.Dirty <- paths
		}
		if w.isStaging.Load() {
			time.Sleep(readEvery)
		}
	}
}

func (w *watcher) paths(events []byte) []event {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[event]bool{}
	var paths []event
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := int(binary.NativeEndian.Uint32(events[12:]))
		name := events[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+size]
		events = events[unix.SizeofInotifyEvent+size:]
		path, ok := w.folder[wd]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			path, ok = "", true
		case mask&unix.IN_IGNORED != 0:
			delete(w.folder, wd)
			continue
		case size > 0:
			path = join(path, string(bytes.TrimRight(name, "\x00")))
			if bytes.HasPrefix(name, []byte(ownPrefix)) {
				continue // ours
			}
		}
		isOpen := mask&(unix.IN_MODIFY|unix.IN_CREATE) != 0 && mask&unix.IN_ISDIR == 0
		isFolder := mask&unix.IN_ISDIR != 0
		isNamed := mask == unix.IN_MOVED_TO || isFolder && mask&^(unix.IN_ISDIR|unix.IN_CREATE|unix.IN_MOVED_TO) == 0
		one := event{path, isOpen, isNamed}
		if ok && !seen[one] {
			// In order: what was closed may be opened again.
			delete(seen, event{path: path, isOpen: !isOpen})
			seen[one] = true
			paths = append(paths, one)
		}
	}
	return paths
}
