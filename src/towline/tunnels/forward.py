"""Laptop → cluster: local listeners whose connections end in the pod's network."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from towline._kit.tasks import Tasks
from towline.errors import ConnectionLost, PortInUse, TowlineError
from towline.tunnels.relay import Relay
from towline.tunnels.spares import Spares

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


def is_loopback(interface: str) -> bool:
    """Whether only this machine reaches what listens there; also where there is no such name."""
    try:
        found = [
            socket.getaddrinfo(address, None, flags=socket.AI_PASSIVE)[0][4][0]
            for address in addresses_of(interface)
        ]
    except OSError:
        return True
    return all(ip_address(address).is_loopback for address in found)


class Forward:
    """One listening local port.

    Connections made before it begins wait in it.

    Attributes:
        sockets: listen on the port; other sessions of the same user may have copies.
        shared_with: whose sockets they are copies of, where they are.
    """

    def __init__(self, local: int, target: Target, *, spares: Spares, tasks: Tasks) -> None:
        self.local = local
        self.target = target
        self.sockets: tuple[socket.socket, ...] = ()
        self.shared_with: str | None = None
        self._spares = spares
        self._tasks = tasks
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

    def accept(self) -> Relay:
        """asyncio's protocol factory: one relay for each connection."""
        relay = _Accepted(self)
        self.active += 1
        return relay

    def ended(self, relay: Relay) -> None:
        self.active -= 1

    def connect(self, relay: Relay) -> None:
        leading = lead(relay, self.target, spares=self._spares)
        self._tasks.start(leading, name=f"forward {self.local}")


class _Accepted(Relay):
    def __init__(self, forward: Forward) -> None:
        super().__init__(on_end=forward.ended)
        self._forward = forward

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._forward.connect(self)


async def lead(relay: Relay, target: Target, *, spares: Spares) -> None:
    """Join a local connection to its target; reset it where no dev pod comes in time."""
    try:
        channel = await spares.take()
    except ConnectionLost:
        relay.refuse()
        return
    except asyncio.CancelledError:  # the session ends
        relay.refuse()
        raise
    channel.write_header(target.header())
    relay.join(channel)


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
