"""Node tree → Manifest: everything read, filled in and checked, all problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from towline.manifest import ports, settings
from towline.manifest.fields import MANIFEST_FIELDS, UNUSED_SECTIONS
from towline.manifest.model import (
    Entry,
    Forward,
    Manifest,
    Mode,
    PersistentVolume,
    Service,
    Settings,
)
from towline.manifest.parse import MapNode, Node
from towline.manifest.places import Findings, as_lines
from towline.manifest.records import Record, Values
from towline.manifest.shapes import At
from towline.manifest.workload import Scope, local, secrets, workload


def check(
    root: Node,
    *,
    path: Path,
    folder: Path,
    findings: Findings,
    variables: Mapping[str, str],
    mode: Mode | None = None,
) -> Manifest:
    """Make a Manifest of what was parsed; `mode` is every entry's, whatever it says.

    Raises:
        ManifestError: with one line for each problem, these and those that
            `findings` had already, sorted by place.
    """
    at = At("", findings, variables)
    values = _without_unused_sections(root, at)
    if values is None:
        findings.fail()
    file_settings = settings.merged(values, over=Settings())
    if values.has("keepFor") or values.has("giveBackAfter"):
        settings.check(file_settings, values, at)
    forwards: tuple[Forward, ...] = values.get("forward", ())
    entries: dict[str, Entry] = {}
    for name, entry in _entries(values, at):
        scope = Scope(name=name, values=entry, at=at.child("dev").child(name), folder=folder)
        entries[name] = _entry(scope, forwards=forwards, over=file_settings, override=mode)
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


def _times(values: Values) -> dict[str, Any]:
    wait_s, resources_s = values.get("timeout", (None, None))
    times = {"timeout_s": wait_s, "resources_timeout_s": resources_s or wait_s}
    return {name: seconds for name, seconds in times.items() if seconds is not None}


def _local_workdir(scope: Scope, said: Mode) -> Path:
    text = scope.values.get("workdir")
    if text is None:
        return scope.folder
    if said is Mode.SYNC:
        scope.notice("workdir", f"'{text}' is in the container; here it is {scope.folder}")
        return scope.folder
    return local(scope, "workdir", text)


def _entry(
    scope: Scope, *, forwards: tuple[Forward, ...], over: Settings, override: Mode | None
) -> Entry:
    values = scope.values
    said: Mode = values.get("mode", Mode.SYNC)
    mode = override or said
    entry_settings = settings.merged(values, over=over)
    if values.has("keepFor") or values.has("giveBackAfter"):
        settings.check(entry_settings, values, scope.at)
    names = {
        "interface": "interface",
        "remote": "remote",
        "sshServerPort": "ssh_server_port",
        "autocreate": "autocreate",
        "reverse": "reverse",
    }
    entry = Entry(
        **workload(scope, mode=mode),
        **values.given(names),
        **_times(values),
        mode=mode,
        workdir=_local_workdir(scope, said) if mode is Mode.HYBRID else None,
        forward=ports.with_global(values.get("forward", ()), forwards),
        secrets=secrets(scope),
        persistent_volume=_persistent_volume(scope),
        services=_services(scope, mode=mode),
        settings=entry_settings,
    )
    ports.check(entry, scope.at, values)
    _mode_notices(scope, mode)
    if entry.autocreate and entry.image is None and mode is Mode.SYNC:
        scope.error("autocreate", "needs an 'image'; there is no container to take it from")
    return entry


def _persistent_volume(scope: Scope) -> PersistentVolume:
    default = PersistentVolume(enabled=scope.values.has("volumes"))
    volume: PersistentVolume = scope.values.get("persistentVolume", default)
    if scope.values.has("volumes") and not volume.enabled:
        scope.error("volumes", "cannot be kept while 'persistentVolume' is not enabled")
    return volume


def _services(scope: Scope, *, mode: Mode) -> tuple[Service, ...]:
    made = []
    for i, values in enumerate(scope.values.get("services", ())):
        at = scope.at.child("services").item(i)
        inner = Scope(name=values.get("name", ""), values=values, at=at, folder=scope.folder)
        service = Service(**workload(inner, mode=Mode.SYNC), replicas=values.get("replicas"))
        if not values.has("name") and service.selector is None:
            at.error(values.node, "which workload? write its 'name', or a 'selector'")
        if service.replicas is not None and service.replicas < 0:
            inner.error("replicas", f"{service.replicas} is no number of replicas")
        made.append(service)
    if made and mode is Mode.HYBRID:
        scope.notice("services", "is not used in hybrid mode")
    return tuple(made)


def _mode_notices(scope: Scope, mode: Mode) -> None:
    if scope.values.has("initContainer"):
        scope.notice("initContainer", "is not used; nothing is injected by an init container")
    if mode is Mode.HYBRID:
        for key in ("image", "secrets"):
            if scope.values.has(key):
                scope.notice(key, "is not used in hybrid mode; the dev container keeps its own")
