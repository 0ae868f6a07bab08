package sync

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stagedFile is a whole file under a temporary name, in the place's file system.
type stagedFile struct {
	entry  Entry
	folder string
	name   string
	err    error
}

// staging receives one file after the other; all of them are there before the first rename.
type staging struct {
	place   *place
	files   map[string]*stagedFile
	writers *writers
	// small is the one that is received, if it is written by a writer once it is here.
	small *smallFile
	// the one that is received
	now  *stagedFile
	fd   int
	hash hash.Hash
	left int64
	// made of another version, where that is there
	made *assembly
}

func newStaging(p *place) *staging {
	return &staging{place: p, fd: -1, files: map[string]*stagedFile{}, writers: newWriters(p)}
}

// room gives how many bytes can be staged, as far as that can be known.
func (s *staging) room() uint64 {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(s.place.fd, &stat); err != nil {
		return math.MaxInt64 // then writing will tell
	}
	return stat.Bavail * uint64(stat.Bsize)
}

func (s *staging) begin(n Named) {
	s.end()
	if n.Size <= smallAtMost {
		s.small = &smallFile{stagedFile: &stagedFile{entry: n.Entry}, path: n.Path}
		s.files[n.Path] = s.small.stagedFile
		if n.Size == 0 {
			s.end()
		}
		return
	}
	s.beginLarge(n)
}

func (s *staging) beginLarge(n Named) {
	s.end()
	s.now = &stagedFile{entry: n.Entry}
	s.files[n.Path] = s.now
	s.left, s.hash = n.Size, sha256.New()
	s.fd, s.now.err = s.now.create(s.place, n.Path)
	if s.left == 0 {
		s.end()
	}
}

// beginWithBase begins a file that is made of the version at its path, as far as that goes.
func (s *staging) beginWithBase(n Named, sums *sums) (lacking []byte) {
	s.beginLarge(n)
	if s.now == nil {
		return binary.BigEndian.AppendUint32(nil, 0)
	}
	s.made = &assembly{size: n.Size, sums: sums}
	_ = s.place.in(n.Path, func(fd int, name string) (err error) {
		s.made.base, err = openFile(fd, name)
		return err
	})
	lacking, err := s.made.look()
	s.take(err, func() error { return s.made.known(s) })
	return lacking
}

// Write takes what is in the file at hand.
func (s *staging) Write(content []byte) (int, error) {
	s.left -= int64(len(content))
	if s.left < 0 {
		return 0, errMore
	}
	s.hash.Write(content)
	return len(content), writeAll(s.fd, content)
}

func writeAll(fd int, content []byte) error {
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		content = content[max(n, 0):]
	}
	return nil
}

var errMore = errors.New("more came than the file is long")

func (s *staging) take(err error, write func() error) {
	s.now.err = errors.Join(s.now.err, err)
	if s.now.err == nil {
		s.now.err = write()
	}
	if s.left <= 0 {
		s.end()
	}
}

// create makes the temporary file, in the folder that it is to be in if that is there.
func (one *stagedFile) create(p *place, path string) (fd int, err error) {
	folder, at, err := p.nearest(path)
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	p.remember(folder, at)
	name := p.nextTemporary()
	fd, err = unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, err
	}
	one.folder, one.name = folder, name
	return fd, nil
}

func (s *staging) write(content []byte) {
	if s.small != nil {
		s.small.take(content)
		if len(s.small.content) >= int(s.small.entry.Size) {
			s.end()
		}
		return
	}
	if s.now == nil {
		return
	}
	s.take(nil, func() error {
		if s.made != nil {
			return s.made.take(content, s)
		}
		_, err := s.Write(content)
		return err
	})
}

// end closes the file that is received. One that did not come whole is not used.
func (s *staging) end() {
	if s.small != nil {
		small := s.small
		s.small = nil
		s.writers.write(small)
		return
	}
	if s.now == nil {
		return
	}
	one := s.now
	s.now = nil
	if s.made != nil {
		s.made.close()
		s.made = nil
	}
	if s.fd < 0 {
		return
	}
	if one.err == nil && (s.left != 0 || [32]byte(s.hash.Sum(nil)) != one.entry.Digest) {
		one.err = errNotWhole
	}
	one.close(s.fd)
	s.fd = -1
}

// settle waits until all that came is on the disk.
func (s *staging) settle() {
	s.end()
	s.writers.settle()
}

var errNotWhole = errors.New("it changed while it was sent")

// close gives a file that is whole its permissions and time.
func (one *stagedFile) close(fd int) {
	// The time last: writing sets it.
	if one.err == nil {
		permissions := uint32(mode(0o644, one.entry.Executable))
		one.err = errors.Join(unix.Fchmod(fd, permissions), futimens(fd, one.entry.Mtime))
	}
	one.err = errors.Join(one.err, unix.Close(fd))
}

// futimens is utimensat without a path, which the library does not have.
func futimens(fd int, mtime int64) error {
	times := [2]unix.Timespec{unix.NsecToTimespec(mtime), unix.NsecToTimespec(mtime)}
	_, _, code := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if code != 0 {
		return code
	}
	return nil
}

// mode gives permissions with those to execute set or taken where reading is allowed.
func mode(permissions os.FileMode, executable bool) os.FileMode {
	permissions = permissions&0o666 | 0o600
	if executable {
		permissions |= permissions & 0o444 >> 2
	}
	return permissions
}

// discard removes what was staged and not used.
func (s *staging) discard() {
	s.settle()
	for path, one := range s.files {
		if one.name != "" {
			s.remove(one)
		}
		delete(s.files, path)
	}
}

func (s *staging) remove(one *stagedFile) {
	if fd, err := s.place.folder(one.folder); err == nil {
		_ = unix.Unlinkat(fd, one.name, 0)
		_ = unix.Close(fd)
	}
}
