"""Short ways to write a pod and what it refers to."""

from __future__ import annotations

import base64
from typing import Any

from towline.environ.definitions import Objects, Resolution
from towline.environ.resolve import resolve

Json = dict[str, Any]


def pod(*, env: list[Json] | None = None, env_from: list[Json] | None = None, **spec: Any) -> Json:
    """A pod that has been scheduled and runs, with one container `app`."""
    container: Json = {"name": "app", "env": env or [], "envFrom": env_from or []}
    container["resources"] = spec.pop("container_resources", {})
    others = spec.pop("others", [])
    return {
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "u-1",
            "labels": {"app": "web", "example.com/tier": "front"}, "annotations": {"note": "a\nb"},
        },
        "spec": {"containers": [container, *others], "nodeName": "node-1", **spec},
        "status": {
            "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}],
            "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}],
        },
    }  # fmt: skip


def config_map(**values: str) -> Json:
    return {"data": values}


def secret(**values: bytes) -> Json:
    return {"data": {k: base64.b64encode(v).decode() for k, v in values.items()}}


def service(name: str, *ports: Json, address: str = "10.96.0.9") -> Json:
    return {"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": list(ports)}}


MASTER = service("kubernetes", {"name": "https", "port": 443}, address="10.96.0.1")


def from_map(name: str, *, prefix: str = "", optional: bool = False) -> Json:
    return {"configMapRef": {"name": name, "optional": optional}, "prefix": prefix}


def from_secret(name: str, *, prefix: str = "", optional: bool = False) -> Json:
    return {"secretRef": {"name": name, "optional": optional}, "prefix": prefix}


def value_from(name: str, kind: str, /, **reference: Any) -> Json:
    return {"name": name, "valueFrom": {kind: reference}}


def resolved(of: Json, **objects: Any) -> Resolution:
    objects.setdefault("master", MASTER)
    return resolve(of, "app", Objects(**objects))


def values(found: Resolution) -> dict[str, bytes | None]:
    """What the spec defines, without the links of `kubernetes`."""
    return {
        name: variable.definition.value
        for name, variable in found.variables.items()
        if variable.definition.object != "kubernetes"
    }
