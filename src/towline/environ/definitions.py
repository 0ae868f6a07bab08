"""Where a container's variables are defined, and what of that is known. [pure]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from towline._kit.objects import JsonObject


class Kind(StrEnum):
    """What defines a variable: of the manifest, of the pod's spec, or neither."""

    OPTION = "-e"
    ENVIRONMENT = "environment"
    ENV_FILE = "envFile"
    LITERAL = "container env"
    CONFIG_MAP = "ConfigMap"
    SECRET = "Secret"
    FIELD = "field"
    RESOURCE = "resource"
    FILE = "file"
    SERVICE = "service link"
    ADMISSION = "injected by admission"
    IMAGE = "image"
    RUNTIME = "container runtime"
    LAPTOP = "laptop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One place where a variable is defined.

    Attributes:
        value: None where it cannot be known; `unknown` says why.
        object: the ConfigMap, Secret or Service; or the file of the laptop.
        key: in it; or the field's path, the resource, the line.
        from_all: by envFrom, with all the keys of its object.
        is_secret: its value holds something of a Secret.
        note: what else is worth knowing of it.
        uses: the ConfigMaps and Secrets that its value was made of, by kind and name.
    """

    name: str
    value: bytes | None
    kind: Kind
    object: str | None = None
    key: str | None = None
    from_all: bool = False
    is_secret: bool = False
    unknown: str | None = None
    note: str | None = None
    uses: frozenset[tuple[Kind, str]] = frozenset()

    def __str__(self) -> str:
        between = ":" if self.kind in (Kind.ENV_FILE, Kind.ENVIRONMENT) else "/"
        where = between.join(word for word in (self.object, self.key) if word)
        return f"{self.kind.value} {where}" if where else self.kind.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable's definition that is in force, and those it stands before, nearest first."""

    definition: Definition
    shadows: tuple[Definition, ...] = ()

    @property
    def all(self) -> tuple[Definition, ...]:
        return (self.definition, *self.shadows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """What a pod's environment is made of, as far as it could be read.

    Attributes:
        config_maps, secrets: by name. None: there is none of that name. Not in the map:
            it may not be read.
        services: of the pod's namespace.
        master: the Service `kubernetes` of the namespace `default`; None: not readable.
        allocatable: of the pod's node; None: not known.
    """

    config_maps: Mapping[str, JsonObject | None] = field(default_factory=dict)
    secrets: Mapping[str, JsonObject | None] = field(default_factory=dict)
    services: tuple[JsonObject, ...] = ()
    master: JsonObject | None = None
    allocatable: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A container's environment as far as its spec defines it.

    Attributes:
        problems: why the container cannot start, one line each.
        unread: objects that define what cannot be known, for they may not be read.
    """

    variables: Mapping[str, Variable]
    problems: tuple[str, ...] = ()
    unread: tuple[tuple[Kind, str], ...] = ()


def config_maps_first(variable: Variable) -> Variable:
    """The order of environmentOrder `towline`: of two envFrom sources, ConfigMaps before Secrets.

    Only the variable itself changes: what was expanded from it keeps the container's value.
    """
    winner = variable.definition
    if winner.kind is not Kind.SECRET or not winner.from_all:
        return variable
    for each in variable.shadows:
        if each.kind is Kind.CONFIG_MAP and each.from_all:
            others = tuple(s for s in variable.shadows if s is not each)
            return Variable(definition=each, shadows=(winner, *others))
    return variable
