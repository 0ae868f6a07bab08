"""Changes to the laptop's folder: staged whole, made only where nothing else changed.

What a user or a program wrote meanwhile stays; the next pass sees it. Blocking: run in a
thread, one call at a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

from towline.sync.delta import Copied
from towline.sync.model import Change, Entry, Kind, is_folder, parent, points_inside, same
from towline.sync.place import open_file
from towline.sync.scan import LaptopTree


class Status(IntEnum):
    """What became of a change; the agent's answers have the same numbers."""

    DONE = 0
    OTHER = 1  # something else is there than what was merged
    FAILED = 2
    HOLDS = 3  # a folder that is to go holds what is not synced


class _OtherThere(Exception):
    """Changed meanwhile."""


class _Holds(Exception):
    """It holds what is not synced."""


@dataclass(slots=True)
class _Staged:
    entry: Entry
    folder: bytes
    name: bytes


class Replica:
    """The laptop's side of a commit."""

    def __init__(self, tree: LaptopTree) -> None:
        self._tree = tree
        self._place = tree.place
        self._staged: dict[bytes, _Staged] = {}

    def begin(self, path: bytes, entry: Entry, *, block_bytes: int = 0) -> Receiving:
        """Begin to receive a file under a temporary name in its file system.

        Args:
            block_bytes: of the blocks of the version that is there, if it is made of them.

        Raises:
            OSError: it cannot be made.
        """
        folder = self._place.nearest(path)
        name = self._place.temporary()
        with self._place.folder(folder) as at:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            fd = os.open(name, flags, 0o600, dir_fd=at)
        staged = _Staged(entry, folder, name)
        base = None
        if block_bytes:
            with suppress(OSError), self._place.folder(parent(path)) as at:
                base = open_file(path[path.rfind(b"/") + 1 :], folder=at)
        return Receiving(
            fd,
            staged,
            keep=lambda: self._keep(path, staged),
            drop=lambda: self._drop(staged),
            base=base,
            block_bytes=block_bytes,
        )

    def _keep(self, path: bytes, staged: _Staged) -> None:
        self._staged[path] = staged

    def _drop(self, staged: _Staged) -> None:
        with suppress(OSError), self._place.folder(staged.folder) as at:
            os.unlink(staged.name, dir_fd=at)

    def discard(self) -> None:
        """Remove what was staged and not used."""
        for staged in self._staged.values():
            self._drop(staged)
        self._staged.clear()

    def change(self, change: Change) -> tuple[Status, str]:
        """Make one path what it is to be, if it is what it was merged from."""
        path, name = change.path, change.path[change.path.rfind(b"/") + 1 :]
        if self._tree.ignore.never(path):
            return Status.FAILED, "it is never synced"
        try:
            with self._place.folder(parent(path)) as folder:
                now, _ = self._tree.at(path, folder, name)
                if not same(now, change.old):
                    return Status.OTHER, "changed meanwhile"
                self._replace(folder, name, path, now, change.new)
                self._tree.record(path, change.new, folder, name)
                if is_folder(change.new):
                    self._tree.watched(path, self._place.name + b"/" + path)
        except (_OtherThere, FileNotFoundError, NotADirectoryError) as error:
            return Status.OTHER, str(error)
        except _Holds:
            return Status.HOLDS, "it holds what is not synced"
        except OSError as error:
            return Status.FAILED, error.strerror or str(error)
        return Status.DONE, ""

    def _replace(
        self, folder: int, name: bytes, path: bytes, now: Entry | None, new: Entry | None
    ) -> None:
        if is_folder(now) and not is_folder(new):
            self._remove_folder(folder, name, path)
            if new is None:
                return
            now = None
        if new is None:
            os.unlink(name, dir_fd=folder)
        elif new.kind is Kind.FOLDER:
            if now is not None and not is_folder(now):
                os.unlink(name, dir_fd=folder)
            if not is_folder(now):
                os.mkdir(name, dir_fd=folder)
        elif new.kind is Kind.LINK:
            self._put_link(folder, name, path, new.target)
        else:
            self._put_file(folder, name, path, now, new)

    def _put_link(self, folder: int, name: bytes, path: bytes, target: bytes) -> None:
        if not points_inside(path, target):
            raise OSError(errno.EPERM, "the link leads out of the folder")
        temporary = self._place.temporary()
        os.symlink(target, temporary, dir_fd=folder)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _put_file(
        self, folder: int, name: bytes, path: bytes, now: Entry | None, new: Entry
    ) -> None:
        staged = self._staged.get(path)
        if staged is None or staged.entry.digest != new.digest:
            raise OSError(errno.EIO, "it did not come")
        with self._place.folder(staged.folder) as at:
            if now is not None:
                mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                if now.kind is Kind.FILE:
                    wanted = permissions(mode, executable=new.executable)
                    os.chmod(staged.name, wanted, dir_fd=at)
                os.replace(staged.name, name, src_dir_fd=at, dst_dir_fd=folder)
            else:
                _rename_free(at, staged.name, folder, name)
        del self._staged[path]

    def _remove_folder(self, folder: int, name: bytes, path: bytes) -> None:
        """Remove an empty folder, and with it what the rules say may go (`(?d)`)."""
        try:
            os.rmdir(name, dir_fd=folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with self._place.folder(path) as below:
            names = [os.fsencode(each) for each in os.listdir(below)]  # noqa: PTH208
            if not all(self._tree.ignore.may_go(path + b"/" + each) for each in names):
                raise _Holds
            for each in names:
                try:
                    os.unlink(each, dir_fd=below)
                except IsADirectoryError:
                    self._remove_folder(below, each, path + b"/" + each)
        os.rmdir(name, dir_fd=folder)


class Receiving:
    """One file that comes in pieces."""

    def __init__(
        self,
        fd: int,
        staged: _Staged,
        *,
        keep: Callable[[], None],
        drop: Callable[[], None],
        base: int | None,
        block_bytes: int,
    ) -> None:
        self._fd, self._staged = fd, staged
        self._keep, self._drop = keep, drop
        self._base, self._block_bytes = base, block_bytes
        self._hash = hashlib.sha256()
        self._left = staged.entry.size

    def write(self, piece: bytes | Copied) -> None:
        """Take a piece.

        Raises:
            OSError: it cannot be written, or more comes than the file is long.
        """
        if isinstance(piece, Copied):
            if self._base is None:
                raise OSError(errno.ESTALE, "the version that it is made of is gone")
            content = os.pread(self._base, self._block_bytes, piece.block * self._block_bytes)
        else:
            content = piece
        self._left -= len(content)
        if self._left < 0:
            raise OSError(errno.EFBIG, "more came than the file is long")
        self._hash.update(content)
        view = memoryview(content)
        while view:
            view = view[os.write(self._fd, view) :]

    @property
    def is_whole(self) -> bool:
        """Whether all of it came, and as it was to be."""
        return self._left == 0 and self._hash.digest() == self._staged.entry.digest

    def finish(self) -> None:
        """Flush one that is whole to the disk, and keep it to be used; from any thread.

        Raises:
            OSError: it could not be flushed, and is removed.
        """
        entry = self._staged.entry
        try:
            os.fchmod(self._fd, permissions(0o644, executable=entry.executable))
            # Without it a power cut may leave an empty file in place of a user's; in the
            # container nothing is synced to disk, since the laptop has it all.
            os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)
            os.utime(self._fd, ns=(entry.mtime_ns, entry.mtime_ns))
        except OSError:
            self.give_up()
            raise
        self._close()
        self._keep()

    def give_up(self) -> None:
        """Remove it."""
        self._close()
        self._drop()

    def _close(self) -> None:
        os.close(self._fd)
        if self._base is not None:
            os.close(self._base)


def permissions(mode: int, *, executable: bool) -> int:
    """Permissions, with those to execute set or taken where reading is allowed."""
    mode = mode & 0o666 | 0o600
    return mode | (mode & 0o444) >> 2 if executable else mode


def _rename_free(at: int, name: bytes, folder: int, free: bytes) -> None:
    """Rename to a name that is free: a user who made it meanwhile keeps theirs."""
    try:
        os.link(name, free, src_dir_fd=at, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError as error:
        raise _OtherThere("it was made meanwhile") from error
    except OSError:
        # A file system without hard links: looked at instead.
        try:
            os.stat(free, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, free, src_dir_fd=at, dst_dir_fd=folder)
            return
        raise _OtherThere("it was made meanwhile") from None
    os.unlink(name, dir_fd=at)
