"""Node tree → Manifest: everything read, filled in and checked, all problems at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from towline.manifest import forms, ports, settings
from towline.manifest.fields import MANIFEST_FIELDS, UNUSED_SECTIONS
from towline.manifest.model import (
    Command,
    Entry,
    Forward,
    Manifest,
    Metadata,
    Mode,
    PersistentVolume,
    Probes,
    SecretFile,
    Service,
    Settings,
    Sync,
    SyncFolder,
)
from towline.manifest.parse import ListNode, MapNode, Node, ScalarNode
from towline.manifest.places import Findings, as_lines
from towline.manifest.shapes import At, Record, Values, shortened


def check(
    root: Node, *, path: Path, folder: Path, findings: Findings, variables: Mapping[str, str]
) -> Manifest:
    """Make a Manifest of what was parsed.

    Raises:
        ManifestError: with one line for each problem, these and those that
            `findings` had already, sorted by place.
    """
    at = At("", findings, variables)
    values = _without_unused_sections(root, at)
    if values is None:
        findings.raise_errors()
        raise AssertionError("a root that cannot be read has an error")
    file_settings = settings.merged(values, over=Settings())
    if values.has("keepFor") or values.has("giveBackAfter"):
        settings.check(file_settings, values, at)
    forwards: tuple[Forward, ...] = values.get("forward", ())
    entries: dict[str, Entry] = {}
    for name, entry in _entries(values, at):
        scope = _Scope(name=name, values=entry, at=at.child("dev").child(name), folder=folder)
        entries[name] = _entry(scope, forwards=forwards, over=file_settings)
    findings.raise_errors()
    return Manifest(
        path=path, folder=folder, entries=MappingProxyType(entries), forwards=forwards,
        settings=file_settings, notices=as_lines(findings.notices),
    )  # fmt: skip


def _without_unused_sections(root: Node, at: At) -> Values | None:
    """Read the top level; Okteto's other sections become one notice."""
    if isinstance(root, MapNode):
        unused = [key for key, _ in root.entries if key.text in UNUSED_SECTIONS]
        if unused:
            names = ", ".join(f"'{key.text}'" for key in unused)
            at.notice(unused[0], f"{names} {'is' if len(unused) == 1 else 'are'} not used")
        entries = tuple(e for e in root.entries if e[0].text not in UNUSED_SECTIONS)
        root = MapNode(place=root.place, source=root.source, entries=entries, size=root.size)
    return Record(MANIFEST_FIELDS).read(root, at)


def _entries(values: Values, at: At) -> list[tuple[str, Values]]:
    """The entries of `dev`, by name; its list form has the names inside."""
    dev = values.get("dev")
    if isinstance(dev, tuple):
        named = [pair for item in dev if (pair := _named(item, values.nodes["dev"], at))]
    else:
        named = list(dev.items()) if dev is not None else []
    seen: set[str] = set()
    for name, entry in named:
        if name in seen:
            at.error(entry.node, f"dev: '{name}' is here twice")
        seen.add(name)
    is_read = dev is not None or not values.has("dev")
    if not named and is_read and not at.findings.errors:
        at.error(values.node, "nothing to develop; write an entry under 'dev', "
                 "such as 'dev: {frontend: {mode: hybrid}}'")  # fmt: skip
    return named


def _named(item: str | Values, dev: Node, at: At) -> tuple[str, Values] | None:
    if isinstance(item, str):
        return item, Values(MapNode(place=dev.place, source=dev.source, entries=(), size=1))
    if not item.has("name"):
        at.error(item.node, "dev: in a list each entry needs a 'name'")
        return None
    name = item.get("name")
    return None if name is None else (name, item)


@dataclass(frozen=True, slots=True)
class _Scope:
    """One entry, or one of its services, while it is made."""

    name: str
    values: Values
    at: At
    folder: Path

    def error(self, key: str, message: str) -> None:
        self.at.child(key).error(self.values.nodes[key], message)

    def notice(self, key: str, message: str) -> None:
        self.at.child(key).notice(self.values.nodes[key], message)


def _entry(scope: _Scope, *, forwards: tuple[Forward, ...], over: Settings) -> Entry:
    values = scope.values
    mode: Mode = values.get("mode", Mode.SYNC)
    entry_settings = settings.merged(values, over=over)
    if values.has("keepFor") or values.has("giveBackAfter"):
        settings.check(entry_settings, values, scope.at)
    timeout_s, resources_timeout_s = values.get("timeout", (None, None))
    names = {"interface": "interface", "remote": "remote", "sshServerPort": "ssh_server_port",
             "autocreate": "autocreate", "reverse": "reverse"}  # fmt: skip
    if timeout_s is not None:
        names_and_times = {"timeout_s": timeout_s, "resources_timeout_s": timeout_s}
    else:
        names_and_times = {}
    if resources_timeout_s is not None:
        names_and_times["resources_timeout_s"] = resources_timeout_s
    entry = Entry(
        **_workload(scope, mode=mode),
        **values.given(names),
        **names_and_times,
        mode=mode,
        workdir=_local_workdir(scope) if mode is Mode.HYBRID else None,
        forward=ports.with_global(values.get("forward", ()), forwards),
        secrets=_secrets(scope),
        persistent_volume=_persistent_volume(scope),
        services=_services(scope, mode=mode),
        settings=entry_settings,
    )
    ports.check(entry, scope.at, values)
    _mode_notices(scope, mode)
    if entry.autocreate and entry.image is None and mode is Mode.SYNC:
        scope.error("autocreate", "needs an 'image'; there is no container to take it from")
    return entry


def _workload(scope: _Scope, *, mode: Mode) -> dict[str, Any]:
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
        "env_files": tuple(_local(scope, "envFiles", text) for text in values.get("envFiles", ())),
        "sync": sync, "volumes": volumes, "metadata": _metadata(scope), "probes": _probes(scope),
    }  # fmt: skip


def _selector(scope: _Scope) -> Mapping[str, str] | None:
    values = scope.values
    if values.has("labels"):
        if values.has("selector"):
            scope.error("labels", "'selector' and 'labels' are both here, and mean the same")
        else:
            scope.notice("labels", "is called 'selector' now, and is taken for it")
    selector: Mapping[str, str] | None = values.get("selector", values.get("labels"))
    for key in ("selector", "labels"):
        if values.has(key) and selector is not None and not selector:
            scope.error(key, "an empty map selects every workload; write a label")
    return selector or None


def _command(scope: _Scope, *, mode: Mode) -> tuple[Command | None, Command | None]:
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


def _container_workdir(scope: _Scope) -> PurePosixPath | None:
    text = scope.values.get("workdir")
    if text is None:
        return None
    try:
        return forms.container_path(text)
    except ValueError as error:
        scope.error("workdir", f"'{shortened(text)}' {error}")
        return None


def _local_workdir(scope: _Scope) -> Path:
    text = scope.values.get("workdir")
    return scope.folder if text is None else _local(scope, "workdir", text)


def _local(scope: _Scope, key: str, text: str) -> Path:
    """A path on the laptop: relative to the folder of the file that it stands in."""
    if "\0" in text:
        scope.error(key, "has a NUL in it, which no path can")
        text = text.replace("\0", "")
    folder = scope.values.nodes[key].source.folder
    if text == "~" or text.startswith("~/"):
        home = scope.at.variables.get("HOME")
        return Path(home or "~") / text[2:]
    return folder / text


def _folders(scope: _Scope) -> tuple[Sync, tuple[PurePosixPath, ...]]:
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


def _sync_folder(scope: _Scope, key: str, text: str) -> SyncFolder | None:
    pair = _read(scope, key, text, forms.local_and_remote)
    if pair is None:
        return None
    return SyncFolder(local=_local(scope, key, pair[0]), remote=pair[1],
                      place=_place_of(scope.values.nodes[key], text))  # fmt: skip


def _secrets(scope: _Scope) -> tuple[SecretFile, ...]:
    read = [
        SecretFile(local=_local(scope, "secrets", parts[0]), remote=parts[1], mode=parts[2],
                   place=_place_of(scope.values.nodes["secrets"], text))
        for text in scope.values.get("secrets", ())
        if (parts := _read(scope, "secrets", text, forms.secret)) is not None
    ]  # fmt: skip
    return tuple(read)


def _read(scope: _Scope, key: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        node = scope.values.nodes[key]
        place = _place_of(node, text)
        scope.at.findings.error(place, f"{scope.at.name}.{key}: '{shortened(text)}' {error}")
        return None


def _place_of(node: Node, text: str) -> Any:
    """The place of an item of a list, found by its text; else that of the whole."""
    scalars = [node] if isinstance(node, ScalarNode) else _scalars(node)
    return next((s.place for s in scalars if s.text == text), node.place)


def _scalars(node: Node) -> list[ScalarNode]:
    if isinstance(node, ScalarNode):
        return [node]
    children = node.items if isinstance(node, ListNode) else [value for _, value in node.entries]
    return [scalar for child in children for scalar in _scalars(child)]


def _metadata(scope: _Scope) -> Metadata:
    metadata: Metadata = scope.values.get("metadata", Metadata())
    older = scope.values.get("annotations")
    if older is None:
        return metadata
    return Metadata(labels=metadata.labels, annotations={**older, **metadata.annotations})


def _probes(scope: _Scope) -> Probes:
    on = scope.values.get("healthchecks", False)
    older = Probes(liveness=on, readiness=on, startup=on)
    probes: Probes = scope.values.get("probes", older)
    return probes


def _persistent_volume(scope: _Scope) -> PersistentVolume:
    default = PersistentVolume(enabled=scope.values.has("volumes"))
    volume: PersistentVolume = scope.values.get("persistentVolume", default)
    if scope.values.has("volumes") and not volume.enabled:
        scope.error("volumes", "cannot be kept while 'persistentVolume' is not enabled")
    return volume


def _services(scope: _Scope, *, mode: Mode) -> tuple[Service, ...]:
    made = []
    for i, values in enumerate(scope.values.get("services", ())):
        at = scope.at.child("services").item(i)
        inner = _Scope(name=values.get("name", ""), values=values, at=at, folder=scope.folder)
        service = Service(**_workload(inner, mode=Mode.SYNC), replicas=values.get("replicas"))
        if not values.has("name") and service.selector is None:
            at.error(values.node, "which workload? write its 'name', or a 'selector'")
        if service.replicas is not None and service.replicas < 0:
            inner.error("replicas", f"{service.replicas} is no number of replicas")
        made.append(service)
    if made and mode is Mode.HYBRID:
        scope.notice("services", "is not used in hybrid mode")
    return tuple(made)


def _mode_notices(scope: _Scope, mode: Mode) -> None:
    if scope.values.has("initContainer"):
        scope.notice("initContainer", "is not used; nothing is injected by an init container")
    if mode is Mode.HYBRID:
        for key in ("image", "secrets"):
            if scope.values.has(key):
                scope.notice(key, "is not used in hybrid mode; the dev container keeps its own")
