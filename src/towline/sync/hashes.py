"""The laptop's digests on disk, so that the next `up` reads only what has changed.

A digest is believed where size, mtime, ctime, inode and mode are as they were when it was
made. Files that were younger than two seconds then are not kept: the clock of a file system
is coarse. A file of digests that is damaged, or somebody else's, is none.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from towline._kit.paths import written
from towline.sync.model import DIGEST_BYTES
from towline.sync.place import Identity

_VERSION = b"towline hashes 1\n"
_CHECK_BYTES = 16
_ROW = struct.Struct(f">HQqqQI{DIGEST_BYTES}s")

Hashes = dict[bytes, tuple[Identity, bytes]]


def packed(rows: Iterable[tuple[bytes, Identity, bytes]]) -> bytes:
    """Digests as they are on disk."""
    body = bytearray()
    for path, at, digest in rows:
        row = (len(path), at.size, at.mtime_ns, at.ctime_ns, at.inode, at.mode, digest)
        body += _ROW.pack(*row) + path
    return _VERSION + hashlib.sha256(body).digest()[:_CHECK_BYTES] + body


def unpacked(content: bytes) -> Hashes:
    """What `packed` made; nothing of anything else."""
    start = len(_VERSION) + _CHECK_BYTES
    body = content[start:]
    check = hashlib.sha256(body).digest()[:_CHECK_BYTES]
    found: Hashes = {}
    if content[:start] != _VERSION + check:
        return found
    at = 0
    while at < len(body):
        length, size, mtime_ns, ctime_ns, inode, mode, digest = _ROW.unpack_from(body, at)
        at += _ROW.size
        found[body[at : at + length]] = (Identity(size, mtime_ns, ctime_ns, inode, mode), digest)
        at += length
    return found


def load(path: Path) -> Hashes:
    """The digests in a file; none where there is none."""
    try:
        return unpacked(path.read_bytes())
    except OSError:
        return {}


def save(path: Path, content: bytes) -> None:
    """Write them in place of what is there.

    Raises:
        TowlineError: the folder cannot be written to.
    """
    temporary = path.with_suffix(".new")
    with written(path.parent):
        # Not synced to disk: what a power cut leaves of it has the wrong check.
        temporary.write_bytes(content)
        temporary.chmod(0o600)
        os.replace(temporary, path)  # noqa: PTH105
