"""What asks a session to end: signals, `down`, the keys of the terminal."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol

from towline._kit.objects import JsonObject


class Phase(StrEnum):
    """What a request to end means depends on how far the session is."""

    SETUP = "setup"
    SERVING = "serving"
    RESTORING = "restoring"


class Requests:
    """The wish to end, and what it does in each phase.

    In `SETUP` it cancels the session's task, whose way out undoes what was done. In
    `SERVING` it is waited for. In `RESTORING` a second Ctrl-C cancels the waiting: what is
    left is done at once. One more cancels that, too, and the user is told what is left to do.

    Attributes:
        hurries: nobody waits any more for the original to be ready.
    """

    def __init__(self) -> None:
        self.phase = Phase.SETUP
        self.hurries = False
        self._restoring_since: float | None = None
        self.reason: str | None = None
        self.signal: int | None = None
        self._event = asyncio.Event()
        self._task = asyncio.current_task()

    def restoring(self) -> float:
        """Enter the way back; returns how long it has been going on already, in seconds."""
        now = time.monotonic()
        self.phase = Phase.RESTORING
        if self._restoring_since is None:
            self._restoring_since = now
        return now - self._restoring_since

    def end(self, reason: str, *, number: int | None = None) -> None:
        """Ask for the end of the session."""
        again = self.reason is not None
        self.reason = self.reason or reason
        self.signal = self.signal or number
        self._event.set()
        self.hurries = self.hurries or (self.phase is Phase.RESTORING and again)
        cancels = self.phase is Phase.SETUP or self.hurries
        if cancels and self._task is not None:
            self._task.cancel()

    async def answer(self, _: JsonObject) -> JsonObject:
        """`down`, by the control socket, where a signal would end other sessions, too."""
        self.end("ended by `towline down`")
        return {}

    async def wait(self) -> str:
        """Wait for somebody to ask for the end; returns the reason."""
        await self._event.wait()
        return self.reason or ""


class End(Protocol):
    """Asks for the end of something."""

    def __call__(self, reason: str, *, number: int | None = None) -> None: ...


@contextmanager
def signals(end: End) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP ask for the end while the block runs."""

    def signalled(number: int) -> None:
        names = {signal.SIGINT: "Ctrl-C"}
        end(names.get(signal.Signals(number), signal.Signals(number).name), number=number)

    loop = asyncio.get_running_loop()
    wanted = [
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
    ]
    added = []
    for number in wanted:
        try:
            loop.add_signal_handler(number, signalled, number)
        except NotImplementedError:
            continue  # Windows: Ctrl-C arrives as KeyboardInterrupt
        added.append(number)
    try:
        yield
    finally:
        for number in added:
            loop.remove_signal_handler(number)
