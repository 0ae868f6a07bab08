"""Laps of wall time."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds between one `lap` and the next, from its making on."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self._last = self._last, time.monotonic()
        return self._last - before
