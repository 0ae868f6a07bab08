"""Names of the cluster → listeners on loopback addresses, opened and closed as they come and go.

All are opened at once, not when they are first wanted: nothing tells that a process looks
a name up in its hosts file. It costs 0.1 ms each (200 in 25 ms, 5,000 in 400 ms, measured
with uvloop while the machine was busy), before the dev pod runs, and one descriptor.
"""

from __future__ import annotations

import asyncio
import errno
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from towline._kit.tasks import Tasks
from towline.tunnels.forward import Forward, Target
from towline.tunnels.spares import Spares

_BACKLOG = 128
# A port that cannot be had gets another one, near enough to be recognised.
_MOVED_BY = 8000
_TRIES = 100
_SHARED = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPort:
    """Where a port of the cluster is listened on, and why not under its own number."""

    number: int
    why: str | None = None


class NamedListeners:
    """The listeners of all names. Everything closes with `close`.

    Attributes:
        at_most: so many may be open.

    Args:
        avoid: ports that are not listened on, with the reason: a listener here would
            keep the local process from listening on all addresses.
    """

    def __init__(self, *, spares: Spares, tasks: Tasks, avoid: Mapping[int, str]) -> None:
        self._spares = spares
        self._tasks = tasks
        self._avoid = avoid
        self._open: dict[tuple[str, int], _Open] = {}
        self._given: frozenset[int] = frozenset()
        self.at_most = 1 << 20

    @property
    def count(self) -> int:
        return len(self._open)

    async def open(
        self, host: str, port: int, *, address: str, is_own: bool = True
    ) -> LocalPort | None:
        """Listen for a port of a host at an address; None where no port could be had.

        Args:
            is_own: the address is this name's alone, so the port can be the cluster's own.
        """
        if (host, port) in self._open:
            return self._open[host, port].local
        if len(self._open) >= self.at_most:
            return None
        why = self._avoid.get(port)
        target = Target(host=host, port=port)
        forward = Forward(port, target, spares=self._spares, tasks=self._tasks)
        if is_own and why is None:
            refused = await self._listen(forward, address, LocalPort(number=port))
            if refused is None:
                return self._open[host, port].local
            if refused not in (errno.EADDRINUSE, errno.EACCES):
                return None
            why = "needs rights" if refused == errno.EACCES else "is in use on all addresses"
        # At an address that names share the port depends on the name, to be the same each time.
        first = _moved(port) if is_own else _SHARED + zlib.crc32(forward.target.header()) % 10_000
        for tried in range(first, min(first + _TRIES, 65536)):
            local = LocalPort(number=tried, why=why)
            if tried not in self._avoid and await self._listen(forward, address, local) is None:
                return local
        return None

    async def give_way(self, ports: Collection[int]) -> None:
        """Close what listens on these ports, until they are no longer among them.

        For another process here that is about to listen on one of them on all addresses:
        connections to a name reach that process meanwhile.
        """
        self._given = frozenset(ports)
        for each in self._open.values():
            if each.local.number not in self._given:
                if each.server is None:
                    await each.bind()
            elif each.server is not None:
                each.close()

    async def _listen(self, forward: Forward, address: str, local: LocalPort) -> int | None:
        """Listen; the errno where it is refused."""
        made = _Open(local, address, forward)
        if local.number not in self._given and (refused := await made.bind()) is not None:
            return refused
        target = forward.target
        assert target.host is not None
        self._open[target.host, target.port] = made
        return None

    def stop(self, host: str, *, but: Collection[int] = ()) -> None:
        """Refuse new connections to a host, `but` to some ports; those that are open go on."""
        for key in [k for k in self._open if k[0] == host and k[1] not in but]:
            self._open.pop(key).close()

    def close(self) -> None:
        for each in self._open.values():
            each.close()
        self._open.clear()


class _Open:
    """One listener; without a server while it gives way."""

    def __init__(self, local: LocalPort, address: str, forward: Forward) -> None:
        self.local = local
        self.forward = forward
        self.server: asyncio.Server | None = None
        self._address = address

    async def bind(self) -> int | None:
        """Listen; the errno where it is refused."""
        loop = asyncio.get_running_loop()
        try:
            self.server = await loop.create_server(
                self.forward.accept, self._address, self.local.number, backlog=_BACKLOG
            )
        except OSError as error:
            return error.errno or errno.EINVAL
        return None

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None


def _moved(port: int) -> int:
    """80 → 8080, 443 → 8443, 5432 → 13432."""
    return port + _MOVED_BY if port + _MOVED_BY < 65000 else port - _MOVED_BY
