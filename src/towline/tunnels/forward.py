"""Laptop → cluster: local listeners whose connections end in the pod's network."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
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
    """One listening local port.

    Connections made before there is a connection to the cluster wait in it.

    Attributes:
        sockets: listen on the port; other sessions of the same user may have copies.
        shared_with: whose sockets they are copies of, where they are.
    """

    def __init__(self, local: int, target: Target, *, tasks: Tasks) -> None:
        self.local = local
        self.target = target
        self.sockets: tuple[socket.socket, ...] = ()
        self.shared_with: str | None = None
        self._tasks = tasks
        self._spares: Spares | None = None
        self._servers: list[asyncio.Server] = []
        self.active = 0

    async def begin(self) -> None:
        """Accept what comes to the sockets, and what waits in them already."""
        if self._servers:
            return
        loop = asyncio.get_running_loop()
        for each in self.sockets:
            # A copy: the server closes its own, and somebody may still ask for ours.
            server = await loop.create_server(self.accept, sock=each.dup(), backlog=_BACKLOG)
            self._servers.append(server)

    def close(self) -> None:
        """Listen no more. What waits unaccepted is for whoever else has the sockets."""
        for server in self._servers:
            server.close()
        for each in self.sockets:
            each.close()
        self._servers, self.sockets = [], ()

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


def bound(port: int, *, interface: str) -> tuple[socket.socket, ...]:
    """Sockets that listen on a port, on all addresses of the interface.

    Raises:
        PortInUse: somebody else listens there.
    """
    with ExitStack() as stack:
        made: list[socket.socket] = []
        for address in addresses_of(interface):
            try:
                made.append(stack.enter_context(_listening(address, port)))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortInUse(f"{interface}:{port} is already in use") from error
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and made:
                    continue  # a laptop without IPv6
                if error.errno == errno.EACCES:
                    raise PortInUse(
                        f"{interface}:{port} needs more rights than you have",
                        hint="choose a local port above 1023",
                    ) from error
                raise TowlineError(
                    f"{interface}:{port} cannot be listened on: {error.strerror}"
                ) from error
        stack.pop_all()
        return tuple(made)


def _listening(address: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(where)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


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
