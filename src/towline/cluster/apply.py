"""A plan done, and undone: each action idempotent, the record first and last.

Nothing here decides. What is undone is read from the record alone, so `down` works
from any machine, and after an interruption anywhere.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from dataclasses import replace

from towline._kit.objects import JsonObject
from towline._kit.together import together
from towline.cluster.api import FIELD_MANAGER, Api
from towline.cluster.watch import until, until_gone
from towline.errors import Conflict, Forbidden, NotFound, Refused, SessionTaken, TowlineError
from towline.manifest.model import Handover
from towline.payload.pieces import Piece, config_map, verify
from towline.plan.fields import REPLICAS, WHEN_SCALED, managers_put_back, owner_of
from towline.plan.model import ANNOTATION_RESTORE, LABEL_SESSION, MANAGED_BY, ActionKind, Plan
from towline.plan.record import Record, read_record, record_object, restore_annotation

# Between a read and a write somebody else may write (a controller's status, mostly).
_LOCK_TRIES = 8

Report = Callable[[str], None]


async def write_record(api: Api, record: Record) -> Record:
    """Write the record: from here on the session is known to everybody.

    Raises:
        SessionTaken: the workload has one already.
    """
    try:
        made = await api.create("configmaps", record_object(record))
    except Conflict as error:
        found = await api.find("configmaps", record.names.record)
        other = read_record(found) if found else None
        if other is None:
            raise
        raise taken(other) from error
    return replace(record, uid=str(made["metadata"]["uid"]))


def taken(other: Record) -> SessionTaken:
    """The error that names who has a workload, and since when."""
    return SessionTaken(
        f"{other.kind} {other.workload} is in development by {other.owner} since {other.since} "
        f"(session {other.session})",
        hint="ask them, or end their session: `towline up --end-other-session`",
    )


async def share_pieces(api: Api, record: Record, parts: Iterable[Piece]) -> None:
    """Make sure every piece is there, is what it says it is, and is owned by this session too."""
    owner = record.owner_reference()

    async def share(piece: Piece) -> None:
        for _ in range(_LOCK_TRIES):
            try:
                # Adds to the owners that are there: they merge by uid.
                patch = {"metadata": {"ownerReferences": [owner]}}
                found = await api.patch("configmaps", piece.name, patch, kind="strategic")
                verify(found, piece)
                return
            except NotFound:
                pass
            try:
                await api.create("configmaps", config_map(piece, owner=owner))
                return
            except Conflict:
                continue
        raise Conflict(f"ConfigMap {piece.name} comes and goes: something deletes it")

    await together(*[share(piece) for piece in parts])


async def create_secret(api: Api, record: Record, files: dict[str, bytes]) -> None:
    """Create the session's Secret, with files by name."""
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {
            "name": record.names.secret,
            "labels": {LABEL_SESSION: record.session, **MANAGED_BY},
            "ownerReferences": [record.owner_reference()],
        },
        "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
    }
    await api.create("secrets", body)


async def create_dev_workload(api: Api, record: Record, workload: JsonObject) -> None:
    """Create the dev workload, owned by the record."""
    metadata = {**workload["metadata"], "ownerReferences": [record.owner_reference()]}
    await api.create("deployments", {**workload, "metadata": metadata})


async def _change_original(
    api: Api, record: Record, change: Callable[[JsonObject], JsonObject | None]
) -> JsonObject | None:
    """Patch the original as `change` says of its present state, under its resourceVersion.

    `change` returns a merge patch, or None for nothing to do. Returns the original after
    it, or None when that very object is gone.
    """
    resource = record.kind.resource
    for _ in range(_LOCK_TRIES):
        found = await api.find(resource, record.workload)
        if found is None or str(found["metadata"]["uid"]) != record.workload_uid:
            return None
        patch = change(found)
        if patch is None:
            return found
        metadata = {
            **patch.get("metadata", {}),
            "resourceVersion": found["metadata"]["resourceVersion"],
        }
        try:
            return await api.patch(resource, record.workload, {**patch, "metadata": metadata})
        except Conflict:
            continue
    raise Conflict(f"{record.kind} {record.workload} is changed by somebody else all the time")


async def stop_original(api: Api, record: Record) -> None:
    """Scale the original to 0, with the way back in its annotation.

    Raises:
        Conflict: it has other replicas than when it was observed, or is gone.
    """
    annotation = restore_annotation(record, namespace=api.namespace)
    retained = any(a.kind is ActionKind.RETAIN_CLAIMS for a in record.actions)

    def change(found: JsonObject) -> JsonObject | None:
        replicas = int(found["spec"].get("replicas", 1))
        annotations = found["metadata"].get("annotations") or {}
        if replicas == 0 and ANNOTATION_RESTORE in annotations:
            return None
        if replicas != record.replicas:
            by = owner_of(found["metadata"].get("managedFields") or [], REPLICAS)
            raise Conflict(
                f"{record.kind} {record.workload} was scaled from {record.replicas} to {replicas} "
                f"meanwhile, by {by or 'somebody'}",
                hint="run it again: it takes over what is there now",
            )
        spec: JsonObject = {"replicas": 0}
        if retained:
            spec["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": "Retain"}
        return {"metadata": {"annotations": {ANNOTATION_RESTORE: annotation}}, "spec": spec}

    if await _change_original(api, record, change) is None:
        raise Conflict(f"{record.kind} {record.workload} was deleted or made anew meanwhile")


async def original_ended(api: Api, record: Record) -> None:
    """Wait until the original has no pods any more (it reports 0 replicas)."""

    def ended(found: JsonObject) -> bool:
        return not int((found.get("status") or {}).get("replicas") or 0)

    await _watch_original(api, record, ended)
    # The Deployment counts a pod out when its deletion starts; a claim or a port is free
    # only when the pod is gone.
    selector = ",".join(f"{k}={v}" for k, v in (await _selector(api, record)).items())
    await until_gone(api, "pods", labels=f"{selector},!{LABEL_SESSION}")


async def _selector(api: Api, record: Record) -> dict[str, str]:
    found = await api.get(record.kind.resource, record.workload)
    labels: dict[str, str] = found["spec"]["selector"].get("matchLabels") or {}
    return labels


async def start_original(api: Api, record: Record, *, report: Report) -> bool:
    """Put the original's replicas back, if they are still as we left them.

    Returns:
        Whether the original will serve again: False when it is gone.
    """
    annotated = False

    def change(found: JsonObject) -> JsonObject | None:
        nonlocal annotated
        annotations = found["metadata"].get("annotations") or {}
        annotated = ANNOTATION_RESTORE in annotations
        if not annotated:
            return None  # never stopped, or put back already
        replicas = int(found["spec"].get("replicas", 1))
        if replicas != 0:
            if replicas != record.replicas:
                by = owner_of(found["metadata"].get("managedFields") or [], REPLICAS)
                report(
                    f"{record.kind} {record.workload} was scaled to {replicas} by "
                    f"{by or 'somebody'} meanwhile: left as it is (it had {record.replicas})"
                )
            return None
        return {"spec": {"replicas": record.replicas}}

    found = await _change_original(api, record, change)
    if found is None:
        report(f"{record.kind} {record.workload} is gone or was made anew: nothing to put back")
        return False
    return annotated


async def original_ready(api: Api, record: Record) -> None:
    """Wait until as many of the original's pods are ready as were before."""
    wanted = min(record.ready_replicas, record.replicas)

    def ready(found: JsonObject) -> bool:
        status = found.get("status") or {}
        current = int(status.get("observedGeneration") or 0) >= int(
            found["metadata"].get("generation") or 0
        )
        asked = min(wanted, int(found["spec"].get("replicas", 1)))
        return current and int(status.get("readyReplicas") or 0) >= asked

    await _watch_original(api, record, ready)


async def _watch_original(api: Api, record: Record, done: Callable[[JsonObject], bool]) -> None:
    await until(
        api,
        record.kind.resource,
        lambda event: event.kind == "DELETED" or done(event.object),
        fields=f"metadata.name={record.workload}",
    )


async def remove_dev_workload(api: Api, record: Record, *, wait: bool) -> None:
    """Delete the dev workload and the session's keys; `wait` until its pods are gone.

    Without waiting the pod ends by itself: its agent passes connections on for as long
    as nodes still send some.
    """
    await together(
        api.delete("deployments", record.names.dev_workload),
        api.delete("secrets", record.names.secret),
    )
    if not wait:
        return
    await until_gone(api, "pods", labels=f"{LABEL_SESSION}={record.session}")


async def put_back_original(api: Api, record: Record) -> None:
    """Take our marks off the original: annotation, claim retention, field managers."""
    resource = record.kind.resource
    retention = next((a for a in record.actions if a.kind is ActionKind.RETAIN_CLAIMS), None)
    if retention is not None:
        await _put_back_retention(api, record, str(retention.values["when_scaled"]))
    for _ in range(_LOCK_TRIES):
        found = await api.find(resource, record.workload)
        if found is None or str(found["metadata"]["uid"]) != record.workload_uid:
            return
        metadata = found["metadata"]
        live = metadata.get("managedFields") or []
        restored = managers_put_back(
            live,
            former=record.managed_fields,
            ours=FIELD_MANAGER,
            paths=_owned_paths(found, record, live),
        )
        patch: list[JsonObject] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]}
        ]
        if ANNOTATION_RESTORE in (metadata.get("annotations") or {}):
            key = ANNOTATION_RESTORE.replace("/", "~1")
            patch.append({"op": "remove", "path": f"/metadata/annotations/{key}"})
        if restored != live and any(e.get("manager") == FIELD_MANAGER for e in live):
            patch.append({"op": "replace", "path": "/metadata/managedFields", "value": restored})
        if len(patch) == 1:
            return
        try:
            await api.patch(resource, record.workload, patch, kind="json")
            return
        except (Conflict, Refused):
            # The test of the resourceVersion failed: somebody wrote in between.
            continue
    raise Conflict(f"{record.kind} {record.workload} is changed by somebody else all the time")


def _owned_paths(
    found: JsonObject, record: Record, live: list[JsonObject]
) -> list[tuple[str, ...]]:
    """The fields that are ours and hold what was there before: their owners get them back."""
    paths = []
    ours = [e for e in live if e.get("manager") == FIELD_MANAGER]
    if int(found["spec"].get("replicas", 1)) == record.replicas and owner_of(ours, REPLICAS):
        paths.append(REPLICAS)
    if owner_of(ours, WHEN_SCALED):
        paths.append(WHEN_SCALED)
    return paths


async def _put_back_retention(api: Api, record: Record, when_scaled: str) -> None:
    def change(found: JsonObject) -> JsonObject | None:
        policy = found["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        if policy.get("whenScaled") != "Retain":
            return None
        return {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": when_scaled}}}

    await _change_original(api, record, change)


async def remove_record(api: Api, record: Record) -> None:
    """Delete the record, last of all. The garbage collector takes what it still owns."""
    try:
        await api.delete("configmaps", record.names.record, uid=record.uid or None)
    except Conflict:
        return  # another session's record of that name: not ours to delete


async def restore(
    api: Api, record: Record, *, report: Report, ready_timeout_s: float, wait: bool = True
) -> None:
    """The whole way back, from a record alone. Idempotent: what is done is passed over.

    Raises:
        TowlineError: the original did not get ready in time; everything else is done.
    """
    late: TowlineError | None = None
    if record.handover is Handover.EXCLUSIVE:
        # What they have in common is free only when the dev pod is gone.
        await remove_dev_workload(api, record, wait=True)
    serves = await start_original(api, record, report=report)
    if serves and wait:
        try:
            async with asyncio.timeout(ready_timeout_s):
                await original_ready(api, record)
        except TimeoutError:
            late = not_ready_in_time(record, ready_timeout_s)
    await remove_dev_workload(api, record, wait=False)
    await put_back_original(api, record)
    await remove_record(api, record)
    if late is not None:
        raise late


def not_ready_in_time(record: Record, timeout_s: float) -> TowlineError:
    """The error for an original that was started again and does not get ready."""
    return TowlineError(
        f"{record.kind} {record.workload} was put back, but is not ready after {timeout_s:.0f} s",
        hint=f"see why: kubectl describe {record.kind.value.lower()} {record.workload}",
    )


async def tell_event(api: Api, record: Record, *, reason: str, message: str, now: str) -> None:
    """A Kubernetes Event on the original; nothing where the rights do not allow one."""
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{record.workload[:200]}.towline-"},
        "involvedObject": {
            "apiVersion": "apps/v1",
            "kind": record.kind.value,
            "name": record.workload,
            "namespace": api.namespace,
            "uid": record.workload_uid,
        },
        "reason": reason,
        "message": message,
        "type": "Normal",
        "source": {"component": "towline"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        await api.create("events", body)
    except (Forbidden, Refused, NotFound):
        return
