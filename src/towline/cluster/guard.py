"""The guard made, its lease renewed; whether it may be, and whether it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing, suppress

from towline._kit.moments import micro_time_text
from towline._kit.objects import JsonObject
from towline._kit.together import together
from towline.cluster.api import Api, WatchEvent
from towline.cluster.watch import continuous_watch, patiently, until
from towline.errors import ClusterError, Conflict, NotFound, Unreachable
from towline.plan.fields import REPLICAS, owner_named
from towline.plan.guard import guard_name, lease_name, lease_object
from towline.plan.record import Record

_RESOURCES = {
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Deployment": "deployments",
    "Lease": "leases",
}


async def why_no_guard(api: Api, objects: Iterable[JsonObject]) -> str | None:
    """Why the cluster does not let a guard be made, by a dry run; None where it does."""
    # The binding's dry run would miss the Role; who may make the one may make the other
    # in all but contrived sets of rights, and then it is told when it is made.
    tried = [each for each in objects if each["kind"] in ("ServiceAccount", "Role")]
    try:
        await together(*[api.create(_RESOURCES[e["kind"]], e, dry_run=True) for e in tried])
    except ClusterError as error:
        return error.message
    return None


async def create_guard(
    api: Api, record: Record, objects: Iterable[JsonObject], *, give_back_after_s: float
) -> None:
    """Make the lease and the guard. What is there already is this session's: names have its id.

    Raises:
        ClusterError: the cluster refuses; what was made goes with the record.
    """
    lease = lease_object(
        record.session,
        owner=str(record.owner),
        now=micro_time_text(),
        give_back_after_s=give_back_after_s,
    )
    first = [lease, *(each for each in objects if each["kind"] in ("ServiceAccount", "Role"))]
    then = [each for each in objects if each["kind"] not in ("ServiceAccount", "Role")]
    for group in (first, then):
        await together(*[_create(api, record, each) for each in group])


async def _create(api: Api, record: Record, body: JsonObject) -> None:
    metadata = {**body["metadata"], "ownerReferences": [record.owner_reference()]}
    with suppress(Conflict):
        await api.create(_RESOURCES[body["kind"]], {**body, "metadata": metadata})


async def renew_lease(api: Api, record: Record) -> bool:
    """Renew the lease once; False when it is gone, and the session with it.

    Raises:
        Unreachable: the network is away.
        ClusterError: the cluster refuses.
    """
    spec = {"renewTime": micro_time_text()}
    try:
        await api.patch("leases", lease_name(record.session), {"spec": spec})
    except NotFound:
        return False
    return True


async def guard_runs(api: Api, record: Record, *, within_s: float) -> str | None:
    """Wait until the guard's pod is available; after `within_s`, why it is not."""
    name = guard_name(record.session)
    reason = "its pod does not start"
    try:
        async with (
            asyncio.timeout(within_s),
            aclosing(  # type: ignore[type-var]
                continuous_watch(api, "deployments", fields=f"metadata.name={name}")
            ) as events,
        ):
            async for event in events:
                status = event.object.get("status") or {}
                if event.kind == "DELETED" or int(status.get("availableReplicas") or 0) > 0:
                    return None
                for condition in status.get("conditions") or []:
                    if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                        reason = str(condition.get("message") or condition.get("reason"))
    except (TimeoutError, Unreachable):
        pass
    return reason


async def guard_gone(api: Api, record: Record) -> str:
    """Wait until somebody has taken the guard away; returns what was done, and by whom."""
    name = guard_name(record.session)

    def gone(event: WatchEvent) -> bool:
        is_deleted = event.kind == "DELETED" or "deletionTimestamp" in event.object["metadata"]
        return is_deleted or event.object["spec"].get("replicas") == 0

    # A watch tells of the end of what it has seen, and there may be nothing to see any more.
    if await patiently(lambda: api.find("deployments", name)) is None:
        return "its Deployment was deleted by somebody"
    event = await until(api, "deployments", gone, fields=f"metadata.name={name}")
    if event.kind != "DELETED" and event.object["spec"].get("replicas") == 0:
        return f"its Deployment was scaled to 0 by {owner_named(event.object, REPLICAS)}"
    return "its Deployment was deleted by somebody"
