"""Channels opened ahead of need, so that a new connection costs one round trip, not two."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from towline._kit.tasks import Tasks
from towline.errors import ConnectionLost

if TYPE_CHECKING:
    from towline.transport.channel import TunnelChannel

SPARE_HOST = "towline-spare"
# One browser opens six connections to a host at once.
SPARES = 6


class Spares:
    """A few open channels, refilled as they are taken; over one connection after the other.

    Args:
        hold_for_s: how long a new connection waits for a dev pod while there is none.
    """

    def __init__(self, *, hold_for_s: float, tasks: Tasks) -> None:
        self._hold_for_s = hold_for_s
        self._tasks = tasks
        self._open: Callable[[], Awaitable[TunnelChannel]] = _nothing_to_open
        self._next = asyncio.Event()
        self._ready: deque[TunnelChannel] = deque()
        self._opening = 0

    def use(self, open_channel: Callable[[], Awaitable[TunnelChannel]]) -> None:
        """Open channels by this from now on, for those who wait, too.

        It raises ConnectionLost once its connection is gone: what is needed then waits here
        for the next one.
        """
        self._open = open_channel
        self._ready.clear()
        self._next.set()
        self._next = asyncio.Event()

    def fill(self) -> None:
        """Open as many as are missing, in the background."""
        while len(self._ready) + self._opening < SPARES:
            self._opening += 1
            self._tasks.start(self._open_one(), name="spare channel")

    async def take(self) -> TunnelChannel:
        """A channel nobody has written to: a spare, or one opened now.

        Raises:
            ConnectionLost: the dev pod is gone, and no other one came within `hold_for_s`.
        """
        while True:
            coming = self._next
            with suppress(ConnectionLost):
                return await self._take()
            try:
                async with asyncio.timeout(self._hold_for_s):
                    await coming.wait()
            except TimeoutError as error:
                raise ConnectionLost(f"no dev pod for {self._hold_for_s:g} s") from error

    async def _take(self) -> TunnelChannel:
        while self._ready:
            channel = self._ready.popleft()
            if channel.usable:
                self.fill()
                return channel
        self.fill()
        return await self._open()

    async def _open_one(self) -> None:
        try:
            channel = await self._open()
        except ConnectionLost:
            return
        finally:
            self._opening -= 1
        self._ready.append(channel)


async def _nothing_to_open() -> TunnelChannel:
    raise ConnectionLost("there is no connection to a dev pod yet")
