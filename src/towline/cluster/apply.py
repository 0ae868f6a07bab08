"""A plan done, and undone: each action idempotent, the record first and last.

Nothing here decides. What is undone is read from the record alone, so `down` works
from any machine, and after an interruption anywhere.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from enum import Enum

from towline._kit.moments import time_text
from towline._kit.objects import JsonObject
from towline._kit.together import together
from towline.cluster import point
from towline.cluster.api import FIELD_MANAGER, Api
from towline.cluster.changing import changed
from towline.cluster.kube_events import tell_ended
from towline.cluster.watch import until, until_gone
from towline.errors import Conflict, Forbidden, NotFound, SessionTaken, TowlineError
from towline.manifest.model import Handover
from towline.plan.autocreate import was_made
from towline.plan.fields import (
    REPLICAS,
    WHEN_SCALED,
    FieldPath,
    managers_put_back,
    owner_named,
    owner_of,
    owners_of,
)
from towline.plan.model import (
    ANNOTATION_ENDED_BY,
    ANNOTATION_GIVEN_BACK,
    ANNOTATION_RESTORE,
    ANNOTATION_RETAKEN,
    LABEL_SESSION,
    MANAGED_BY,
)
from towline.plan.record import (
    Record,
    read_record,
    record_object,
    restore_annotation,
    retention_of,
    session_in,
)
from towline.plan.services import selector_text

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
        if found is None or other is None:
            raise
        if other.session != record.session:
            raise taken(other) from error
        made = found  # written before, by a request whose answer was lost
    return replace(record, uid=str(made["metadata"]["uid"]))


async def is_recorded(api: Api, record: Record) -> bool:
    """Whether this very record is still there."""
    return await _recorded(api, record) is not None


async def _recorded(api: Api, record: Record) -> JsonObject | None:
    found = await api.find("configmaps", record.names.record)
    return found if found and str(found["metadata"]["uid"]) == record.uid else None


async def is_being_ended(api: Api, record: Record) -> bool:
    """Whether the session is over, or somebody is about to end all of it."""
    found = await _recorded(api, record)
    if found is None or ANNOTATION_ENDED_BY in (found["metadata"].get("annotations") or {}):
        return True
    try:
        namespace = await api.find("namespaces", api.namespace)
    except Forbidden:
        return False
    return namespace is None or "deletionTimestamp" in namespace["metadata"]


async def _mark_ended(api: Api, record: Record, by: str) -> None:
    """Before anything is undone: who sees a part of the session go is to know that all of it does.

    A record that is made of the annotation has no object to mark.
    """
    if record.uid:
        metadata = {"uid": record.uid, "annotations": {ANNOTATION_ENDED_BY: by}}
        with suppress(NotFound, Conflict):
            await api.patch("configmaps", record.names.record, {"metadata": metadata})


async def rewrite_record(api: Api, record: Record) -> None:
    """Write down that the way back has changed, before the change itself."""
    data = record_object(record)["data"]
    await api.patch(
        "configmaps", record.names.record, {"metadata": {"uid": record.uid}, "data": data}
    )


def taken(other: Record) -> SessionTaken:
    """The error that names who has a workload, and since when."""
    return SessionTaken(
        f"{other.kind} {other.workload} is in development by {other.owner} since {other.since} "
        f"(session {other.session})",
        hint="ask them, or end their session: `towline up --end-other-session`",
    )


async def make_workload(api: Api, record: Record, workload: JsonObject) -> Record:
    """Make the original of a session that has none; returns the record with its uid.

    Raises:
        Conflict: somebody else was faster.
    """
    resource, name = record.kind.resource, record.workload
    metadata = {**workload["metadata"], "ownerReferences": [record.owner_reference()]}
    found = await api.find(resource, name)
    if found is not None and was_made(found):
        # The last session's, whose record is gone: the collector is on its way.
        with suppress(Conflict):
            await api.delete(resource, name, uid=str(found["metadata"]["uid"]))
    made = await api.create(resource, {**workload, "metadata": metadata})
    with_uid = replace(record, workload_uid=str(made["metadata"]["uid"]))
    await rewrite_record(api, with_uid)
    return with_uid


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
    with suppress(Conflict):  # the name is this session's: made before, its answer lost
        await api.create("secrets", body)


async def create_dev_workload(api: Api, record: Record, workload: JsonObject) -> None:
    """Create the dev workload, owned by the record.

    Raises:
        Conflict: a Deployment that is not this session's has the name.
    """
    metadata = {**workload["metadata"], "ownerReferences": [record.owner_reference()]}
    try:
        await api.create("deployments", {**workload, "metadata": metadata})
    except Conflict as error:
        found = await api.find("deployments", record.names.dev_workload)
        if found is None or _label_session(found) != record.session:
            raise Conflict(
                f"there is a Deployment {record.names.dev_workload} already, which is not of "
                "this session",
                hint="rename or delete it: the dev workload needs this name",
            ) from error


def _label_session(found: JsonObject) -> str | None:
    return (found["metadata"].get("labels") or {}).get(LABEL_SESSION)


async def _change_original(
    api: Api, record: Record, change: Callable[[JsonObject], JsonObject | None]
) -> JsonObject | None:
    """As `changed`; None when that very original is gone."""
    resource, uid = record.kind.resource, record.workload_uid
    return await changed(api, resource, record.workload, uid=uid, change=change)


async def stop_original(api: Api, record: Record, *, anew: bool = False) -> bool:
    """Scale the original to 0, with the way back in its annotation.

    With `anew` it is written to also where it is at 0 already, so that a write of the
    guard's that is under way does not count any more.

    Returns:
        Whether it had replicas until now.

    Raises:
        Conflict: it has other replicas than when it was observed, or is gone.
    """
    # A write that changes nothing leaves the resourceVersion as it is.
    retaken = time_text() if anew else None
    annotation = restore_annotation(record, namespace=api.namespace, retaken=retaken)
    was_serving = False

    def change(found: JsonObject) -> JsonObject | None:
        nonlocal was_serving
        replicas = int(found["spec"].get("replicas", 1))
        was_serving = replicas > 0
        holder = session_in(found)
        if holder not in (None, record.session):
            raise Conflict(
                f"{record.kind} {record.workload} is held by another session meanwhile ({holder})",
                hint="run it again: it says whose it is",
            )
        if replicas == 0 and holder is not None and not anew:
            return None
        if replicas not in ((record.replicas, 0) if holder else (record.replicas,)):
            raise Conflict(
                f"{record.kind} {record.workload} was scaled from {record.replicas} to {replicas} "
                f"meanwhile, by {owner_named(found, REPLICAS)}",
                hint="run it again: it takes over what is there now",
            )
        spec: JsonObject = {"replicas": 0}
        if retention_of(record) is not None:
            spec["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": "Retain"}
        marks = {ANNOTATION_RESTORE: annotation, ANNOTATION_GIVEN_BACK: None}
        return {"metadata": {"annotations": marks}, "spec": spec}

    if await _change_original(api, record, change) is None:
        raise Conflict(f"{record.kind} {record.workload} was deleted or made anew meanwhile")
    return was_serving


async def original_ended(api: Api, record: Record) -> None:
    """Wait until the original has no pods any more (it reports 0 replicas)."""

    def ended(found: JsonObject) -> bool:
        return not int((found.get("status") or {}).get("replicas") or 0)

    await _watch_original(api, record, ended)
    # The Deployment counts a pod out when its deletion starts; a claim or a port is free
    # only when the pod is gone.
    found = await api.get(record.kind.resource, record.workload)
    selector = selector_text(found["spec"]["selector"])
    await until_gone(api, "pods", labels=f"{selector},!{LABEL_SESSION}")


class Stopped(Enum):
    """How an original stands, seen from one session."""

    NEVER = "it was not touched, or is wholly put back"
    BY_US = "it was at 0 because of us, and is put back"
    PUT_BACK = "its replicas are as they were; our marks are on it"
    SCALED_SINCE = "somebody else has scaled it"
    ANOTHER_SESSION = "another session holds it"
    GONE = "it was deleted, or made anew"

    @property
    def will_serve(self) -> bool:
        """Whether it is worth waiting for its pods."""
        return self in (Stopped.BY_US, Stopped.PUT_BACK, Stopped.SCALED_SINCE)


async def start_original(api: Api, record: Record, *, report: Report) -> Stopped:
    """Put the original's replicas back, if they are still as we left them.

    Returns:
        How it stood; `BY_US` is put back by now.
    """
    state = Stopped.NEVER

    def change(found: JsonObject) -> JsonObject | None:
        nonlocal state
        state = _stopped(found, record)
        if state is Stopped.BY_US:
            return {"spec": {"replicas": record.replicas}}
        return None

    found = await _change_original(api, record, change)
    what = f"{record.kind} {record.workload}"
    if found is None:
        report(f"{what} is gone or was made anew: nothing to put back")
        return Stopped.GONE
    if state is Stopped.ANOTHER_SESSION:
        report(f"{what} is held by session {session_in(found)} meanwhile: left to it")
    if state is Stopped.SCALED_SINCE:
        by = owner_of(found["metadata"].get("managedFields") or [], REPLICAS)
        replicas = int(found["spec"].get("replicas", 1))
        report(
            f"{what} was scaled to {replicas} by {by or 'somebody'} meanwhile: left as it is "
            f"(it had {record.replicas})"
        )
    return state


def _stopped(found: JsonObject, record: Record) -> Stopped:
    holder = session_in(found)
    owners = owners_of(found["metadata"].get("managedFields") or [], REPLICAS)
    if holder not in (None, "", record.session):
        return Stopped.ANOTHER_SESSION
    # Without the annotation, which anybody can remove, the field's owner still tells.
    if holder is None and FIELD_MANAGER not in owners:
        return Stopped.NEVER
    replicas = int(found["spec"].get("replicas", 1))
    if replicas == record.replicas:
        return Stopped.PUT_BACK
    # Where nobody owns the field (managedFields were cleared) the annotation decides.
    ours = FIELD_MANAGER in owners or not owners
    return Stopped.BY_US if replicas == 0 and ours else Stopped.SCALED_SINCE


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
    remove = remove_dev_pods if wait else _delete_dev_workload
    await together(remove(api, record), api.delete("secrets", record.names.secret))


async def remove_dev_pods(api: Api, record: Record) -> None:
    """Delete the dev workload, and wait until its pods are gone."""
    await _delete_dev_workload(api, record)
    await until_gone(api, "pods", labels=f"{LABEL_SESSION}={record.session}")


async def start_dev_workload(api: Api, record: Record) -> None:
    """Let the dev workload have its pod again, if the guard took it away.

    It is written to in any case, so that a write of the guard's that is under way does not
    count any more.
    """
    metadata = {"annotations": {ANNOTATION_RETAKEN: time_text()}}
    patch = {"metadata": metadata, "spec": {"replicas": 1}}
    await api.patch("deployments", record.names.dev_workload, patch)


async def _delete_dev_workload(api: Api, record: Record) -> None:
    # The name is the workload's, not the session's: another session's, or somebody's
    # own Deployment of that name, is not ours to delete.
    found = await api.find("deployments", record.names.dev_workload)
    if found is not None and _label_session(found) == record.session:
        with suppress(Conflict):
            uid = str(found["metadata"]["uid"])
            await api.delete("deployments", record.names.dev_workload, uid=uid)


async def put_back_original(api: Api, record: Record, *, report: Report) -> None:
    """Take our marks off the original: annotation, claim retention, field managers."""
    when_scaled = retention_of(record)
    if when_scaled is not None:
        await _put_back_retention(api, record, when_scaled, report=report)

    def change(found: JsonObject) -> JsonObject | None:
        if session_in(found) not in (None, "", record.session):
            return None
        metadata = found["metadata"]
        live = metadata.get("managedFields") or []
        restored = managers_put_back(
            live,
            former=record.managed_fields,
            ours=FIELD_MANAGER,
            paths=_owned_paths(found, record, live),
        )
        patch: JsonObject = {}
        ours = (ANNOTATION_RESTORE, ANNOTATION_GIVEN_BACK)
        if any(each in (metadata.get("annotations") or {}) for each in ours):
            patch["annotations"] = dict.fromkeys(ours)
        if restored != live and any(e.get("manager") == FIELD_MANAGER for e in live):
            patch["managedFields"] = restored
        return {"metadata": patch} if patch else None

    await _change_original(api, record, change)


def _owned_paths(found: JsonObject, record: Record, live: list[JsonObject]) -> list[FieldPath]:
    """The fields that are ours and hold what was there before: their owners get them back."""
    paths = []
    ours = [e for e in live if e.get("manager") == FIELD_MANAGER]
    if int(found["spec"].get("replicas", 1)) == record.replicas and owner_of(ours, REPLICAS):
        paths.append(REPLICAS)
    if owner_of(ours, WHEN_SCALED):
        paths.append(WHEN_SCALED)
    return paths


async def _put_back_retention(
    api: Api, record: Record, when_scaled: str, *, report: Report
) -> None:
    too_few = False

    def change(found: JsonObject) -> JsonObject | None:
        nonlocal too_few
        too_few = False
        policy = found["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        owners = owners_of(found["metadata"].get("managedFields") or [], WHEN_SCALED)
        if policy.get("whenScaled") != "Retain" or (owners and FIELD_MANAGER not in owners):
            return None
        if session_in(found) not in (None, "", record.session):
            return None
        # The claims of pods that are not to be there would be deleted at once.
        too_few = int(found["spec"].get("replicas", 1)) < record.replicas
        if too_few:
            return None
        return {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": when_scaled}}}

    await _change_original(api, record, change)
    if too_few:
        report(
            f"{record.kind} {record.workload} keeps its claims on scaling "
            f"(whenScaled: Retain, was {when_scaled}): it has fewer replicas than before, and "
            "the claims of the others would be deleted"
        )


async def remove_record(api: Api, record: Record) -> None:
    """Delete the record, last of all. The garbage collector takes what it still owns."""
    uid = record.uid
    if not uid:  # made of the annotation: there may be no record, or another session's
        found = await api.find("configmaps", record.names.record)
        if found is None or _label_session(found) != record.session:
            return
        uid = str(found["metadata"]["uid"])
    # A conflict: another session's record of that name, not ours to delete.
    with suppress(Conflict):
        await api.delete("configmaps", record.names.record, uid=uid)


async def restore(
    api: Api,
    record: Record,
    *,
    report: Report,
    ready_timeout_s: float,
    wait: bool = True,
    ended_by: str | None = None,
) -> str:
    """The whole way back, from a record alone. Idempotent: what is done is passed over.

    Args:
        ended_by: who does it, and by what, if it is not the session's own client: that one
            may be asleep, and is to know when it wakes up (kube_events).

    Returns:
        How the original stands now, in words.

    Raises:
        TowlineError: the original did not get ready in time; everything else is done.
    """
    if ended_by is not None:
        await _mark_ended(api, record, ended_by)
    if record.is_kept:
        return await _restore_kept(api, record, report=report, ended_by=ended_by)
    late: TowlineError | None = None
    if record.handover is Handover.EXCLUSIVE:
        # What they have in common is free only when the dev pod is gone.
        try:
            async with asyncio.timeout(ready_timeout_s):
                await remove_dev_workload(api, record, wait=True)
        except TimeoutError:
            report(
                f"the dev pod of {record.workload} does not end (is its node away?): the "
                "original is started beside it"
            )
    stood = await start_original(api, record, report=report)
    if stood.will_serve and wait:
        try:
            async with asyncio.timeout(ready_timeout_s):
                await original_ready(api, record)
        except TimeoutError:
            late = not_ready_in_time(record, ready_timeout_s)
    await remove_dev_workload(api, record, wait=False)
    await put_back_original(api, record, report=report)
    await _end_record(api, record, ended_by=ended_by)
    if late is not None:
        raise late
    if stood in (Stopped.NEVER, Stopped.BY_US, Stopped.PUT_BACK):
        return stands(record)
    return f"nothing of session {record.session} is left"


async def _restore_kept(api: Api, record: Record, *, report: Report, ended_by: str | None) -> str:
    """The way back where the original was up all the time: the dev pod goes last."""
    told: list[str] = []
    await point.put_back_services(api, record, report=told.append)
    for text in told:
        report(text)
    await point.endpoints_follow(api, record, here=False)
    await remove_dev_workload(api, record, wait=False)
    await put_back_original(api, record, report=report)
    await _end_record(api, record, ended_by=ended_by)
    return f"nothing of session {record.session} is left" if told else stands(record)


async def _end_record(api: Api, record: Record, *, ended_by: str | None) -> None:
    # Before the record goes: whoever sees it gone asks next who did it.
    if ended_by is not None:
        await tell_ended(api, record, by=ended_by)
    await remove_record(api, record)


def stands(record: Record) -> str:
    """How an original stands that was wholly given back, in words."""
    what = f"{record.kind} {record.workload}"
    if not record.is_kept:
        return f"{what} is back at {record.replicas}"
    services = ", ".join(each.name for each in record.pointed)
    return f"Service {services} leads to {what} again"


def not_ready_in_time(record: Record, timeout_s: float) -> TowlineError:
    """The error for an original that was started again and does not get ready."""
    return TowlineError(
        f"{record.kind} {record.workload} was put back, but is not ready after {timeout_s:.0f} s",
        hint=f"see why: kubectl describe {record.kind.value.lower()} {record.workload}",
    )
