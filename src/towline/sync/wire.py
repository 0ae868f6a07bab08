"""Entries and frames as bytes, for the agent and for the disk [pure]; docs/protocol.md."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum

from towline.errors import TowlineError
from towline.sync.model import DIGEST_BYTES, Entry, Kind

VERSION = 1
FRAME_BYTES_AT_MOST = 8 << 20
CONTENT_BYTES = 256 << 10

_HEAD = struct.Struct(">IB")
_ENTRY = struct.Struct(">BBqQ")
_KINDS = {ord(kind.value): kind for kind in Kind}


class Frame(IntEnum):
    """The types of frames."""

    OPEN = 0x01
    ROOM = 0x02
    FILE = 0x03
    CONTENT = 0x04
    ABANDON = 0x05
    COMMIT = 0x06
    FETCH = 0x07
    RESCAN = 0x08
    DELTA = 0x09
    UNPACK = 0x0A
    OPENED = 0x81
    HAS_ROOM = 0x82
    DONE = 0x86
    FETCHED = 0x87
    FETCH_CONTENT = 0x88
    FETCH_END = 0x89
    LACKING = 0x8A
    FETCH_COPY = 0x8B
    REFUSED = 0x8F
    ENTRIES = 0x90
    SETTLED = 0x91
    NOTE = 0x92
    PACKED = 0x93


class WireError(TowlineError):
    """The other side does not keep to the protocol."""


def frame(kind: Frame, payload: bytes = b"") -> bytes:
    """A frame, ready to be sent."""
    return _HEAD.pack(len(payload) + 1, kind) + payload


HEAD_BYTES = _HEAD.size


def head(content: bytes) -> tuple[int, int]:
    """How many bytes follow a frame's head, and its type.

    Raises:
        WireError: it is longer than a frame may be.
    """
    size, kind = _HEAD.unpack(content)
    if not 1 <= size <= FRAME_BYTES_AT_MOST:
        raise WireError(f"the agent sent a frame of {size} bytes")
    return size - 1, kind


def frames_in(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of frames that are one behind the other.

    Raises:
        WireError: the last one is not whole.
    """
    at = 0
    while at < len(content):
        if at + HEAD_BYTES > len(content):
            raise WireError("a packed frame is shorter than it says")
        size, kind = head(content[at : at + HEAD_BYTES])
        at += HEAD_BYTES
        if at + size > len(content):
            raise WireError("a packed frame is shorter than it says")
        yield kind, content[at : at + size]
        at += size


def short(text: bytes) -> bytes:
    """Bytes with their length in front."""
    return struct.pack(">H", len(text)) + text


def pack_entry(path: bytes, entry: Entry | None) -> bytes:
    """An entry, or that there is none."""
    if entry is None:
        return short(path) + _ENTRY.pack(0, 0, 0, 0)
    fixed = _ENTRY.pack(ord(entry.kind.value), entry.executable, entry.mtime_ns, entry.size)
    if entry.kind in (Kind.LINK, Kind.OTHER):
        return short(path) + fixed + short(entry.target)
    return short(path) + fixed + (entry.digest if entry.kind is Kind.FILE else b"")


def pack_entries(entries: Iterable[tuple[bytes, Entry | None]]) -> bytes:
    """One behind the other."""
    return b"".join(pack_entry(path, entry) for path, entry in entries)


def unpack_entries(content: bytes) -> Iterator[tuple[bytes, Entry | None]]:
    """What `pack_entries` made.

    Raises:
        WireError: it is something else.
    """
    at, end = 0, len(content)
    try:
        while at < end:
            size = int.from_bytes(content[at : at + 2])
            at += 2
            path = content[at : at + size]
            at += size
            number, flags, mtime_ns, length = _ENTRY.unpack_from(content, at)
            at += _ENTRY.size
            if not number:
                yield path, None
                continue
            kind, digest, target = _KINDS[number], b"", b""
            if kind is Kind.FILE:
                digest = content[at : at + DIGEST_BYTES]
                at += DIGEST_BYTES
            elif kind in (Kind.LINK, Kind.OTHER):
                size = int.from_bytes(content[at : at + 2])
                target = content[at + 2 : at + 2 + size]
                at += 2 + size
            if at > end:
                raise WireError("an entry is shorter than it says")
            yield path, Entry(kind, bool(flags & 1), mtime_ns, length, digest, target)
    except (struct.error, KeyError) as error:
        raise WireError(f"an entry cannot be read: {error}") from error


def unpack_results(content: bytes) -> list[tuple[int, str]]:
    """The answer to a COMMIT: status and text of each operation.

    Raises:
        WireError: it is something else.
    """
    count, at = int.from_bytes(content[:4]), 4
    results = []
    for _ in range(count):
        if at + 3 > len(content):
            raise WireError("an answer is shorter than it says")
        size = int.from_bytes(content[at + 1 : at + 3])
        text = content[at + 3 : at + 3 + size].decode(errors="replace")
        results.append((content[at], text))
        at += 3 + size
    return results
