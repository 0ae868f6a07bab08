"""What sync mode lays over the dev container."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from towline.manifest.model import Entry, ExternalVolume, Mode, Sync, SyncFolder
from towline.manifest.places import Place
from towline.plan.folders import empty_folders, folder_notices, lay_sync_over

PLACE = Place(file="towline.yml", line=1, column=1)


def entry(**changes: Any) -> Entry:
    folder = SyncFolder(local=Path("/here"), remote=PurePosixPath("/app"), place=PLACE)
    made = Entry(name="api", place=PLACE, workload="api", sync=Sync(folders=(folder,)))
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("pod", "container", "given"),
    [
        ({}, {}, False),
        ({}, {"readOnlyRootFilesystem": True}, True),
        ({"runAsUser": 1000}, {}, True),
        ({"runAsNonRoot": True}, {}, True),
        ({"runAsUser": 1000}, {"runAsUser": 0}, False),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_an_empty_one(
    pod: dict[str, Any], container: dict[str, Any], given: bool
) -> None:
    spec = {"securityContext": pod}
    held = {"name": "api", "securityContext": container}
    lay_sync_over(spec, held, entry(image="dev:1", container_workdir=PurePosixPath("/app")))
    assert held["image"] == "dev:1" and held["workingDir"] == "/app"
    assert [each["emptyDir"] for each in spec.get("volumes", [])] == [{}] * given
    assert [each["mountPath"] for each in held.get("volumeMounts", [])] == ["/app"] * given


@pytest.mark.parametrize("mounted", ["/app", "/"])
def test_a_volume_that_is_there_already_is_used(mounted: str) -> None:
    security = {"securityContext": {"readOnlyRootFilesystem": True}}
    assert empty_folders(entry(), security, {})
    assert not empty_folders(entry(), {**security, "volumeMounts": [{"mountPath": mounted}]}, {})
    claim = ExternalVolume(claim="c", mount_path=PurePosixPath(mounted), place=PLACE)
    assert not empty_folders(entry(external_volumes=(claim,)), security, {})


def test_what_does_nothing_yet_is_told() -> None:
    told = folder_notices(entry(volumes=(PurePosixPath("/cache"),)), {}, {})
    assert told == ("api.volumes has no effect in sync mode yet",)
    hybrid = entry(volumes=(PurePosixPath("/cache"),), mode=Mode.HYBRID)
    assert folder_notices(hybrid, {"securityContext": {"runAsUser": 5}}, {}) == ()
