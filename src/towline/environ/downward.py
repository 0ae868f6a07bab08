"""Values that a container takes from its own pod: fields and resources. [pure]

As the kubelet finds them (Kubernetes 1.34, `podFieldSelectorRuntimeValue`,
`defaultPodLimitsForDownwardAPI`, pkg/api/v1/resource).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal

from towline._kit.objects import JsonObject

OWN = "the dev pod's own"
"""In the words of what is known once there is one: its name, its addresses, its node."""

_SUBSCRIPT = re.compile(r"(metadata\.(?:annotations|labels))\['(.*)'\]", re.DOTALL)
_QUANTITY = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")
_SUFFIXES: dict[str | None, Decimal] = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), None: Decimal(1),
    **{letter: Decimal(1000) ** (n + 1) for n, letter in enumerate("kMGTPE")},
    **{f"{letter}i": Decimal(1024) ** (n + 1) for n, letter in enumerate("KMGTPE")},
}  # fmt: skip


class UnknownYet(Exception):
    """The value depends on what is not known: the words say on what."""


class Unsupported(Exception):
    """No container can have this; the words say what is wrong."""


def field_value(path: str, pod: JsonObject) -> str:
    """What `fieldRef` gives.

    Raises:
        UnknownYet: it is the pod's own and the pod has none yet.
        Unsupported: the kubelet would refuse it.
    """
    path = "spec.nodeName" if path == "spec.host" else path
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    if subscript := _SUBSCRIPT.fullmatch(path):
        of, key = subscript.groups()
        return str((metadata.get(of.partition(".")[2]) or {}).get(key, ""))
    values: dict[str, object] = {
        "metadata.name": metadata.get("name"),
        "metadata.namespace": metadata.get("namespace"),
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": pod["spec"].get("nodeName"),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName") or "default",
        "status.hostIP": status.get("hostIP"),
        "status.hostIPs": _addresses(status.get("hostIPs")),
        "status.podIP": status.get("podIP"),
        "status.podIPs": _addresses(status.get("podIPs")),
    }
    if path not in values:
        raise Unsupported(f"field {path!r} cannot be an environment variable")
    value = values[path]
    if value is None:
        raise UnknownYet(f"{path} is {OWN}")
    return str(value)


def resource_value(
    reference: JsonObject,
    pod: JsonObject,
    container: JsonObject,
    *,
    allocatable: Mapping[str, str] | None,
) -> str:
    """What `resourceFieldRef` gives, rounded up to the divisor.

    Raises:
        UnknownYet: it is the node's allocatable, which is not known.
        Unsupported: no such container or resource.
    """
    spec = pod["spec"]
    if named := reference.get("containerName"):
        all_of_them = [*spec["containers"], *(spec.get("initContainers") or [])]
        found = next((c for c in all_of_them if c["name"] == named), None)
        if found is None:
            raise Unsupported(f"there is no container {named!r}")
        # Init containers' limits are not filled in from the node.
        is_main = found in spec["containers"]
    else:
        found, is_main = container, True
    resource = str(reference["resource"])
    which, _, name = resource.partition(".")
    known = name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-")
    if which not in ("limits", "requests") or not known:
        raise Unsupported(f"resource {resource!r} cannot be an environment variable")
    resources = found.get("resources") or {}
    if which == "limits":
        amount = _limit(name, resources, spec, allocatable if is_main else {})
    else:
        amount = _request(name, resources)
    divisor = _quantity(str(reference.get("divisor") or "0")) or Decimal(1)
    scale = 1000 if name == "cpu" else 1
    # Whole units of each first, and then floating point, as the kubelet counts.
    return str(math.ceil(math.ceil(amount * scale) / math.ceil(divisor * scale)))


def _limit(
    name: str, resources: JsonObject, spec: JsonObject, allocatable: Mapping[str, str] | None
) -> Decimal:
    own = _quantity(str((resources.get("limits") or {}).get(name, "0")))
    if own or name.startswith("hugepages-"):
        return own
    of_pod = ((spec.get("resources") or {}).get("limits") or {}).get(name, "0")
    if allocatable != {} and name != "ephemeral-storage" and _quantity(str(of_pod)):
        return _quantity(str(of_pod))
    if allocatable is None:
        raise UnknownYet(f"limits.{name} is what the dev pod's node can give")
    return _quantity(allocatable.get(name, "0"))


def _request(name: str, resources: JsonObject) -> Decimal:
    # The API server fills in a pod's missing requests from its limits.
    limit = (resources.get("limits") or {}).get(name, "0")
    return _quantity(str((resources.get("requests") or {}).get(name, limit)))


def _addresses(listed: list[JsonObject] | None) -> str | None:
    return ",".join(str(each["ip"]) for each in listed) if listed else None


def _quantity(text: str) -> Decimal:
    """A number in Kubernetes' form, such as 500m or 1.5Gi."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise Unsupported(f"{text!r} is no quantity")
    number, suffix = match.groups()
    if suffix and suffix[0] in "eE" and len(suffix) > 1 and suffix[1] != "i":
        return Decimal(f"{number}{suffix}")
    return Decimal(number) * _SUFFIXES[suffix]
