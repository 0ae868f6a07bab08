package sync

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What became of an operation.
const (
	done       = 0
	isOther    = 1 // what is there is not what the client knows of
	failed     = 2
	holdsOther = 3 // a folder that is to go holds what is not synced
)

var errOther = errors.New("changed meanwhile")

// applying makes changes in a tree.
type applying struct {
	*tree
	*staging
}

// aside gives the container's version of a conflict another name.
func (a *applying) aside(n Named, beside string, stays bool) error {
	a.tree.place.forgetLast()
	if !staysInside(n.Path) || !staysInside(beside) || parent(beside) != parent(n.Path) {
		return fmt.Errorf("%q is not beside %q", beside, n.Path)
	}
	err := a.tree.place.in(n.Path, func(fd int, name string) error {
		now, _, err := a.peek(fd, name, n.Path)
		if err != nil {
			return err
		}
		if !same(now, n.Entry) {
			return errOther
		}
		if stays {
			return unix.Linkat(fd, name, fd, base(beside), 0)
		}
		return renameFree(fd, name, fd, base(beside))
	})
	a.look(beside)
	if !stays {
		a.look(n.Path)
	}
	return err
}

// renameFree renames to a name that is free, and to no other.
func renameFree(from int, name string, to int, free string) error {
	err := unix.Renameat2(from, name, to, free, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// Some network file systems cannot: looked at instead.
	var stat unix.Stat_t
	if err := unix.Fstatat(to, free, &stat, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return unix.EEXIST
	}
	return unix.Renameat(from, name, to, free)
}

// peek gives what is at a name now, with a file's content looked at if it may have changed.
func (a *applying) peek(fd int, name, path string) (Entry, identity, error) {
	var stat unix.Stat_t
	err := unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return Entry{}, identity{}, nil
	}
	if err != nil {
		return Entry{}, identity{}, err
	}
	id := identityOf(&stat)
	kind := stat.Mode & unix.S_IFMT
	if a.ignore.skips(path, kind == unix.S_IFDIR) {
		return Entry{Kind: Other}, id, nil
	}
	if kind == unix.S_IFDIR {
		return Entry{Kind: Folder}, id, nil
	}
	if err := a.one(fd, name, path, map[string]bool{}); err != nil {
		return Entry{}, id, err
	}
	now := a.entries[path]
	if now == nil || a.unstable[path] {
		return Entry{Kind: Other}, id, nil
	}
	return now.Entry, now.identity, nil
}

// change makes one path what the client says, if it is what the client thinks.
func (a *applying) change(path string, was, wanted Entry) error {
	if !staysInside(path) || a.ignore.never(path) {
		return fmt.Errorf("%q is not a path of this folder", path)
	}
	if was.Kind == Folder || wanted.Kind == Folder {
		a.tree.place.forgetLast()
	}
	return a.tree.place.in(path, func(fd int, name string) error {
		a.tree.place.remember(parent(path), fd)
		now, id, err := a.peek(fd, name, path)
		if err != nil {
			return err
		}
		if !same(now, was) {
			return errOther
		}
		if err := a.replace(fd, name, path, now, id, wanted); err != nil {
			return err
		}
		a.record(fd, name, path, wanted)
		return nil
	})
}

func (a *applying) replace(fd int, name, path string, now Entry, id identity, wanted Entry) error {
	if now.Kind == Folder && wanted.Kind != Folder {
		if err := a.removeFolder(fd, name, path); err != nil || wanted.Kind == Gone {
			return err
		}
		now = Entry{}
	}
	switch wanted.Kind {
	case Gone:
		return unix.Unlinkat(fd, name, 0)
	case Folder:
		return a.makeFolder(fd, name, now)
	case Link:
		return a.putLink(fd, name, path, now, wanted.Target)
	case File:
		return a.putFile(fd, name, path, now, id, wanted)
	}
	return fmt.Errorf("nothing can become %q", wanted.Kind)
}

func (a *applying) makeFolder(fd int, name string, now Entry) error {
	if now.Kind == Folder {
		return nil
	}
	if now.Kind != Gone {
		if err := unix.Unlinkat(fd, name, 0); err != nil {
			return err
		}
	}
	return unix.Mkdirat(fd, name, 0o755)
}

func (a *applying) putLink(fd int, name, path string, now Entry, target string) error {
	if !pointsInside(path, target) {
		return fmt.Errorf("the link leads out of the folder, to %q", target)
	}
	if now.Kind == Gone {
		return unix.Symlinkat(target, fd, name)
	}
	temporary := a.tree.place.nextTemporary()
	if err := unix.Symlinkat(target, fd, temporary); err != nil {
		return err
	}
	if err := unix.Renameat(fd, temporary, fd, name); err != nil {
		_ = unix.Unlinkat(fd, temporary, 0)
		return err
	}
	return nil
}

func (a *applying) putFile(fd int, name, path string, now Entry, id identity, wanted Entry) error {
	one := a.files[path]
	if one == nil || one.entry.Digest != wanted.Digest {
		return errors.New("it was not sent")
	}
	if one.err != nil {
		return one.err
	}
	from, err := a.tree.place.folder(one.folder)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if now.Kind == Gone {
		if err := renameFree(from, one.name, fd, name); err != nil {
			if errors.Is(err, unix.EEXIST) {
				return errOther
			}
			return err
		}
	} else {
		if now.Kind == File {
			_ = unix.Fchmodat(from, one.name, uint32(mode(os.FileMode(id.mode&0o777), wanted.Executable)), 0)
		}
		if err := exchange(from, one.name, fd, name, id); err != nil {
			return err
		}
	}
	delete(a.files, path)
	return nil
}

// exchange puts a staged file in the place of another one, and gives that back if it is
// not the one that was looked at: a program may have written to it in between.
func exchange(from int, staged string, fd int, name string, looked identity) error {
	err := unix.Renameat2(from, staged, fd, name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return unix.Renameat(from, staged, fd, name)
	}
	if err != nil {
		return err
	}
	var out unix.Stat_t
	if err := unix.Fstatat(from, staged, &out, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	was := identityOf(&out)
	if was.ino != looked.ino || was.size != looked.size || was.mtime != looked.mtime {
		_ = unix.Renameat2(from, staged, fd, name, unix.RENAME_EXCHANGE)
		return errOther
	}
	return unix.Unlinkat(from, staged, 0)
}

var errHolds = errors.New("it holds what is not synced")

// removeFolder removes an empty folder, and with it what the rules say may go (`(?d)`).
func (a *applying) removeFolder(fd int, name, path string) error {
	err := unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	below, err := openFolder(fd, name)
	if err != nil {
		return err
	}
	defer unix.Close(below)
	found, err := names(below)
	if err != nil {
		return err
	}
	for _, each := range found {
		if !a.ignore.mayGo(join(path, each), false) {
			return errHolds
		}
	}
	for _, each := range found {
		if err := a.removeIgnored(below, each, join(path, each)); err != nil {
			return err
		}
	}
	return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
}

func (a *applying) removeIgnored(fd int, name, path string) error {
	err := unix.Unlinkat(fd, name, 0)
	if errors.Is(err, unix.EISDIR) {
		return a.removeFolder(fd, name, path)
	}
	return err
}

// record keeps what was made, so that it is not read again.
func (a *applying) record(fd int, name, path string, wanted Entry) {
	delete(a.changed, path)
	if wanted.Kind == Gone {
		delete(a.entries, path)
		return
	}
	var stat unix.Stat_t
	if unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW) != nil {
		a.changed[path] = true
		return
	}
	id := identityOf(&stat)
	young := time.Since(time.Unix(0, id.ctime)) < youngFor
	a.entries[path] = &known{wanted, id, young}
	if wanted.Kind == Folder {
		if below, err := openFolder(fd, name); err == nil {
			a.watched(path, below)
			_ = unix.Close(below)
		}
	}
}

func statusOf(err error) (byte, string) {
	switch {
	case err == nil:
		return done, ""
	case errors.Is(err, errOther), isAbsent(err):
		return isOther, err.Error()
	case errors.Is(err, errHolds):
		return holdsOther, err.Error()
	}
	return failed, err.Error()
}
