"""The cluster → what a container's environment is made of, as far as it may be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from towline._kit.objects import JsonObject
from towline._kit.together import together
from towline.cluster.api import Api
from towline.environ.container import Specs, encoded
from towline.environ.definitions import Objects
from towline.environ.links import link_variables
from towline.environ.resolve import find_container, references, resolve
from towline.errors import Forbidden, NotFound
from towline.plan.model import LABEL_SESSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The pods' specs of one container, and the objects they refer to.

    Attributes:
        original, planned, running: as `environ.container.Specs` has them; a template is a
            pod without a name.
    """

    container: str
    original: JsonObject
    planned: JsonObject
    running: JsonObject
    objects: Objects

    @property
    def specs(self) -> Specs:
        return Specs(
            original=resolve(self.original, self.container, self.objects),
            planned=resolve(self.planned, self.container, self.objects),
            running=resolve(self.running, self.container, self.objects),
        )

    @property
    def references(self) -> tuple[frozenset[str], frozenset[str]]:
        return _references((self.original, self.planned, self.running), self.container)

    @property
    def own_links(self) -> frozenset[bytes]:
        """Service links of Services that a session made."""
        return frozenset(
            encoded(name)
            for service in self.objects.services
            if LABEL_SESSION in (service["metadata"].get("labels") or {})
            for name, _ in link_variables(service)
        )

    def with_object(self, resource: str, name: str, now: JsonObject | None) -> Sources:
        """The same with one ConfigMap or Secret as it is now; None: it is gone."""
        of = self.objects
        if resource == "secrets":
            return replace(self, objects=replace(of, secrets={**of.secrets, name: now}))
        return replace(self, objects=replace(of, config_maps={**of.config_maps, name: now}))


def as_pod(template: JsonObject, *, namespace: str) -> JsonObject:
    """A pod template in the form of a pod that has neither name nor node yet."""
    metadata = template.get("metadata") or {}
    return {"metadata": {**metadata, "namespace": namespace}, "spec": template["spec"]}


async def read_sources(
    api: Api,
    *,
    container: str,
    original: JsonObject,
    planned: JsonObject,
    running: JsonObject,
    with_master: bool = False,
) -> Sources:
    """Read what the specs refer to, side by side. What may not be read is left open.

    Args:
        original, planned: pod templates.
        running: a pod, or one of the templates again.
        with_master: the Service `kubernetes` too, where there is no truth to have it from.
    """
    pods = [as_pod(each, namespace=api.namespace) for each in (original, planned)]
    pods.append(running if "status" in running else pods[-1])
    config_maps, secrets = _references(pods, container)
    found_maps, found_secrets, (services, master), allocatable = await together(
        _each(api, "configmaps", config_maps),
        _each(api, "secrets", secrets),
        _services(api, with_master=with_master),
        _allocatable(api, pods, container),
    )
    return Sources(
        container=container,
        original=pods[0],
        planned=pods[1],
        running=pods[2],
        objects=Objects(
            config_maps=found_maps,
            secrets=found_secrets,
            services=services,
            master=master,
            allocatable=allocatable,
        ),
    )


async def pod_named(api: Api, name: str) -> JsonObject | None:
    """A pod by its name, with the right to list pods alone; None when it is not there."""
    try:
        found = await api.list_("pods", fields=f"metadata.name={name}")
    except Forbidden:
        return None
    items: list[JsonObject] = found.get("items") or []
    return items[0] if items else None


def _references(
    pods: Iterable[JsonObject], container: str
) -> tuple[frozenset[str], frozenset[str]]:
    found = [references(pod, container) for pod in pods if _has(pod, container)]
    return (
        frozenset().union(*(maps for maps, _ in found)),
        frozenset().union(*(secrets for _, secrets in found)),
    )


def _has(pod: JsonObject, container: str) -> bool:
    return any(each["name"] == container for each in pod["spec"]["containers"])


async def _each(api: Api, resource: str, names: frozenset[str]) -> dict[str, JsonObject | None]:
    async def one(name: str) -> tuple[str, JsonObject | None] | None:
        try:
            return name, await api.find(resource, name)
        except Forbidden:
            return None

    found = await together(*(one(name) for name in sorted(names))) if names else ()
    return dict(each for each in found if each is not None)


async def _services(
    api: Api, *, with_master: bool
) -> tuple[tuple[JsonObject, ...], JsonObject | None]:
    listed = (await api.list_("services")).get("items") or []
    master: JsonObject | None = None
    if with_master:
        try:
            path = "/api/v1/namespaces/default/services/kubernetes"
            master = await api.request("GET", path)
        except (Forbidden, NotFound):
            pass
    return tuple(listed), master


async def _allocatable(api: Api, pods: list[JsonObject], container: str) -> dict[str, str] | None:
    """Of the running pod's node, where a variable asks for it."""
    asks = any(
        "resourceFieldRef" in (each.get("valueFrom") or {})
        for pod in pods
        for each in find_container(pod, container).get("env") or []
    )
    node = pods[-1]["spec"].get("nodeName")
    if not asks or node is None:
        return None
    try:
        found = await api.find("nodes", str(node))
    except Forbidden:
        return None
    status = (found or {}).get("status") or {}
    return {str(k): str(v) for k, v in (status.get("allocatable") or {}).items()} or None
