"""What sync mode lays over the dev container: image, folder, where its files may lie. [pure]"""

from __future__ import annotations

from pathlib import PurePosixPath

from towline._kit.objects import JsonObject
from towline.manifest.model import Entry, Mode


def lay_sync_over(spec: JsonObject, container: JsonObject, entry: Entry) -> None:
    """The dev image and folder, and an emptyDir where a synced folder cannot be written."""
    if entry.image is not None:
        container["image"] = entry.image
    if entry.image_pull_policy is not None:
        container["imagePullPolicy"] = entry.image_pull_policy
    if entry.container_workdir is not None:
        container["workingDir"] = str(entry.container_workdir)
    for number, folder in enumerate(empty_folders(entry, container, spec)):
        name = f"towline-sync-{number}"
        spec["volumes"] = [*(spec.get("volumes") or []), {"name": name, "emptyDir": {}}]
        mount = {"name": name, "mountPath": str(folder)}
        container["volumeMounts"] = [*(container.get("volumeMounts") or []), mount]


def empty_folders(
    entry: Entry, container: JsonObject, spec: JsonObject
) -> tuple[PurePosixPath, ...]:
    """The synced folders in a file system that the container's user cannot write to."""
    if entry.mode is not Mode.SYNC or not _is_read_only(entry, container, spec):
        return ()
    mounts = [PurePosixPath(each["mountPath"]) for each in container.get("volumeMounts") or []]
    mounts += [each.mount_path for each in entry.external_volumes]
    found: list[PurePosixPath] = []
    for remote in dict.fromkeys(folder.remote for folder in entry.sync.folders):
        if not any(remote == each or each in remote.parents for each in [*mounts, *found]):
            found.append(remote)
    return tuple(found)


def folder_notices(entry: Entry, container: JsonObject, spec: JsonObject) -> tuple[str, ...]:
    """What is to be known: folders that get an emptyDir, fields that do nothing yet."""
    if entry.mode is not Mode.SYNC:
        return ()
    without_effect = [
        name
        for name, given in (
            ("volumes", entry.volumes),
            ("persistentVolume", entry.persistent_volume.enabled),
            ("secrets", entry.secrets),
            ("envFiles", entry.env_files),
            ("services", entry.services),
        )
        if given
    ]
    fields = tuple(f"{entry.name}.{name} has no effect in sync mode yet" for name in without_effect)
    return fields + tuple(
        f"{folder} cannot be written to by the container's user: it is an empty folder of the "
        "pod (emptyDir) in development, without what the image has there"
        for folder in empty_folders(entry, container, spec)
    )


def _is_read_only(entry: Entry, container: JsonObject, spec: JsonObject) -> bool:
    security = {
        **(spec.get("securityContext") or {}),
        **(container.get("securityContext") or {}),
        **entry.security_context,
    }
    if security.get("readOnlyRootFilesystem"):
        return True
    # Images' folders are root's, mostly. What the image says of its user is not known here.
    return bool(security.get("runAsNonRoot") or security.get("runAsUser"))
