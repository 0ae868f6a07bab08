"""The record: what the cluster keeps of a session, enough to undo it from anywhere. [pure]

A ConfigMap named after the workload, so that only one can exist; written before the
first change. It owns all other objects of the session.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from towline._kit.objects import JsonObject
from towline.errors import TowlineError
from towline.manifest.model import Handover, Original
from towline.plan.build import names_for
from towline.plan.fields import REPLICAS, WHEN_SCALED, only_fields
from towline.plan.keep import PointedService, pointed_services
from towline.plan.model import (
    ANNOTATION_RESTORE,
    LABEL_KIND,
    LABEL_SESSION,
    MANAGED_BY,
    Action,
    ActionKind,
    Kind,
    Names,
    Owner,
    Plan,
)

SCHEMA_VERSION = 1
_KEY = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A session as the cluster remembers it.

    Attributes:
        since: when it began, RFC 3339 in UTC.
        replicas: the original's, to put back.
        managed_fields: the original's field managers as they were.
    """

    session: str
    owner: Owner
    since: str
    entry: str
    mode: str
    context: str
    kind: Kind
    workload: str
    workload_uid: str
    container: str
    replicas: int
    ready_replicas: int
    handover: Handover
    names: Names
    line_port: int
    actions: tuple[Action, ...]
    managed_fields: tuple[JsonObject, ...]
    ports: tuple[JsonObject, ...] = ()
    original: Original = Original.REPLACE
    uid: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether the original stays up, and Services are pointed elsewhere instead."""
        return self.original is Original.KEEP

    @property
    def pointed(self) -> tuple[PointedService, ...]:
        """The Services that are pointed at the dev pod, as they were before."""
        return pointed_services(self.actions)

    def owner_reference(self) -> JsonObject:
        """What makes the garbage collector take an object when this record goes."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": self.names.record,
            "uid": self.uid,
        }


def record_of(plan: Plan, *, since: str, entry: str, mode: str) -> Record:
    """The record of a plan, before it is written (it has no uid yet)."""
    return Record(
        session=plan.session,
        owner=plan.owner,
        since=since,
        entry=entry,
        mode=mode,
        context=plan.context,
        kind=plan.kind,
        workload=plan.workload,
        workload_uid=plan.workload_uid,
        container=plan.container,
        replicas=plan.replicas,
        ready_replicas=plan.ready_replicas,
        handover=plan.handover,
        names=plan.names,
        line_port=plan.agent_ports.line,
        actions=plan.actions,
        managed_fields=plan.managed_fields,
        ports=tuple(asdict(port) for port in plan.ports),
        original=plan.original,
    )


def record_object(record: Record) -> JsonObject:
    """The ConfigMap of a record."""
    values = {k: v for k, v in asdict(record).items() if k != "uid"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record.names.record,
            "labels": {LABEL_SESSION: record.session, LABEL_KIND: "record", **MANAGED_BY},
        },
        "data": {_KEY: json.dumps({"schema": SCHEMA_VERSION, **values}, indent=1)},
    }


def read_record(found: JsonObject) -> Record:
    """The record in a ConfigMap.

    Raises:
        TowlineError: it is of a newer schema, or broken; nothing may be undone by guess.
    """
    name = found["metadata"]["name"]
    try:
        values = json.loads(found["data"][_KEY])
        if values.pop("schema") != SCHEMA_VERSION:
            raise TowlineError(
                f"the record {name} was written by a newer Towline",
                hint="update this one: pip install --upgrade towline",
            )
        return Record(
            **{
                **values,
                "owner": Owner(**values["owner"]),
                "kind": Kind(values["kind"]),
                "handover": Handover(values["handover"]),
                "original": Original(values["original"]),
                "names": Names(**values["names"]),
                "actions": tuple(
                    Action(**{**action, "kind": ActionKind(action["kind"])})
                    for action in values["actions"]
                ),
                "managed_fields": tuple(values["managed_fields"]),
                "ports": tuple(values["ports"]),
                "uid": str(found["metadata"]["uid"]),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TowlineError(
            f"the record {name} cannot be read: {error}",
            hint=f"the original's annotation says how to undo it: kubectl describe, then "
            f"kubectl delete configmap {name}",
        ) from error


def restore_annotation(record: Record, *, namespace: str, retaken: str | None = None) -> str:
    """The original's annotation: who, since when, what to put back, and how by hand."""
    what = f"{record.kind.value.lower()}/{record.workload}"
    undo = [f"kubectl -n {namespace} scale {what} --replicas={record.replicas}"]
    if record.is_kept:
        undo = [
            f"kubectl -n {namespace} set selector service {each.name} "
            + ",".join(f"{key}={value}" for key, value in each.selector.items())
            for each in record.pointed
        ]
    return json.dumps(
        {
            "session": record.session,
            "owner": str(record.owner),
            "since": record.since,
            **({"retaken": retaken} if retaken else {}),
            "entry": record.entry,
            "replicas": record.replicas,
            "readyReplicas": record.ready_replicas,
            "handover": record.handover.value,
            "whenScaled": retention_of(record),
            "managers": only_fields(record.managed_fields, (REPLICAS, WHEN_SCALED)),
            "devWorkload": record.names.dev_workload,
            "record": record.names.record,
            **({"pointed": [asdict(each) for each in record.pointed]} if record.is_kept else {}),
            "undo": [
                *undo,
                f"kubectl -n {namespace} delete deployment/{record.names.dev_workload} "
                f"configmap/{record.names.record}",
                f"kubectl -n {namespace} annotate {what} towline.dev/restore-",
            ],
        }
    )


def retention_of(record: Record) -> str | None:
    """The claim retention on scaling to put back, None where it was not touched."""
    for action in record.actions:
        if action.kind is ActionKind.RETAIN_CLAIMS:
            return str(action.values["when_scaled"])
    return None


def session_in(workload: JsonObject) -> str | None:
    """The session that an original's annotation names; "" for an annotation of no sense."""
    text = (workload["metadata"].get("annotations") or {}).get(ANNOTATION_RESTORE)
    if text is None:
        return None
    try:
        return str(json.loads(text)["session"])
    except (ValueError, KeyError, TypeError):
        return ""


def record_of_annotation(workload: JsonObject) -> Record | None:
    """A record made of the original's annotation alone, where the record itself is gone.

    None when there is no annotation.

    Raises:
        TowlineError: the annotation is broken; nothing may be undone by guess.
    """
    text = (workload["metadata"].get("annotations") or {}).get(ANNOTATION_RESTORE)
    if text is None:
        return None
    kind, name = Kind(workload["kind"]), str(workload["metadata"]["name"])
    try:
        values = json.loads(text)
        user, _, host = str(values["owner"]).partition("@")
        replicas = int(values["replicas"])
        retained, pointed = values.get("whenScaled"), values.get("pointed") or ()
        return Record(
            session=str(values["session"]),
            owner=Owner(user=user, host=host),
            since=str(values["since"]),
            entry=str(values.get("entry") or name),
            mode="hybrid",
            context="",
            kind=kind,
            workload=name,
            workload_uid=str(workload["metadata"]["uid"]),
            container="",
            replicas=replicas,
            ready_replicas=int(values.get("readyReplicas", replicas)),
            handover=Handover(values.get("handover", "exclusive")),
            names=names_for(kind, name, session=str(values["session"])),
            line_port=0,
            actions=(
                *([_retained(kind, name, str(retained))] if retained else []),
                *(_pointed(each) for each in pointed),
            ),
            managed_fields=tuple(values.get("managers") or ()),
            original=Original.KEEP if pointed else Original.REPLACE,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TowlineError(
            f"{kind} {name} has a broken annotation {ANNOTATION_RESTORE}: {error}",
            hint="scale it by hand to what it should have, then remove the annotation",
        ) from error


def _retained(kind: Kind, name: str, when_scaled: str) -> Action:
    return Action(
        kind=ActionKind.RETAIN_CLAIMS,
        resource=kind.resource,
        name=name,
        do="",
        undo="",
        values={"when_scaled": when_scaled},
    )


def _pointed(values: JsonObject) -> Action:
    return Action(
        kind=ActionKind.POINT_SERVICE,
        resource="services",
        name=str(values["name"]),
        do="",
        undo="",
        values={key: values[key] for key in ("uid", "selector", "managers")},
    )
