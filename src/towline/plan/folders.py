"""What sync mode lays over the dev pod: image, folders and files, and where they lie. [pure]

A synced folder lies in the image's own file system where the container's user can write
there; else in an emptyDir, or with `persistentVolume` in a claim. Those two begin with
what the image has at that path: an init container of the same image copies it, by the
agent, since the image may have neither shell nor tar.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Enum
from pathlib import PurePosixPath

from towline._kit.objects import JsonObject
from towline.manifest.model import Entry, Mode
from towline.plan.model import LABEL_KIND, MANAGED_BY, Kind, Owner

_FOLDERS, _GIVEN, _PUT = "towline-folders", "towline-given", "towline-put"
_PREPARE = "towline-prepare"
# In memory, since they are secrets; a Secret holds 1 MiB.
_PUT_LIMIT = "2Mi"

ANNOTATION_ENTRY = "towline.dev/entry"
ANNOTATION_OWNER = "towline.dev/owner"
ANNOTATION_WORKLOAD = "towline.dev/workload"


class Lies(Enum):
    """Where a folder of the dev container lies, if not in the image's own file system."""

    EMPTY = "an emptyDir"
    CLAIM = "a claim"


def claim_name(kind: Kind, workload: str) -> str:
    """The claim that keeps a workload's folders over sessions."""
    return f"towline-kept-{kind.value.lower()}-{workload}"[:253]


def variable_key(number: int) -> str:
    """The key of one of the entry's variables in the session's Secret (sync mode)."""
    return f"variable.{number}"


def secret_key(number: int) -> str:
    """The key of one of `secrets` in the session's Secret."""
    return f"file.{number}"


def image_user(pods: Iterable[JsonObject], container: str) -> int | None:
    """The user that a container runs as, where the runtime says so (Kubernetes 1.31 and later)."""
    for pod in pods:
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            user = (status.get("user") or {}).get("linux") or {}
            if status["name"] == container and "uid" in user:
                return int(user["uid"])
    return None


def kept_folders(
    entry: Entry, container: JsonObject, spec: JsonObject, *, uid: int | None
) -> dict[PurePosixPath, Lies]:
    """The folders that do not lie in the image's file system, nor in a volume there is.

    Args:
        uid: the original's user, None where that is not known.
    """
    if entry.mode is not Mode.SYNC:
        return {}
    if entry.persistent_volume.enabled:
        lies = Lies.CLAIM
    elif _fixed_mounts(entry, container, spec) or _cannot_be_written(entry, container, spec, uid):
        lies = Lies.EMPTY
    else:
        return {}
    fixed = _fixed_mounts(entry, container, spec)
    mounts = [
        PurePosixPath(each["mountPath"])
        for each in container.get("volumeMounts") or []
        if each not in fixed
    ]
    mounts += [each.mount_path for each in entry.external_volumes]
    found: dict[PurePosixPath, Lies] = {}
    remotes = [*(folder.remote for folder in entry.sync.folders), *entry.volumes]
    for remote in sorted(dict.fromkeys(remotes), key=lambda path: len(path.parts)):
        if not any(remote == each or each in remote.parents for each in [*mounts, *found]):
            found[remote] = lies
    return found


def _fixed_mounts(entry: Entry, container: JsonObject, spec: JsonObject) -> list[JsonObject]:
    """The mounts of ConfigMaps and the like at the synced folders: nobody can write there."""
    fixed = {
        volume["name"]
        for volume in spec.get("volumes") or []
        if volume.keys() & {"configMap", "secret", "projected", "downwardAPI"}
    }
    remotes = {str(folder.remote) for folder in entry.sync.folders}
    return [
        each
        for each in container.get("volumeMounts") or []
        if each["mountPath"].rstrip("/") in remotes
        and (each.get("name") in fixed or each.get("readOnly"))
    ]


def _cannot_be_written(
    entry: Entry, container: JsonObject, spec: JsonObject, uid: int | None
) -> bool:
    security = {
        **(spec.get("securityContext") or {}),
        **(container.get("securityContext") or {}),
        **entry.security_context,
    }
    if security.get("readOnlyRootFilesystem"):
        return True
    if entry.image is None and security.get("runAsUser") is None and uid is not None:
        return uid != 0
    # Images' folders are root's, mostly. What another image says of its user is not known.
    return bool(security.get("runAsNonRoot") or security.get("runAsUser"))


def lay_sync_over(
    spec: JsonObject,
    container: JsonObject,
    entry: Entry,
    *,
    agent: Iterable[JsonObject],
    claim: str,
    secret: str,
    uid: int | None,
) -> None:
    """The dev image and folder; volumes for folders and files, and what fills them.

    Args:
        agent: the mounts that the starter needs.
        claim, secret: the claim for folders that are kept, the session's Secret.
        uid: as for `kept_folders`.
    """
    kept = kept_folders(entry, container, spec, uid=uid)
    for key, value in (
        ("image", entry.image),
        ("imagePullPolicy", entry.image_pull_policy),
        ("workingDir", entry.container_workdir and str(entry.container_workdir)),
    ):
        if value is not None:
            container[key] = value
    if not kept and not entry.secrets:
        return
    fixed = _fixed_mounts(entry, container, spec)
    container["volumeMounts"] = [each for each in container["volumeMounts"] if each not in fixed]
    # What they show is what the folder begins with.
    mounts = [*agent, *fixed]
    if kept:
        source: JsonObject = {"emptyDir": {}}
        if Lies.CLAIM in kept.values():
            source = {"persistentVolumeClaim": {"claimName": claim}}
        spec["volumes"].append({"name": _FOLDERS, **source})
        mounts.append({"name": _FOLDERS, "mountPath": _at(_FOLDERS)})
    if entry.secrets:
        items = [{"key": secret_key(n), "path": str(n)} for n in range(len(entry.secrets))]
        spec["volumes"] += [
            {"name": _GIVEN, "secret": {"secretName": secret, "items": items}},
            {"name": _PUT, "emptyDir": {"medium": "Memory", "sizeLimit": _PUT_LIMIT}},
        ]
        mounts += [{"name": each, "mountPath": _at(each)} for each in (_GIVEN, _PUT)]
    container["volumeMounts"] = [*container["volumeMounts"], *_mounts(kept, entry)]
    prepares = _preparing(container, kept, entry, mounts)
    spec["initContainers"] = [*(spec.get("initContainers") or []), prepares]


def _at(volume: str) -> str:
    return f"/towline/{volume.removeprefix('towline-')}"


def _mounts(kept: Iterable[PurePosixPath], entry: Entry) -> list[JsonObject]:
    mounts = [
        {"name": _FOLDERS, "mountPath": str(path), "subPath": str(path).lstrip("/")}
        for path in kept
    ]
    return mounts + [
        {"name": _PUT, "mountPath": str(each.remote), "subPath": str(n)}
        for n, each in enumerate(entry.secrets)
    ]


def _preparing(
    container: JsonObject,
    kept: Iterable[PurePosixPath],
    entry: Entry,
    mounts: list[JsonObject],
) -> JsonObject:
    """The init container: the dev container's image and user, so that what it makes is theirs."""
    task = {
        "folders": [{"from": str(path), "to": f"{_at(_FOLDERS)}{path}"} for path in kept],
        "files": [
            {"from": f"{_at(_GIVEN)}/{n}", "to": f"{_at(_PUT)}/{n}", "mode": each.mode}
            for n, each in enumerate(entry.secrets)
        ],
    }
    same = ("image", "imagePullPolicy", "securityContext", "resources")
    return {
        "name": _PREPARE,
        **{key: container[key] for key in same if key in container},
        "command": [*container["command"], "-prepare", json.dumps(task)],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def claim_object(entry: Entry, name: str, workload: str, owner: Owner) -> JsonObject:
    """The claim that keeps folders over sessions; it is nobody's to collect."""
    wanted = entry.persistent_volume
    spec: JsonObject = {
        "accessModes": [wanted.access_mode],
        "volumeMode": wanted.volume_mode,
        "resources": {"requests": {"storage": wanted.size}},
    }
    if wanted.storage_class is not None:
        spec["storageClassName"] = wanted.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "labels": {**wanted.labels, LABEL_KIND: "claim", **MANAGED_BY},
            "annotations": {
                **wanted.annotations,
                ANNOTATION_ENTRY: entry.name,
                ANNOTATION_OWNER: str(owner),
                ANNOTATION_WORKLOAD: workload,
            },
        },
        "spec": spec,
    }


def lies_in_claim(pod: JsonObject, container: str, path: PurePosixPath) -> bool:
    """Whether a folder of a container outlives the pod: the innermost mount over it is a claim."""
    held: JsonObject = next(c for c in pod["containers"] if c["name"] == container)
    over = [
        each
        for each in held.get("volumeMounts") or []
        if path.is_relative_to(PurePosixPath(each["mountPath"]))
    ]
    if not over:
        return False
    innermost = max(over, key=lambda each: len(PurePosixPath(each["mountPath"]).parts))
    claims = {v["name"] for v in pod.get("volumes") or [] if "persistentVolumeClaim" in v}
    return innermost["name"] in claims


def folder_notices(
    entry: Entry, container: JsonObject, spec: JsonObject, *, uid: int | None
) -> tuple[str, ...]:
    """What is to be known: folders that do not lie in the image's file system."""
    return tuple(
        f"{folder} cannot be written to by the container's user: it is {Lies.EMPTY.value} of "
        "the pod in development, which begins with what the image has there"
        for folder, lies in kept_folders(entry, container, spec, uid=uid).items()
        if lies is Lies.EMPTY
    )
