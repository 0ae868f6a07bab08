"""Whether dev pod and original can live side by side for a moment. [pure]"""

from __future__ import annotations

from towline._kit.objects import JsonObject
from towline.manifest.model import Entry, Handover, Mode, Original
from towline.plan.model import Kind, Observed
from towline.plan.services import selects


def choose_handover(entry: Entry, observed: Observed) -> tuple[Handover, str | None]:
    """The manifest's choice, else seamless unless something forbids it; with the reason."""
    if entry.settings.original is Original.KEEP:
        return Handover.SEAMLESS, "the original stays up"
    if entry.settings.handover is not None:
        return entry.settings.handover, "the manifest says so"
    reason = _no_room_side_by_side(entry, observed)
    return (Handover.SEAMLESS, None) if reason is None else (Handover.EXCLUSIVE, reason)


def _no_room_side_by_side(entry: Entry, observed: Observed) -> str | None:
    if entry.mode is Mode.SYNC and not observed.services:
        return "no Service leads to it: two consumers would share the work"
    if entry.mode is not Mode.SYNC and not entry.reverse:
        return "there are no reverse ports: two consumers would share the work"
    if observed.kind is Kind.STATEFULSET:
        return "a StatefulSet's pod is one of a kind"
    reason = there_only_once(observed)
    if reason is not None:
        return reason
    if _repels_itself(observed.template):
        return "the pods may not share a node with one of their kind"
    for service in observed.services:
        if service["spec"].get("publishNotReadyAddresses"):
            return f"Service {service['metadata']['name']} routes to pods that are not ready"
    return None


def there_only_once(observed: Observed) -> str | None:
    """What two pods cannot have at the same time, in words, or None."""
    spec = observed.template["spec"]
    claims = [
        name
        for name, claim in observed.claims.items()
        if "ReadWriteMany" not in (claim["spec"].get("accessModes") or [])
    ]
    if claims:
        return f"claim {claims[0]} can be written from one place only"
    if any(port.get("hostPort") for c in spec["containers"] for port in c.get("ports") or []):
        return "a host port is free once only"
    extended = _extended_resource(spec)
    if extended:
        return f"{extended} may not be there twice"
    if observed.quota_error is not None:
        return f"the quota has no room for both ({observed.quota_error})"
    return None


def _extended_resource(spec: JsonObject) -> str | None:
    for container in spec["containers"]:
        for name in (container.get("resources") or {}).get("limits") or {}:
            if "/" in name:
                return str(name)
    return None


def _repels_itself(template: JsonObject) -> bool:
    labels = (template.get("metadata") or {}).get("labels") or {}
    affinity = (template["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []
    spread = [
        constraint
        for constraint in template["spec"].get("topologySpreadConstraints") or []
        if constraint.get("whenUnsatisfiable") == "DoNotSchedule"
    ]
    return any(_matches(each.get("labelSelector"), labels) for each in [*terms, *spread])


def _matches(selector: JsonObject | None, labels: dict[str, str]) -> bool:
    """Whether a label selector may match; expressions count as matching (the safe side).

    None matches no pod, an empty one every pod (Kubernetes API, LabelSelector).
    """
    wanted = (selector or {}).get("matchLabels") or {}
    return selector is not None and (not wanted or selects(wanted, labels))
