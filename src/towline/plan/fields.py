"""Field managers: who owns which field of an object, and how that is put back. [pure]

Kubernetes documentation, "Server-Side Apply", field management. A change of ours makes
us the owner of the field; when the value is put back the former owner must own it
again, or their next server-side apply meets a conflict with a tool that is long gone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from towline._kit.objects import JsonObject

FieldPath = tuple[str, ...]
REPLICAS: FieldPath = ("f:spec", "f:replicas")
TEMPLATE: FieldPath = ("f:spec", "f:template")
SELECTOR: FieldPath = ("f:spec", "f:selector")
"""Of a Service: a map that is owned as a whole (`x-kubernetes-map-type: atomic`)."""
PORTS: FieldPath = ("f:spec", "f:ports")
WHEN_SCALED: FieldPath = ("f:spec", "f:persistentVolumeClaimRetentionPolicy", "f:whenScaled")


def owners_of(managed_fields: Iterable[JsonObject], path: FieldPath) -> list[str]:
    """The managers that own a field, the last to have changed it last."""
    owners = [e for e in managed_fields if _has(e.get("fieldsV1") or {}, path)]
    owners.sort(key=lambda entry: str(entry.get("time") or ""))
    return [str(entry["manager"]) for entry in owners]


def owner_of(managed_fields: Iterable[JsonObject], path: FieldPath) -> str | None:
    """The manager that owns a field, the last to have changed it where there are several."""
    owners = owners_of(managed_fields, path)
    return owners[-1] if owners else None


def owner_named(found: JsonObject, path: FieldPath) -> str:
    """The same of an object, as people are told of it."""
    return owner_of(found["metadata"].get("managedFields") or [], path) or "somebody"


def only_fields(
    managed_fields: Iterable[JsonObject], paths: Iterable[FieldPath]
) -> list[JsonObject]:
    """The entries that own some of `paths`, with nothing but those: short enough to keep."""
    paths = list(paths)
    kept = []
    for entry in managed_fields:
        owned = [path for path in paths if _has(entry.get("fieldsV1") or {}, path)]
        if owned:
            short: JsonObject = {**entry, "fieldsV1": {}}
            for path in owned:
                _add(short["fieldsV1"], path)
            kept.append(short)
    return kept


def managers_put_back(
    live: Sequence[JsonObject],
    *,
    former: Sequence[JsonObject],
    ours: str,
    paths: Iterable[FieldPath],
) -> list[JsonObject]:
    """managedFields with our entries gone and the former owners of `paths` owning them again.

    An entry that then holds what it held before also gets its old time back, so an
    object that nobody else touched ends as it began.
    """
    result = [copy.deepcopy(entry) for entry in live if entry.get("manager") != ours]
    for before in former:
        if before.get("manager") == ours:
            continue
        lost = [p for p in paths if _has(before.get("fieldsV1") or {}, p)]
        if not lost:
            continue
        entry = next((e for e in result if _same_manager(e, before)), None)
        if entry is None:
            entry = {**copy.deepcopy(before), "fieldsV1": {}}
            result.append(entry)
        for path in lost:
            _add(entry.setdefault("fieldsV1", {}), path)
        if entry["fieldsV1"] == before.get("fieldsV1"):
            entry["time"] = before.get("time")
    return result


def _same_manager(a: JsonObject, b: JsonObject) -> bool:
    keys = ("manager", "operation", "apiVersion", "subresource")
    return all(a.get(key) == b.get(key) for key in keys)


def _has(fields: JsonObject, path: FieldPath) -> bool:
    node = fields
    for step in path:
        if step not in node:
            return False
        node = node[step]
    return True


def _add(fields: JsonObject, path: FieldPath) -> None:
    node = fields
    for step in path:
        node = node.setdefault(step, {})
