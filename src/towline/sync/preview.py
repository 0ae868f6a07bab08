"""What a first sync would find on the laptop, without reading a file or changing one.

Blocking.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path

from towline._kit.objects import JsonObject
from towline.sync.events import NotSynced, shown
from towline.sync.ignore import OWN_PREFIX, Ignore
from towline.sync.model import Kind
from towline.sync.scan import kind_of, read_ignore
from towline.sync.watch import watches_allowed

_LISTED_AT_MOST = 100
_LARGEST = 5


@dataclass(slots=True)
class Preview:
    """What there is in a folder.

    Attributes:
        ignored: topmost paths that the rules keep away, folders with a slash behind them.
        watches_allowed: for all programs of this user; None where nobody counts.
    """

    files: int = 0
    size_bytes: int = 0
    folders: int = 0
    links: int = 0
    ignored: list[str] = field(default_factory=list)
    not_synced: list[NotSynced] = field(default_factory=list)
    sizes: list[tuple[int, str]] = field(default_factory=list)
    watches_allowed: int | None = None

    def to_json(self) -> JsonObject:
        """As `towline up --dry-run -o json` prints it."""
        return {
            "files": self.files,
            "bytes": self.size_bytes,
            "folders": self.folders,
            "links": self.links,
            "largest": [{"path": path, "bytes": size} for size, path in self.sizes],
            "ignored": len(self.ignored),
            "first_ignored": self.ignored[:_LISTED_AT_MOST],
            "not_synced": len(self.not_synced),
            "first_not_synced": [
                {"path": each.path, "reason": each.reason}
                for each in self.not_synced[:_LISTED_AT_MOST]
            ],
            # One for each folder, and one for the root.
            "watches": self.folders + 1,
            "watches_allowed": self.watches_allowed,
        }


def look_ahead(root: Path) -> Preview:
    """Look at a folder with its own rules.

    Raises:
        ManifestError: a line of them cannot be understood.
        OSError: the folder cannot be read.
    """
    found = Preview(watches_allowed=watches_allowed())
    _walk(os.fsencode(root), b"", read_ignore(root), found)
    found.sizes = nlargest(_LARGEST, found.sizes)
    return found


def _walk(full: bytes, path: bytes, ignore: Ignore, found: Preview) -> None:
    with os.scandir(full) as names:
        for item in sorted(names, key=lambda item: item.name):
            if item.name.startswith(OWN_PREFIX):
                continue
            below = path + b"/" + item.name if path else item.name
            try:
                _one(item, below, ignore, found)
            except OSError as error:
                reason = f"it cannot be read: {error.strerror}"
                found.not_synced.append(NotSynced(path=shown(below), side="laptop", reason=reason))


def _one(item: os.DirEntry[bytes], path: bytes, ignore: Ignore, found: Preview) -> None:
    at = item.stat(follow_symlinks=False)
    is_folder = stat.S_ISDIR(at.st_mode)
    if ignore.skips(path, is_folder=is_folder):
        found.ignored.append(shown(path) + "/" * is_folder)
        if is_folder and ignore.enters_ignored(path):
            _walk(item.path, path, ignore, found)
        return
    kind, reason = kind_of(item.path, path, at.st_mode)
    if kind is Kind.FOLDER:
        found.folders += 1
        _walk(item.path, path, ignore, found)
    elif kind is Kind.LINK:
        found.links += 1
    elif kind is Kind.FILE:
        found.files += 1
        found.size_bytes += at.st_size
        found.sizes.append((at.st_size, shown(path)))
    else:
        found.not_synced.append(NotSynced(path=shown(path), side="laptop", reason=reason))
