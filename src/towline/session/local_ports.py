"""A session's forwards on this laptop, shared with other sessions where they lead to the same.

Two sessions that forward one local port to one target listen on the same sockets: the
second asks the first for copies, and both accept. Whichever of them ends, however it
ends, the other goes on, and no connection is refused in between: what waits in the
sockets waits for both. Rejected: the second binding the port once the first has freed it,
which refuses whoever comes between the two.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

from towline._kit.objects import JsonObject
from towline._kit.tasks import Tasks
from towline.errors import PortInUse, TowlineError
from towline.manifest.model import Entry
from towline.session import local
from towline.session.control_socket import Answer, NotAnswering, WithSockets, ask_for_sockets
from towline.session.prepare import name_owner
from towline.tunnels.forward import Forward, Target, bound, is_loopback
from towline.tunnels.spares import Spares

METHOD = "local port"
# Between two looks somebody may have freed the port, and somebody else may have taken it.
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a local port leads.

    Attributes:
        session: whose dev pod it leads to; None where any pod of the namespace would do.
    """

    server: str
    namespace: str
    interface: str
    host: str | None
    port: int
    session: str | None

    def __str__(self) -> str:
        return f"{self.host or 'the dev pod'}:{self.port} in namespace {self.namespace}"


class LocalPorts:
    """The forwards of one session.

    Args:
        server: the address of the cluster.
    """

    def __init__(self, entry: Entry, session: local.LocalSession, *, server: str) -> None:
        self._entry = entry
        self._session = session
        self._server = server
        self._opened: dict[int, Forward] = {}

    def methods(self) -> dict[str, Answer]:
        """What it answers to other sessions."""
        return {METHOD: self._answer}

    async def listen(self, *, spares: Spares, tasks: Tasks) -> list[Forward]:
        """Listen for all forwards; nothing is accepted before they begin.

        Raises:
            PortInUse: somebody else has a port, or another session that leads elsewhere.
        """
        for each in self._entry.forward:
            target = Target(host=each.host, port=each.remote)
            forward = Forward(each.local, target, spares=spares, tasks=tasks)
            await self._open(forward)
        return list(self._opened.values())

    def exposed(self) -> str:
        """Who reaches the ports beside this laptop, in words; "" where nobody does."""
        entry = self._entry
        ways = [f"{f.local} → {f.host or 'dev pod'}:{f.remote}" for f in entry.forward]
        if entry.remote is not None:
            ways.append(f"{entry.remote} → the dev container's SSH, with the session's key")
        if not ways or is_loopback(entry.interface):
            return ""
        return (
            f"interface {entry.interface}: whoever reaches this laptop there reaches the cluster "
            f"by it: {' · '.join(ways)}; without `interface` only this laptop does"
        )

    def close(self) -> None:
        """Listen no more."""
        for each in self._opened.values():
            each.close()

    async def _open(self, forward: Forward) -> None:
        for tried in range(_TRIES):
            try:
                forward.sockets = bound(forward.local, interface=self._entry.interface)
            except PortInUse as error:
                if await asyncio.to_thread(self._shared, forward):
                    break
                if tried + 1 == _TRIES or error.hint is not None:
                    raise name_owner(error, self._entry) from error
            else:
                break
        # At once: the next session finds the port taken, and asks.
        self._opened[forward.local] = forward

    def _shared(self, forward: Forward) -> bool:
        """Get copies of another session's sockets for it, if one has the port; blocks."""
        way = self._way(forward.target)
        for session in local.sessions():
            if session.folder == self._session.folder:
                continue
            try:
                found, sockets = ask_for_sockets(
                    session.folder, METHOD, port=forward.local, way=asdict(way)
                )
            except NotAnswering:
                continue
            name = f"{session.entry} (session {session.session})"
            if sockets:
                forward.sockets, forward.shared_with = sockets, name
                return True
            if found:
                there = Way(**found["way"])
                raise PortInUse(
                    f"{way.interface}:{forward.local} leads to {there} for your session "
                    f"{name}, and is to lead to {way} here",
                    hint=f"choose another local port: `forward: <port>:"
                    f"{self._written(forward.local)}`, or end that one: "
                    f"towline down {session.entry} -n {session.namespace}",
                )
        return False

    def _written(self, port: int) -> str:
        """A forward as the manifest has it, without its local port."""
        found = next(each for each in self._entry.forward if each.local == port)
        return str(found).partition(":")[2]

    def _way(self, target: Target) -> Way:
        return Way(
            server=self._server,
            namespace=self._session.namespace,
            interface=self._entry.interface,
            host=target.host,
            port=target.port,
            session=self._session.session if target.host is None else None,
        )

    async def _answer(self, params: JsonObject) -> JsonObject | WithSockets:
        forward = self._opened.get(int(params["port"]))
        if forward is None or not forward.sockets:
            return {}
        way = self._way(forward.target)
        try:
            is_same = Way(**params["way"]) == way
        except TypeError as error:
            raise TowlineError("a session of another version") from error
        answer: JsonObject = {"way": asdict(way)}
        return WithSockets(answer, forward.sockets) if is_same else answer
