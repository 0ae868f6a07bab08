"""Shapes: what a field may look like, as values that read it and tell its schema.

One description serves the reader, the error messages and the JSON Schema, so
that what an editor accepts and what `up` accepts cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from towline.manifest.expand import ExpansionError, expand
from towline.manifest.nearest import nearest
from towline.manifest.parse import ListNode, MapNode, Node, ScalarNode
from towline.manifest.places import Dialect, Findings

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Json = dict[str, Any]
# What an editor cannot judge: the value is only known once it is expanded.
VARIABLE_JSON: Json = {"type": "string", "pattern": r"\$"}


@dataclass(frozen=True, slots=True)
class At:
    """Where the reader is: the field's name for messages, and its collaborators."""

    name: str
    findings: Findings
    variables: Mapping[str, str]

    def child(self, key: str) -> At:
        return At(f"{self.name}.{key}" if self.name else key, self.findings, self.variables)

    def item(self, index: int) -> At:
        return At(f"{self.name}[{index}]", self.findings, self.variables)

    def error(self, node: Node, message: str) -> None:
        self.findings.error(node.place, f"{self.name}: {message}" if self.name else message)

    def notice(self, node: Node, message: str) -> None:
        self.findings.notice(node.place, f"{self.name}: {message}" if self.name else message)

    def text(self, node: ScalarNode) -> str | None:
        """The scalar's text with its `${VAR}` forms expanded; None after an error."""
        return self.expanded(node, node.text)

    def expanded(self, node: ScalarNode, text: str) -> str | None:
        try:
            result = expand(text, self.variables)
        except ExpansionError as error:
            self.error(node, str(error))
            return None
        for name in result.unset:
            self.notice(node, f"'{name}' is not set, so it is empty; '${{{name}:-}}' says so")
        return result.text


class Shape(Generic[T_co]):
    """What a field may look like.

    Plain classes, here and below: a dataclass takes a millisecond to make on a
    slow core, and `up` waits for all of them.
    """

    def read(self, node: Node, at: At) -> T_co | None:
        """The value, or None after an error has been noted in `at`."""
        raise NotImplementedError

    def schema(self) -> Json:
        raise NotImplementedError

    @property
    def forms(self) -> str:
        """What would be right, for messages: 'a text', 'a list', …"""
        raise NotImplementedError


def is_absent(node: Node) -> bool:
    """Whether a field was written without a value (`image:`): as if it were not there."""
    return isinstance(node, ScalarNode) and node.text == ""


def found(node: Node) -> str:
    """How a message names what was found."""
    if isinstance(node, ScalarNode):
        return f"'{shortened(node.text)}'"
    return "a list" if isinstance(node, ListNode) else "a map"


def note_unknown(key: ScalarNode, known: Iterable[str], at: At) -> None:
    """A field that is not known: a slip, or one that a later Okteto has added."""
    known = list(known)
    near = nearest(key.text, known, within=2)
    inside = f" in {at.name}" if at.name else ""
    message = f"unknown field '{shortened(key.text)}'{inside}"
    if near is not None:
        at.findings.error(key.place, f"{message}; did you mean '{near}'?")
    elif key.source.dialect is Dialect.OKTETO:
        at.findings.notice(key.place, f"{message}; it is not used")
    else:
        some = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
        at.findings.error(key.place, f"{message}; there are {some}")


def shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"


class Text(Shape[T]):
    """A scalar that `parse` understands; it raises ValueError with the reason.

    `expands` is false where a shell expands later, with the process's own
    environment (commands).
    """

    def __init__(
        self,
        parse: Callable[[str], T],
        json: Json | None = None,
        what: str = "a text",
        *,
        expands: bool = True,
    ) -> None:
        self.parse = parse
        self.json: Json = {"type": "string"} if json is None else json
        self.what = what
        self.expands = expands

    def read(self, node: Node, at: At) -> T | None:
        if not isinstance(node, ScalarNode):
            at.error(node, f"{found(node)} is not possible here; write {self.what}")
            return None
        text = at.text(node) if self.expands else node.text
        if text is None:
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            at.error(node, f"'{shortened(text)}' {error}")
            return None

    def schema(self) -> Json:
        return dict(self.json)

    @property
    def forms(self) -> str:
        return self.what


def choice(values: Mapping[str, T]) -> Text[T]:
    """One word of a few; `values` says what each stands for."""

    def parse(text: str) -> T:
        if text not in values:
            near = nearest(text, values, within=2)
            tail = f"; did you mean '{near}'?" if near else ""
            raise ValueError(f"is none of {', '.join(values)}{tail}")
        return values[text]

    json: Json = {"anyOf": [{"enum": list(values)}, VARIABLE_JSON]}
    return Text(parse, json, "one of " + ", ".join(values))


class ListOf(Shape[tuple[T, ...]]):
    def __init__(self, shape: Shape[T]) -> None:
        self.shape = shape

    def read(self, node: Node, at: At) -> tuple[T, ...] | None:
        if not isinstance(node, ListNode):
            at.error(node, f"{found(node)} is not possible here; write {self.forms}")
            return None
        read = (self.shape.read(item, at.item(i)) for i, item in enumerate(node.items))
        return tuple(value for value in read if value is not None)

    def schema(self) -> Json:
        return {"type": "array", "items": self.shape.schema()}

    @property
    def forms(self) -> str:
        return "a list"


class MapOf(Shape[Mapping[str, T]]):
    """A map with keys of the user's choice, each checked by `key`."""

    def __init__(self, shape: Shape[T], key: Callable[[str], str] = str) -> None:
        self.shape = shape
        self.key = key

    def read(self, node: Node, at: At) -> Mapping[str, T] | None:
        if not isinstance(node, MapNode):
            at.error(node, f"{found(node)} is not possible here; write {self.forms}")
            return None
        values: dict[str, T] = {}
        for name, value in node.entries:
            read = self.shape.read(value, at.child(name.text))
            try:
                key = self.key(name.text)
            except ValueError as error:
                at.error(name, f"'{shortened(name.text)}' {error}")
                continue
            if read is not None:
                values[key] = read
        return MappingProxyType(values)

    def schema(self) -> Json:
        return {"type": "object", "additionalProperties": self.shape.schema()}

    @property
    def forms(self) -> str:
        return "a map"


class OneOf(Shape[T]):
    """Another shape for each kind of node."""

    def __init__(
        self,
        *,
        scalar: Shape[T] | None = None,
        items: Shape[T] | None = None,
        fields: Shape[T] | None = None,
    ) -> None:
        self.scalar = scalar
        self.items = items
        self.fields = fields

    def read(self, node: Node, at: At) -> T | None:
        kinds = {ScalarNode: self.scalar, ListNode: self.items, MapNode: self.fields}
        shape = kinds[type(node)]
        if shape is None:
            at.error(node, f"{found(node)} is not possible here; write {self.forms}")
            return None
        return shape.read(node, at)

    def schema(self) -> Json:
        return {"anyOf": [shape.schema() for shape in self._shapes()]}

    def _shapes(self) -> list[Shape[T]]:
        return [s for s in (self.scalar, self.items, self.fields) if s is not None]

    @property
    def forms(self) -> str:
        return " or ".join(dict.fromkeys(shape.forms for shape in self._shapes()))


class Made(Shape[T]):
    """What another shape reads, made into something else.

    `make` gets the node and where it is, and may note errors and return None.
    """

    def __init__(self, shape: Shape[Any], make: Callable[[Any, Node, At], T | None]) -> None:
        self.shape = shape
        self.make = make

    def read(self, node: Node, at: At) -> T | None:
        value = self.shape.read(node, at)
        return None if value is None else self.make(value, node, at)

    def schema(self) -> Json:
        return self.shape.schema()

    @property
    def forms(self) -> str:
        return self.shape.forms


class Anything(Shape[object]):
    """What is accepted and not looked at."""

    def read(self, node: Node, at: At) -> object | None:
        return None

    def schema(self) -> Json:
        return {}

    @property
    def forms(self) -> str:
        return "anything"


class OneOrMany(Shape[tuple[T, ...]]):
    """A value by itself, or a list of such values."""

    def __init__(self, shape: Shape[T]) -> None:
        self.shape = shape

    def read(self, node: Node, at: At) -> tuple[T, ...] | None:
        if isinstance(node, ListNode):
            return ListOf(self.shape).read(node, at)
        value = self.shape.read(node, at)
        return None if value is None else (value,)

    def schema(self) -> Json:
        return {"anyOf": [self.shape.schema(), ListOf(self.shape).schema()]}

    @property
    def forms(self) -> str:
        return f"{self.shape.forms} or a list"
