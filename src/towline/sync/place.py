"""The laptop's folder, entered name by name from its descriptor: no link is followed.

A hostile agent may name a path below a link that it had made before. Blocking: run in a
thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from towline.errors import TowlineError
from towline.sync.folding import Folding
from towline.sync.ignore import OWN_PREFIX
from towline.sync.model import parent

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
# A FIFO put in a file's place must not block.
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_READ_BYTES = 1 << 20

TEMPORARY = OWN_PREFIX + b"tmp-"


@dataclass(frozen=True, slots=True)
class Identity:
    """What stat says of a file whose content has not changed."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int


def identity(found: os.stat_result) -> Identity:
    """The identity in a stat."""
    return Identity(
        found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_mode
    )


class Place:
    """A root that is open."""

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.resolve(strict=True)
            self._fd = os.open(self.path, _FOLDER)
        except OSError as error:
            raise TowlineError(
                f"{path} cannot be synced: {error.strerror or error}", hint="is it a folder?"
            ) from error
        found = os.fstat(self._fd)
        self._opened = (found.st_dev, found.st_ino)
        self._temporary = TEMPORARY + secrets.token_hex(6).encode() + b"-"
        self._made = 0
        self.folding = self._probed()

    def _probed(self) -> Folding:
        """What the disk does not tell apart.

        By names that are there: a probe of our own would wake whoever watches the folder.
        How é is written matters to each disk that folds case, and on macOS to all.
        """
        names = {os.fsencode(each) for each in os.listdir(self._fd)}  # noqa: PTH208
        others = ((name, name.swapcase()) for name in sorted(names))
        other = next((other for name, other in others if other not in names), None)
        folds = self._has(other) if other is not None else self._folds_probe()
        return Folding(case=folds, unicode=folds or sys.platform == "darwin")

    def _folds_probe(self) -> bool:
        probe = self.temporary()
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._fd))
        except OSError:
            return False  # nothing can be made there, so nothing can clash
        try:
            return self._has(probe.upper())
        finally:
            os.unlink(probe, dir_fd=self._fd)

    def _has(self, name: bytes) -> bool:
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def is_spelled(self, path: bytes) -> bool:
        """Whether a path is there in just these letters; only a folding disk has to be asked."""
        if not self.folding:
            return True
        with self.folder(b"") as at:
            fd = os.dup(at)
        try:
            names = path.split(b"/")
            for number, name in enumerate(names, 1):
                if name not in (os.fsencode(each) for each in os.listdir(fd)):  # noqa: PTH208
                    return False
                if number < len(names):
                    below = os.open(name, _FOLDER, dir_fd=fd)
                    os.close(fd)
                    fd = below
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    @property
    def name(self) -> bytes:
        """The path, for calls that want all of it."""
        return os.fsencode(self.path)

    @property
    def incarnation(self) -> str:
        """Another folder at the same path has another one.

        Without the device: some systems number theirs anew at each start.
        """
        return f"{self._opened[1]:x}"

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    def what_became(self) -> str | None:
        """What is at the root's path if not what was opened: a name of `Reason`, or None."""
        try:
            found = os.lstat(self.path)
        except OSError:
            return "root-gone"
        if not stat.S_ISDIR(found.st_mode):
            return "root-is-no-folder"
        if (found.st_dev, found.st_ino) != self._opened:
            return "root-on-another-disk"
        return None

    @contextmanager
    def folder(self, path: bytes) -> Iterator[int]:
        """A descriptor of a folder in the root.

        Raises:
            OSError: it is not there, or a link is on the way.
        """
        fd = os.dup(self._fd)
        try:
            for name in path.split(b"/") if path else ():
                below = os.open(name, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def nearest(self, path: bytes) -> bytes:
        """The deepest folder above a path that is there."""
        while path:
            path = parent(path)
            with suppress(OSError), self.folder(path):
                return path
        return b""

    def temporary(self) -> bytes:
        """A name that nobody else has."""
        self._made += 1
        return self._temporary + b"%d" % self._made


def open_file(name: bytes, *, folder: int | None = None) -> int:
    """Open a regular file.

    Raises:
        OSError: it is none, or cannot be read.
    """
    fd = os.open(name, _FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    return fd


def digest(fd: int) -> tuple[bytes, Identity, bool]:
    """Hash a file as long as it was at the beginning: the digest, and whether it was at rest."""
    before = identity(os.fstat(fd))
    left, hashing = before.size, hashlib.sha256()
    while left > 0:
        content = os.read(fd, min(left, _READ_BYTES))
        if not content:
            break
        hashing.update(content)
        left -= len(content)
    after = identity(os.fstat(fd))
    return hashing.digest(), after, left == 0 and before == after
