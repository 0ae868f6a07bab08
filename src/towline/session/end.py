"""Ending sessions from outside: `down`, from this laptop or any other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from towline._kit.objects import JsonObject
from towline.cluster import apply
from towline.cluster.api import Api
from towline.cluster.observe import records
from towline.errors import NotFound, SessionTaken, TowlineError
from towline.plan.model import Kind
from towline.plan.record import Record, read_record, record_of_annotation
from towline.session import local
from towline.session.control_socket import NotAnswering, ask
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
        known = {record.session for record in found}
        left = await _from_annotation(api, None)
        return found + [record for record in left if record.session not in known]
    named = [
        r
        for r in found
        if name in (r.entry, r.workload, r.session) or r.entry.startswith(f"{name}/")
    ]
    named = named or await _from_annotation(api, name)
    if named:
        return named
    others = ", ".join(f"{r.entry} (by {r.owner})" for r in found)
    raise NotFound(
        f"there is no session of {name} in namespace {api.namespace} (there: {others or 'none'})",
        hint="another namespace? use -n",
    )


async def _from_annotation(api: Api, name: str | None) -> list[Record]:
    """Records made of originals' annotations, where the records themselves were deleted."""
    found: list[Record] = []
    for kind in Kind:
        if name is not None:
            workload = await api.find(kind.resource, name)
            workloads = [workload] if workload is not None else []
        else:
            workloads = (await api.list_(kind.resource)).get("items") or []
        made = [record_of_annotation({**each, "kind": kind.value}) for each in workloads]
        found += [record for record in made if record is not None]
    return found


async def end_session(
    api: Api, record: Record, *, anyones: bool, report: Report, ready_timeout_s: float
) -> str:
    """End one session: by its own client if that runs here, else from its record.

    Returns:
        How the original stands now, in words.

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
        return apply.stands(record)
    return await apply.restore(
        api,
        record,
        report=report,
        ready_timeout_s=ready_timeout_s,
        ended_by=f"{this_owner()} (`towline down`)",
    )


async def _client_ends(api: Api, client: local.LocalSession, record: Record) -> bool:
    """Ask the client to end its session; False if it is gone, or too slow.

    By a signal, unless it has other services in development (`up a b`), which go on.
    """
    entry = client.entry.partition("/")[0]
    has_others = any(
        s.pid == client.pid and s.entry.partition("/")[0] != entry for s in local.sessions()
    )
    if has_others:
        with suppress(NotAnswering):
            await asyncio.to_thread(ask, client.folder, "end")
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(client.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_CLIENT_ENDS_WITHIN_S):
            # Another process's end, off Linux too.
            while client.alive and not (has_others and not client.folder.exists()):  # noqa: ASYNC110
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
        "sync": list(session.sync),
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
