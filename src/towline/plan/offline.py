"""YAML files of a cluster's objects → Observed: a plan with no cluster. [pure but for reading]"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from towline._kit.objects import JsonObject
from towline.errors import NotFound, TowlineError
from towline.manifest.model import Entry
from towline.plan.autocreate import made_workload
from towline.plan.model import Kind, Observed
from towline.plan.services import selects

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_objects(folder: Path) -> list[JsonObject]:
    """All objects in a folder's (or one file's) YAML and JSON, with lists taken apart.

    Raises:
        TowlineError: a file cannot be read.
    """
    files = (
        [folder]
        if folder.is_file()
        else sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".yml", ".json"))
    )
    found: list[JsonObject] = []
    for path in files:
        try:
            documents = list(yaml.load_all(path.read_bytes(), Loader=_LOADER))
        except (yaml.YAMLError, OSError) as error:
            raise TowlineError(f"{path}: {' '.join(str(error).split())}") from error
        for document in documents:
            if isinstance(document, dict):
                found += document.get("items") or [document]
    return found


def observed_from(
    entry: Entry, objects: Iterable[JsonObject], *, namespace: str | None
) -> Observed:
    """What `observe` would have seen, had these objects been the cluster.

    Raises:
        NotFound: the workload is not among them, or several are.
    """
    objects = list(objects)
    workloads = [o for o in objects if o.get("kind") in [k.value for k in Kind]]
    named = [w for w in workloads if _is_meant(entry, w)]
    is_to_be_made = entry.autocreate and not named
    if is_to_be_made:
        named = [made_workload(entry)]
    if len(named) != 1:
        names = ", ".join(f"{w['kind']} {w['metadata']['name']}" for w in workloads)
        raise NotFound(
            f"{len(named)} workloads among the objects are meant by {entry.name} "
            f"(there: {names or 'none'})"
        )
    workload = named[0]
    kind = Kind(workload["kind"])
    name = str(workload["metadata"]["name"])
    where = namespace or str(workload["metadata"].get("namespace") or "default")
    labels = (workload["spec"]["template"].get("metadata") or {}).get("labels") or {}

    def of(kind_name: str) -> list[JsonObject]:
        return [
            o
            for o in objects
            if o.get("kind") == kind_name and o["metadata"].get("namespace", where) == where
        ]

    return Observed(
        context="(files)",
        namespace=where,
        kind=kind,
        workload=workload,
        services=tuple(s for s in of("Service") if selects(s["spec"].get("selector"), labels)),
        pods=tuple(
            p
            for p in of("Pod")
            if selects(_match_labels(workload), p["metadata"].get("labels", {}))
        ),
        autoscalers=tuple(
            a
            for a in of("HorizontalPodAutoscaler")
            if a["spec"]["scaleTargetRef"].get("name") == name
        ),
        is_to_be_made=is_to_be_made,
        claims={str(c["metadata"]["name"]): c for c in of("PersistentVolumeClaim")},
    )


def _match_labels(workload: JsonObject) -> dict[str, str]:
    return (workload["spec"].get("selector") or {}).get("matchLabels") or {}


def _is_meant(entry: Entry, workload: JsonObject) -> bool:
    metadata = workload["metadata"]
    if entry.selector:
        return selects(entry.selector, metadata.get("labels") or {})
    return bool(metadata["name"] == (entry.workload or entry.name))
