package sync

import (
	"crypto/sha256"
	"errors"
	"os"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// youngFor: the clock of a file system is coarse, so a file that was changed so shortly
// before it was hashed may have changed behind that without a trace in its stat.
const youngFor = 2 * time.Second

// leftoverFor: temporary files that nobody wrote to for so long are of a channel that died.
const leftoverFor = time.Minute

// identity is what stat says of a file whose content has not changed.
type identity struct {
	size, mtime, ctime int64
	ino                uint64
	mode               uint32
}

type known struct {
	Entry
	identity
	young bool
}

// tree is what was last seen in a place, with the content's digests.
type tree struct {
	place   *place
	ignore  *Ignore
	entries map[string]*known
	// changed paths since the client was last told.
	changed map[string]bool
	// unstable files changed while they were read.
	unstable map[string]bool
	watched  func(folder string, fd int)
	// trustsYoung: a file's identity says enough now, though it was hashed just now.
	trustsYoung bool
	// written now: these stay as they are known.
	written map[string]time.Time
	buffer  []byte
}

func newTree(p *place, ignore *Ignore) *tree {
	return &tree{
		place: p, ignore: ignore, entries: map[string]*known{}, changed: map[string]bool{},
		unstable: map[string]bool{}, watched: func(string, int) {}, buffer: make([]byte, 128<<10),
	}
}

// scan looks at everything.
func (t *tree) scan() error {
	seen := map[string]bool{}
	if err := t.walk(t.place.fd, "", false, seen); err != nil {
		return err
	}
	for path := range t.entries {
		if !seen[path] {
			t.forget(path)
		}
	}
	return nil
}

// look looks at one path anew, and at what is below a folder.
func (t *tree) look(path string) {
	if path == "" {
		_ = t.scan()
		return
	}
	if t.ignore.Hides(path, false) && t.ignore.Hides(path, true) {
		// Only a folder that is walked all the same can hold something.
		if !t.ignore.entersIgnored(path) {
			return
		}
	}
	seen := map[string]bool{}
	var was *known
	if now := t.entries[path]; now != nil {
		before := *now
		was = &before
	}
	err := t.place.in(path, func(folder int, name string) error {
		return t.one(folder, name, path, seen)
	})
	if err != nil && !isAbsent(err) && was != nil {
		return // a folder above cannot be read: nothing is known of this one
	}
	if was == nil || was.Kind != Folder {
		// Only a folder had anything below it; to go through all paths for each of many new
		// files takes seconds.
		if was != nil && !seen[path] {
			t.forget(path)
		}
		return
	}
	below := path + "/"
	for each := range t.entries {
		if (each == path || strings.HasPrefix(each, below)) && !seen[each] {
			t.forget(each)
		}
	}
}

func isAbsent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

func (t *tree) forget(path string) {
	delete(t.entries, path)
	t.changed[path] = true
}

// walk looks at what is in a folder. inIgnored: it is ignored itself, and walked for what
// the rules take back.
func (t *tree) walk(fd int, path string, inIgnored bool, seen map[string]bool) error {
	t.watched(path, fd)
	found, err := names(fd)
	if err != nil {
		return err
	}
	sort.Strings(found)
	for _, name := range found {
		if strings.HasPrefix(name, ownPrefix) {
			t.sweep(fd, name)
			continue
		}
		if err := t.one(fd, name, join(path, name), seen); err != nil && !isAbsent(err) {
			reason := notSynced("it cannot be read: " + err.Error())
			t.note(join(path, name), reason, identity{}, false, seen)
		}
	}
	return nil
}

// sweep removes a temporary file that somebody left behind.
func (t *tree) sweep(fd int, name string) {
	if !strings.HasPrefix(name, ownPrefix+"tmp-") || strings.HasPrefix(name, t.place.temporary) {
		return
	}
	var stat unix.Stat_t
	if unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return
	}
	if time.Since(time.Unix(stat.Ctim.Unix())) > leftoverFor {
		_ = unix.Unlinkat(fd, name, 0)
	}
}

// one looks at one name in a folder.
func (t *tree) one(fd int, name, path string, seen map[string]bool) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := stat.Mode & unix.S_IFMT
	isFolder := kind == unix.S_IFDIR
	if t.ignore.skips(path, isFolder) {
		if isFolder && t.ignore.entersIgnored(path) {
			return t.ignoredFolder(fd, name, path, seen)
		}
		return nil
	}
	id := identityOf(&stat)
	switch {
	case len(path) > pathAtMost:
		// It cannot be named; and what was never synced is no deletion.
		return nil
	case isFolder:
		return t.subfolder(fd, name, path, id, seen)
	case kind == unix.S_IFLNK:
		target, err := readLink(fd, name)
		if err != nil {
			return err
		}
		entry := Entry{Kind: Link, Mtime: id.mtime, Target: target}
		if !pointsInside(path, target) {
			entry = notSynced("a link that leads out of the folder")
		}
		t.note(path, entry, id, false, seen)
	case kind == unix.S_IFREG:
		return t.file(fd, name, path, id, seen)
	default:
		t.note(path, notSynced(kindNames[kind]), id, false, seen)
	}
	return nil
}

var kindNames = map[uint32]string{
	unix.S_IFSOCK: "a socket", unix.S_IFIFO: "a FIFO",
	unix.S_IFBLK: "a device", unix.S_IFCHR: "a device",
}

// notSynced is the entry of what is there and stays where it is, with the reason.
func notSynced(reason string) Entry { return Entry{Kind: Other, Target: reason} }

func (t *tree) subfolder(fd int, name, path string, id identity, seen map[string]bool) error {
	below, err := openFolder(fd, name)
	if err != nil {
		return err
	}
	defer unix.Close(below)
	t.note(path, Entry{Kind: Folder}, id, false, seen)
	return t.walk(below, path, false, seen)
}

// ignoredFolder walks a folder that is ignored; it counts if something in it is not.
func (t *tree) ignoredFolder(fd int, name, path string, seen map[string]bool) error {
	below, err := openFolder(fd, name)
	if err != nil {
		return err
	}
	defer unix.Close(below)
	before := len(seen)
	if err := t.walk(below, path, true, seen); err != nil {
		return err
	}
	if len(seen) > before {
		t.note(path, Entry{Kind: Folder}, identity{}, false, seen)
	}
	return nil
}

func identityOf(stat *unix.Stat_t) identity {
	return identity{
		size: stat.Size, mtime: stat.Mtim.Nano(), ctime: stat.Ctim.Nano(), ino: stat.Ino,
		mode: stat.Mode,
	}
}

func (t *tree) file(fd int, name, path string, id identity, seen map[string]bool) error {
	was := t.entries[path]
	if was != nil && was.Kind == File && was.identity == id && (!was.young || t.trustsYoung) {
		seen[path] = true
		return nil
	}
	if _, ok := t.written[path]; ok {
		if was != nil {
			seen[path] = true
		}
		return nil
	}
	opened, err := openRaw(fd, name)
	if err != nil {
		return err
	}
	defer unix.Close(opened)
	digest, now, stable, err := t.digest(opened)
	if err != nil {
		return err
	}
	if !stable {
		t.unstable[path] = true
		// Not what it was and not yet what it will be: as it was, until it is at rest.
		seen[path] = true
		if was == nil {
			delete(seen, path)
		}
		return nil
	}
	entry := Entry{
		Kind: File, Executable: now.mode&0o100 != 0, Mtime: now.mtime, Size: now.size, Digest: digest,
	}
	young := time.Since(time.Unix(0, max(now.ctime, now.mtime))) < youngFor
	t.note(path, entry, now, young, seen)
	return nil
}

// openFile opens a regular file; one that became a FIFO meanwhile does not block.
func openFile(fd int, name string) (*os.File, error) {
	opened, err := openRaw(fd, name)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), name), nil
}

// openRaw is for the many: an os.File asks the kernel whether it could be polled.
func openRaw(fd int, name string) (int, error) {
	opened, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(opened, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(opened)
		return -1, errors.Join(err, unix.EINVAL)
	}
	return opened, nil
}

// digest reads a file as long as it was at the beginning; one that grows for ever ends, too.
func (t *tree) digest(fd int) (sum [32]byte, now identity, stable bool, err error) {
	var before, after unix.Stat_t
	if err = unix.Fstat(fd, &before); err != nil {
		return
	}
	hash := sha256.New()
	left := before.Size
	for left > 0 {
		n, err := unix.Read(fd, t.buffer[:min(left, int64(len(t.buffer)))])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return sum, now, false, err
		}
		if n == 0 {
			break
		}
		hash.Write(t.buffer[:n])
		left -= int64(n)
	}
	if err = unix.Fstat(fd, &after); err != nil {
		return
	}
	hash.Sum(sum[:0])
	now = identityOf(&after)
	first := identityOf(&before)
	return sum, now, first == now && left == 0, nil
}

func (t *tree) note(path string, entry Entry, id identity, young bool, seen map[string]bool) {
	seen[path] = true
	was := t.entries[path]
	if was == nil || !same(was.Entry, entry) {
		t.changed[path] = true
	}
	t.entries[path] = &known{entry, id, young}
}
