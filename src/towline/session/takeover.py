"""The cluster's side of a session: taken over on the way in, given back on the way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from towline._kit.tasks import Tasks, finish, settled
from towline._kit.together import together
from towline.cluster import apply, point
from towline.cluster.api import Api
from towline.cluster.claims import create_claim
from towline.cluster.kube_events import hand_that_ended, tell_restored, tell_taken_over
from towline.cluster.pieces import share_pieces
from towline.cluster.pods import (
    NO_ROOM_AFTER_S,
    DevPod,
    NoRoom,
    pod_ready,
    pod_running,
    service_only_at,
)
from towline.cluster.watch import patiently, until
from towline.errors import ClusterError, ConnectionLost, CredentialsEnded, TowlineError
from towline.manifest.model import Entry, Handover, Original, Settings
from towline.payload.pieces import Piece
from towline.plan.model import Owner, Plan
from towline.plan.record import Record
from towline.plan.services import selector_text
from towline.session import local
from towline.session.events import Events, Restored, Waiting, Warned
from towline.session.guard import Guard
from towline.session.link import Connection
from towline.session.others import DevWatch
from towline.session.pointing import point_all_back, point_all_here
from towline.session.requests import Requests

# For the EndpointSlice to follow the pod's readiness: what is longer is not waited for.
_ENDPOINTS_S = 5.0


async def end_other(
    api: Api, record: Record, *, by: Owner, events: Events, timeout_s: float
) -> None:
    """End another session, or what is left of one of ours, from its record."""
    events(Warned(text=f"ending session {record.session} of {record.owner} first"))
    await apply.restore(
        api,
        record,
        report=lambda text: events(Warned(text=text)),
        ready_timeout_s=timeout_s,
        wait=False,
        ended_by=f"{by} (`towline up`)",
    )


@dataclass(slots=True)
class Takeover:
    """A takeover under way.

    Its plan and record change when room must be made, and all of it when it is applied anew.
    """

    plan: Plan
    record: Record
    guard: Guard


@asynccontextmanager
async def applied(
    plan: Plan,
    record: Record,
    *,
    api: Api,
    parts: tuple[Piece, ...],
    files: dict[str, bytes],
    settings: Settings,
    ready_timeout_s: float,
    events: Events,
    requests: Requests,
) -> AsyncIterator[Takeover]:
    """The dev workload, made; and on the way out the cluster as it was, whatever happened.

    Raises:
        SessionTaken: somebody was faster.
        ClusterError: the cluster refused something; what was done is undone.
    """
    # Of a request that is only dropped nobody would know whether there is a record now.
    writing = apply.write_record(api, record)
    written = await settled(writing, undo=lambda made: apply.remove_record(api, made))
    guarding = Tasks()
    guard = Guard(plan, settings, api=api, tasks=guarding, events=events)
    takeover = Takeover(plan, written, guard)
    try:
        async with guarding:
            await _make(takeover, api=api, parts=parts, files=files, events=events)
            yield takeover
    finally:
        requests.restoring()
        does_it = f"towline down {record.entry} -n {api.namespace} does it"
        if takeover.guard.is_posted:
            does_it += f", or the guard in {settings.give_back_after_s:g} s"

        async def undo(*, wait: bool) -> str:
            return await _restore(
                api, takeover.record, ready_timeout_s=ready_timeout_s, wait=wait, events=events
            )

        try:
            text = await _undone(undo, requests=requests)
        except asyncio.CancelledError:
            events(Warned(text=f"the cluster is not given back yet: {does_it}"))
            raise
        except ClusterError as error:
            is_login = isinstance(error, CredentialsEnded)
            when = "after a new login" if is_login else "when it can be reached"
            raise TowlineError(
                f"the cluster could not be given back: {error.message}", hint=f"{when} {does_it}"
            ) from error
        events(Restored(text=text, seconds=requests.restoring()))


async def apply_anew(
    takeover: Takeover,
    plan: Plan,
    record: Record,
    *,
    api: Api,
    parts: tuple[Piece, ...],
    files: dict[str, bytes],
    events: Events,
) -> None:
    """Make the dev workload once more, of another plan, after all of the first one is gone.

    The laptop has just woken up: its network may be away again, and is waited for.

    Raises:
        SessionTaken, ClusterError: as `applied`, whose way out undoes what was done.
    """
    writing = patiently(lambda: apply.write_record(api, record))
    written = await settled(writing, undo=lambda made: apply.remove_record(api, made))
    takeover.guard.retire()
    takeover.plan, takeover.record = plan, written
    takeover.guard = takeover.guard.successor(plan)
    await patiently(
        lambda: _make(takeover, api=api, parts=parts, files=files, events=events),
        waiting=lambda reason: events(Waiting(stage="dev pod", reason=reason)),
    )


async def _make(
    takeover: Takeover,
    *,
    api: Api,
    parts: tuple[Piece, ...],
    files: dict[str, bytes],
    events: Events,
) -> None:
    """What a written record says that there is: all up to the dev workload."""
    plan, record = takeover.plan, takeover.record
    if plan.made is not None:
        takeover.record = record = await apply.make_workload(api, record, plan.made)
    verified = local.verified_pieces()
    if plan.way_back is not None:
        await point.create_way_back(api, record, plan.way_back.service)
    await together(
        share_pieces(api, record, parts, verified=verified),
        apply.create_secret(api, record, files),
    )
    local.keep_verified_pieces(verified)
    if plan.claim is not None:
        await create_claim(api, plan.claim)
    if plan.handover is Handover.EXCLUSIVE:
        await takeover.guard.post(record)
        await _stop_original(api, record, events=events)
    await apply.create_dev_workload(api, record, plan.dev_workload)


async def _stop_original(api: Api, record: Record, *, events: Events) -> None:
    await apply.stop_original(api, record)
    events(Waiting(stage="original", reason="waiting for its pods to end"))
    await apply.original_ended(api, record)


async def running_pod(
    takeover: Takeover, *, api: Api, timeout_s: float, may_stop_original: bool, events: Events
) -> DevPod:
    """The dev pod, running.

    Where a quota or the nodes have no room for it beside the original, that one is stopped
    first, if it may be: the plan and the record then say `exclusive`.

    Raises:
        PodError, Refused: as `pod_running`.
        Reverted: somebody has taken the dev workload away.
    """

    def waiting(reason: str) -> None:
        events(Waiting(stage="dev pod", reason=reason))

    async def running(no_room_after_s: float | None = None) -> DevPod:
        watch = DevWatch(takeover.record, takeover.guard, api=api, events=events)
        async with Tasks() as tasks:
            tasks.start(watch.run(), name="dev workload")
            return await pod_running(
                api,
                takeover.record,
                timeout_s=timeout_s,
                waiting=waiting,
                no_room_after_s=no_room_after_s,
            )

    if takeover.plan.handover is Handover.SEAMLESS and may_stop_original:
        try:
            return await running(NO_ROOM_AFTER_S)
        except NoRoom as error:
            await _make_room(takeover, api=api, reason=error.message, events=events)
    return await running()


async def running_pod_of(entry: Entry, takeover: Takeover, *, api: Api, events: Events) -> DevPod:
    """The same, with the entry's own words on time and handover."""
    is_free = entry.settings.handover is None and takeover.plan.original is Original.REPLACE
    return await running_pod(
        takeover,
        api=api,
        timeout_s=entry.resources_timeout_s,
        may_stop_original=is_free,
        events=events,
    )


async def _make_room(takeover: Takeover, *, api: Api, reason: str, events: Events) -> None:
    """Begin anew with an exclusive handover: the dev pod away, the original stopped."""
    text = f"no room for the dev pod beside the original, which is stopped first: {reason}"
    events(Warned(text=text))
    exclusive = Handover.EXCLUSIVE
    takeover.plan = replace(takeover.plan, handover=exclusive, handover_reason=reason)
    takeover.record = replace(takeover.record, handover=exclusive)
    await apply.rewrite_record(api, takeover.record)
    # Made anew: the controller waits ever longer between tries that a quota refused.
    await apply.remove_dev_pods(api, takeover.record)
    await takeover.guard.post(takeover.record)
    await _stop_original(api, takeover.record, events=events)
    await apply.create_dev_workload(api, takeover.record, takeover.plan.dev_workload)


async def _undone(undo: Callable[..., Coroutine[None, None, str]], *, requests: Requests) -> str:
    """All of the way back, until the original is ready or somebody is in a hurry."""
    if not requests.hurries:
        try:
            return await finish(undo(wait=True))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not requests.hurries or task is None:
                raise
            task.uncancel()
    # What is there to be undone must not be left: the agent holds callers whom nobody answers.
    text = await finish(undo(wait=False))
    return f"{text}; whether it is ready is not waited for"


async def _restore(
    api: Api, record: Record, *, ready_timeout_s: float, wait: bool, events: Events
) -> str:
    stands = await apply.restore(
        api,
        record,
        report=lambda text: events(Warned(text=text)),
        ready_timeout_s=ready_timeout_s,
        wait=wait,
    )
    await tell_restored(api, record)
    return stands


async def hand_over(api: Api, takeover: Takeover, pod: DevPod) -> None:
    """Once the gate is open: the Services lead to the dev pod, then the original stops."""
    plan, record = takeover.plan, takeover.record
    await together(pod_ready(api, pod), takeover.guard.post(record))
    services = sorted({port.service for port in plan.ports})
    if record.is_kept:
        await point_all_here(api, record)
    elif plan.handover is Handover.SEAMLESS:
        await apply.stop_original(api, record)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDPOINTS_S):
                for service in services:
                    await service_only_at(api, service, pod.address)
    await tell_taken_over(api, record)


async def give_back(
    api: Api,
    record: Record,
    current: Connection | None,
    *,
    process_runs: bool,
    hold_for_s: float,
    events: Events,
    ready_timeout_s: float,
    left_ports: Iterable[int] = (),
) -> None:
    """The way back, as far as the agent has a part in it (seamless handover).

    The original is brought to ready first. Meanwhile the process answers if it still
    runs; otherwise the agent holds connections. Then both pass to the original, and the
    gate shuts.

    Args:
        left_ports: of the dev container, which a process there has left or will leave.
    """
    if record.is_kept:
        await _give_back_kept(
            api, record, current, process_runs=process_runs, left_ports=left_ports
        )
        return
    if current is not None and not process_runs:
        with suppress(ConnectionLost, TowlineError):
            await current.ssh.control.route(
                "hold", hold_for_s=max(hold_for_s, ready_timeout_s), listen=left_ports
            )
    # What it has to report, the restore behind this says once more.
    stood = await apply.start_original(api, record, report=lambda _: None)
    if not stood.will_serve:
        return
    events(Waiting(stage="original", reason="waiting until it is ready"))
    with suppress(TimeoutError):
        async with asyncio.timeout(ready_timeout_s):
            await apply.original_ready(api, record)
    if current is None:
        return
    with suppress(ConnectionLost, TowlineError):
        targets = await original_at(api, record)
        if targets:
            await current.ssh.control.route("pass", to=targets)
        # Nobody waits for the Services to follow: until the nodes have, the agent passes
        # on what still comes, also while its pod ends.
        await current.ssh.control.gate(is_open=False)


async def _give_back_kept(
    api: Api,
    record: Record,
    current: Connection | None,
    *,
    process_runs: bool,
    left_ports: Iterable[int],
) -> None:
    """The Services lead to the original again; what still comes to the agent does, too.

    A process that still runs answers until the Services have followed.
    """

    async def pass_on() -> None:
        if current is not None:
            with suppress(ConnectionLost, TowlineError):
                if ports := tuple(left_ports):
                    # A process there has left them to the agent, which holds what comes.
                    await current.ssh.control.route("hold", hold_for_s=_ENDPOINTS_S, listen=ports)
                    await current.ssh.control.route("pass", to=await original_at(api, record))
                await current.ssh.control.gate(is_open=False)

    if not process_runs:
        await pass_on()
    await point_all_back(api, record)
    await pass_on()


async def original_at(api: Api, record: Record) -> dict[int, list[str]]:
    """host:port of the original's ready pods, by remote port."""
    found = await api.get(record.kind.resource, record.workload)
    labels = f"{selector_text(found['spec']['selector'])},!towline.dev/session"
    pods = (await api.list_("pods", labels=labels)).get("items") or []
    ready = [
        str(pod["status"]["podIP"])
        for pod in pods
        if pod["status"].get("podIP")
        and not pod["metadata"].get("deletionTimestamp")
        and any(
            c["type"] == "Ready" and c["status"] == "True"
            for c in pod["status"].get("conditions") or []
        )
    ]
    if not ready:
        return {}
    remotes = sorted({int(port["remote"]) for port in record.ports})
    return {
        remote: [f"[{ip}]:{remote}" if ":" in ip else f"{ip}:{remote}" for ip in ready]
        for remote in remotes
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordGone:
    """Why a session's record is there no more.

    Attributes:
        by_hand: somebody is known to have ended the session; otherwise the guard may have.
    """

    reason: str
    by_hand: bool = False


async def record_gone(api: Api, record: Record) -> RecordGone:
    """Wait until the record is deleted, by `down` from wherever; returns what happened."""

    # A watch tells of the end of what it has seen, and there may be nothing to see any more.
    if await patiently(lambda: apply.is_recorded(api, record)):
        await until(
            api,
            "configmaps",
            lambda event: event.kind == "DELETED",
            fields=f"metadata.name={record.names.record}",
        )
    if (hand := await patiently(lambda: hand_that_ended(api, record))) is not None:
        return RecordGone(reason=f"ended by {hand}", by_hand=True)
    try:
        namespace = await api.find("namespaces", api.namespace)
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return RecordGone(reason=f"namespace {api.namespace} is being deleted")
        if await api.find(record.kind.resource, record.workload) is None:
            what = f"{record.kind} {record.workload}"
            return RecordGone(reason=f"{what} was deleted, and the session's record too")
    except ClusterError:
        pass  # without the right to see it, or the way to it
    return RecordGone(reason="ended by `towline down`")
