"""The process's own limits."""

from __future__ import annotations

import sys

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
