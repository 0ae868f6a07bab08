"""The process's own limits."""

from __future__ import annotations

import sys
from contextlib import suppress

# Each tunnelled connection is a socket; shells give 256 (macOS) or 1024 (Linux) files.
_ENOUGH_FILES = 16384


def raise_open_files() -> None:
    """Let this process, and what it starts from now on, open as many files as it may.

    The local command is not to inherit that (programs that use select(2) break above
    1024), so it is started before.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _ENOUGH_FILES if hard == unlimited else min(hard, _ENOUGH_FILES)
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def room_for(count: int) -> int:
    """Raise the limit so far that `count` more files fit; how many then do."""
    if sys.platform == "win32":
        return count
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = count + _ENOUGH_FILES
    if soft == unlimited:
        return count
    if soft < wanted and (hard == unlimited or soft < hard):
        most = wanted if hard == unlimited else min(wanted, hard)
        with suppress(ValueError, OSError):  # macOS has one more limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    # Half of a small limit is for connections.
    return min(count, max(soft - _ENOUGH_FILES, soft // 2))


def open_files() -> int | None:
    """The limit as it is; None where there is none to speak of."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
