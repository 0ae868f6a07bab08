"""Channels opened ahead of need, so that a new connection costs one round trip, not two."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from towline._kit.tasks import Tasks
from towline.errors import ConnectionLost

if TYPE_CHECKING:
    from towline.transport.channel import TunnelChannel

# One browser opens six connections to a host at once.
SPARES = 6


class Spares:
    """A few open channels, refilled as they are taken.

    `open_channel` opens one more; it may raise ConnectionLost, which is waited out by
    whoever needs a channel, not here.
    """

    def __init__(self, open_channel: Callable[[], Awaitable[TunnelChannel]], *, tasks: Tasks):
        self._open = open_channel
        self._tasks = tasks
        self._ready: deque[TunnelChannel] = deque()
        self._opening = 0

    def fill(self) -> None:
        """Open as many as are missing, in the background."""
        while len(self._ready) + self._opening < SPARES:
            self._opening += 1
            self._tasks.start(self._open_one(), name="spare channel")

    async def take(self) -> TunnelChannel:
        """A channel nobody has written to: a spare, or one opened now."""
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
