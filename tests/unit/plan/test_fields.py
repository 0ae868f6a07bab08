"""Field managers: what a session takes from them it gives back, to the last time stamp."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, composite, integers, lists, sampled_from

from towline.plan.fields import (
    REPLICAS,
    WHEN_SCALED,
    managers_put_back,
    only_fields,
    owner_of,
    owners_of,
)

PATHS = (REPLICAS, WHEN_SCALED)
_OTHERS = [("f:spec", "f:template"), ("f:metadata", "f:labels", "f:app"), ("f:spec", "f:paused")]


def put(fields: dict[str, Any], path: tuple[str, ...]) -> None:
    for step in path:
        fields = fields.setdefault(step, {})


def take(fields: dict[str, Any], path: tuple[str, ...]) -> None:
    """Remove a field, and what is empty without it, as the API server does."""
    head, *rest = path
    if head not in fields:
        return
    if rest:
        take(fields[head], tuple(rest))
    if not rest or not fields[head]:
        del fields[head]


@composite
def managers(draw: Any) -> list[dict[str, Any]]:
    """managedFields as an API server might hold them: each manager once, none empty."""
    entries = []
    for number in range(draw(integers(0, 4))):
        fields: dict[str, Any] = {}
        for path in draw(lists(sampled_from([*PATHS, *_OTHERS]), min_size=1, unique=True)):
            put(fields, path)
        entry = {
            "manager": f"m{number}",
            "operation": draw(sampled_from(["Apply", "Update"])),
            "apiVersion": "apps/v1",
            "time": f"2026-01-0{number + 1}T00:00:00Z",
            "fieldsV1": fields,
        }
        if draw(booleans()):
            entry["subresource"] = "scale"
        entries.append(entry)
    return entries


def taken_over(before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is left when `towline` has changed the fields (server-side apply: one owner)."""
    live = []
    for each in copy.deepcopy(before):
        for path in PATHS:
            take(each["fieldsV1"], path)
        if each["fieldsV1"]:
            live.append(each)
    ours: dict[str, Any] = {}
    for path in PATHS:
        put(ours, path)
    return [*live, {"manager": "towline", "operation": "Update", "fieldsV1": ours}]


def by_name(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: str(entry["manager"]))


@given(managers())
def test_taken_and_put_back_is_as_before(before: list[dict[str, Any]]) -> None:
    kept = copy.deepcopy(before)
    back = managers_put_back(taken_over(before), former=before, ours="towline", paths=PATHS)
    assert by_name(back) == before == kept


@given(managers())
def test_the_short_form_in_the_annotation_gives_back_the_same_owners(
    before: list[dict[str, Any]],
) -> None:
    short = only_fields(before, PATHS)
    back = managers_put_back(taken_over(before), former=short, ours="towline", paths=PATHS)
    for path in PATHS:
        assert sorted(owners_of(back, path)) == sorted(owners_of(before, path))
    assert [e["manager"] for e in by_name(back)] == [e["manager"] for e in before]


@given(managers())
def test_nothing_of_ours_stays_and_nobody_else_is_touched(before: list[dict[str, Any]]) -> None:
    newcomer = {"manager": "z", "operation": "Update", "fieldsV1": {"f:metadata": {}}}
    live = [*taken_over(before), newcomer]
    back = managers_put_back(live, former=before, ours="towline", paths=PATHS)
    assert "towline" not in {entry["manager"] for entry in back}
    assert newcomer in back


def test_the_last_to_change_a_field_is_named() -> None:
    fields: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    early = {"manager": "a", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields}
    late = {"manager": "b", "time": "2026-01-02T00:00:00Z", "fieldsV1": fields}
    assert owner_of([late, early], REPLICAS) == "b"
    assert owner_of([late, early], WHEN_SCALED) is None


_VECTORS = json.loads((Path(__file__).parents[2] / "vectors/managed-fields.json").read_text())


@pytest.mark.parametrize("case", _VECTORS["cases"], ids=lambda case: case["name"])
def test_the_guard_and_the_client_put_back_alike(case: dict[str, Any]) -> None:
    """The guard's side runs the same cases in Go."""
    paths = [tuple(path) for path in case["paths"]]
    put_back = managers_put_back(case["live"], former=case["former"], ours="towline", paths=paths)
    assert put_back == case["put_back"]
