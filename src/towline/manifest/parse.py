"""YAML text → nodes that know their place and keep the source text of scalars.

Built over PyYAML's events, not its loaders: a YAML 1.1 loader turns `8080:22`
into 484822, `1.10` into 1.1 and `yes` into True, and drops the place of it all.
Not over its `compose` either: that recurses without a limit (in C, where it
ends the process) and shares the nodes of aliases, so that a few lines can stand
for billions of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from towline.manifest.places import Findings, Place, Source

# Far above any manifest (they have about ten levels and some hundred nodes), far
# below what recursion or an alias that doubles at each line could make of them.
MAX_DEPTH = 100
MAX_NODES = 100_000

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_CORE_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
)
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarNode:
    """A scalar as it was written; `null`, `~` and nothing are the empty string."""

    place: Place
    source: Source
    text: str
    plain: bool
    size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ListNode:
    place: Place
    source: Source
    items: tuple[Node, ...]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapNode:
    """A mapping in the order of the text, with merge keys resolved."""

    place: Place
    source: Source
    entries: tuple[tuple[ScalarNode, Node], ...]
    size: int

    def get(self, key: str) -> Node | None:
        return next((value for name, value in self.entries if name.text == key), None)


Node = ScalarNode | ListNode | MapNode


class _Stop(Exception):
    """What follows cannot be read; the reason is among the findings already."""


def parse(text: str, *, source: Source, findings: Findings) -> Node | None:
    """Read one YAML document; None when it could not be read to its end.

    Never raises for any text: what is wrong goes to `findings`.
    """
    try:
        return _Composer(text, source=source, findings=findings).document()
    except _Stop:
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _within(text, _place(mark, source)) if mark else Place(source.name, 1, 1)
        context = f" ({error.context})" if error.context else ""
        findings.error(place, f"this is not YAML: {error.problem or error.context}{context}")
    except yaml.reader.ReaderError as error:
        findings.error(_place_of_character(error, text, source), _unreadable(error))
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        column = error.start - text.rfind("\n", 0, error.start)
        findings.error(Place(source.name, line, column), "this character is not Unicode text")
    return None


class _Composer:
    def __init__(self, text: str, *, source: Source, findings: Findings) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._source = source
        self._findings = findings
        self._anchors: dict[str, Node] = {}
        self._open_anchors: set[str] = set()

    def document(self) -> Node:
        next(self._events)  # the start of the stream
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            start = Place(self._source.name, 1, 1)
            return MapNode(place=start, source=self._source, entries=(), size=1)
        node = self._node(next(self._events), depth=0)
        next(self._events)  # the end of the document
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._fail(event, "a second YAML document starts here; a manifest is one document")
        return node

    def _node(self, event: Any, *, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._fail(event, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.tag is not None and event.tag != "!" and event.tag not in _CORE_TAGS:
            self._findings.error(self._at(event), f"the tag '{event.tag}' means nothing here")
        anchor: str | None = event.anchor
        if anchor is not None:
            self._open_anchors.add(anchor)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._list(event, depth=depth)
        else:
            node = self._map(event, depth=depth)
        if anchor is not None:
            self._open_anchors.discard(anchor)
            self._anchors[anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor in self._open_anchors:
            self._fail(event, f"'*{event.anchor}' stands inside what it names")
        node = self._anchors.get(event.anchor)
        if node is None:
            self._fail(event, f"'*{event.anchor}' names no anchor; write '&{event.anchor}' above")
        return node

    def _scalar(self, event: Any) -> ScalarNode:
        plain = not event.style and event.tag is None
        is_null = plain and event.value in _NULLS
        text = "" if is_null else event.value
        return ScalarNode(place=self._at(event), source=self._source, text=text, plain=plain)

    def _list(self, start: Any, *, depth: int) -> ListNode:
        items: list[Node] = []
        size = 1
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth=depth + 1))
            size = self._bounded(size + items[-1].size, start)
        return ListNode(place=self._at(start), source=self._source, items=tuple(items), size=size)

    def _map(self, start: Any, *, depth: int) -> MapNode:
        own: dict[str, tuple[ScalarNode, Node]] = {}
        merged: list[Node] = []
        merge_seen: set[str] = set()
        size = 1
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth=depth + 1)
            value = self._node(next(self._events), depth=depth + 1)
            size = self._bounded(size + 1 + value.size, start)
            if not isinstance(key, ScalarNode):
                self._findings.error(key.place, "a key must be a text, not a list or a map")
            elif key.text in (merge_seen if _is_merge(key) else own):
                self._findings.error(self._at(event), f"the key '{key.text}' is here twice")
            elif _is_merge(key):
                merge_seen.add(key.text)
                merged += value.items if isinstance(value, ListNode) else (value,)
            else:
                own[key.text] = (key, value)
        for node in merged:
            self._merge(node, into=own)
        return MapNode(
            place=self._at(start), source=self._source, entries=tuple(own.values()), size=size
        )

    def _merge(self, node: Node, *, into: dict[str, tuple[ScalarNode, Node]]) -> None:
        if not isinstance(node, MapNode):
            self._findings.error(node.place, "'<<' takes a map, or a list of maps")
            return
        for key, value in node.entries:
            into.setdefault(key.text, (key, value))

    def _bounded(self, size: int, event: Any) -> int:
        if size > MAX_NODES:
            self._fail(event, f"with its aliases this has more than {MAX_NODES} values")
        return size

    def _at(self, event: Any) -> Place:
        return _place(event.start_mark, self._source)

    def _fail(self, event: Any, message: str) -> NoReturn:
        self._findings.error(self._at(event), message)
        raise _Stop


def _is_merge(key: ScalarNode) -> bool:
    return key.plain and key.text == "<<"


def _place(mark: Any, source: Source) -> Place:
    return Place(source.name, mark.line + 1, mark.column + 1)


def _within(text: str, place: Place) -> Place:
    """What is missing at the end of the text is missing after its last line, not below."""
    lines = text.rstrip("\n").split("\n")
    if place.line <= len(lines):
        return place
    return Place(place.file, len(lines), len(lines[-1]) + 1)


def _unreadable(error: yaml.reader.ReaderError) -> str:
    code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "?")
    return f"this is not YAML: the character U+{code:04X} may not stand here"


def _place_of_character(error: yaml.reader.ReaderError, text: str, source: Source) -> Place:
    # libyaml counts bytes of UTF-8, the Python reader counts characters.
    if error.encoding != "unicode":
        before = text.encode("utf-8", "surrogatepass")[: error.position].decode("utf-8", "ignore")
    else:
        before = text[: error.position]
    line = before.count("\n") + 1
    return Place(source.name, line, len(before) - before.rfind("\n"))
