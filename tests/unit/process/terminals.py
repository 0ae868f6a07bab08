"""A terminal for the tests: a pty, a program in it, and what it said."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
LIMIT_S = 15.0


class Screen:
    """What came out of the terminal, and the keys that go in."""

    def __init__(self, controller: int, program: subprocess.Popen[bytes]) -> None:
        self.program = program
        self._controller = controller
        self.text = ""
        self._seen: dict[str, int] = {}

    def press(self, keys: str) -> None:
        os.write(self._controller, keys.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Read on until the pattern is there once more than it was found before.

        Each pattern for itself: client and command write at the same time.
        """
        seen = self._seen.get(pattern, 0)
        deadline = time.monotonic() + LIMIT_S
        while not (match := re.compile(pattern).search(self.text, seen)):
            ready, _, _ = select.select([self._controller], [], [], deadline - time.monotonic())
            if not ready:
                raise AssertionError(f"no {pattern!r} in {self.text[seen:]!r}")
            try:
                self.text += os.read(self._controller, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended without {pattern!r}: {self.text!r}") from None
        self._seen[pattern] = match.end()
        return match


@contextmanager
def terminal(*client: str) -> Iterator[Screen]:
    """Run client.py with these arguments as the foreground job of a small shell."""
    controller, side = os.openpty()
    program = subprocess.Popen(
        [sys.executable, str(HERE / "shell.py"), str(HERE / "client.py"), *client],
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(side)
    try:
        yield Screen(controller, program)
    finally:
        program.kill()
        program.wait(LIMIT_S)
        os.close(controller)


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true before the limit; for what no event tells of."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
