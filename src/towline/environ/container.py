"""The container's environment with the origin of each value: specs and truth together. [pure]

The truth is what the container's first process got, as the agent reads it. The specs
only explain it: where both differ the truth stays, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from towline.environ.definitions import (
    Definition,
    Kind,
    Resolution,
    Variable,
    config_maps_first,
)
from towline.environ.downward import OWN
from towline.manifest.model import EnvironmentOrder

Variables = Mapping[bytes, Variable]

# Set by the container runtime where neither spec nor image does (HOSTNAME: always).
_RUNTIMES_OWN = b"HOSTNAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEnvironment:
    """What the container gives to the process, as far as it is known.

    Attributes:
        variables: by name; one whose value is None is not known.
        notices: what a user should know of the whole.
    """

    variables: Variables
    notices: tuple[str, ...] = ()

    @property
    def values(self) -> dict[bytes, bytes]:
        """What is known."""
        pairs = ((name, v.definition.value) for name, v in self.variables.items())
        return {name: value for name, value in pairs if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Specs:
    """What the specs say of one container.

    Attributes:
        original: of the original's template: what the dev entry's own variables stand before.
        planned: of the dev workload's template.
        running: of the pod as it was admitted, whose environment the truth is; before a
            session, of the original's pod.
    """

    original: Resolution
    planned: Resolution
    running: Resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What else decides.

    Attributes:
        manifest: names that the dev entry sets: the dev container has them only from there.
        own_links: names of service links that the session's own Services made.
        changed: names that have another value in the cluster since the container started,
            which has been laid over the truth.
        order: environmentOrder.
    """

    manifest: frozenset[bytes] = frozenset()
    own_links: frozenset[bytes] = frozenset()
    changed: frozenset[bytes] = frozenset()
    order: EnvironmentOrder = EnvironmentOrder.TOWLINE


def in_session(
    truth: Mapping[bytes, bytes], specs: Specs, settings: Settings = Settings()
) -> ContainerEnvironment:
    """The container's environment during a session: the truth, explained."""
    running = _by_name(specs.running)
    injected = _injected(running, _by_name(specs.planned))
    variables: dict[bytes, Variable] = {}
    original = _by_name(specs.original)
    for name, value in truth.items():
        if name in settings.manifest:
            if name in original:
                variables[name] = original[name]
            continue
        if name in settings.own_links and _is_link(running.get(name)):
            continue
        spec = running.get(name)
        if spec is None:
            variables[name] = Variable(definition=_unexplained(name, value, specs.running))
        else:
            spec = _with_hidden_secret(spec, value, specs.running)
            made = _with_truth(spec, value, is_injected=name in injected)
            variables[name] = _noted(made, _CHANGED) if name in settings.changed else made
    return _ordered(variables, settings.order, specs.running)


def before_session(
    truth: Mapping[bytes, bytes] | None, specs: Specs, settings: Settings = Settings()
) -> ContainerEnvironment:
    """What a session's container will get, from the specs.

    Args:
        truth: of the original's running container; None where it could not be read. What
            the specs do not say is taken from it.
    """
    planned, running = _by_name(specs.planned), _by_name(specs.running)
    variables = {n: v for n, v in planned.items() if n not in settings.manifest}
    original = _by_name(specs.original)
    variables |= {n: original[n] for n in settings.manifest if n in original}
    injected = _injected(running, original)
    for name, value in (truth or {}).items():
        known = variables.get(name)
        if known is None and name not in settings.manifest:
            if name in injected:
                variables[name] = _with_truth(running[name], value, is_injected=True)
            elif name not in running:
                variables[name] = Variable(definition=_unexplained(name, value, specs.running))
        elif known is not None and known.definition.value is None and _can_take(known, running):
            variables[name] = _with_truth(known, value, is_injected=False)
    if _RUNTIMES_OWN in variables and variables[_RUNTIMES_OWN].definition.kind is Kind.RUNTIME:
        unknown = replace(variables[_RUNTIMES_OWN].definition, value=None, unknown=f"it is {OWN}")
        variables[_RUNTIMES_OWN] = Variable(definition=unknown)
    made = _ordered(variables, settings.order, specs.planned)
    notices = [f"the pod would not start: {problem}" for problem in specs.planned.problems]
    notices += [
        f"{kind} {name} may not be read: what comes from it may differ"
        for kind, name in specs.planned.unread
    ]
    return replace(made, notices=(*notices, *made.notices))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a change in the cluster does to a container's environment.

    Attributes:
        values: the new value by name; None where it is gone.
    """

    values: Mapping[bytes, bytes | None] = field(default_factory=dict)

    @property
    def names(self) -> tuple[bytes, ...]:
        return tuple(sorted(self.values))


def changes(before: Resolution, after: Resolution) -> Changes:
    """The variables that would be different in a container that starts now."""
    old, new = _by_name(before), _by_name(after)
    values: dict[bytes, bytes | None] = {}
    for name in old.keys() | new.keys():
        was = old[name].definition.value if name in old else None
        now = new[name].definition.value if name in new else None
        if name not in new and after.problems:
            continue  # no container could start: what there is stays
        if was != now:
            values[name] = now
    return Changes(values=values)


def laid_over(truth: Mapping[bytes, bytes], changed: Changes) -> dict[bytes, bytes]:
    """The truth with the values of now where they have changed since the container's start."""
    made = {n: v for n, v in truth.items() if n not in changed.values}
    return made | {n: v for n, v in changed.values.items() if v is not None}


def encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _by_name(resolution: Resolution) -> dict[bytes, Variable]:
    return {encoded(name): variable for name, variable in resolution.variables.items()}


def _is_link(variable: Variable | None) -> bool:
    return variable is not None and variable.definition.kind is Kind.SERVICE


def _injected(running: Variables, planned: Variables) -> frozenset[bytes]:
    """The names that an admission webhook has added to the pod, or has set anew."""
    return frozenset(
        name
        for name, variable in running.items()
        if name not in planned or _is_another(variable.definition, planned[name].definition)
    ) - {n for n, v in running.items() if v.definition.kind is Kind.SERVICE}


def _is_another(one: Definition, other: Definition) -> bool:
    if (one.kind, one.object, one.key) != (other.kind, other.object, other.key):
        return True
    is_text = one.kind is Kind.LITERAL and other.value is not None
    return is_text and one.value is not None and one.value != other.value


def _can_take(known: Variable, running: Variables) -> bool:
    """Whether an unknown value may be taken from the original's pod: not what is a pod's own."""
    one, other = known.definition, running.get(encoded(known.definition.name))
    if other is None or _is_another(one, other.definition) or one.kind is Kind.FIELD:
        return False
    return OWN not in (one.unknown or "")


def _with_truth(variable: Variable, value: bytes, *, is_injected: bool) -> Variable:
    was = variable.definition
    if is_injected:
        note = f"as {was}" if was.kind is not Kind.LITERAL else None
        made = replace(was, kind=Kind.ADMISSION, object=None, key=None, value=value, note=note)
        return replace(variable, definition=replace(made, unknown=None))
    note = None
    if was.value is not None and was.value != value:
        note = f"the container's value: {was} has another one now, or it was set by admission"
    return replace(variable, definition=replace(was, value=value, unknown=None, note=note))


_CHANGED = "changed since the container started: for the next start of the process"


def _noted(variable: Variable, note: str) -> Variable:
    return replace(variable, definition=replace(variable.definition, note=note))


def _with_hidden_secret(variable: Variable, value: bytes, spec: Resolution) -> Variable:
    """A ConfigMap's variable that has another value, where a Secret may not be read: it has it."""
    was = variable.definition
    hidden = next((name for kind, name in spec.unread if kind is Kind.SECRET), None)
    if hidden is None or not (was.kind is Kind.CONFIG_MAP and was.from_all) or was.value == value:
        return variable
    made = Definition(
        name=was.name, value=None, kind=Kind.SECRET, object=hidden, from_all=True, is_secret=True
    )
    return Variable(definition=made, shadows=variable.all)


def _unexplained(name: bytes, value: bytes, spec: Resolution) -> Definition:
    """What no spec defines: the image's, or of an object that may not be read."""
    text = name.decode("utf-8", "surrogateescape")
    if name == _RUNTIMES_OWN:
        return Definition(name=text, value=value, kind=Kind.RUNTIME)
    unread = [f"{kind} {of}" for kind, of in spec.unread]
    return Definition(
        name=text,
        value=value,
        kind=Kind.IMAGE,
        # It may be a Secret's: not for a screen.
        is_secret=any(kind is Kind.SECRET for kind, _ in spec.unread),
        note=f"or of {', '.join(unread)}, which may not be read" if unread else None,
    )


def _ordered(
    variables: dict[bytes, Variable], order: EnvironmentOrder, spec: Resolution
) -> ContainerEnvironment:
    """environmentOrder: ConfigMaps before Secrets, or as the kubelet has it."""
    first = {name: config_maps_first(v) for name, v in variables.items()}
    moved = sorted(name for name, v in first.items() if v is not variables[name])
    if not moved:
        return ContainerEnvironment(variables=variables)
    names = ", ".join(os.fsdecode(name) for name in moved)
    if order is EnvironmentOrder.KUBERNETES:
        return ContainerEnvironment(variables=variables)
    notice = (
        f"{names}: a ConfigMap and a later Secret have it; here the ConfigMap's is taken, in the "
        "container the Secret's (`environmentOrder: kubernetes` for the same here)"
    )
    return ContainerEnvironment(variables=first, notices=(notice,))
