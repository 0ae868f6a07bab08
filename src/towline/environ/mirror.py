"""The mirror of the container's files: written so that a reader sees one version whole.

As the kubelet does it: a new version is written into a folder of its own, then the link
`..data` is renamed over the old one. Files are 0600 (0700 where the container's may be
executed), folders 0700; nothing is written through a link.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from towline.environ.files import LeadsOut, inside, link_inside, stale

_CURRENT = "..data"
_PARTIAL = "..towline-partial"


class Mirror:
    """The files of all roots, below one private folder, each under its own path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, path: str) -> Path:
        """Where a path of the container is mirrored."""
        return self._folder.joinpath(*inside(path.strip("/")))

    def begin(self, path: str, *, is_file: bool) -> Version:
        """A new version of a root, in the place of any that is not finished."""
        place = self.place(path)
        folder = place.parent if is_file else place
        for each in (*reversed(folder.relative_to(self._folder).parents), folder):
            # One by one: `parents=True` gives those in between the usual mode.
            (self._folder / each).mkdir(mode=0o700, exist_ok=True)
        return Version(place, is_file=is_file)


class Version:
    """One version of a root, on its way."""

    def __init__(self, place: Path, *, is_file: bool) -> None:
        self._place = place
        self._is_file = is_file
        self._names: list[str] = []
        self._links: list[tuple[str, str]] = []
        self.refused: list[str] = []

    def file(self, name: str, mode: int, data: bytes) -> None:
        """Write a file; into its place at once, unless it belongs to the kubelet's folder."""
        if self._is_file:
            _write_in_place(self._place, data, _mode(mode))
            return
        with self._refusing(name):
            path = self._below(name)
            partial = path.with_name(_PARTIAL)
            _write_in_place(partial, data, _mode(mode))
            partial.replace(path)
            self._names.append(name)

    def link(self, name: str, target: str) -> None:
        with self._refusing(name):
            inside(name)
            self._links.append((name, link_inside(name, target)))
            self._names.append(name)

    def end(self) -> None:
        """Put the version in force, and remove what is not in it."""
        if self._is_file:
            return
        # The switch first: the links at the top lead through it.
        for name, target in sorted(self._links, key=lambda link: link[0] != _CURRENT):
            with self._refusing(name):
                _link(self._below(name), target)
        if _CURRENT not in self._names:
            return
        for name in stale((each.name for each in os.scandir(self._place)), self._names):
            path = self._place / name
            if path.is_symlink():
                path.unlink()
            elif name.startswith(".."):
                shutil.rmtree(path, ignore_errors=True)
            # Any other folder is a root of its own, mounted within this one.

    def _below(self, name: str) -> Path:
        path = self._place
        *folders, last = inside(name)
        for part in folders:
            path /= part
            if path.is_symlink():
                raise LeadsOut(name)
            path.mkdir(mode=0o700, exist_ok=True)
        return path / last

    def _refusing(self, name: str) -> _Refusing:
        return _Refusing(self.refused, name)


class _Refusing(suppress):
    """Notes a name that would lead out, or cannot be written, and goes on."""

    def __init__(self, refused: list[str], name: str) -> None:
        super().__init__(LeadsOut, NotADirectoryError, FileExistsError, IsADirectoryError)
        self._refused, self._name = refused, name

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        is_caught = bool(super().__exit__(kind, error, trace))  # type: ignore[arg-type]
        if is_caught:
            self._refused.append(self._name)
        return is_caught


def _mode(mode: int) -> int:
    return 0o700 if mode & 0o111 else 0o600


def _write_in_place(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.truncate()
    path.chmod(mode)


def _link(path: Path, target: str) -> None:
    with suppress(OSError):
        if str(path.readlink()) == target:
            return
    partial = path.with_name(_PARTIAL)
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(path)
