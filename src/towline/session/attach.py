"""A second connection to a running session, for `exec`, `run`, `env`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from towline.errors import ConnectionLost, UsageError
from towline.session.local import LocalSession, sessions

if TYPE_CHECKING:
    # Imported where it connects: `env` only picks a session, and asyncssh takes 0.2 s.
    from towline.cluster.api import Api
    from towline.line.line import Line
    from towline.transport.ssh import SshSession


def pick_session(name: str | None, *, namespace: str | None = None) -> LocalSession:
    """The session of that name (entry, workload or id), or the only one of this laptop.

    Raises:
        UsageError: there is none, or which one is not said.
    """
    running = [s for s in sessions() if namespace in (None, s.namespace)]
    if name is not None:
        found = [s for s in running if name in (s.entry, s.workload, s.session)]
        if len(found) == 1:
            return found[0]
        running = found or running
        if not found:
            raise UsageError(
                f"there is no session {name!r} on this machine "
                f"(there: {_names(running) or 'none'})",
                hint=f"begin one: towline up {name}",
            )
    if name is None:
        # An entry's services have sessions beside its own.
        running = [s for s in running if "/" not in s.entry] or running
    if len(running) == 1:
        return running[0]
    if not running:
        raise UsageError("there is no session on this machine", hint="begin one: towline up")
    raise UsageError(
        f"there are {len(running)} sessions: {_names(running)}",
        hint=f"name one, or its id: {running[0].session}",
    )


def _names(found: list[LocalSession]) -> str:
    return ", ".join(f"{s.entry} ({s.namespace}, {s.session})" for s in found)


@asynccontextmanager
async def attached(
    session: LocalSession, *, api: Api, events: Callable[[object], None] = lambda event: None
) -> AsyncIterator[tuple[Line, SshSession]]:
    """A line and an SSH connection of one's own to a session's dev pod.

    A lost network is waited out for `keepFor`, as long as the agent keeps a line without a
    carrier: what comes back later finds nothing there to go on with.

    Args:
        events: told those of the line.

    Raises:
        ConnectionLost: the session has no pod at the moment, or its agent does not answer.
    """
    from towline.session.reach import agent_reached

    if session.pod is None:
        raise ConnectionLost(
            f"session {session.session} has no dev pod yet (stage: {session.stage})",
            hint="try again when `towline status` says that it is connected",
        )
    async with agent_reached(
        api,
        pod=session.pod,
        port=session.line_port,
        keys=session.keys(),
        events=events,
        give_up_after_s=session.keep_for_s,
    ) as reached:
        yield reached
