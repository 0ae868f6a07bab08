"""`original: keep`: the original stays up, and the Services lead to the dev pod instead. [pure]

The dev pod lacks the labels by which Services and the original find pods. A Service of
the session with the original's selector is the agent's way back to the original: for the
ports that are not the laptop's, and for everything while the laptop is away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from towline._kit.objects import JsonObject
from towline.errors import TowlineError
from towline.manifest.model import Entry, Handover, Mode
from towline.plan.fields import SELECTOR, only_fields
from towline.plan.handover import there_only_once
from towline.plan.model import (
    LABEL_SESSION,
    MANAGED_BY,
    Action,
    ActionKind,
    Kind,
    Names,
    Observed,
    WayBack,
)
from towline.plan.services import selects, target_ports

_HINT = "`original: replace` takes it over as a whole"
# The agent gives its connections 30 s; see drainKept in the agent.
GRACE_S = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class PointedService:
    """A Service whose selector is changed, as it was before."""

    name: str
    uid: str
    selector: Mapping[str, str]
    managers: tuple[JsonObject, ...]


def way_back_name(session: str) -> str:
    """The name of the Service by which the agent finds the original."""
    return f"towline-original-{session}"


def services_to_point(
    entry: Entry, observed: Observed, *, reverse: Mapping[int, int]
) -> tuple[JsonObject, ...]:
    """The Services of which at least one port is the laptop's.

    Raises:
        TowlineError: the original cannot be kept beside the dev pod, with the reason.
    """
    name = f"{observed.kind} {observed.name}"
    reason = _why_not_side_by_side(entry, observed)
    if reason is not None:
        raise TowlineError(f"{name} cannot be kept beside the dev pod: {reason}", hint=_HINT)
    pointed = [
        service
        for service in observed.services
        if target_ports([service], template=observed.template) & reverse.keys()
    ]
    if not pointed:
        raise TowlineError(
            f"{name} cannot be kept: no Service leads to a `reverse` port, so nothing would "
            "reach the laptop",
            hint="add the port that the Service targets to `reverse`",
        )
    for service in pointed:
        _refuse_unless_only_ours(service, observed)
    return tuple(pointed)


def _why_not_side_by_side(entry: Entry, observed: Observed) -> str | None:
    if entry.settings.handover is Handover.EXCLUSIVE:
        return "`handover: exclusive` stops it first"
    if observed.is_to_be_made:
        return "there is none yet"
    if observed.kind is Kind.STATEFULSET:
        return "a StatefulSet's pods are known by their names, which only they have"
    return there_only_once(observed)


def _refuse_unless_only_ours(service: JsonObject, observed: Observed) -> None:
    name = service["metadata"]["name"]
    others = observed.sharing.get(str(name), ())
    if others:
        raise TowlineError(
            f"Service {name} leads to {', '.join(others)}, too: pointed at the laptop, they "
            "would get nothing",
            hint=_HINT,
        )
    for port in service["spec"].get("ports") or []:
        if port.get("protocol", "TCP") != "TCP":
            raise TowlineError(
                f"Service {name} has {port['protocol']} port {port['port']}, which the dev pod "
                "cannot pass on to the original",
                hint=_HINT,
            )


def sharers(
    service: JsonObject, observed_name: str, workloads: Iterable[JsonObject], pods: Iterable[str]
) -> tuple[str, ...]:
    """Who else a Service leads to: workloads by their templates, and pods' owners by name."""
    selector = service["spec"].get("selector")
    found = [
        f"{each['kind']} {each['metadata']['name']}"
        for each in workloads
        if each["metadata"]["name"] != observed_name
        and selects(selector, (each["spec"]["template"].get("metadata") or {}).get("labels") or {})
    ]
    return tuple(dict.fromkeys([*found, *pods]))


def labels_left(labels: Mapping[str, str], observed: Observed) -> dict[str, str]:
    """A template's labels without those by which the original or its Services find pods."""
    selector = observed.workload["spec"].get("selector") or {}
    taken = set(selector.get("matchLabels") or {})
    taken |= {each["key"] for each in selector.get("matchExpressions") or []}
    for service in observed.services:
        taken |= set(service["spec"].get("selector") or {})
    return {key: value for key, value in labels.items() if key not in taken}


def way_back(
    entry: Entry,
    observed: Observed,
    services: Iterable[JsonObject],
    *,
    container: str,
    names: Names,
    reverse: Mapping[int, int],
) -> WayBack:
    """The Service that leads to the original, and which ports the agent passes on to it.

    It is headless: Kubernetes would tell every new pod of one with an address, in its
    environment.
    """
    template = observed.template
    of_others = {
        int(port["containerPort"])
        for each in template["spec"]["containers"]
        if each["name"] != container
        for port in each.get("ports") or []
    }
    ports = set(target_ports(services, template=template))
    if entry.mode is Mode.SYNC:
        ports &= reverse.keys()
    ports = {port for port in ports if port in reverse or port not in of_others}
    name = way_back_name(names.session)
    addresses = [
        str(pod["status"]["podIP"])
        for pod in observed.pods
        if (pod.get("status") or {}).get("podIP") and not pod["metadata"].get("deletionTimestamp")
    ]
    selector = observed.workload["spec"]["selector"]
    labels = dict(selector.get("matchLabels") or {})
    if selector.get("matchExpressions"):
        labels = dict((template.get("metadata") or {}).get("labels") or {})
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {LABEL_SESSION: names.session, **MANAGED_BY}},
        "spec": {
            "clusterIP": "None",
            "selector": labels,
            "ports": [{"name": f"p{port}", "port": port} for port in sorted(ports)],
        },
    }
    hosts = [name, *(f"[{each}]" if ":" in each else each for each in addresses)]
    passes = {port: tuple(f"{host}:{port}" for host in hosts) for port in sorted(ports)}
    return WayBack(service=service, passes={} if entry.mode is Mode.SYNC else passes)


def point_actions(services: Iterable[JsonObject], *, session: str) -> tuple[Action, ...]:
    """One for each Service that is pointed at the dev pod, with its way back."""
    actions = []
    for service in services:
        metadata, selector = service["metadata"], dict(service["spec"]["selector"])
        words = ",".join(f"{key}={value}" for key, value in selector.items())
        name = str(metadata["name"])
        actions.append(
            Action(
                kind=ActionKind.POINT_SERVICE,
                resource="services",
                name=name,
                do=f"point Service {name} at the dev pod ({LABEL_SESSION}={session}) "
                "once it is ready",
                undo=f"point Service {name} back at the original ({words})",
                values={
                    "uid": str(metadata.get("uid") or ""),
                    "selector": selector,
                    "managers": only_fields(metadata.get("managedFields") or (), (SELECTOR,)),
                },
            )
        )
    return tuple(actions)


def way_back_action(name: str) -> Action:
    return Action(
        kind=ActionKind.CREATE_WAY_BACK,
        resource="services",
        name=name,
        do=f"create Service {name}: the agent's way to the original",
        undo=f"the garbage collector removes Service {name} with the record",
    )


def pointed_services(actions: Iterable[Action]) -> tuple[PointedService, ...]:
    """The Services that a plan or record points elsewhere, as they were before."""
    return tuple(
        PointedService(
            name=action.name,
            uid=str(action.values["uid"]),
            selector={str(k): str(v) for k, v in action.values["selector"].items()},
            managers=tuple(action.values["managers"]),
        )
        for action in actions
        if action.kind is ActionKind.POINT_SERVICE
    )


def policy_notices(observed: Observed, *, left: Mapping[str, str]) -> list[str]:
    """NetworkPolicies that know the original by labels which the dev pod does not have."""
    labels = (observed.template.get("metadata") or {}).get("labels") or {}
    found = []
    for policy in observed.policies:
        spec, name = policy["spec"], policy["metadata"]["name"]
        if _differs(spec.get("podSelector"), labels, left):
            found.append(
                f"NetworkPolicy {name} holds for the original and not for the dev pod, which "
                "lacks its labels"
            )
        if _names(_peers(spec, "ingress", "from"), labels, left):
            found.append(
                f"NetworkPolicy {name} lets the original in by labels that the dev pod lacks: "
                "what it protects may refuse the dev pod's connections"
            )
        if _names(_peers(spec, "egress", "to"), labels, left):
            found.append(
                f"NetworkPolicy {name} lets pods out to the original by labels that the dev pod "
                "lacks: their connections to the dev pod may be refused"
            )
    return found


def _peers(spec: JsonObject, rules: str, peers: str) -> Iterator[JsonObject]:
    """Whom a policy's rules name by pod labels, wherever: namespaces' labels are not read."""
    for rule in spec.get(rules) or []:
        for peer in rule.get(peers) or []:
            if "podSelector" in peer:
                yield peer["podSelector"]


def _names(
    selectors: Iterable[JsonObject], labels: Mapping[str, str], left: Mapping[str, str]
) -> bool:
    return any(_differs(each, labels, left) for each in selectors)


def _differs(
    selector: JsonObject | None, labels: Mapping[str, str], left: Mapping[str, str]
) -> bool:
    return _label_selects(selector or {}, labels) and not _label_selects(selector or {}, left)


def _label_selects(selector: JsonObject, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches (Kubernetes API, LabelSelector); an empty one does."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions") or []:
        key, values = each["key"], each.get("values") or []
        matches = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not matches.get(each["operator"], True):
            return False
    return True


def unguarded_notice(workload: str, pointed: Iterable[str], refused: str) -> str:
    """What stays where there is no guard, until somebody runs `down`."""
    services = ", ".join(pointed)
    return (
        f"no guard: if this laptop is gone, the dev pod passes everything on to {workload}, and "
        f"stays with Service {services} pointed at it until somebody runs `towline down` "
        f"({refused})"
    )
