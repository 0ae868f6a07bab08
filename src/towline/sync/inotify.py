"""Watching the laptop's folder on Linux, folder by folder as the scan walks them.

watchfiles is for the other systems. Measured beside it here, in a tree of 2,000 files:
watchfiles wakes up every step to see whether something came (at 10 ms 2.3 % of a core for
nothing, and a save waits for up to two steps), watches ignored folders too (node_modules,
of a budget that is counted by user), cannot tell a file that is being written from one
that is closed, and stops at a name that is not UTF-8.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from contextlib import suppress

from towline.sync.ignore import OWN_PREFIX

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _Q_OVERFLOW, _IGNORED = 0x400, 0x800, 0x4000, 0x8000
_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK = 0x01000000, 0x02000000, 0x04000000
_ISDIR = 0x40000000
_WATCHED = (
    _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
    | _DELETE_SELF | _MOVE_SELF | _ONLYDIR | _DONT_FOLLOW | _EXCL_UNLINK
)  # fmt: skip
# Nothing more may come for a file whose writer goes on, or is killed: then it is looked at.
_WRITTEN_AFTER_S = 0.3
# What an editor or git does to several files at once is looked at together.
_TOGETHER_S = 0.002
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 << 10


class Inotify:
    """Tells which paths to look at again; an empty one is the whole folder.

    Attributes:
        failed: done with why not every folder could be watched: somebody must poll then.
    """

    def __init__(self, dirty: Callable[[set[bytes]], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._dirty = dirty
        self._folders: dict[int, bytes] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._readable)
        self._gathered: set[bytes] = set()
        self._gathering: asyncio.TimerHandle | None = None
        self._written: dict[bytes, asyncio.TimerHandle] = {}
        self.failed: asyncio.Future[OSError] = self._loop.create_future()

    def close(self) -> None:
        """Watch no more."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        if self._gathering is not None:
            self._gathering.cancel()
        for timer in self._written.values():
            timer.cancel()

    def watch(self, path: bytes, full: bytes) -> None:
        """Watch a folder, before it is read. From any thread."""
        number = self._libc.inotify_add_watch(self._fd, full, _WATCHED)
        if number >= 0:
            # The same folder under another name has the same number.
            self._folders[number] = path
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            error = OSError(code, os.strerror(code))
            self._loop.call_soon_threadsafe(self._fails, error)

    def _fails(self, error: OSError) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            events = os.read(self._fd, _READ_BYTES)
            at = 0
            while at < len(events):
                number, mask, _, size = _EVENT.unpack_from(events, at)
                at += _EVENT.size
                name = events[at : at + size].rstrip(b"\0")
                at += size
                self._event(number, mask, name)

    def _event(self, number: int, mask: int, name: bytes) -> None:
        if mask & _Q_OVERFLOW:
            self._gather(b"")
            return
        if mask & _IGNORED:
            self._folders.pop(number, None)
            return
        folder = self._folders.get(number)
        if folder is None or name.startswith(OWN_PREFIX):
            return
        path = folder + b"/" + name if folder and name else folder or name
        if mask & (_MODIFY | _CREATE) and not mask & _ISDIR:
            # Its writer has it open: what is in it now may be the half of it.
            self._look_later(path)
        else:
            if mask & (_CLOSE_WRITE | _MOVED_TO | _DELETE | _MOVED_FROM):
                timer = self._written.pop(path, None)
                if timer is not None:
                    timer.cancel()
            self._gather(path)

    def _look_later(self, path: bytes) -> None:
        if path not in self._written:
            self._written[path] = self._loop.call_later(_WRITTEN_AFTER_S, self._look_now, path)

    def _look_now(self, path: bytes) -> None:
        self._written.pop(path, None)
        self._gather(path)

    def _gather(self, path: bytes) -> None:
        self._gathered.add(path)
        if self._gathering is None:
            self._gathering = self._loop.call_later(_TOGETHER_S, self._give_out)

    def _give_out(self) -> None:
        self._gathering = None
        gathered, self._gathered = self._gathered, set()
        self._dirty(gathered)
