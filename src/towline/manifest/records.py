"""Records: maps with known fields, as one more shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from towline.manifest.parse import MapNode, Node, ScalarNode
from towline.manifest.places import Dialect, Place
from towline.manifest.shapes import At, Json, Made, Shape, found, is_absent, note_unknown

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record: its shape, and one sentence for editors.

    Attributes:
        own: Towline's own setting, which an okteto.yml may not hold.
        unused: why a field that Okteto knows, or knew, does nothing here.
    """

    shape: Shape[Any]
    doc: str
    own: bool = False
    unused: str | None = None


class Values:
    """What a record's fields were read as, with the node of each."""

    def __init__(self, node: MapNode) -> None:
        self.node = node
        self.nodes: dict[str, Node] = {}
        self._values: dict[str, Any] = {}

    def put(self, key: str, node: Node, value: Any) -> None:
        self.nodes[key] = node
        if value is not None:
            self._values[key] = value

    def get(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def has(self, key: str) -> bool:
        """Whether the field was there with a value, be it a wrong one."""
        return key in self.nodes

    def place(self, key: str) -> Place:
        return self.nodes[key].place

    def given(self, names: Mapping[str, str]) -> dict[str, Any]:
        """Keyword arguments for those fields that have a value: argument by field."""
        return {names[k]: v for k, v in self._values.items() if k in names}


class Record(Shape[Values]):
    """A map with known fields."""

    def __init__(self, fields: Mapping[str, Field], required: tuple[str, ...] = ()) -> None:
        self.fields = fields
        self.required = required

    def read(self, node: Node, at: At) -> Values | None:
        if is_absent(node):
            node = MapNode(place=node.place, source=node.source, entries=(), size=1)
        if not isinstance(node, MapNode):
            at.error(node, f"{found(node)} is not possible here; write {self.forms}")
            return None
        values = Values(node)
        for key, value in node.entries:
            if self._is_used(key, at) and not is_absent(value):
                values.put(
                    key.text, value, self.fields[key.text].shape.read(value, at.child(key.text))
                )
        for name in self.required:
            if not values.has(name):
                at.error(node, f"the field '{name}' is missing")
        return values

    def _is_used(self, key: ScalarNode, at: At) -> bool:
        if key.text.startswith("x-"):
            return False  # a home for anchors, as in Compose files; nobody's field
        known = self.fields.get(key.text)
        is_okteto = key.source.dialect is Dialect.OKTETO
        if known is None:
            others = [n for n, f in self.fields.items() if not (f.own and is_okteto)]
            note_unknown(key, others, at)
            return False
        if known.own and is_okteto:
            at.notice(
                key,
                f"'{key.text}' is Towline's own, so it is not used here; put it into "
                "a towline.yml that says 'extends: " + key.source.name.rpartition("/")[2] + "'",
            )
            return False
        if known.unused is not None:
            at.notice(key, f"'{key.text}' {known.unused}")
            return False
        return True

    def schema(self) -> Json:
        properties = {
            name: {**field.shape.schema(), "description": field.doc}
            for name, field in self.fields.items()
        }
        schema: Json = {
            "type": "object",
            "properties": properties,
            "patternProperties": {"^x-": {}},
            "additionalProperties": False,
        }
        return {**schema, "required": list(self.required)} if self.required else schema

    @property
    def forms(self) -> str:
        return "a map of fields"


def record(
    fields: Mapping[str, Field],
    make: Callable[[Values, At], T | None],
    *,
    required: tuple[str, ...] = (),
) -> Shape[T]:
    """A record whose values become something in the model."""

    def build(values: Values, _node: Node, at: At) -> T | None:
        return make(values, at)

    return cast(Shape[T], Made(Record(fields, required), build))
