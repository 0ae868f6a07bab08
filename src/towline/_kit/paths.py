"""Towline's own folders, where each platform keeps such things (XDG Base Directory).

Nothing secret leaves them: each is made with mode 0700, and one that is somebody
else's or open to others is refused instead of used.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from towline.errors import TowlineError

NAME = "towline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where things are kept. None of them need exist: see `private`.

    Attributes:
        config: what the user has set.
        state: what should outlive a restart (records of sessions, logs).
        cache: what can be made again.
        runtime: sockets and secrets; gone with the login session.
    """

    config: Path
    state: Path
    cache: Path
    runtime: Path


def folders(environ: Mapping[str, str], *, platform: str = sys.platform) -> Folders:
    """The folders for an environment: XDG's variables count on every platform."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    runtime = _absolute(environ.get("XDG_RUNTIME_DIR"))
    if platform == "win32":
        local = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
        config = state = cache = local
    elif platform == "darwin":
        config = state = home / "Library" / "Application Support"
        cache = home / "Library" / "Caches"
    else:
        config, state, cache = home / ".config", home / ".local/state", home / ".cache"
    state_folder = (_absolute(environ.get("XDG_STATE_HOME")) or state) / NAME
    return Folders(
        config=(_absolute(environ.get("XDG_CONFIG_HOME")) or config) / NAME,
        state=state_folder,
        cache=(_absolute(environ.get("XDG_CACHE_HOME")) or cache) / NAME,
        # The name has the user in it, for the temporary folder is everybody's. On
        # macOS it is the user's own; a socket's path may have 104 bytes there.
        runtime=runtime / NAME if runtime else Path(tempfile.gettempdir()) / f"{NAME}-{_user()}",
    )


def private(folder: Path) -> Path:
    """Make the folder with mode 0700 if it is not there, and return it.

    Raises:
        TowlineError: it cannot be made, is not a folder, belongs to another user,
            or others may write to it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise TowlineError(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        # A link in a shared temporary folder could lead anywhere.
        raise TowlineError(f"{folder} is not a folder", hint="move it out of the way")
    if hasattr(os, "getuid"):
        if found.st_uid != os.getuid():
            raise TowlineError(
                f"{folder} belongs to another user", hint="remove it, or set XDG_RUNTIME_DIR"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
    return folder


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Tell of a folder that cannot be written to (a full disk, mostly) in a user's words.

    Raises:
        TowlineError: in place of any OSError of the block.
    """
    try:
        yield
    except OSError as error:
        raise TowlineError(
            f"{folder} cannot be written to: {error.strerror or error}",
            hint="make room there, or set XDG_STATE_HOME to a folder elsewhere",
        ) from error


def _absolute(text: str | None) -> Path | None:
    # XDG: a relative path is invalid and must be ignored.
    return Path(text) if text and Path(text).is_absolute() else None


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "user"
