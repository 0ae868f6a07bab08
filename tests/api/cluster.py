"""What the tests do to the cluster, and how they look at it."""

from __future__ import annotations

import asyncio
import copy
import json
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.api.controlplane import ControlPlane

from towline.cluster.access import Access
from towline.cluster.api import Api, resource_path
from towline.cluster.kubeconfig import Target, read_target
from towline.cluster.observe import observe
from towline.manifest.model import Entry, Mode, Port, Reverse
from towline.manifest.places import Place
from towline.payload.pieces import Piece, pieces
from towline.plan.build import build_plan
from towline.plan.model import Observed, Owner, Plan
from towline.plan.record import Record, record_of

_DUMPED = (
    "deployments",
    "statefulsets",
    "services",
    "persistentvolumeclaims",
    "horizontalpodautoscalers",
    "configmaps",
    "secrets",
    "roles",
    "rolebindings",
    "serviceaccounts",
)
PARTS = pieces(agent_gz=b"not really an agent" * 10, starter=b"nor a starter")
FILES = {"config.json": b"{}", "host_key": b"h", "client_key": b"c", "line_key": b"l"}
ANNA = Owner(user="anna", host="laptop")
BEN = Owner(user="ben", host="desk")


def entry(name: str = "web", **fields: Any) -> Entry:
    """A hybrid entry with one reverse port."""
    place = Place(file="towline.yml", line=1, column=1)
    reverse = Reverse(remote=Port(8080), local=Port(18080), place=place)
    defaults: dict[str, Any] = {"mode": Mode.HYBRID, "workload": None, "reverse": (reverse,)}
    return Entry(name=name, place=place, **{**defaults, **fields})


def container(**fields: Any) -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}]
    return {"name": "main", "image": "registry.invalid/web:1", "ports": ports, **fields}


def deployment(name: str = "web", *, replicas: int | None = 2, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    pod: dict[str, Any] = {"containers": [container()]}
    made: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name, "team": "a"}},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            **spec,
        },
    }
    if replicas is not None:
        made["spec"]["replicas"] = replicas
    return made


def stateful_set(name: str = "db", *, replicas: int = 2, **spec: Any) -> dict[str, Any]:
    made = deployment(name, replicas=replicas, **spec)
    made["kind"] = "StatefulSet"
    made["spec"] |= {
        "serviceName": name,
        # No pod gets ready without a node: one by one there would be one only.
        "podManagementPolicy": "Parallel",
        "volumeClaimTemplates": [
            {
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Mi"}},
                },
            }
        ],
    }
    return made


def service(name: str = "web", **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            **fields,
        },
    }


def autoscaler(name: str = "web") -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": 5,
        },
    }


class Cluster:
    """A namespace of the control plane."""

    def __init__(self, plane: ControlPlane, *, namespace: str, stack: AsyncExitStack) -> None:
        self.plane = plane
        self.namespace = namespace
        self.stack = stack
        self.api = self.api_as(plane.admin())

    def target(self, user: Mapping[str, Any], **cluster: Any) -> Target:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            self.write_kubeconfig(Path(file.name), user, **cluster)
            return read_target(environ={}, kubeconfig=Path(file.name))

    def write_kubeconfig(self, file: Path, user: Mapping[str, Any], **cluster: Any) -> None:
        file.write_text(json.dumps(self.plane.config(user, namespace=self.namespace, **cluster)))

    def api_as(self, user: Mapping[str, Any], *, kind: type[Api] = Api, **cluster: Any) -> Api:
        """A way in as a kubeconfig's `user`; closed with the test."""
        return self.api_of(self.target(user, **cluster), kind=kind)

    def api_of(self, target: Target, *, kind: type[Api] = Api) -> Api:
        """A way in by a kubeconfig that was read; closed with the test."""
        access = Access(target, environ={"PATH": "/usr/bin:/bin"})
        api = kind(access, namespace=self.namespace, environ={})
        self.stack.push_async_exit(api)
        return api

    async def create(self, *objects: dict[str, Any]) -> None:
        """Create objects as a person would have; quicker than a kubectl for each test."""
        for each in objects:
            resource = f"{each['kind'].lower()}s"
            path = resource_path(resource, namespace=self.namespace)
            await self.api.request("POST", path, query={"fieldManager": "person"}, body=each)

    def apply(self, *objects: dict[str, Any], words: tuple[str, ...] = ()) -> None:
        """`kubectl apply` of objects, client-side unless the words say otherwise."""
        self.plane.kubectl("apply", *words, "-f", "-", namespace=self.namespace, objects=objects)

    def apply_as(self, manager: str, *objects: dict[str, Any], force: bool = False) -> None:
        """A server-side apply by another field manager."""
        words = ["--server-side", f"--field-manager={manager}"]
        self.apply(*objects, words=(*words, *(["--force-conflicts"] if force else [])))

    async def dump(self) -> dict[str, Any]:
        """All that a session must leave as it was, field managers included."""
        found: dict[str, Any] = {}
        for resource in _DUMPED:
            for item in (await self.api.list_(resource))["items"]:
                found[f"{resource}/{item['metadata']['name']}"] = _comparable(item)
        return found

    async def plan(
        self,
        wanted: Entry | None = None,
        *,
        session: str = "0a0a0a0a",
        owner: Owner = ANNA,
        parts: tuple[Piece, ...] = PARTS,
        api: Api | None = None,
    ) -> tuple[Observed, Plan]:
        wanted = wanted or entry()
        observed = await observe(wanted, api=api or self.api)
        plan = build_plan(wanted, observed, session=session, owner=owner, parts=parts, arch="amd64")
        return observed, plan


async def eventually(seen: Callable[[], Awaitable[bool]], *, within_s: float = 10.0) -> None:
    """Look until it is seen: controllers and caches take their time, and tell nobody."""
    async with asyncio.timeout(within_s):
        while True:
            if await seen():
                return
            await asyncio.sleep(0.05)


def record_for(plan: Plan) -> Record:
    return record_of(plan, since="2026-01-02T03:04:05Z", entry=plan.workload, mode="hybrid")


def _comparable(item: dict[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(item)
    metadata = made["metadata"]
    for name in ("resourceVersion", "generation"):
        metadata.pop(name, None)
    made.pop("status", None)
    # A controller's note of the status, with the time of it.
    kept = [e for e in metadata.get("managedFields") or [] if e.get("subresource") != "status"]
    metadata["managedFields"] = kept
    return made
