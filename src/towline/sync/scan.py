"""The laptop's tree, looked at: as the agent's internal/sync/scan.go looks at its own.

Blocking: run in a thread, one call at a time.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from towline.errors import ManifestError
from towline.sync.hashes import Hashes, packed
from towline.sync.ignore import (
    GIT_NAME,
    OWN_NAME,
    OWN_PREFIX,
    ST_NAME,
    Ignore,
    Rule,
    git_rules,
    syncthing_rules,
)
from towline.sync.model import (
    FOLDER,
    PATH_BYTES_AT_MOST,
    Entry,
    Kind,
    parent,
    points_inside,
    same,
)
from towline.sync.place import TEMPORARY, Identity, Place, digest, identity, open_file

# The clock of a file system is coarse: a file that changed so shortly before it was hashed
# may have changed behind that without a trace in its stat.
_YOUNG_NS = 2_000_000_000
# Temporary files that nobody wrote to for so long are of a client that died.
_LEFTOVER_S = 60.0
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _not_synced(reason: str) -> Entry:
    return Entry(Kind.OTHER, target=reason.encode())


_OTHER = _not_synced("it cannot be read now")
_SPELLED_OTHERWISE = _not_synced("the disk takes it for another name")
_LEADS_OUT = _not_synced("a link that leads out of the folder")
_KINDS = {
    stat.S_IFSOCK: _not_synced("a socket"),
    stat.S_IFIFO: _not_synced("a FIFO"),
    stat.S_IFBLK: _not_synced("a device"),
    stat.S_IFCHR: _not_synced("a device"),
}


def kind_of(full: bytes, path: bytes, mode: int) -> tuple[Kind, str]:
    """What is at a path, and for what is not synced why; blocking.

    Raises:
        OSError: a link cannot be read.
    """
    if stat.S_ISDIR(mode):
        return Kind.FOLDER, ""
    if stat.S_ISREG(mode):
        return Kind.FILE, ""
    if stat.S_ISLNK(mode):
        if points_inside(path, os.readlink(full)):  # noqa: PTH115
            return Kind.LINK, ""
        return Kind.OTHER, _LEADS_OUT.target.decode()
    return Kind.OTHER, _KINDS.get(stat.S_IFMT(mode), _OTHER).target.decode()


def read_ignore(root: Path) -> Ignore:
    """The rules of the folder's .stignore, and of each .towlineignore in it.

    Raises:
        ManifestError: a line of them cannot be understood, or a file cannot be read.
    """
    first = syncthing_rules(
        _text(root / ST_NAME) or "", included=lambda name: _included(root, name)
    )
    ignore = Ignore(first=first)
    # Folders above come first, so that those below can take back; as git reads its own.
    waiting = [b""]
    for folder in waiting:
        full = root / os.fsdecode(folder)
        names: list[os.DirEntry[str]] = []
        with suppress(OSError), os.scandir(full) as found:
            names = list(found)
        if any(item.name == OWN_NAME for item in names):
            rules = git_rules(_text(full / OWN_NAME) or "", base=folder)
            ignore = Ignore(first, ignore.last + rules)
        for item in names:
            if item.is_dir(follow_symlinks=False):
                below = os.fsencode(item.name)
                below = folder + b"/" + below if folder else below
                if not ignore.skips(below, is_folder=True) or ignore.enters_ignored(below):
                    waiting.append(below)
    return ignore


def _included(root: Path, name: str) -> str:
    text = _text(root / name)
    if text is None:
        raise ManifestError(f"{root / ST_NAME}: there is no file {name} to include")
    return text


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from error


class LaptopTree:
    """What was last seen in the laptop's folder.

    Attributes:
        entries: by path.
        changed: paths whose entries became others since somebody last took them.
        watched: told of each folder before it is read.
        unstable: files that changed while they were read: to be looked at again.
        cached: digests of an earlier session, for the first scan.
        hashed: how many files were read so far.
    """

    def __init__(self, place: Place, ignore: Ignore) -> None:
        self.place = place
        self.ignore = ignore
        self.entries: dict[bytes, Entry] = {}
        self.changed: set[bytes] = set()
        self.unstable: set[bytes] = set()
        self.watched: Callable[[bytes, bytes], None] = lambda path, full: None
        self.cached: Hashes = {}
        self.hashed = 0
        self._known: dict[bytes, tuple[Identity, bool]] = {}
        self._stays_away = Ignore()
        self._git_files: dict[bytes, bytes] = {}

    def scan(self) -> None:
        """Look at everything."""
        seen: set[bytes] = set()
        self._walk(self.place.name, b"", seen)
        for path in self.entries.keys() - seen:
            self._forget(path)
        # Each of them was asked for, or is gone.
        self.cached = {}

    def hashes(self) -> bytes:
        """The digests that an identity is enough for, to be kept."""
        entries = self.entries
        return packed(
            (path, known, entries[path].digest)
            for path, (known, is_young) in self._known.items()
            if not is_young and entries[path].kind is Kind.FILE
        )

    def look(self, path: bytes) -> None:
        """Look at one path anew, and at what is below it."""
        if not path:
            self.scan()
            return
        if self.ignore.hides(path, is_folder=False) and self.ignore.hides(path, is_folder=True):
            return
        seen: set[bytes] = set()
        was = self.entries.get(path)
        try:
            if not self.place.is_spelled(path):
                raise FileNotFoundError
            with self.place.folder(parent(path)) as folder:
                name = path[path.rfind(b"/") + 1 :]
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            self._one(self.place.name + b"/" + path, path, found, seen)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in _ABSENT:
                return  # nothing can be known of it now
        if was is None or was.kind is not Kind.FOLDER:
            # Only a folder had anything below it; and to go through all paths for each of
            # many new files takes seconds.
            if was is not None and path not in seen:
                self._forget(path)
            return
        below = path + b"/"
        for each in [p for p in self.entries if p == path or p.startswith(below)]:
            if each not in seen:
                self._forget(each)

    def at(self, path: bytes, folder: int, name: bytes) -> tuple[Entry | None, Identity | None]:
        """What is at a path now, without what is below it: for a change that is to be made."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None, None
        if not self.place.is_spelled(path):
            return _SPELLED_OTHERWISE, None
        is_folder = stat.S_ISDIR(found.st_mode)
        if self.ignore.skips(path, is_folder=is_folder):
            return _OTHER, None
        if is_folder:
            return FOLDER, None
        self._one(self.place.name + b"/" + path, path, found, set())
        if path in self.unstable:
            return _OTHER, None
        return self.entries.get(path), self._known[path][0] if path in self._known else None

    def record(self, path: bytes, entry: Entry | None, folder: int, name: bytes) -> None:
        """Keep what was made, so that it need not be read again."""
        if entry is None:
            self._forget(path)
            return
        found = identity(os.stat(name, dir_fd=folder, follow_symlinks=False))
        self.entries[path] = entry
        self._known[path] = (found, True)

    def stays_away(self, path: bytes) -> bool:
        """Whether some .gitignore ignores a path, so that it does not come to the laptop."""
        return self._stays_away.hides(path, is_folder=False) or self._stays_away.hides(
            path, is_folder=True
        )

    def read_gitignores(self) -> None:
        """Read each .gitignore that was not read as it is."""
        ending = b"/" + GIT_NAME.encode()
        now = {
            path: entry.digest
            for path, entry in self.entries.items()
            if entry.kind is Kind.FILE and (b"/" + path).endswith(ending)
        }
        if now == self._git_files:
            return
        rules: list[Rule] = []
        for path in sorted(now, key=lambda path: path.count(b"/")):
            with suppress(OSError):
                text = (self.place.path / os.fsdecode(path)).read_text("utf-8", "surrogateescape")
                rules += git_rules(text, base=parent(path))
        self._git_files, self._stays_away = now, Ignore(last=tuple(rules))

    def _forget(self, path: bytes) -> None:
        if self.entries.pop(path, None) is not None:
            self.changed.add(path)
        self._known.pop(path, None)

    def _walk(self, full: bytes, path: bytes, seen: set[bytes]) -> None:
        self.watched(path, full)
        with os.scandir(full) as found:
            for item in found:
                name = item.name
                if name.startswith(OWN_PREFIX):
                    _sweep(item)
                    continue
                below = path + b"/" + name if path else name
                try:
                    self._one(item.path, below, item.stat(follow_symlinks=False), seen)
                except OSError as error:
                    if error.errno not in _ABSENT:
                        reason = _not_synced(f"it cannot be read: {error.strerror}")
                        self._note(below, reason, None, seen)

    def _one(self, full: bytes, path: bytes, found: os.stat_result, seen: set[bytes]) -> None:
        is_folder = stat.S_ISDIR(found.st_mode)
        if self.ignore.skips(path, is_folder=is_folder):
            if is_folder and self.ignore.enters_ignored(path):
                before = len(seen)
                self._walk(full, path, seen)
                if len(seen) > before:
                    self._note(path, FOLDER, None, seen)
            return
        if len(path) > PATH_BYTES_AT_MOST:
            return
        if is_folder:
            self._note(path, FOLDER, None, seen)
            self._walk(full, path, seen)
        elif stat.S_ISLNK(found.st_mode):
            target = os.readlink(full)  # noqa: PTH115
            link = Entry(Kind.LINK, mtime_ns=found.st_mtime_ns, target=target)
            is_inside = points_inside(path, target)
            self._note(path, link if is_inside else _LEADS_OUT, identity(found), seen)
        elif stat.S_ISREG(found.st_mode):
            self._file(full, path, identity(found), seen)
        else:
            self._note(path, _KINDS.get(stat.S_IFMT(found.st_mode), _OTHER), None, seen)

    def _file(self, full: bytes, path: bytes, now: Identity, seen: set[bytes]) -> None:
        was = self._known.get(path)
        if was == (now, False) and self.entries[path].kind is Kind.FILE:
            seen.add(path)
            return
        kept = self.cached.get(path)
        if kept is not None and kept[0] == now:
            entry = Entry(Kind.FILE, bool(now.mode & 0o100), now.mtime_ns, now.size, kept[1])
            self._note(path, entry, now, seen)
            self._known[path] = (now, False)
            return
        self.hashed += 1
        fd = open_file(full)
        try:
            content, now, is_at_rest = digest(fd)
        finally:
            os.close(fd)
        if not is_at_rest:
            # Not what it was and not yet what it will be: as it was, until it is at rest.
            self.unstable.add(path)
            if path in self.entries:
                seen.add(path)
            return
        entry = Entry(Kind.FILE, bool(now.mode & 0o100), now.mtime_ns, now.size, content)
        self._note(path, entry, now, seen)

    def _note(self, path: bytes, entry: Entry, now: Identity | None, seen: set[bytes]) -> None:
        seen.add(path)
        was = self.entries.get(path)
        if was is None or not same(was, entry):
            self.entries[path] = entry
            self.changed.add(path)
        if now is not None:
            age_ns = time.time_ns() - max(now.mtime_ns, now.ctime_ns)
            self._known[path] = (now, age_ns < _YOUNG_NS)
        else:
            self._known.pop(path, None)


def _sweep(item: os.DirEntry[bytes]) -> None:
    """Remove a temporary file that somebody left behind."""
    if item.name.startswith(TEMPORARY):
        with suppress(OSError):
            if time.time() - item.stat(follow_symlinks=False).st_ctime > _LEFTOVER_S:
                os.unlink(item.path)  # noqa: PTH108
