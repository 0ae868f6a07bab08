"""The cluster → Observed: one look at all that a plan depends on, requests side by side."""

from __future__ import annotations

import difflib

from towline._kit.objects import JsonObject
from towline._kit.together import together
from towline.cluster.api import Api
from towline.errors import Forbidden, NotFound, TowlineError
from towline.manifest.model import Entry, Original
from towline.plan.autocreate import made_workload, was_made
from towline.plan.build import names_for
from towline.plan.keep import sharers
from towline.plan.model import LABEL_KIND, Kind, Observed
from towline.plan.record import record_object, record_of_annotation
from towline.plan.services import selector_text, selects

# Kinds that people try and that cannot be taken over, with what to do instead.
_UNSUPPORTED = {
    "daemonsets": ("DaemonSet", "it has a pod on every node: take a Deployment that uses it"),
    "cronjobs": ("CronJob", "make a Deployment of its pod template while you develop it"),
    "jobs": ("Job", "make a Deployment of its pod template while you develop it"),
}


async def observe(entry: Entry, *, api: Api) -> Observed:
    """Look at an entry's workload and what surrounds it.

    Raises:
        NotFound: no such workload, or several match the selector.
        ClusterError: the API server cannot be asked.
    """
    (kind, workload, is_to_be_made), services, autoscalers = await together(
        _found_or_made(entry, api=api),
        _items(api, "services"),
        _allowed_items(api, "horizontalpodautoscalers"),
    )
    template = workload["spec"]["template"]
    labels = (template.get("metadata") or {}).get("labels") or {}
    name = str(workload["metadata"]["name"])
    record_name = names_for(kind, name, session="").record
    if _of_a_session(workload):
        raise TowlineError(
            f"{kind} {name} is a dev workload itself: it stands in for another one",
            hint="name the original, or end its session with `towline down`",
        )
    claims, pods, record = await together(
        _claims(kind, workload, api=api),
        _items(api, "pods", labels=selector_text(workload["spec"].get("selector"))),
        api.find("configmaps", record_name),
    )
    original_pods = tuple(p for p in pods if not _of_a_session(p))
    if record is None and entry.autocreate and was_made(workload):
        # Of a session that is over: it is about to be collected, and is made anew.
        workload, is_to_be_made = made_workload(entry), True
    found = tuple(s for s in services if selects(s["spec"].get("selector"), labels))
    sharing: dict[str, tuple[str, ...]] = {}
    policies: list[JsonObject] = []
    if entry.settings.original is Original.KEEP:
        sharing, policies = await together(
            _sharing(found, name, original_pods, api=api), _allowed_items(api, "networkpolicies")
        )
    return Observed(
        context=api.access.target.context,
        namespace=api.namespace,
        kind=kind,
        workload=workload,
        services=found,
        pods=original_pods,
        autoscalers=tuple(a for a in autoscalers if _targets(a, kind, name)),
        claims=claims,
        arch=await _architecture(template, original_pods, api=api),
        record=record or _annotated(kind, workload),
        is_to_be_made=is_to_be_made,
        sharing=sharing,
        policies=tuple(policies),
    )


async def _sharing(
    services: tuple[JsonObject, ...], name: str, pods: tuple[JsonObject, ...], *, api: Api
) -> dict[str, tuple[str, ...]]:
    """To whom else these Services lead: workloads, also those at 0, and pods of any kind."""
    workloads: list[JsonObject] = []
    for kind in Kind:
        workloads += [{**each, "kind": kind.value} for each in await _items(api, kind.resource)]
    workloads = [each for each in workloads if not _of_a_session(each)]
    own = {str(pod["metadata"]["uid"]) for pod in pods}
    found = {}
    for service in services:
        selector = service["spec"]["selector"]
        selected = await _items(
            api, "pods", labels=",".join(f"{k}={v}" for k, v in selector.items())
        )
        owners = [
            _owner(pod)
            for pod in selected
            if str(pod["metadata"]["uid"]) not in own and not _of_a_session(pod)
        ]
        # A ReplicaSet's Deployment is among the workloads, under its own name.
        others = [each for each in owners if not each.startswith(("ReplicaSet ", "StatefulSet "))]
        found[str(service["metadata"]["name"])] = sharers(service, name, workloads, others)
    return found


def _owner(pod: JsonObject) -> str:
    for owner in pod["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return f"{owner['kind']} {owner['name']}"
    return f"Pod {pod['metadata']['name']}"


def _of_a_session(item: JsonObject) -> bool:
    return any(k.startswith("towline.dev/") for k in item["metadata"].get("labels") or {})


def _annotated(kind: Kind, workload: JsonObject) -> JsonObject | None:
    """The record as an original's annotation has it, where the record itself was deleted."""
    record = record_of_annotation({**workload, "kind": kind.value})
    if record is None:
        return None
    made = record_object(record)
    return {**made, "metadata": {**made["metadata"], "uid": ""}}


async def _items(api: Api, resource: str, *, labels: str | None = None) -> list[JsonObject]:
    listed = await api.list_(resource, labels=labels)
    items: list[JsonObject] = listed.get("items") or []
    return items


async def _allowed_items(api: Api, resource: str) -> list[JsonObject]:
    """As `_items`; nothing where the rights do not reach: it is for notices only."""
    try:
        return await _items(api, resource)
    except (Forbidden, NotFound):
        return []


async def _found_or_made(entry: Entry, *, api: Api) -> tuple[Kind, JsonObject, bool]:
    """The workload, and whether it is yet to be made."""
    if entry.autocreate and not entry.selector:
        name = entry.workload or entry.name
        deployment, stateful_set = await together(
            api.find(Kind.DEPLOYMENT.resource, name), api.find(Kind.STATEFULSET.resource, name)
        )
        # One look only: one that a session made is collected at any moment.
        if deployment is None and stateful_set is None:
            return Kind.DEPLOYMENT, made_workload(entry), True
        if deployment is not None and stateful_set is None:
            return Kind.DEPLOYMENT, deployment, False
    kind, workload = await _find_workload(entry, api=api)
    return kind, workload, False


async def _find_workload(entry: Entry, *, api: Api) -> tuple[Kind, JsonObject]:
    if entry.selector:
        return await _select_workload(entry, api=api)
    name = entry.workload or entry.name
    deployment, stateful_set = await together(
        api.find(Kind.DEPLOYMENT.resource, name), api.find(Kind.STATEFULSET.resource, name)
    )
    if deployment is not None and stateful_set is not None:
        raise NotFound(
            f"{name} is both a Deployment and a StatefulSet in namespace {api.namespace}",
            hint="choose one with `selector:` in the manifest",
        )
    if deployment is not None:
        return Kind.DEPLOYMENT, deployment
    if stateful_set is not None:
        return Kind.STATEFULSET, stateful_set
    raise await _no_workload(name, api=api)


async def _select_workload(entry: Entry, *, api: Api) -> tuple[Kind, JsonObject]:
    text = ",".join(f"{k}={v}" for k, v in (entry.selector or {}).items())
    deployments, stateful_sets = await together(
        _items(api, Kind.DEPLOYMENT.resource, labels=text),
        _items(api, Kind.STATEFULSET.resource, labels=text),
    )
    found = [(Kind.DEPLOYMENT, d) for d in deployments if not _of_a_session(d)]
    found += [(Kind.STATEFULSET, s) for s in stateful_sets]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(
            f"selector {text} of {entry.name} matches no Deployment or StatefulSet in "
            f"namespace {api.namespace}",
            hint="`kubectl get deployments,statefulsets --show-labels` shows the labels there",
        )
    names = ", ".join(f"{kind} {each['metadata']['name']}" for kind, each in found)
    raise NotFound(
        f"selector {text} of {entry.name} matches {len(found)} workloads: {names}",
        hint="add a label that only one of them has",
    )


async def _no_workload(name: str, *, api: Api) -> TowlineError:
    for resource, (kind, instead) in _UNSUPPORTED.items():
        try:
            found = await api.find(resource, name)
        except Forbidden:
            continue
        if found is not None:
            return TowlineError(f"{kind} {name} cannot be taken into development", hint=instead)
    deployments, stateful_sets = await together(
        _items(api, Kind.DEPLOYMENT.resource), _items(api, Kind.STATEFULSET.resource)
    )
    names = sorted(
        str(w["metadata"]["name"]) for w in [*deployments, *stateful_sets] if not _of_a_session(w)
    )
    if not names and not await _namespace_exists(api):
        return NotFound(
            f"there is no namespace {api.namespace} in context {api.access.target.context}",
            hint="choose one with `-n NAMESPACE`",
        )
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"; did you mean {close[0]}?" if close else ""
    return NotFound(
        f"there is no Deployment or StatefulSet {name!r} in namespace {api.namespace} "
        f"of context {api.access.target.context} (there: {', '.join(names) or 'none'}){guess}",
        hint="is it another namespace (`-n`), or another name in the manifest?",
    )


async def _namespace_exists(api: Api) -> bool:
    try:
        return await api.find("namespaces", api.namespace) is not None
    except Forbidden:
        return True


def _targets(autoscaler: JsonObject, kind: Kind, name: str) -> bool:
    target = autoscaler["spec"].get("scaleTargetRef") or {}
    return bool(target.get("kind") == kind.value and target.get("name") == name)


async def _claims(kind: Kind, workload: JsonObject, *, api: Api) -> dict[str, JsonObject]:
    """The claims of a Deployment's template (a StatefulSet's own are handed over anyway)."""
    volumes = workload["spec"]["template"]["spec"].get("volumes") or []
    names = [
        str(v["persistentVolumeClaim"]["claimName"])
        for v in volumes
        if "persistentVolumeClaim" in v
    ]
    found = {name: await api.find("persistentvolumeclaims", name) for name in names}
    return {name: claim for name, claim in found.items() if claim is not None}


async def _architecture(
    template: JsonObject, pods: tuple[JsonObject, ...], *, api: Api
) -> str | None:
    selector = template["spec"].get("nodeSelector") or {}
    if "kubernetes.io/arch" in selector:
        return str(selector["kubernetes.io/arch"])
    node = next((p["spec"]["nodeName"] for p in pods if p["spec"].get("nodeName")), None)
    if node is None:
        return None
    try:
        found = await api.find("nodes", node)
    except Forbidden:
        return None
    return str(found["metadata"]["labels"]["kubernetes.io/arch"]) if found else None


async def records(api: Api) -> list[JsonObject]:
    """The records of all sessions in the namespace."""
    return await _items(api, "configmaps", labels=f"{LABEL_KIND}=record")
