"""A Manifest as plain values, in the manifest's own words: what `towline config` prints.

The shape is stable: fields are added, never renamed or removed, and `version`
goes up if that ever has to change. Each entry of `dev` has every field, null or
empty where nothing was said and there is no default; its own settings and the
top-level forwards are merged in. Paths on the laptop are absolute, times are
seconds, `command` is a string for a shell or a list taken literally, with `args`
in it. Values are final: there are no variables left in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from towline.manifest.model import (
    Command,
    Entry,
    Forward,
    Hook,
    Manifest,
    PersistentVolume,
    Service,
    Settings,
    Sync,
    Workload,
)

VERSION = 1
Plain = dict[str, Any]


def as_plain(manifest: Manifest) -> Plain:
    """The whole manifest, for JSON."""
    return {
        "version": VERSION,
        "file": str(manifest.path),
        "folder": str(manifest.folder),
        "notices": list(manifest.notices),
        **_settings(manifest.settings),
        "contexts": list(manifest.settings.contexts),
        "namespaces": list(manifest.settings.namespaces),
        "forward": [_forward(f) for f in manifest.forwards],
        "dev": {name: _entry(entry) for name, entry in manifest.entries.items()},
    }


def as_manifest(plain: Plain) -> Plain:
    """The same as a towline.yml: without what is empty, each `$` of a value doubled."""
    own = ("version", "file", "folder", "notices", "forward")
    kept = {key: value for key, value in plain.items() if key not in own}
    cleaned: Plain = _cleaned(kept)
    return cleaned


def _entry(entry: Entry) -> Plain:
    return {
        "mode": entry.mode.value,
        **_workload(entry),
        "workdir": str(entry.workdir) if entry.workdir else _text(entry.container_workdir),
        "forward": [_forward(f) for f in entry.forward],
        "reverse": [str(r) for r in entry.reverse],
        "interface": entry.interface,
        "secrets": [f"{s.local}:{s.remote}:{s.mode:04o}" for s in entry.secrets],
        "persistentVolume": _persistent_volume(entry.persistent_volume),
        "autocreate": entry.autocreate,
        "services": [_service(service) for service in entry.services],
        "timeout": {
            "default": _seconds(entry.timeout_s),
            "resources": _seconds(entry.resources_timeout_s),
        },
        "remote": entry.remote,
        "sshServerPort": entry.ssh_server_port,
        **_settings(entry.settings),
    }


def _service(service: Service) -> Plain:
    return {
        **_workload(service),
        "workdir": _text(service.container_workdir),
        "replicas": service.replicas,
    }


def _workload(workload: Workload) -> Plain:
    return {
        "name": workload.workload,
        "selector": _plain(workload.selector),
        "container": workload.container,
        "image": workload.image,
        "imagePullPolicy": workload.image_pull_policy,
        "command": _command(workload.command),
        # With a command its arguments are in it already.
        "args": _command(workload.args) if workload.command is None else None,
        "environment": {v.name: v.value for v in workload.environment},
        "envFiles": [str(path) for path in workload.env_files],
        "sync": _sync(workload.sync),
        "volumes": [str(path) for path in workload.volumes],
        "externalVolumes": [
            ":".join(filter(None, (v.claim, v.sub_path, str(v.mount_path))))
            for v in workload.external_volumes
        ],
        "resources": _record(workload.resources),
        "securityContext": _plain(workload.security_context),
        "serviceAccount": workload.service_account,
        "nodeSelector": _plain(workload.node_selector),
        "tolerations": _plain(workload.tolerations),
        "affinity": _plain(workload.affinity),
        "priorityClassName": workload.priority_class_name,
        "metadata": _record(workload.metadata),
        "probes": _record(workload.probes),
        "lifecycle": {
            "postStart": _hook(workload.lifecycle.post_start),
            "preStop": _hook(workload.lifecycle.pre_stop),
        },
    }


def _settings(settings: Settings) -> Plain:
    inherit = settings.inherit_environment
    return {
        "original": settings.original.value,
        "handover": settings.handover.value if settings.handover else None,
        "environmentOrder": settings.environment_order.value,
        "inheritEnvironment": inherit if isinstance(inherit, str) else list(inherit),
        "keepEnvironment": list(settings.keep_environment),
        "dropEnvironment": list(settings.drop_environment),
        "files": {
            "mode": settings.files.reach.value,
            "include": list(settings.files.include),
            "exclude": list(settings.files.exclude),
            "add": list(settings.files.add),
        },
        "names": {
            "mode": settings.names.reach.value,
            "add": list(settings.names.add),
            "keep": list(settings.names.keep),
            "free": list(settings.names.free),
            "proxy": settings.names.proxy,
        },
        "giveBackAfter": _seconds(settings.give_back_after_s),
        "keepFor": _seconds(settings.keep_for_s),
        "holdFor": _seconds(settings.hold_for_s),
        "initContainers": settings.init_containers.value,
        "agent": {"image": settings.agent_image},
    }


def _forward(forward: Forward) -> Any:
    if forward.labels is None:
        return str(forward)
    labels = dict(forward.labels)
    return {"localPort": forward.local, "remotePort": forward.remote, "labels": labels}


def _command(command: Command | None) -> Any:
    if command is None:
        return None
    return command.shell if command.shell is not None else list(command.argv)


def _hook(hook: Hook) -> Plain:
    return {"enabled": hook.enabled, "command": _command(hook.command)}


def _sync(sync: Sync) -> Plain:
    return {
        "folders": [f"{f.local}:{f.remote}" for f in sync.folders],
        "compression": sync.compression,
        "verbose": sync.verbose,
        "rescanInterval": _seconds(sync.rescan_interval_s),
    }


def _persistent_volume(volume: PersistentVolume) -> Plain:
    return {
        "enabled": volume.enabled,
        "size": volume.size,
        "storageClass": volume.storage_class,
        "accessMode": volume.access_mode,
        "volumeMode": volume.volume_mode,
        "labels": _plain(volume.labels),
        "annotations": _plain(volume.annotations),
    }


def _record(record: Any) -> Plain:
    """A dataclass whose fields have one-word names, the same in the file."""
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def _seconds(seconds: float) -> int | float:
    return int(seconds) if seconds == int(seconds) else seconds


# Where a shell expands later, nothing is expanded now, and so nothing is doubled.
_LITERAL = frozenset({"command", "args"})


def _cleaned(value: Any, *, key: str = "") -> Any:
    if isinstance(value, dict):
        if key == "environment":
            # An empty value is one; without any it would be the laptop's.
            return {name: text.replace("$", "$$") for name, text in value.items()}
        if key == "sync" and not value["folders"]:
            return None
        cleaned = {name: _cleaned(item, key=name) for name, item in value.items()}
        return {n: v for n, v in cleaned.items() if v is not None and v != [] and v != {}}
    if isinstance(value, list):
        return [_cleaned(item, key=key) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) and key not in _LITERAL else value
