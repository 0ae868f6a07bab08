"""Cluster → laptop: connections that arrive at the dev pod's ports are dialled here.

The agent listens; the client keeps channels open for it to use, and dials the local
port when one is used.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from towline._kit.tasks import Tasks
from towline.errors import ConnectionLost
from towline.tunnels.bridge import Bridge
from towline.tunnels.forward import addresses_of
from towline.tunnels.relay import Relay
from towline.tunnels.spares import SPARES

if TYPE_CHECKING:
    from towline.transport.channel import TunnelChannel
    from towline.transport.ssh import SshSession

REVERSE_HOST = "towline-reverse"
# More than this at once is asked for again as they are used.
_BURST = 64
_REFUSED = (errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.ENETUNREACH)


class Reverse:
    """One remote port's channels, opened ahead and dialled through when they are used.

    `wait_for_port` is awaited when nobody listens on the local port: it returns True
    once somebody does, False when it has been too long. Then `instead` opens a channel
    that the connection is led to; None resets it.
    """

    def __init__(
        self,
        *,
        remote: int,
        local: int,
        interface: str,
        ssh: SshSession,
        tasks: Tasks,
        wait_for_port: Callable[[int], Awaitable[bool]],
        instead: Callable[[int], Awaitable[TunnelChannel]] | None = None,
    ) -> None:
        self.remote = remote
        self.local = local
        self._interface = interface
        self._ssh = ssh
        self._tasks = tasks
        self._wait_for_port = wait_for_port
        self._instead = instead
        self._ready = 0
        self.active = 0

    def fill(self, wanted: int = SPARES) -> None:
        """Keep `wanted` channels open for the agent to use."""
        while self._ready < wanted:
            self._ready += 1
            self._tasks.start(self._offer(), name=f"reverse {self.remote}")

    async def _offer(self) -> None:
        try:
            channel = await self._ssh.open_channel(REVERSE_HOST, self.remote)
        except ConnectionLost:
            self._ready -= 1
            return
        offer = _Offer(self, channel)
        channel.on_first_data = offer.received
        channel.on_early_end = self._lost_one

    def _lost_one(self) -> None:
        self._ready -= 1

    def used(self, channel: TunnelChannel, *, waiting: int, early: bytes) -> None:
        """The agent used a channel for a connection: replace it, and dial."""
        self._ready -= 1
        self.fill(SPARES + min(waiting, _BURST))
        self.active += 1
        # Attached here and not in the task: the next bytes may be in the same packet.
        parked = _Parked(early)
        channel.attach(parked)
        self._tasks.start(self._dial(channel, parked), name=f"reverse {self.remote} dial")

    async def _dial(self, channel: TunnelChannel, parked: _Parked) -> None:
        relay = Relay(on_end=self._ended)
        error = await self._connect(relay)
        while error is not None and error.errno in _REFUSED and not parked.over:
            if not await self._wait_for_port(self.local):
                break
            error = await self._connect(relay)
        if error is not None and self._instead is not None and not parked.over:
            await self._lead_back(channel, parked, self._instead)
            return
        if error is not None:
            self.active -= 1
            channel.reset(f"localhost:{self.local}: {error.strerror or error}")
            return
        relay.join(channel)
        parked.move_to(relay)

    async def _lead_back(
        self,
        channel: TunnelChannel,
        parked: _Parked,
        instead: Callable[[int], Awaitable[TunnelChannel]],
    ) -> None:
        try:
            onward = await instead(self.remote)
        except ConnectionLost:
            self.active -= 1
            return  # with the line this channel is lost, too
        near, far = Bridge(channel, on_end=self._bridge_ended), Bridge(onward, on_end=_nothing)
        near.join(far)
        onward.attach(far)
        channel.attach(near)
        parked.move_to(near)

    def _bridge_ended(self) -> None:
        self.active -= 1

    async def _connect(self, relay: Relay) -> OSError | None:
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for address in addresses_of(self._interface):
            try:
                await loop.create_connection(lambda: relay, address, self.local)
            except OSError as error:
                # Of several failures "refused" by 127.0.0.1 tells more than "no IPv6".
                failure = failure or error
            else:
                return None
        return failure

    def _ended(self, relay: Relay) -> None:
        self.active -= 1


class _Offer:
    """A channel that waits to be used: reads the agent's header, wherever it is cut."""

    def __init__(self, reverse: Reverse, channel: TunnelChannel) -> None:
        self._reverse = reverse
        self._channel = channel
        self._buffer = b""

    def received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < 4:
            return
        waiting, length = struct.unpack_from(">HH", self._buffer)
        if len(self._buffer) < 4 + length:
            return
        early = self._buffer[4 + length :]
        self._reverse.used(self._channel, waiting=waiting, early=early)


class _Parked:
    """Holds what arrives while the local port is dialled: at most the agent's first credit."""

    def __init__(self, early: bytes) -> None:
        self._chunks = [early] if early else []
        self._eof = False
        self.over = False

    def received(self, data: bytes) -> None:
        self._chunks.append(data)

    def channel_eof(self) -> None:
        self._eof = True

    def ended(self, reset: str | None) -> None:
        self.over = True

    def pause(self, paused: bool) -> None:
        pass

    def move_to(self, relay: Relay | Bridge) -> None:
        """Hand over what was held, in order."""
        for data in self._chunks:
            relay.received(data)
        if self._eof:
            relay.channel_eof()
        if self.over:
            relay.ended("closed meanwhile")


def _nothing() -> None:
    pass
