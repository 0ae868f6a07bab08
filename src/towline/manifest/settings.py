"""Towline's own settings: their shapes, and how a file's and an entry's come together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from towline.manifest import forms
from towline.manifest.model import (
    EnvironmentOrder,
    Files,
    Handover,
    InitContainers,
    Names,
    Original,
    Reach,
    Settings,
)
from towline.manifest.records import Field, Values, record
from towline.manifest.shapes import At, Made, OneOf, OneOrMany, Shape, Text, choice

_TEXT = Text(str)
_GLOBS = OneOrMany(Text(str, what="a name or a pattern such as 'AWS_*'"))
_BOOLEAN = Text(forms.boolean, {"type": ["boolean", "string"]}, "true or false")
_PORTS = OneOrMany(Text(forms.port, {"type": ["integer", "string"]}, "a port such as 9090"))
DURATION = Text(
    forms.duration,
    {"type": ["string", "number"], "pattern": r"^([0-9.]+(ms|s|m|h|d)?)+$|\$"},
    "a time such as '5m'",
)
_REACH = choice(
    {"on": Reach.ON, "true": Reach.ON, "env": Reach.ENV, "off": Reach.OFF, "false": Reach.OFF}
)


def _files(values: Values, _at: At) -> Files:
    names = {"mode": "reach", "include": "include", "exclude": "exclude", "add": "add"}
    return Files(**values.given(names))


_FILES: Shape[Files] = OneOf(
    scalar=Made(_REACH, lambda reach, _n, _a: Files(reach=reach)),
    fields=record(
        {
            "mode": Field(_REACH, "on, env or off."),
            "include": Field(_GLOBS, "Only these mounts of the container (globs)."),
            "exclude": Field(_GLOBS, "Not these mounts of the container (globs)."),
            "add": Field(_GLOBS, "Paths of the container beside its mounts, read only."),
        },
        _files,
    ),
)


def _names(values: Values, _at: At) -> Names:
    fields = ("add", "keep", "free", "proxy")
    return Names(**values.given({"mode": "reach"} | {name: name for name in fields}))


_NAMES: Shape[Names] = OneOf(
    scalar=Made(_REACH, lambda reach, _n, _a: Names(reach=reach)),
    items=Made(_GLOBS, lambda add, _n, _a: Names(add=add)),
    fields=record(
        {
            "mode": Field(_REACH, "on, env or off."),
            "add": Field(_GLOBS, "Names beside the namespace's Services."),
            "keep": Field(_GLOBS, "Variables whose value is never rewritten."),
            "free": Field(_PORTS, "Local ports that the process listens on itself."),
            "proxy": Field(_BOOLEAN, "A proxy that resolves in the cluster, by environment."),
        },
        _names,
    ),
)

_WHOLE = frozenset({"all", "minimal"})


def _inherit(value: tuple[str, ...], _node: object, _at: At) -> str | tuple[str, ...]:
    return value[0] if len(value) == 1 and value[0] in _WHOLE else value


_AGENT = record({"image": Field(_TEXT, "An image that has the agent in it.")},
                lambda values, _at: values)  # fmt: skip


def _own(shape: Shape[object], doc: str) -> Field:
    return Field(shape, doc, own=True)


ENTRY_FIELDS: Mapping[str, Field] = {
    "original": _own(choice({o.value: o for o in Original}), "What becomes of the original."),
    "handover": _own(choice({h.value: h for h in Handover}), "How the traffic changes over."),
    "environmentOrder": _own(
        choice({o.value: o for o in EnvironmentOrder}),
        "Who wins between an envFrom ConfigMap and a Secret with the same key.",
    ),
    "inheritEnvironment": _own(
        Made(_GLOBS, _inherit), "The laptop's variables: all, minimal, or a list of names."
    ),
    "keepEnvironment": _own(_GLOBS, "Variables that stay the laptop's."),
    "dropEnvironment": _own(_GLOBS, "Variables that the process never gets."),
    "files": _own(_FILES, "The container's files on the laptop."),
    "names": _own(_NAMES, "The cluster's names on the laptop."),
    "giveBackAfter": _own(DURATION, "When a dead laptop's traffic goes back; default 2m."),
    "keepFor": _own(DURATION, "When all of a dead laptop's session is removed; default 10m."),
    "holdFor": _own(DURATION, "How long new connections wait for a restart; default 10s."),
    "initContainers": _own(
        choice({i.value: i for i in InitContainers}), "Whether init containers run again."
    ),
    "agent": _own(_AGENT, "Where the agent comes from."),
}
MANIFEST_FIELDS: Mapping[str, Field] = {
    **ENTRY_FIELDS,
    "contexts": _own(_GLOBS, "The kube contexts that this may be used with (globs)."),
    "namespaces": _own(_GLOBS, "The namespaces that this may be used in (globs)."),
}

_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "original": "original",
        "handover": "handover",
        "environmentOrder": "environment_order",
        "inheritEnvironment": "inherit_environment",
        "keepEnvironment": "keep_environment",
        "dropEnvironment": "drop_environment",
        "files": "files",
        "names": "names",
        "giveBackAfter": "give_back_after_s",
        "keepFor": "keep_for_s",
        "holdFor": "hold_for_s",
        "initContainers": "init_containers",
        "contexts": "contexts",
        "namespaces": "namespaces",
    }
)


def merged(values: Values, *, over: Settings) -> Settings:
    """The settings with those that the record has laid over them."""
    settings = replace(over, **values.given(_ARGUMENTS))
    agent = values.get("agent")
    if agent is not None and agent.get("image") is not None:
        settings = replace(settings, agent_image=agent.get("image"))
    return settings


def check(settings: Settings, values: Values, at: At) -> None:
    """What no field can say alone."""
    if settings.keep_for_s < settings.give_back_after_s:
        key = next(k for k in ("keepFor", "giveBackAfter") if values.has(k))
        at.child(key).error(
            values.nodes[key],
            f"keepFor ({settings.keep_for_s:g} s) is shorter than giveBackAfter "
            f"({settings.give_back_after_s:g} s); the session would be gone before it gives back",
        )
