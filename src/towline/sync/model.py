"""What a synced folder holds, as values [pure].

Paths are bytes, relative to the root, with `/` between names: a name on Linux is any bytes,
and what cannot be decoded must be carried all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# SHA-256 of the standard library on both sides. Content is believed to be the same when its
# digest is, so it must be one that nobody can make collide; XXH3 is none. BLAKE3 would be
# too, but is a third-party package on each side (in the agent about 100 KB), and with the
# CPU's own SHA instructions it is no faster on one core for files of the usual size.
DIGEST_BYTES = 32

NAME_BYTES_AT_MOST = 255
PATH_BYTES_AT_MOST = 4096


class Kind(StrEnum):
    """What is at a path.

    OTHER is there and not synced: a socket, a device, a link that leads out, something that
    cannot be read. It must not look like nothing, which would be a deletion.
    """

    FILE = "f"
    FOLDER = "d"
    LINK = "l"
    OTHER = "x"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree.

    Attributes:
        executable: of a file: whether its owner may execute it.
        mtime_ns: goes along with content, and is no change by itself.
        digest: of a file's content.
        target: of a link, as it is written in it; of what is not synced, why.
    """

    kind: Kind
    executable: bool = False
    mtime_ns: int = 0
    size: int = 0
    digest: bytes = b""
    target: bytes = b""

    @property
    def content(self) -> bytes:
        """What two entries share that are the same file or link at two paths."""
        return self.digest or self.target


FOLDER = Entry(Kind.FOLDER)

Tree = Mapping[bytes, Entry]


@dataclass(frozen=True, slots=True)
class Change:
    """One path of one side: what must be there before, and what is there after."""

    path: bytes
    old: Entry | None
    new: Entry | None

    @property
    def takes_file(self) -> bool:
        """Whether a file or link is gone by it."""
        return _is_leaf(self.old) and not _is_leaf(self.new)

    @property
    def makes_file(self) -> bool:
        """Whether a file or link is there by it where none was."""
        return _is_leaf(self.new) and not _is_leaf(self.old)


def same(one: Entry | None, other: Entry | None) -> bool:
    """Whether two sides hold the same at a path (None: nothing)."""
    if one is None or other is None:
        return one is other
    return (
        one.kind is other.kind
        and one.digest == other.digest
        and one.target == other.target
        and one.executable == other.executable
    )


def is_folder(entry: Entry | None) -> bool:
    """Whether there is a folder."""
    return entry is not None and entry.kind is Kind.FOLDER


def _is_leaf(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is not Kind.FOLDER


def is_other(entry: Entry | None) -> bool:
    """Whether there is something that is not synced."""
    return entry is not None and entry.kind is Kind.OTHER


def parent(path: bytes) -> bytes:
    """The folder that a path is in; empty for the root."""
    return path.rpartition(b"/")[0]


def tree_order(path: bytes) -> bytes:
    """A key by which all that is below a folder comes right behind it."""
    return path.replace(b"/", b"\0")


def stays_inside(path: bytes) -> bool:
    """Whether a path from the other side is one that a tree may hold."""
    if not path or len(path) > PATH_BYTES_AT_MOST or b"\0" in path:
        return False
    return all(
        name not in (b"", b".", b"..") and len(name) <= NAME_BYTES_AT_MOST
        for name in path.split(b"/")
    )


def points_inside(path: bytes, target: bytes) -> bool:
    """Whether a link at `path` leads to somewhere in the root, as written."""
    if not target or target.startswith(b"/") or b"\0" in target:
        return False
    depth = path.count(b"/")
    for name in target.split(b"/"):
        if name == b"..":
            depth -= 1
            if depth < 0:
                return False
        elif name not in (b"", b"."):
            depth += 1
    return True
