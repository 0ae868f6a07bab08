"""What an entry and each of its `services` have in common: values → fields of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from towline.manifest import forms
from towline.manifest.model import Command, Metadata, Mode, Probes, SecretFile, Sync, SyncFolder
from towline.manifest.parse import ListNode, MapNode, Node, ScalarNode
from towline.manifest.places import Place
from towline.manifest.records import Values
from towline.manifest.shapes import At, shortened


@dataclass(frozen=True, slots=True)
class Scope:
    """One entry, or one of its services, while it is made."""

    name: str
    values: Values
    at: At
    folder: Path

    def error(self, key: str, message: str) -> None:
        self.at.child(key).error(self.values.nodes[key], message)

    def notice(self, key: str, message: str) -> None:
        self.at.child(key).notice(self.values.nodes[key], message)


def workload(scope: Scope, *, mode: Mode) -> dict[str, Any]:
    """What an entry and a service have in common, as keyword arguments."""
    values = scope.values
    names = {
        "container": "container", "image": "image", "imagePullPolicy": "image_pull_policy",
        "environment": "environment", "externalVolumes": "external_volumes",
        "resources": "resources", "securityContext": "security_context",
        "serviceAccount": "service_account", "nodeSelector": "node_selector",
        "tolerations": "tolerations", "affinity": "affinity",
        "priorityClassName": "priority_class_name", "lifecycle": "lifecycle",
    }  # fmt: skip
    selector = _selector(scope)
    command, args = _command(scope, mode=mode)
    sync, volumes = _folders(scope)
    workload = values.get("name", scope.name) if selector is None else None
    return values.given(names) | {
        "name": scope.name, "place": values.node.place,
        "places": MappingProxyType({key: node.place for key, node in values.nodes.items()}),
        "workload": workload,
        "selector": selector, "command": command, "args": args,
        "container_workdir": _container_workdir(scope) if mode is Mode.SYNC else None,
        "env_files": tuple(local(scope, "envFiles", text) for text in values.get("envFiles", ())),
        "sync": sync, "volumes": volumes, "metadata": _metadata(scope), "probes": _probes(scope),
    }  # fmt: skip


def _selector(scope: Scope) -> Mapping[str, str] | None:
    values = scope.values
    if values.has("labels"):
        if values.has("selector"):
            scope.error("labels", "'selector' and 'labels' are both here, and mean the same")
        else:
            scope.notice("labels", "is called 'selector' now, and is taken for it")
    selector: Mapping[str, str] | None = values.get("selector", values.get("labels"))
    for key in ("selector", "labels"):
        node = values.nodes.get(key)
        if isinstance(node, MapNode) and not node.entries:
            scope.error(key, "an empty map selects every workload; write a label")
    return selector or None


def _command(scope: Scope, *, mode: Mode) -> tuple[Command | None, Command | None]:
    """The command with its arguments in it, and the arguments by themselves."""
    command: Command | None = scope.values.get("command")
    args: Command | None = scope.values.get("args")
    for key in ("command", "args"):
        value = scope.values.get(key)
        if value is not None and "\0" in (value.shell or "".join(value.argv)):
            scope.error(key, "has a NUL in it, which no command can")
    if args is not None and command is None:
        if mode is Mode.HYBRID:
            scope.error("args", "there is no 'command' that these could follow")
        return None, args
    if command is None:
        is_entry_in_sync = mode is Mode.SYNC and ".services[" not in scope.at.name
        return (Command(shell="sh") if is_entry_in_sync else None), None
    return (command if args is None else joined(command, args)), args


def joined(command: Command, args: Command) -> Command:
    """The command followed by arguments; a shell's text on either side makes it a shell's."""
    if not command.is_shell and not args.is_shell:
        return Command(argv=command.argv + args.argv)
    return Command(shell=f"{command} {args}")


def _container_workdir(scope: Scope) -> PurePosixPath | None:
    text = scope.values.get("workdir")
    if text is None:
        return None
    try:
        return forms.container_path(text)
    except ValueError as error:
        scope.error("workdir", f"'{shortened(text)}' {error}")
        return None


def local(scope: Scope, key: str, text: str) -> Path:
    """A path on the laptop: relative to the folder of the file that it stands in."""
    if "\0" in text:
        scope.error(key, "has a NUL in it, which no path can")
        text = text.replace("\0", "")
    folder = scope.values.nodes[key].source.folder
    if text == "~" or text.startswith("~/"):
        home = scope.at.variables.get("HOME")
        return Path(home or "~") / text[2:]
    return folder / text


def _folders(scope: Scope) -> tuple[Sync, tuple[PurePosixPath, ...]]:
    values = scope.values
    sync = values.get("sync")
    arguments: dict[str, Any] = {}
    texts: Iterable[str] = ()
    if isinstance(sync, Values):
        texts = sync.get("folders", ())
        arguments = sync.given({"compression": "compression", "verbose": "verbose",
                                "rescanInterval": "rescan_interval_s"})  # fmt: skip
    elif sync is not None:
        texts = (sync,) if isinstance(sync, str) else sync
    folders = [_sync_folder(scope, "sync", text) for text in texts]
    volumes: list[PurePosixPath] = []
    for text in values.get("volumes", ()):
        if ":" in text:
            scope.notice("volumes", f"'{text}' is a pair of folders, so it is taken for 'sync'")
            folders.append(_sync_folder(scope, "volumes", text))
        elif (path := _read(scope, "volumes", text, forms.container_path)) is not None:
            volumes.append(path)
    return Sync(folders=tuple(f for f in folders if f), **arguments), tuple(volumes)


def _sync_folder(scope: Scope, key: str, text: str) -> SyncFolder | None:
    pair = _read(scope, key, text, forms.local_and_remote)
    if pair is None:
        return None
    return SyncFolder(local=local(scope, key, pair[0]), remote=pair[1],
                      place=_place_of(scope.values.nodes[key], text))  # fmt: skip


def secrets(scope: Scope) -> tuple[SecretFile, ...]:
    read = [
        SecretFile(local=local(scope, "secrets", parts[0]), remote=parts[1], mode=parts[2],
                   place=_place_of(scope.values.nodes["secrets"], text))
        for text in scope.values.get("secrets", ())
        if (parts := _read(scope, "secrets", text, forms.secret)) is not None
    ]  # fmt: skip
    return tuple(read)


def _read(scope: Scope, key: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        node = scope.values.nodes[key]
        place = _place_of(node, text)
        scope.at.findings.error(place, f"{scope.at.name}.{key}: '{shortened(text)}' {error}")
        return None


def _place_of(node: Node, text: str) -> Place:
    """The place of an item of a list, found by its text; else that of the whole."""
    scalars = [node] if isinstance(node, ScalarNode) else _scalars(node)
    return next((s.place for s in scalars if s.text == text), node.place)


def _scalars(node: Node) -> list[ScalarNode]:
    if isinstance(node, ScalarNode):
        return [node]
    children = node.items if isinstance(node, ListNode) else [value for _, value in node.entries]
    return [scalar for child in children for scalar in _scalars(child)]


def _metadata(scope: Scope) -> Metadata:
    metadata: Metadata = scope.values.get("metadata", Metadata())
    older = scope.values.get("annotations")
    if older is None:
        return metadata
    return Metadata(labels=metadata.labels, annotations={**older, **metadata.annotations})


def _probes(scope: Scope) -> Probes:
    on = scope.values.get("healthchecks", False)
    older = Probes(liveness=on, readiness=on, startup=on)
    probes: Probes = scope.values.get("probes", older)
    return probes
