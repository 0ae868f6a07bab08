"""Where each value of the local process's environment comes from. [pure]"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from towline.environ.container import ContainerEnvironment
from towline.environ.definitions import Definition, Kind, Variable
from towline.environ.policy import LocalEnvironment, Origin, Reason

MASK = "********"
# One line on a screen; the whole is in the formats and in the JSON.
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOut:
    """A variable that the process does not get, or that is not known before a session."""

    name: bytes
    reason: str
    definitions: tuple[Definition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The local process's environment, explained.

    Attributes:
        variables: by name, with what each stands before.
        kept_out: what is not in it, and why.
        notices: what a user should know of the whole.
    """

    variables: Mapping[bytes, Variable]
    kept_out: tuple[KeptOut, ...]
    notices: tuple[str, ...] = ()


_KEPT_OUT = {
    Reason.LAPTOPS_OWN: "it means the laptop's own disk or user, and is unset here",
    Reason.DROPPED: "dropEnvironment names it",
    Reason.NOT_INHERITED: "inheritEnvironment leaves it out",
}
_NOTES = {
    Reason.LAPTOPS_OWN: "it means the laptop's own disk or user, or keepEnvironment names it",
    Reason.ADDED: "the cluster's names are added, for there is a proxy",
}


def explained(
    made: LocalEnvironment,
    *,
    container: ContainerEnvironment,
    manifest: Mapping[bytes, Variable],
    laptop: Mapping[bytes, bytes],
) -> Explanation:
    """Say where each value comes from.

    Args:
        made: what the process gets, of the three others.
        container: as `container.in_session` or `before_session` has it.
        manifest: the dev entry's own variables.
        laptop: this process's environment.
    """
    theirs = container.variables
    variables: dict[bytes, Variable] = {}
    for name, value in made.values.items():
        source = made.origins[name]
        stack = {
            Origin.MANIFEST: manifest[name].all if name in manifest else (),
            Origin.CONTAINER: theirs[name].all if name in theirs else (),
            Origin.LAPTOP: (_of_laptop(name, laptop[name]),) if name in laptop else (),
        }
        first = stack.pop(source.origin) or (_of_laptop(name, value),)
        note = _NOTES.get(source.reason)
        if source.reason is Reason.LAPTOPS_OWN and name not in theirs:
            note = None
        winner = _with(first[0], value=value, note=note or first[0].note)
        rest = [d for each in (first[1:], *stack.values()) for d in each]
        if source.reason is Reason.ADDED and name not in laptop:
            rest = []
        variables[name] = Variable(definition=winner, shadows=tuple(rest))
    kept_out = [
        KeptOut(
            name=name,
            reason=_KEPT_OUT[reason],
            definitions=theirs[name].all if name in theirs else (),
        )
        for name, reason in made.left_out.items()
    ]
    kept_out += [
        KeptOut(name=name, reason=v.definition.unknown or "not known", definitions=v.all)
        for name, v in theirs.items()
        if v.definition.value is None and name not in made.values and name not in made.left_out
    ]
    return Explanation(
        variables=variables,
        kept_out=tuple(sorted(kept_out, key=lambda each: each.name)),
        notices=container.notices,
    )


def _of_laptop(name: bytes, value: bytes) -> Definition:
    return Definition(name=os.fsdecode(name), value=value, kind=Kind.LAPTOP)


def _with(definition: Definition, *, value: bytes, note: str | None) -> Definition:
    return replace(definition, value=value, note=note, unknown=None)


def as_json(explanation: Explanation, *, show_secrets: bool) -> dict[str, Any]:
    """The shape of `towline env --explain -o json`.

    `{"variables": [{"name", "value", "masked", "source", "note", "shadows": [{"value",
    "masked", "source", "note"}]}], "keptOut": [{"name", "reason", "sources"}], "notices"}`,
    a source being `{"kind", "object", "key", "text"}`. A masked or unknown value is null.
    """

    def definition(of: Definition) -> dict[str, Any]:
        is_masked = of.is_secret and not show_secrets
        value = None if is_masked or of.value is None else os.fsdecode(of.value)
        return {"value": value, "masked": is_masked, "source": source(of), "note": of.note}

    def source(of: Definition) -> dict[str, Any]:
        return {"kind": of.kind.value, "object": of.object, "key": of.key, "text": str(of)}

    return {
        "variables": [
            {
                "name": os.fsdecode(name),
                **definition(variable.definition),
                "shadows": [definition(each) for each in variable.shadows],
            }
            for name, variable in sorted(explanation.variables.items())
        ],
        "keptOut": [
            {
                "name": os.fsdecode(each.name),
                "reason": each.reason,
                "sources": [source(of) for of in each.definitions],
            }
            for each in explanation.kept_out
        ],
        "notices": list(explanation.notices),
    }


def as_lines(explanation: Explanation, *, show_secrets: bool) -> list[str]:
    """For people: a line for each variable, and one below it for each that it stands before."""
    lines: list[str] = []
    for name, variable in sorted(explanation.variables.items()):
        lines.append(f"{_shown(name)}={_value(variable.definition, show_secrets)}")
        lines.append(f"    {_of(variable.definition)}")
        lines += [f"    over {each}: {_value(each, show_secrets)}" for each in variable.shadows]
    if explanation.kept_out:
        lines += ["", "Kept out:"]
    for each in explanation.kept_out:
        of = f" ({each.definitions[0]})" if each.definitions else ""
        lines.append(f"{_shown(each.name)}{of}: {each.reason}")
    return lines


def _of(definition: Definition) -> str:
    return f"{definition}" + (f" ({definition.note})" if definition.note else "")


def _value(definition: Definition, show_secrets: bool) -> str:
    if definition.is_secret and not show_secrets:
        return MASK
    if definition.value is None:
        return f"(not known: {definition.unknown})"
    text = _shown(definition.value)
    more = len(text) - _SHOWN_CHARACTERS
    return text if more <= 0 else f"{text[:_SHOWN_CHARACTERS]}… ({more} more)"


def _shown(text: bytes) -> str:
    """On one line, with nothing in it that a terminal would obey."""
    made = []
    for character in text.decode("utf-8", "backslashreplace"):
        is_plain = character.isprintable() or character == " "
        made.append(character if is_plain else character.encode("unicode_escape").decode())
    return "".join(made)
