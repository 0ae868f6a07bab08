"""Fields in Kubernetes' own forms: kept as trees, with numbers where the API wants them.

The names and types are those of the Kubernetes API reference (core/v1). Scalars
come as text from the file, and the API refuses `"1000"` for a number, so the
fields that are numbers or booleans there are listed here; all else is text.
"""

from __future__ import annotations

from types import MappingProxyType

from towline.manifest import forms
from towline.manifest.model import Metadata, Resources, Tree
from towline.manifest.parse import ListNode, MapNode, Node
from towline.manifest.records import Field, Values, record
from towline.manifest.shapes import At, Json, MapOf, Shape, Text, found, note_unknown

_INTEGERS = frozenset(
    {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "weight", "tolerationSeconds"}
)
_BOOLEANS = frozenset(
    {"runAsNonRoot", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "privileged",
     "hostProcess"}
)  # fmt: skip


class TreeOf(Shape[Tree]):
    """A map in Kubernetes' form; only the names at its top are checked.

    One that is not known is kept all the same where it is no error: Kubernetes
    may have it by now, and says itself if not.
    """

    def __init__(self, *names: str) -> None:
        self._names = names

    def read(self, node: Node, at: At) -> Tree | None:
        if not isinstance(node, MapNode):
            at.error(node, f"{found(node)} is not possible here; write a map")
            return None
        for key, _ in node.entries:
            if key.text not in self._names:
                note_unknown(key, self._names, at)
        return _map(node, at)

    def schema(self) -> Json:
        return {"type": "object", "properties": {name: {} for name in self._names}}

    @property
    def forms(self) -> str:
        return "a map"


def _map(node: MapNode, at: At) -> Tree:
    read = {k.text: _value(v, at.child(k.text), key=k.text) for k, v in node.entries}
    return MappingProxyType({k: v for k, v in read.items() if v is not None})


def _value(node: Node, at: At, *, key: str) -> object | None:
    if isinstance(node, MapNode):
        return _map(node, at)
    if isinstance(node, ListNode):
        items = (_value(item, at.item(i), key=key) for i, item in enumerate(node.items))
        return tuple(item for item in items if item is not None)
    if key in _INTEGERS:
        return Text(forms.integer).read(node, at)
    if key in _BOOLEANS:
        return Text(forms.boolean).read(node, at)
    return at.text(node)


# An entry speaks of one container and its pod at once, as Okteto has it: what
# belongs to the pod's security context (fsGroup, …) and what to the container's
# stand side by side.
SECURITY_CONTEXT = TreeOf(
    "runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "fsGroupChangePolicy",
    "supplementalGroups", "supplementalGroupsPolicy", "capabilities",
    "allowPrivilegeEscalation", "readOnlyRootFilesystem", "privileged", "procMount",
    "seccompProfile", "seLinuxOptions", "appArmorProfile", "windowsOptions", "sysctls",
)  # fmt: skip
AFFINITY = TreeOf("nodeAffinity", "podAffinity", "podAntiAffinity")
TOLERATION = TreeOf("key", "operator", "value", "effect", "tolerationSeconds")

LABELS = MapOf(Text(forms.label_value, what="a label's value"), key=forms.label_key)
ANNOTATIONS = MapOf(Text(str), key=forms.label_key)
QUANTITY = Text(
    forms.quantity,
    {"type": ["string", "number"], "pattern": r"^[+-]?[0-9.]+([a-zA-Z]i?|[eE][+-]?[0-9]+)?$|\$"},
    "a quantity such as '500m'",
)
QUANTITIES = MapOf(QUANTITY, key=forms.label_key)


def _metadata(values: Values, _at: At) -> Metadata:
    return Metadata(**values.given({"labels": "labels", "annotations": "annotations"}))


def _resources(values: Values, _at: At) -> Resources:
    return Resources(**values.given({"limits": "limits", "requests": "requests"}))


METADATA = record(
    {
        "labels": Field(LABELS, "Labels that the dev pod gets."),
        "annotations": Field(ANNOTATIONS, "Annotations that the dev pod gets."),
    },
    _metadata,
)
RESOURCES = record(
    {
        "limits": Field(QUANTITIES, "The most that the dev container may use."),
        "requests": Field(QUANTITIES, "What is reserved for the dev container."),
    },
    _resources,
)
