"""A session's folder for what is secret: in memory where there is some, gone at its end.

After a kill -9 it is left behind; the next session of this user sweeps it away.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from towline._kit.paths import NAME, folders, private
from towline.errors import TowlineError
from towline.session.local import process_started

_OWNER = "owner.json"
_SHM = Path("/dev/shm")


@contextmanager
def private_folder(session: str) -> Iterator[Path]:
    """A folder for this session, mode 0700, while the block runs."""
    parent = secrets_folder(os.environ)
    sweep(parent)
    folder = parent / session
    folder.mkdir(mode=0o700)
    try:
        pid = os.getpid()
        owner = {"pid": pid, "started": process_started(pid)}
        (folder / _OWNER).write_text(json.dumps(owner))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def secrets_folder(environ: Mapping[str, str]) -> Path:
    """Where such folders are: the login session's own, or shared memory, or else on disk.

    Raises:
        TowlineError: none of them can be made safely.
    """
    user = str(os.getuid()) if hasattr(os, "getuid") else "user"
    in_memory = [_SHM / f"{NAME}-{user}"] if sys.platform == "linux" else []
    runtime = environ.get("XDG_RUNTIME_DIR") or ""
    if runtime.startswith("/"):
        in_memory.insert(0, Path(runtime) / NAME)
    for place in in_memory:
        if place.parent.is_dir() and os.access(place.parent, os.W_OK):
            with suppress(TowlineError):  # somebody else has made it: the next one
                return private(place)
    return private(private(folders(environ).state) / "private")


def sweep(parent: Path) -> None:
    """Remove the folders whose client is not there any more."""
    for folder in parent.iterdir():
        try:
            owner = json.loads((folder / _OWNER).read_text())
            if process_started(int(owner["pid"])) == owner["started"]:
                continue
        except FileNotFoundError:
            # Being made at this moment, unless it is old.
            if _is_new(folder):
                continue
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(folder, ignore_errors=True)


def _is_new(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime < 60
    except OSError:
        return True
