"""The link to the dev pod: carrier, line, SSH; rebuilt below the process when it is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from towline._kit.tasks import Tasks
from towline.cluster.api import Api
from towline.cluster.pods import DevPod, pod_running
from towline.cluster.watch import until
from towline.errors import ConnectionLost
from towline.plan.record import Record
from towline.session.events import Events, NetworkBack, NetworkLost, PodReplaced, Waiting, Warned
from towline.session.reach import agent_reached
from towline.transport.keys import Keys

if TYPE_CHECKING:
    from towline.line.line import Line
    from towline.transport.ssh import SshSession


class Connection:
    """One pod, one line, one SSH connection: what is lost together.

    Attributes:
        healed: set whenever the line has a carrier again.
    """

    def __init__(self, pod: DevPod, line: Line, ssh: SshSession, healed: asyncio.Event) -> None:
        self.pod = pod
        self.line = line
        self.ssh = ssh
        self.healed = healed


@asynccontextmanager
async def connection(
    api: Api, record: Record, keys: Keys, pod: DevPod, *, events: Events
) -> AsyncIterator[Connection]:
    """Connect to a running dev pod.

    Raises:
        ConnectionLost: the agent does not answer.
    """
    healed = asyncio.Event()
    async with agent_reached(
        api, pod=pod.name, port=record.line_port, keys=keys, events=_tell(events, healed)
    ) as (line, ssh):
        yield Connection(pod, line, ssh, healed)


def _tell(events: Events, healed: asyncio.Event) -> Callable[[object], None]:
    from towline.line import line as lines

    def tell(event: object) -> None:
        if isinstance(event, lines.Lost):
            events(NetworkLost())
        elif isinstance(event, lines.Healed):
            events(NetworkBack(after_s=event.after_s))
            healed.set()

    return tell


class Link:
    """The connection of the moment; None while the pod is being replaced."""

    def __init__(self) -> None:
        self.current: Connection | None = None
        self._there = asyncio.Event()
        self._away = asyncio.Event()

    async def get(self, *, after: Connection | None = None) -> Connection:
        """The connection, waited for while there is none, or still the one of before."""
        while (current := self.current) is None or current is after:
            await (self._there if current is None else self._away).wait()
        return current

    async def lost(self) -> None:
        """Wait until there is none."""
        await self._away.wait()

    def set(self, connection: Connection | None) -> None:
        self.current = connection
        is_now, was = (self._away, self._there) if connection is None else (self._there, self._away)
        was.clear()
        is_now.set()


async def keep_link(
    link: Link,
    *,
    api: Api,
    record: Callable[[], Record],
    keys: Keys,
    pod: DevPod,
    timeout_s: float,
    events: Events,
    connected: Callable[[Connection, bool], Awaitable[None]],
    healed: Callable[[Connection], Awaitable[None]],
    pod_gone: Callable[[], Awaitable[None]],
    process_kept: bool = True,
) -> None:
    """Keep a link to the dev pod, whichever it is, until cancelled.

    Args:
        record: the session's, as it is when another pod is to be found.
        connected: awaited for each new connection, with whether it is the first.
        healed: awaited whenever a connection's line has a carrier again.
        pod_gone: awaited before another pod is waited for.
        process_kept: whether the process outlives the pod.

    Raises:
        TowlineError: the first connection does not come about, or no new pod gets to run.
    """
    is_first = True
    lost_at = time.monotonic()
    while True:
        try:
            async with connection(api, record(), keys, pod, events=events) as current:
                await connected(current, is_first)
                link.set(current)
                if not is_first:
                    after_s = time.monotonic() - lost_at
                    events(PodReplaced(pod=pod.name, after_s=after_s, process_kept=process_kept))
                is_first = False
                await _lost(api, current, healed)
        except ConnectionLost:
            if is_first:
                raise
        finally:
            link.set(None)
        lost_at = time.monotonic()
        events(Warned(text=f"the dev pod {pod.name} is gone: waiting for another one"))
        await pod_gone()
        pod = await pod_running(
            api,
            record(),
            timeout_s=timeout_s,
            waiting=lambda reason: events(Waiting(stage="dev pod", reason=reason)),
            lost=pod,
        )


async def _lost(
    api: Api, current: Connection, healed: Callable[[Connection], Awaitable[None]]
) -> None:
    """Wait until the SSH connection is over, or its container is not there any more."""

    async def after_each_heal() -> None:
        while True:
            await current.healed.wait()
            current.healed.clear()
            await healed(current)

    async with Tasks() as tasks:
        tasks.start(after_each_heal(), name="healed")
        closed = tasks.start(current.ssh.wait_closed(), name="ssh closed")
        gone = tasks.start(_container_gone(api, current.pod), name="pod gone")
        await asyncio.wait([closed, gone], return_when=asyncio.FIRST_COMPLETED)


async def _container_gone(api: Api, pod: DevPod) -> None:
    def gone(event: object) -> bool:
        from towline.cluster.api import WatchEvent

        assert isinstance(event, WatchEvent)
        if event.kind == "DELETED" or event.object["metadata"]["uid"] != pod.uid:
            return True
        if (event.object.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            return True
        statuses = (event.object.get("status") or {}).get("containerStatuses") or []
        ids = {s.get("containerID") for s in statuses if "running" in (s.get("state") or {})}
        return bool(statuses) and pod.container_id not in ids

    await until(api, "pods", gone, fields=f"metadata.name={pod.name}")
