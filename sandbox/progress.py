"""Lines on stderr that say what is being done, and how long it has taken."""

from __future__ import annotations

import sys
import time


class Progress:
    """Timed lines; a line under way is rewritten in a terminal, and repeated rarely elsewhere."""

    _repeat_s = 15.0

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last_update = self._started
        self._open = False

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print one line, ended."""
        self._write(text, end="\n")
        self._open = False

    def update(self, text: str) -> None:
        """Print a line that the next one may replace."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if now - self._last_update < (0.2 if terminal else self._repeat_s):
            return
        self._last_update = now
        self._write(text, end="" if terminal else "\n")
        self._open = terminal

    def _write(self, text: str, *, end: str) -> None:
        start = "\r\x1b[K" if self._open else ""
        print(f"{start}{self.elapsed_s():6.1f} s  {text}", end=end, file=sys.stderr, flush=True)
