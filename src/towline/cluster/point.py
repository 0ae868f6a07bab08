"""`original: keep`: Services pointed at the dev pod, and back; each change under its lock.

As in `cluster.apply` nothing here decides, and every function may be called again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from towline._kit.objects import JsonObject
from towline._kit.together import together
from towline.cluster.api import FIELD_MANAGER, Api
from towline.cluster.changing import changed
from towline.cluster.pods import service_not_at, service_only_at
from towline.cluster.watch import until
from towline.errors import Conflict
from towline.plan.fields import SELECTOR, managers_put_back, owner_of
from towline.plan.keep import PointedService
from towline.plan.model import ANNOTATION_RESTORE, LABEL_SESSION
from towline.plan.record import Record, restore_annotation, session_in

Report = Callable[[str], None]
# For the EndpointSlice to follow the selector: what takes longer is not waited for.
_FOLLOWS_WITHIN_S = 5.0


class Points(Enum):
    """Where a Service leads, seen from one session."""

    HERE = "to the session's dev pod"
    AT_ORIGINAL = "as before the session"
    ELSEWHERE = "as somebody else has said since"
    GONE = "it was deleted, or made anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a Service was found before it was pointed anywhere, and who last said so."""

    points: Points
    by: str | None
    service: JsonObject


async def create_way_back(api: Api, record: Record, service: JsonObject) -> None:
    """Create the Service by which the agent reaches the original."""
    metadata = {**service["metadata"], "ownerReferences": [record.owner_reference()]}
    with suppress(Conflict):  # the name is this session's: made before, its answer lost
        await api.create("services", {**service, "metadata": metadata})


async def mark_original(api: Api, record: Record) -> None:
    """Write the way back on the original, before the first Service is changed.

    Raises:
        Conflict: another session holds it, or it is gone.
    """
    annotation = restore_annotation(record, namespace=api.namespace)

    def change(found: JsonObject) -> JsonObject | None:
        holder = session_in(found)
        if holder == record.session:
            return None
        if holder is not None:
            raise Conflict(
                f"{record.kind} {record.workload} is held by another session meanwhile ({holder})",
                hint="run it again: it says whose it is",
            )
        return {"metadata": {"annotations": {ANNOTATION_RESTORE: annotation}}}

    found = await changed(
        api, record.kind.resource, record.workload, uid=record.workload_uid, change=change
    )
    if found is None:
        raise Conflict(f"{record.kind} {record.workload} was deleted or made anew meanwhile")


async def dev_workload_seen_ready(api: Api, record: Record) -> None:
    """Wait until the cluster's controllers know that the dev pod is ready.

    The controller of ReplicaSets and that of EndpointSlices read one cache of pods. A
    Service pointed at a pod of which that cache knows only that it is not ready has no
    endpoint for a moment, which a node may keep for a second.
    """
    await until(
        api,
        "deployments",
        lambda event: event.kind == "DELETED" or seen_ready(event.object),
        fields=f"metadata.name={record.names.dev_workload}",
    )


def seen_ready(dev_workload: JsonObject) -> bool:
    """Whether the controllers know of a ready dev pod; one that is being deleted is none."""
    return int((dev_workload.get("status") or {}).get("readyReplicas") or 0) > 0


async def point_here(api: Api, record: Record, service: PointedService) -> Found:
    """Point a Service at the dev pod, if it leads to the original; returns how it was."""

    def patch(found: JsonObject) -> JsonObject:
        gone = {key: None for key in found["spec"]["selector"] if key != LABEL_SESSION}
        return {"spec": {"selector": {**gone, LABEL_SESSION: record.session}}}

    return await _pointed(api, record, service, only=Points.AT_ORIGINAL, patch=patch)


async def point_back(api: Api, record: Record, service: PointedService) -> Found:
    """Point a Service at the original again, if it leads to the dev pod; returns how it was."""

    def patch(found: JsonObject) -> JsonObject:
        return {"spec": {"selector": {LABEL_SESSION: None, **service.selector}}}

    return await _pointed(api, record, service, only=Points.HERE, patch=patch)


async def _pointed(
    api: Api,
    record: Record,
    service: PointedService,
    *,
    only: Points,
    patch: Callable[[JsonObject], JsonObject],
) -> Found:
    was = Found(points=Points.GONE, by=None, service={})

    def change(found: JsonObject) -> JsonObject | None:
        nonlocal was
        by = owner_of(found["metadata"].get("managedFields") or [], SELECTOR)
        was = Found(points=_points(found, record, service), by=by, service=found)
        return patch(found) if was.points is only else None

    await changed(api, "services", service.name, uid=service.uid, change=change)
    return was


def _points(found: JsonObject, record: Record, service: PointedService) -> Points:
    selector = found["spec"].get("selector") or {}
    if selector == {LABEL_SESSION: record.session}:
        return Points.HERE
    return Points.AT_ORIGINAL if selector == service.selector else Points.ELSEWHERE


async def endpoints_follow(api: Api, record: Record, *, here: bool) -> None:
    """Wait, a few seconds at most, until the Services' endpoints are as their selectors say."""
    listed = await api.list_("pods", labels=f"{LABEL_SESSION}={record.session}")
    addresses = {
        str(pod["status"]["podIP"])
        for pod in listed.get("items") or []
        if (pod.get("status") or {}).get("podIP")
    }
    if not addresses:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(_FOLLOWS_WITHIN_S):
            for service in record.pointed:
                if here:
                    for address in addresses:
                        await service_only_at(api, service.name, address)
                else:
                    await service_not_at(api, service.name, addresses)


async def put_back_services(api: Api, record: Record, *, report: Report) -> None:
    """Point all Services back, and give the selectors to those who owned them.

    Somebody else's selector is left as it is, and reported.
    """
    await together(*[_put_back(api, record, each, report) for each in record.pointed])


async def _put_back(api: Api, record: Record, service: PointedService, report: Report) -> None:
    was = await point_back(api, record, service)
    if was.points is Points.GONE:
        report(f"Service {service.name} is gone or was made anew: nothing to put back")
    if was.points is Points.ELSEWHERE:
        by = was.by or "somebody"
        report(f"Service {service.name} was pointed elsewhere by {by} meanwhile: left as it is")

    def change(found: JsonObject) -> JsonObject | None:
        live = found["metadata"].get("managedFields") or []
        if not any(each.get("manager") == FIELD_MANAGER for each in live):
            return None
        mine = [each for each in live if each.get("manager") == FIELD_MANAGER]
        is_back = _points(found, record, service) is Points.AT_ORIGINAL
        restored = managers_put_back(
            live,
            former=service.managers,
            ours=FIELD_MANAGER,
            paths=[SELECTOR] if is_back and owner_of(mine, SELECTOR) else [],
        )
        return {"metadata": {"managedFields": restored}}

    await changed(api, "services", service.name, uid=service.uid, change=change)
