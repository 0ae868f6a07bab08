"""Laptop → cluster: local listeners whose connections end in the pod's network."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towline._kit.tasks import Tasks
from towline.errors import ConnectionLost, PortInUse, TowlineError
from towline.tunnels.relay import Relay
from towline.tunnels.spares import Spares

if TYPE_CHECKING:
    from towline.transport.channel import TunnelChannel
    from towline.transport.ssh import SshSession

SPARE_HOST = "towline-spare"
_BACKLOG = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a forward ends: a host that the pod resolves (None: the pod itself) and a port."""

    host: str | None
    port: int

    def header(self) -> bytes:
        name = (self.host or "localhost").encode()
        return struct.pack(">HH", self.port, len(name)) + name


def addresses_of(interface: str) -> list[str]:
    """The addresses that an interface's name stands for: `localhost` is both families."""
    return ["127.0.0.1", "::1"] if interface == "localhost" else [interface]


class Forward:
    """One listening local port. Connections made while the line is away wait in it."""

    def __init__(self, local: int, target: Target, *, tasks: Tasks) -> None:
        self.local = local
        self.target = target
        self._tasks = tasks
        self._spares: Spares | None = None
        self.active = 0

    def use(self, spares: Spares | None) -> None:
        """Take channels from here; None while the pod is being replaced."""
        self._spares = spares

    def accept(self) -> Relay:
        """asyncio's protocol factory: one relay for each connection."""
        relay = _Accepted(self)
        self.active += 1
        return relay

    def ended(self, relay: Relay) -> None:
        self.active -= 1

    def connect(self, relay: Relay) -> None:
        self._tasks.start(self._connect(relay), name=f"forward {self.local}")

    async def _connect(self, relay: Relay) -> None:
        if self._spares is None:
            relay.refuse()
            return
        try:
            channel = await self._spares.take()
        except ConnectionLost:
            relay.refuse()
            return
        channel.write_header(self.target.header())
        relay.join(channel)


class _Accepted(Relay):
    def __init__(self, forward: Forward) -> None:
        super().__init__(on_end=forward.ended)
        self._forward = forward

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._forward.connect(self)


@asynccontextmanager
async def listening(forward: Forward, *, interface: str) -> AsyncIterator[Forward]:
    """Listen on a forward's local port, on all addresses of the interface.

    Raises:
        PortInUse: somebody else listens there.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        bound = 0
        for address in addresses_of(interface):
            try:
                server = await loop.create_server(
                    forward.accept, address, forward.local, backlog=_BACKLOG
                )
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortInUse(f"{interface}:{forward.local} is already in use") from error
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and bound:
                    continue  # a laptop without IPv6
                if error.errno == errno.EACCES:
                    raise PortInUse(
                        f"{interface}:{forward.local} needs more rights than you have",
                        hint="choose a local port above 1023",
                    ) from error
                raise TowlineError(
                    f"{interface}:{forward.local} cannot be listened on: {error.strerror}"
                ) from error
            bound += 1
            stack.callback(server.close)
        yield forward


@asynccontextmanager
async def forwards(
    ports: Sequence[tuple[int, Target]], *, interface: str, tasks: Tasks
) -> AsyncIterator[list[Forward]]:
    """Listen for all forwards; they connect once `connect_forwards` gives them a connection."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                listening(Forward(local, target, tasks=tasks), interface=interface)
            )
            for local, target in ports
        ]
        yield opened


def connect_forwards(opened: Sequence[Forward], ssh: SshSession, *, tasks: Tasks) -> Spares:
    """Give forwards the connection that their channels go through from now on."""

    async def open_channel() -> TunnelChannel:
        return await ssh.open_channel(SPARE_HOST, 0)

    spares = Spares(open_channel, tasks=tasks)
    if opened:
        spares.fill()
    for forward in opened:
        forward.use(spares)
    return spares
