"""Two sides of a sync in memory, which do what a merge says as the real ones do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from towline.sync.model import FOLDER, Change, Entry, Kind, is_folder, parent, same
from towline.sync.reconcile import Aside


def file(text: str, *, executable: bool = False) -> Entry:
    content = text.encode()
    digest = hashlib.sha256(content).digest()
    return Entry(Kind.FILE, executable=executable, size=len(content), digest=digest)


def tree(**files: str) -> dict[bytes, Entry]:
    """`a__b="x"` is the file a/b with x in it."""
    made: dict[bytes, Entry] = {}
    for name, text in files.items():
        put(made, name.replace("__", "/").encode(), file(text))
    return made


def put(side: dict[bytes, Entry], path: bytes, entry: Entry) -> list[Entry]:
    """Write as a user does, folders in the way and above included; what was lost by it."""
    lost = remove(side, path) if not (is_folder(side.get(path)) and is_folder(entry)) else []
    above = b""
    for name in path.split(b"/")[:-1]:
        above = above + b"/" + name if above else name
        if not is_folder(side.get(above)):
            lost += remove(side, above)
            side[above] = FOLDER
    side[path] = entry
    return lost


def remove(side: dict[bytes, Entry], path: bytes) -> list[Entry]:
    return [side.pop(p) for p in list(side) if p == path or p.startswith(path + b"/")]


def do(side: dict[bytes, Entry], change: Change) -> bool:
    """Make one change if what is there is what was expected, as both real sides do."""
    path, now = change.path, side.get(change.path)
    if not same(now, change.old):
        return False
    above = parent(path)
    if change.new is not None and above and not is_folder(side.get(above)):
        return False
    if is_folder(now) and any(p.startswith(path + b"/") for p in side):
        return False
    if change.new is None:
        side.pop(path, None)
    else:
        side[path] = change.new
    return True


def put_aside(side: dict[bytes, Entry], aside: Aside) -> bool:
    if not same(side.get(aside.path), aside.entry) or aside.beside in side:
        return False
    if aside.stays:
        side[aside.beside] = aside.entry
        return True
    for path in [p for p in side if p == aside.path or p.startswith(aside.path + b"/")]:
        side[aside.beside + path[len(aside.path) :]] = side.pop(path)
    return True


def prefixes(path: bytes) -> Iterator[bytes]:
    while path := parent(path):
        yield path
