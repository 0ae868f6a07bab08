"""What is to be done after a test run, however it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_WAIT = "import subprocess, sys; sys.stdin.read(); sys.exit(subprocess.call(sys.argv[1:]))"


@contextmanager
def afterwards(*command: str, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a command when the block ends, or when this process does: killed, or timed out."""
    words = [sys.executable, "-c", _WAIT, *command]
    # Its standard input ends with this process; a terminal's Ctrl-C is not for it.
    with subprocess.Popen(words, stdin=subprocess.PIPE, env=env, start_new_session=True) as done:
        yield
    assert done.returncode == 0, f"{command} ended with {done.returncode}"
