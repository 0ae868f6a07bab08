"""The ancestor on disk: what both sides had in common, and whose incarnations they were.

One file for a session and folder: records with a checksum each, the newest last. A pass
appends what it settled; a kill between two passes leaves the older ancestor, of which the
merge can make no loss: what both sides have alike is agreed, the rest is a conflict.
Damage of any kind is told, and makes the next sync a first one, which deletes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from towline._kit.paths import private, written
from towline.sync.model import Entry
from towline.sync.wire import WireError, pack_entries, unpack_entries

_VERSION = 1
_RECORD = struct.Struct(">IB8s")
_HEADER, _ENTRIES, _FOREIGN = 1, 2, 3
_RECORD_BYTES_AT_MOST = 1 << 30


@dataclass(slots=True)
class Ancestor:
    """What was in step, and the container's own.

    Attributes:
        incarnation: of both roots: another one has no ancestor.
    """

    incarnation: str
    entries: dict[bytes, Entry] = field(default_factory=dict)
    foreign: frozenset[bytes] = frozenset()


class Damaged(Exception):
    """The file is not what was written."""


class Store:
    """The folder in the state folder that belongs to one synced folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = private(folder)
        self._path = folder / "ancestor"
        self.hashes = folder / "hashes"
        self._fd = -1
        self._appended = 0

    def load(self, incarnation: str) -> tuple[Ancestor | None, str | None]:
        """The ancestor of these roots, or None and, where something is to be told, why."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None, None
        except OSError as error:
            return None, f"{self._path} cannot be read: {error.strerror}"
        try:
            found = _read(content)
        except (Damaged, WireError, ValueError, KeyError) as error:
            return None, f"{self._path} is damaged ({error}): this is as a first sync"
        return (found, None) if found.incarnation == incarnation else (None, None)

    def begin(self, ancestor: Ancestor) -> None:
        """Write all of it, in place of what is there.

        Raises:
            TowlineError: the folder cannot be written to.
        """
        self.close()
        header = {"version": _VERSION, "incarnation": ancestor.incarnation}
        records = _record(_HEADER, json.dumps(header).encode())
        records += _record(_FOREIGN, _names(ancestor.foreign))
        records += _record(_ENTRIES, pack_entries(ancestor.entries.items()))
        temporary = self._path.with_suffix(".new")
        with written(self.folder):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                _write(fd, records)
                os.fsync(fd)
                temporary.rename(self._path)
            except BaseException:
                os.close(fd)
                raise
        self._fd, self._appended = fd, 0

    def append(
        self, changes: Mapping[bytes, Entry | None], foreign: frozenset[bytes] | None
    ) -> int:
        """Write what a pass settled; returns the bytes that were appended since `begin`.

        Raises:
            TowlineError: the folder cannot be written to.
        """
        records = b""
        if changes:
            records += _record(_ENTRIES, pack_entries(changes.items()))
        if foreign is not None:
            records += _record(_FOREIGN, _names(foreign))
        with written(self.folder):
            # At once: a kill leaves all of it or nothing.
            _write(self._fd, records)
        self._appended += len(records)
        return self._appended

    @property
    def is_open(self) -> bool:
        """Whether `begin` was called, so that `append` may be."""
        return self._fd >= 0

    def close(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _record(kind: int, payload: bytes) -> bytes:
    checksum = hashlib.sha256(bytes([kind]) + payload).digest()[:8]
    return _RECORD.pack(len(payload), kind, checksum) + payload


def _names(paths: Iterable[bytes]) -> bytes:
    return b"\0".join(sorted(paths))


def _records(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        if at + _RECORD.size > len(content):
            raise Damaged("it ends in the middle")
        size, kind, checksum = _RECORD.unpack_from(content, at)
        at += _RECORD.size
        payload = content[at : at + size]
        if size > _RECORD_BYTES_AT_MOST or len(payload) != size:
            raise Damaged("it ends in the middle")
        if hashlib.sha256(bytes([kind]) + payload).digest()[:8] != checksum:
            raise Damaged("a checksum is wrong")
        yield kind, payload
        at += size


def _read(content: bytes) -> Ancestor:
    ancestor: Ancestor | None = None
    for kind, payload in _records(content):
        if kind == _HEADER:
            header = json.loads(payload)
            if header["version"] != _VERSION:
                raise Damaged(f"its version is {header['version']}")
            ancestor = Ancestor(str(header["incarnation"]))
        elif ancestor is None:
            raise Damaged("it has no beginning")
        elif kind == _FOREIGN:
            ancestor.foreign = frozenset(payload.split(b"\0")) if payload else frozenset()
        else:
            update(ancestor.entries, unpack_entries(payload))
    if ancestor is None:
        raise Damaged("it is empty")
    return ancestor


def update(entries: dict[bytes, Entry], changes: Iterable[tuple[bytes, Entry | None]]) -> None:
    """Lay changes over entries; None takes one away."""
    for path, entry in changes:
        if entry is None:
            entries.pop(path, None)
        else:
            entries[path] = entry
