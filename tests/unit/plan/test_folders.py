"""What sync mode lays over the dev pod: where folders lie, and what fills them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from towline.manifest.model import (
    Entry,
    ExternalVolume,
    Mode,
    PersistentVolume,
    SecretFile,
    Sync,
    SyncFolder,
)
from towline.manifest.places import Place
from towline.plan.folders import (
    Lies,
    claim_object,
    folder_notices,
    image_user,
    kept_folders,
    lay_sync_over,
    lies_in_claim,
)
from towline.plan.model import Owner

PLACE = Place(file="towline.yml", line=1, column=1)
APP, CACHE = PurePosixPath("/app"), PurePosixPath("/home/me/.cache")
READ_ONLY = {"securityContext": {"readOnlyRootFilesystem": True}}


def entry(**changes: Any) -> Entry:
    folder = SyncFolder(local=Path("/here"), remote=APP, place=PLACE)
    made = Entry(name="api", place=PLACE, workload="api", sync=Sync(folders=(folder,)))
    return replace(made, **changes)


def laid_over(
    made: Entry, container: dict[str, Any] | None = None, pod: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    held = {"name": "api", "image": "own:1", "command": ["starter"], "volumeMounts": []}
    held |= container or {}
    spec: dict[str, Any] = {"containers": [held], "volumes": [], **(pod or {})}
    agent = [{"name": "towline-boot", "mountPath": "/towline/boot"}]
    lay_sync_over(spec, held, made, agent=agent, claim="kept", secret="session", uid=None)
    return spec, held


@pytest.mark.parametrize(
    ("pod", "container", "lies"),
    [
        ({}, {}, None),
        ({}, {"readOnlyRootFilesystem": True}, Lies.EMPTY),
        ({"runAsUser": 1000}, {}, Lies.EMPTY),
        ({"runAsNonRoot": True}, {}, Lies.EMPTY),
        ({"runAsUser": 1000}, {"runAsUser": 0}, None),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_one_of_the_pods(
    pod: dict[str, Any], container: dict[str, Any], lies: Lies | None
) -> None:
    held = {"securityContext": container}
    kept = kept_folders(entry(), held, {"securityContext": pod}, uid=None)
    assert kept == ({} if lies is None else {APP: lies})
    told = folder_notices(entry(), held, {"securityContext": pod}, uid=None)
    assert len(told) == (lies is not None)


@pytest.mark.parametrize(
    ("uid", "security", "image", "lies"),
    [
        (10001, {}, None, Lies.EMPTY),
        (0, {}, None, None),
        (0, {"runAsNonRoot": True}, None, None),
        (10001, {}, "dev:1", None),
        (10001, {"runAsUser": 0}, None, None),
    ],
)
def test_the_runtime_says_which_user_the_images_is(
    uid: int, security: dict[str, Any], image: str | None, lies: Lies | None
) -> None:
    status = {"name": "api", "user": {"linux": {"uid": uid}}}
    pods = [{"status": {"containerStatuses": [{"name": "side"}, status]}}]
    assert image_user(pods, "api") == uid
    assert image_user(pods, "side") is None
    made = entry(image=image, security_context=security)
    assert kept_folders(made, {}, {}, uid=uid) == ({} if lies is None else {APP: lies})


def test_the_image_and_user_of_the_dev_container_fill_its_folders() -> None:
    spec, held = laid_over(entry(image="dev:1", container_workdir=APP), READ_ONLY)
    assert held["image"] == "dev:1" and held["workingDir"] == "/app"
    assert [each["emptyDir"] for each in spec["volumes"]] == [{}]
    mount = {"name": "towline-folders", "mountPath": "/app", "subPath": "app"}
    assert held["volumeMounts"] == [mount]
    (init,) = spec["initContainers"]
    assert init["image"] == "dev:1"
    assert init["securityContext"] == READ_ONLY["securityContext"]
    starter, option, task = init["command"]
    assert (starter, option) == ("starter", "-prepare")
    assert json.loads(task)["folders"] == [{"from": "/app", "to": "/towline/folders/app"}]


@pytest.mark.parametrize("mounted", ["/app", "/"])
def test_a_volume_that_is_there_already_is_used(mounted: str) -> None:
    there = {**READ_ONLY, "volumeMounts": [{"mountPath": mounted}]}
    assert kept_folders(entry(), READ_ONLY, {}, uid=None)
    assert not kept_folders(entry(), there, {}, uid=None)
    claim = ExternalVolume(claim="c", mount_path=PurePosixPath(mounted), place=PLACE)
    assert not kept_folders(entry(external_volumes=(claim,)), READ_ONLY, {}, uid=None)


@pytest.mark.parametrize("kind", ["configMap", "secret", "projected"])
def test_a_config_map_at_the_folder_is_what_it_begins_with(kind: str) -> None:
    """The sample's public form has its source in one: nothing could be written there."""
    there = {"volumeMounts": [{"name": "source", "mountPath": "/app"}]}
    spec, held = laid_over(entry(), there, {"volumes": [{"name": "source", kind: {}}]})
    (mount,) = held["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == ("towline-folders", "/app")
    (init,) = spec["initContainers"]
    assert {"name": "source", "mountPath": "/app"} in init["volumeMounts"]


def test_a_claim_keeps_synced_folders_and_volumes_each_once() -> None:
    inner = APP / "node_modules"
    kept = PersistentVolume(enabled=True, size="1Gi", storage_class="fast", labels={"team": "a"})
    made = entry(persistent_volume=kept, volumes=(inner, CACHE))
    assert kept_folders(made, {}, {}, uid=None) == {APP: Lies.CLAIM, CACHE: Lies.CLAIM}
    assert not kept_folders(replace(made, mode=Mode.HYBRID), {}, {}, uid=None)
    spec, held = laid_over(made)
    assert spec["volumes"] == [
        {"name": "towline-folders", "persistentVolumeClaim": {"claimName": "kept"}}
    ]
    subs = [(each["mountPath"], each["subPath"]) for each in held["volumeMounts"]]
    assert subs == [("/app", "app"), ("/home/me/.cache", "home/me/.cache")]
    assert lies_in_claim(spec, "api", APP / "src") and lies_in_claim(spec, "api", inner)
    assert not lies_in_claim(spec, "api", PurePosixPath("/apps"))
    claim = claim_object(made, "kept", "api", Owner(user="me", host="here"))
    assert claim["spec"]["resources"]["requests"] == {"storage": "1Gi"}
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["metadata"]["labels"]["team"] == "a"
    assert "ownerReferences" not in claim["metadata"]


def test_the_innermost_mount_says_whether_a_folder_outlives_the_pod() -> None:
    mounts = [{"name": "a", "mountPath": "/"}, {"name": "b", "mountPath": "/app"}]
    pod = {
        "containers": [{"name": "api", "volumeMounts": mounts}],
        "volumes": [{"name": "a", "persistentVolumeClaim": {}}, {"name": "b", "emptyDir": {}}],
    }
    assert lies_in_claim(pod, "api", CACHE)
    assert not lies_in_claim(pod, "api", APP)


def test_secrets_are_put_in_place_by_the_containers_user() -> None:
    secret = SecretFile(
        local=Path("/here/key"), remote=PurePosixPath("/run/key"), mode=0o600, place=PLACE
    )
    spec, held = laid_over(entry(secrets=(secret, secret)))
    (init,) = spec["initContainers"]
    files = json.loads(init["command"][-1])["files"]
    assert files[1] == {"from": "/towline/given/1", "to": "/towline/put/1", "mode": 0o600}
    assert held["volumeMounts"][0] == {
        "name": "towline-put",
        "mountPath": "/run/key",
        "subPath": "0",
    }
    given, put = spec["volumes"]
    assert given["secret"]["items"][1] == {"key": "file.1", "path": "1"}
    assert put["emptyDir"]["medium"] == "Memory"
