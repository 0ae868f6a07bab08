"""The cluster's side of a session: taken over on the way in, given back on the way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from towline._kit.tasks import finish
from towline._kit.together import together
from towline.cluster import apply
from towline.cluster.api import Api
from towline.cluster.pods import DevPod, pod_ready, service_only_at
from towline.errors import ClusterError, ConnectionLost, TowlineError
from towline.manifest.model import Handover
from towline.payload.pieces import Piece
from towline.plan.model import Plan
from towline.plan.record import Record, read_record
from towline.plan.services import selector_text
from towline.session.events import Events, Restored, Waiting, Warned
from towline.session.link import Connection
from towline.session.requests import Requests

# For the EndpointSlice to follow the pod's readiness: what is longer is not waited for.
_ENDPOINTS_S = 5.0


def now_text() -> str:
    """The present as Kubernetes writes it: RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def end_other(api: Api, record: Record, *, events: Events, timeout_s: float) -> None:
    """End another session, or what is left of one of ours, from its record."""
    events(Warned(text=f"ending session {record.session} of {record.owner} first"))
    await apply.restore(
        api,
        record,
        report=lambda text: events(Warned(text=text)),
        ready_timeout_s=timeout_s,
        wait=False,
    )


@asynccontextmanager
async def applied(
    plan: Plan,
    record: Record,
    *,
    api: Api,
    parts: tuple[Piece, ...],
    files: dict[str, bytes],
    ready_timeout_s: float,
    events: Events,
    requests: Requests,
) -> AsyncIterator[Record]:
    """The dev workload, made; and on the way out the cluster as it was, whatever happened.

    Raises:
        SessionTaken: somebody was faster.
        ClusterError: the cluster refused something; what was done is undone.
    """
    written = await apply.write_record(api, record)
    try:
        await together(
            apply.share_pieces(api, written, parts), apply.create_secret(api, written, files)
        )
        if plan.handover is Handover.EXCLUSIVE:
            await apply.stop_original(api, written)
            events(Waiting(stage="original", reason="waiting for its pods to end"))
            await apply.original_ended(api, written)
        await apply.create_dev_workload(api, written, plan.dev_workload)
        yield written
    finally:
        requests.restoring()
        try:
            await finish(_restore(api, written, ready_timeout_s=ready_timeout_s, events=events))
        except asyncio.CancelledError:
            command = f"towline down {record.entry} -n {api.namespace}"
            events(Warned(text=f"the cluster is not given back yet: {command} does it"))
            raise
        text = f"{written.kind} {written.workload} is back at {written.replicas}"
        events(Restored(text=text, seconds=requests.restoring()))


async def _restore(api: Api, record: Record, *, ready_timeout_s: float, events: Events) -> None:
    try:
        await apply.restore(
            api,
            record,
            report=lambda text: events(Warned(text=text)),
            ready_timeout_s=ready_timeout_s,
        )
    except ClusterError as error:
        raise TowlineError(
            f"the cluster could not be given back: {error.message}",
            hint=f"when it can be reached: towline down {record.entry} -n {api.namespace}",
        ) from error
    await apply.tell_event(
        api,
        record,
        reason="TowlineRestored",
        message=f"development by {record.owner} ended",
        now=now_text(),
    )


async def hand_over(api: Api, plan: Plan, record: Record, pod: DevPod) -> None:
    """Once the gate is open: the Services lead to the dev pod, then the original stops."""
    await pod_ready(api, pod)
    services = sorted({port.service for port in plan.ports})
    if plan.handover is Handover.SEAMLESS:
        await apply.stop_original(api, record)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDPOINTS_S):
                for service in services:
                    await service_only_at(api, service, pod.address)
    await apply.tell_event(
        api,
        record,
        reason="TowlineTakenOver",
        message=f"in development by {record.owner}: `towline down` gives it back",
        now=now_text(),
    )


async def give_back(
    api: Api,
    record: Record,
    current: Connection | None,
    *,
    process_runs: bool,
    hold_for_s: float,
    events: Events,
    ready_timeout_s: float,
) -> None:
    """The way back, as far as the agent has a part in it (seamless handover).

    The original is brought to ready first. Meanwhile the process answers if it still
    runs; otherwise the agent holds connections. Then both pass to the original, and the
    gate shuts.
    """
    if current is not None and not process_runs:
        with suppress(ConnectionLost, TowlineError):
            await current.ssh.control.route("hold", hold_for_s=max(hold_for_s, ready_timeout_s))
    if not await apply.start_original(api, record, report=lambda text: events(Warned(text=text))):
        return
    events(Waiting(stage="original", reason="waiting until it is ready"))
    with suppress(TimeoutError):
        async with asyncio.timeout(ready_timeout_s):
            await apply.original_ready(api, record)
    if current is None:
        return
    with suppress(ConnectionLost, TowlineError):
        targets = await _original_addresses(api, record)
        if targets:
            await current.ssh.control.route("pass", to=targets)
        # Nobody waits for the Services to follow: until the nodes have, the agent passes
        # on what still comes, also while its pod ends.
        await current.ssh.control.gate(is_open=False)


async def _original_addresses(api: Api, record: Record) -> dict[int, list[str]]:
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


async def record_gone(api: Api, record: Record) -> None:
    """Wait until the record is deleted: `down`, from wherever, ends the session."""
    from towline.cluster.watch import until

    await until(
        api,
        "configmaps",
        lambda event: event.kind == "DELETED",
        fields=f"metadata.name={record.names.record}",
    )


async def found_record(api: Api, name: str) -> Record | None:
    """The record of that name, if there is one."""
    found = await api.find("configmaps", name)
    return read_record(found) if found else None
