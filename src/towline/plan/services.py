"""Which Service ports end at which ports of a pod. [pure]"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from towline._kit.objects import JsonObject
from towline.plan.model import RoutedPort


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether an equality selector matches labels; an empty one matches nothing here."""
    return bool(selector) and all(labels.get(k) == v for k, v in (selector or {}).items())


def selector_text(selector: JsonObject | None) -> str:
    """A label selector as the API's `labelSelector` wants it."""
    selector = selector or {}
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or []:
        key, values = each["key"], ",".join(each.get("values") or [])
        match each["operator"]:
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case _:
                parts.append(f"!{key}")
    return ",".join(parts)


def target_port(port: JsonObject, containers: Iterable[JsonObject]) -> int | None:
    """The container port that a Service's port ends at, None for a name nobody has."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in containers:
        for declared in container.get("ports") or []:
            if declared.get("name") == target and declared.get("protocol", "TCP") == "TCP":
                return int(declared["containerPort"])
    return None


def target_ports(services: Iterable[JsonObject], *, template: JsonObject) -> frozenset[int]:
    """The ports of the pod that Services lead to over TCP."""
    containers = template["spec"]["containers"]
    targets = {
        target_port(port, containers)
        for service in services
        for port in service["spec"].get("ports") or []
        if port.get("protocol", "TCP") == "TCP"
    }
    return frozenset(target for target in targets if target is not None)


def routed_ports(
    services: Iterable[JsonObject],
    *,
    template: JsonObject,
    reverse: Mapping[int, int],
    passed: Container[int] = (),
) -> tuple[tuple[RoutedPort, ...], tuple[str, ...]]:
    """The Service ports that the reverse ports (remote → local) serve, and what does not fit.

    `passed` are the ports that the agent passes on to the original: they are served, too.

    Returns:
        The routed ports, and one warning for each reverse port that no Service targets
        and each Service port that nothing serves, with the fix.
    """
    containers = template["spec"]["containers"]
    routed: list[RoutedPort] = []
    warnings: list[str] = []
    targets: dict[int, str] = {}
    for service in services:
        name = str(service["metadata"]["name"])
        for port in service["spec"].get("ports") or []:
            if port.get("protocol", "TCP") != "TCP":
                warnings.append(f"Service {name} port {port['port']}/UDP: UDP is not carried")
                continue
            target = target_port(port, containers)
            if target is None:
                continue
            targets[target] = f"{name} {port['port']}"
            if target in reverse:
                routed.append(
                    RoutedPort(
                        service=name, port=port["port"], remote=target, local=reverse[target]
                    )
                )
            elif target not in passed:
                warnings.append(
                    f"Service {name} port {port['port']} → {target} is served by nothing here: "
                    f"add `reverse: {target}:<local port>`"
                )
    known = ", ".join(f"{target} ({where})" for target, where in sorted(targets.items()))
    for remote in reverse:
        if remote not in targets:
            warnings.append(
                f"reverse {remote}:{reverse[remote]}: no Service targets port {remote}"
                + (f"; they target {known}" if known else "; there is none for this workload")
            )
    return tuple(routed), tuple(warnings)
