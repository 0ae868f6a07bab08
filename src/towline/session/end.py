"""Ending sessions from outside: `down`, from this laptop or any other."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from towline._kit.objects import JsonObject
from towline.cluster import apply
from towline.cluster.api import Api
from towline.cluster.observe import records
from towline.errors import NotFound, SessionTaken, TowlineError
from towline.manifest.model import Handover
from towline.plan.build import names_for
from towline.plan.model import ANNOTATION_RESTORE, Kind, Owner
from towline.plan.record import Record, read_record
from towline.session import local
from towline.session.prepare import this_owner

# For a client on this laptop to end its command (its stop ladder) and to restore.
_CLIENT_ENDS_WITHIN_S = 150.0

Report = Callable[[str], None]


async def find_records(api: Api, name: str | None) -> list[Record]:
    """The sessions in the namespace: all, or those of one service.

    Raises:
        NotFound: there is none of that name, and no trace of one at the workload.
    """
    found = [read_record(each) for each in await records(api)]
    if name is None:
        return found
    named = [r for r in found if name in (r.entry, r.workload, r.session)]
    if named:
        return named
    left = await _from_annotation(api, name)
    if left is not None:
        return [left]
    others = ", ".join(f"{r.entry} (by {r.owner})" for r in found)
    raise NotFound(
        f"there is no session of {name} in namespace {api.namespace} (there: {others or 'none'})",
        hint="another namespace? use -n",
    )


async def _from_annotation(api: Api, name: str) -> Record | None:
    """A record made of the original's annotation, where the record itself was deleted."""
    for kind in Kind:
        workload = await api.find(kind.resource, name)
        text = ((workload or {}).get("metadata") or {}).get("annotations", {}).get(
            ANNOTATION_RESTORE
        )
        if workload is not None and text:
            return _record_of_annotation(kind, workload, json.loads(text))
    return None


def _record_of_annotation(kind: Kind, workload: JsonObject, values: JsonObject) -> Record:
    name = str(workload["metadata"]["name"])
    user, _, host = str(values["owner"]).partition("@")
    replicas = int(values["replicas"])
    return Record(
        session=str(values["session"]),
        owner=Owner(user=user, host=host),
        since=str(values["since"]),
        entry=name,
        mode="hybrid",
        context="",
        kind=kind,
        workload=name,
        workload_uid=str(workload["metadata"]["uid"]),
        container="",
        replicas=replicas,
        ready_replicas=replicas,
        handover=Handover.EXCLUSIVE if kind is Kind.STATEFULSET else Handover.SEAMLESS,
        names=names_for(kind, name, session=str(values["session"])),
        line_port=0,
        actions=(),
        managed_fields=(),
    )


async def end_session(
    api: Api, record: Record, *, anyones: bool, report: Report, ready_timeout_s: float
) -> None:
    """End one session: by its own client if that runs here, else from its record.

    Raises:
        SessionTaken: it is somebody else's and `anyones` is not set.
    """
    if str(record.owner) != str(this_owner()) and not anyones:
        raise SessionTaken(
            f"{record.workload} is in development by {record.owner} since {record.since}",
            hint="if that is to end: towline down --end-other-session " + record.entry,
        )
    client = next((s for s in local.sessions() if s.session == record.session), None)
    if client is not None and await _client_ends(api, client, record):
        return
    await apply.restore(api, record, report=report, ready_timeout_s=ready_timeout_s)


async def _client_ends(api: Api, client: local.LocalSession, record: Record) -> bool:
    """Ask the client to end its session; False if it is gone, or too slow."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(client.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_CLIENT_ENDS_WITHIN_S):
            while client.alive:
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return await api.find("configmaps", record.names.record) is None


async def session_rows(api: Api | None) -> list[JsonObject]:
    """What `status` shows: this laptop's sessions, and others' in the namespace."""
    mine = local.sessions()
    rows: list[JsonObject] = [_local_row(s) for s in mine]
    if api is None:
        return rows
    known = {s.session for s in mine}
    try:
        found = [read_record(each) for each in await records(api)]
    except TowlineError as error:
        return [*rows, {"error": error.message}]
    rows += [_record_row(r, api.namespace) for r in found if r.session not in known]
    return rows


def _local_row(session: local.LocalSession) -> JsonObject:
    return {
        "session": session.session,
        "service": session.entry,
        "workload": session.workload,
        "mode": session.mode,
        "namespace": session.namespace,
        "context": session.context,
        "owner": str(this_owner()),
        "here": True,
        "since": session.since,
        "stage": session.stage,
        "gate": {None: "unknown", True: "open", False: "shut"}[session.gate_open],
        "pod": session.pod,
        "command": session.command,
        "pid": session.pid,
        "command_pid": session.command_pid,
        "ports": list(session.ports),
        "line": {
            "connected_since": session.connected_since,
            "round_trip_ms": (
                round(session.round_trip_s * 1000, 2) if session.round_trip_s is not None else None
            ),
            "bytes_in": session.bytes_in,
            "bytes_out": session.bytes_out,
        },
        "folder": str(session.folder),
    }


def _record_row(record: Record, namespace: str) -> JsonObject:
    mine = str(record.owner) == str(this_owner())
    return {
        "session": record.session,
        "service": record.entry,
        "workload": record.workload,
        "mode": record.mode,
        "namespace": namespace,
        "context": record.context,
        "owner": str(record.owner),
        "here": False,
        "since": record.since,
        "stage": "left behind: `towline down` gives it back" if mine else "elsewhere",
        "gate": "unknown",
        "ports": [f"Service {p['service']} {p['port']}" for p in record.ports],
    }
