"""The variables that tell a container of the Services beside it. [pure]

As the kubelet makes them (Kubernetes 1.34, pkg/kubelet/envvars and
`getServiceEnvVarMap`): for every Service with an address in the pod's namespace,
unless `enableServiceLinks` is false, and for `kubernetes` of the namespace
`default` in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from towline._kit.objects import JsonObject

MASTER = "kubernetes"
"""The one Service whose links every container gets."""

# What the links of `kubernetes` are called wherever its port is the usual one.
MASTER_NAMES = (
    "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBERNETES_SERVICE_PORT_HTTPS",
    "KUBERNETES_PORT", "KUBERNETES_PORT_443_TCP", "KUBERNETES_PORT_443_TCP_PROTO",
    "KUBERNETES_PORT_443_TCP_PORT", "KUBERNETES_PORT_443_TCP_ADDR",
)  # fmt: skip


def linked_services(
    services: Iterable[JsonObject], *, master: JsonObject | None, enabled: bool
) -> list[JsonObject]:
    """Which Services a container is told of.

    A Service named `kubernetes` in the pod's own namespace stands before the real one.
    """
    chosen = {str(s["metadata"]["name"]): s for s in services if _has_address(s)} if enabled else {}
    if master is not None and _has_address(master):
        chosen.setdefault(MASTER, master)
    return list(chosen.values())


def link_variables(service: JsonObject) -> Iterator[tuple[str, str]]:
    """The variables of one Service, in the kubelet's order."""
    prefix = _variable_name(str(service["metadata"]["name"]))
    address = str(service["spec"]["clusterIP"])
    ports = service["spec"].get("ports") or []
    if not ports:
        return
    yield f"{prefix}_SERVICE_HOST", address
    yield f"{prefix}_SERVICE_PORT", str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            yield f"{prefix}_SERVICE_PORT_{_variable_name(str(port['name']))}", str(port["port"])
    joined = f"[{address}]" if ":" in address else address
    for index, port in enumerate(ports):
        protocol = str(port.get("protocol") or "TCP")
        url = f"{protocol.lower()}://{joined}:{port['port']}"
        if index == 0:
            yield f"{prefix}_PORT", url
        name = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
        yield name, url
        yield f"{name}_PROTO", protocol.lower()
        yield f"{name}_PORT", str(port["port"])
        yield f"{name}_ADDR", address


def _has_address(service: JsonObject) -> bool:
    return service["spec"].get("clusterIP") not in (None, "", "None")


def _variable_name(text: str) -> str:
    return text.replace("-", "_").upper()
