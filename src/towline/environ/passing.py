"""A container's environment as JSON, from the running session to other commands. [pure]"""

from __future__ import annotations

import base64
from typing import Any

from towline._kit.objects import JsonObject
from towline.environ.container import ContainerEnvironment
from towline.environ.definitions import Definition, Kind, Variable


def packed(environment: ContainerEnvironment) -> JsonObject:
    """As JSON; values are bytes, so base64."""
    return {
        "variables": [
            [_text(name), [_packed(each) for each in variable.all]]
            for name, variable in environment.variables.items()
        ],
        "notices": list(environment.notices),
    }


def unpacked(passed: JsonObject) -> ContainerEnvironment:
    """What `packed` made."""
    variables: dict[bytes, Variable] = {}
    for name, definitions in passed["variables"]:
        first, *rest = (_unpacked(each) for each in definitions)
        variables[base64.b64decode(name)] = Variable(definition=first, shadows=tuple(rest))
    return ContainerEnvironment(variables=variables, notices=tuple(passed["notices"]))


def _packed(of: Definition) -> list[Any]:
    value = None if of.value is None else _text(of.value)
    return [of.name, value, of.kind.value, of.object, of.key, of.is_secret, of.unknown, of.note]


def _unpacked(passed: list[Any]) -> Definition:
    name, value, kind, of, key, is_secret, unknown, note = passed
    return Definition(
        name=name,
        value=None if value is None else base64.b64decode(value),
        kind=Kind(kind),
        object=of,
        key=key,
        is_secret=is_secret,
        unknown=unknown,
        note=note,
    )


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
