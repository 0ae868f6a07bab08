"""The dev workload of any pod template: what must hold whatever the original is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import (
    booleans,
    composite,
    dictionaries,
    integers,
    lists,
    none,
    one_of,
    sampled_from,
)

from towline.manifest.model import Entry, Handover, Mode, Port, Reverse
from towline.manifest.places import Place
from towline.payload.pieces import pieces
from towline.plan.build import build_plan
from towline.plan.handover import choose_handover
from towline.plan.model import Kind, Observed, Owner, Plan
from towline.plan.record import (
    read_record,
    record_object,
    record_of,
    record_of_annotation,
    restore_annotation,
)
from towline.plan.services import selector_text, selects, target_port

PARTS = pieces(agent_gz=b"agent", starter=b"starter")
PLACE = Place(file="towline.yml", line=1, column=1)
_WORDS = sampled_from(["app", "tier", "pod-template-hash", "controller-revision-hash", "x/y"])


def entry(*, reverse: int | None = 8080, **fields: Any) -> Entry:
    ports = (Reverse(remote=Port(reverse), local=Port(1), place=PLACE),) if reverse else ()
    return Entry(
        name="web", place=PLACE, workload=None, mode=Mode.HYBRID, **{"reverse": ports, **fields}
    )


@composite
def workloads(draw: Any) -> dict[str, Any]:
    labels = draw(dictionaries(_WORDS, sampled_from(["a", "b"]), max_size=4))
    container: dict[str, Any] = {"name": "main", "image": "i"}
    for key, value in (
        ("command", ["serve"]),
        ("args", ["--now"]),
        ("livenessProbe", {"httpGet": {"port": 1}}),
        ("startupProbe", {"httpGet": {"port": 1}}),
        ("readinessProbe", {"httpGet": {"port": 1}}),
        ("lifecycle", {"preStop": {"exec": {"command": ["x"]}}}),
        ("workingDir", "/srv"),
        ("env", [{"name": "A", "value": "$(B)"}]),
        ("securityContext", {"readOnlyRootFilesystem": True, "runAsUser": 1000}),
        ("ports", [{"containerPort": 8080}, {"containerPort": 48222}]),
    ):
        if draw(booleans()):
            container[key] = value
    spec: dict[str, Any] = {"containers": [container, {"name": "side", "image": "s"}]}
    for key, value in (
        ("volumes", [{"name": "v", "emptyDir": {}}]),
        ("securityContext", draw(sampled_from([{"fsGroup": 1}, {"runAsNonRoot": True}, {}]))),
        ("nodeSelector", {"disk": "fast"}),
        ("initContainers", [{"name": "init", "image": "i"}]),
        ("serviceAccountName", "web"),
    ):
        if draw(booleans()):
            spec[key] = value
    if "volumes" in spec:
        container["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    metadata = draw(one_of(none(), lists(booleans(), max_size=0).map(lambda _: {"labels": labels})))
    template = {"spec": spec} if metadata is None else {"metadata": metadata, "spec": spec}
    return {
        "metadata": {"name": "web", "uid": "u", "annotations": {"note": "ours"}},
        "spec": {"replicas": draw(integers(0, 5)), "selector": {}, "template": template},
    }


def plan_of(workload: dict[str, Any], *, kind: Kind = Kind.DEPLOYMENT, **more: Any) -> Plan:
    observed = Observed(context="c", namespace="n", kind=kind, workload=workload)
    return build_plan(
        entry(**more),
        observed,
        session="0a0a0a0a",
        owner=Owner(user="a", host="b"),
        parts=PARTS,
        arch="arm64",
    )


@given(workloads(), sampled_from(Kind))
def test_whatever_the_original_is(workload: dict[str, Any], kind: Kind) -> None:
    if kind is Kind.STATEFULSET:
        workload["spec"]["serviceName"] = "web"
    kept = copy.deepcopy(workload)
    made = plan_of(workload, kind=kind).dev_workload
    assert workload == kept, "what was observed is not changed"
    json.dumps(made)
    template, before = made["spec"]["template"], workload["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert not {"pod-template-hash", "controller-revision-hash"} & labels.keys()
    assert selects(made["spec"]["selector"]["matchLabels"], labels)
    main, side = template["spec"]["containers"]
    assert side == before["spec"]["containers"][1]
    was = before["spec"]["containers"][0]
    assert main["command"] == ["/towline/boot/starter"]
    assert not {"args", "livenessProbe", "startupProbe", "lifecycle"} & main.keys()
    for key in ("image", "workingDir", "securityContext", "ports", "env"):
        assert main.get(key) == was.get(key)
    names = [v["name"] for v in template["spec"]["volumes"]]
    assert len(names) == len(set(names))
    assert {m["name"] for m in main["volumeMounts"]} <= set(names)
    assert template["spec"]["nodeSelector"]["kubernetes.io/arch"] == "arm64"
    assert before["spec"].get("securityContext") == template["spec"].get("securityContext")


def test_what_meets_restricted_still_does() -> None:
    """Kubernetes' Pod Security Standards: `restricted` forbids none of what is added."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "main", "image": "i", "securityContext": restricted}
    workload = {
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    spec = plan_of(workload, reverse=80).dev_workload["spec"]["template"]["spec"]
    assert [c["securityContext"] for c in spec["containers"]] == [restricted]
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    assert all(set(v) - {"name"} <= allowed for v in spec["volumes"])
    sysctls = {s["name"] for s in spec["securityContext"]["sysctls"]}
    assert sysctls == {"net.ipv4.ip_unprivileged_port_start"}, "one of the safe ones"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@given(workloads(), sampled_from(Kind), booleans())
def test_record_and_annotation_say_what_to_put_back(
    workload: dict[str, Any], kind: Kind, deletes: bool
) -> None:
    if deletes and kind is Kind.STATEFULSET:
        workload["spec"]["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": "Delete"}
    made = record_of(
        plan_of(workload, kind=kind), since="2026-01-02T03:04:05Z", entry="web", mode="hybrid"
    )
    found = record_object(made)
    found["metadata"]["uid"] = ""
    assert read_record(found) == made
    text = restore_annotation(made, namespace="n")
    workload["metadata"]["annotations"]["towline.dev/restore"] = text
    alone = record_of_annotation({**workload, "kind": kind.value})
    assert alone is not None
    for name in ("session", "owner", "replicas", "ready_replicas", "handover", "names", "entry"):
        assert getattr(alone, name) == getattr(made, name)
    assert len(alone.actions) == (1 if deletes and kind is Kind.STATEFULSET else 0)


def test_the_agents_ports_are_nobody_elses() -> None:
    ports = [{"containerPort": 48222}, {"containerPort": 48224}]
    container = {"name": "main", "image": "i", "ports": ports}
    workload = {
        "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    made = plan_of(workload, reverse=48223).agent_ports
    assert (made.line, made.gate) == (48225, 48226)


_TWICE: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"volumes": [{"name": "v", "emptyDir": {}}]}, None),
    ({"containers": [{"name": "m", "ports": [{"hostPort": 80}]}]}, "host port"),
    ({"containers": [{"name": "m", "resources": {"limits": {"gpu.io/x": 1}}}]}, "gpu.io/x"),
    ({"containers": [{"name": "m", "resources": {"limits": {"cpu": 1}}}]}, None),
]


def _spread(selector: dict[str, Any] | None, when: str = "DoNotSchedule") -> dict[str, Any]:
    constraint = {"whenUnsatisfiable": when}
    if selector is not None:
        constraint["labelSelector"] = selector  # type: ignore[assignment]
    return {"topologySpreadConstraints": [constraint]}


def _repels(selector: dict[str, Any]) -> dict[str, Any]:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"affinity": {"podAntiAffinity": required}}


_KIND = "the pods may not share a node with one of their kind"
_TWICE += [
    (_repels({"matchLabels": {"app": "web"}}), _KIND),
    (_repels({"matchLabels": {"app": "other"}}), None),
    (_repels({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), _KIND),
    (_repels({}), _KIND),  # an empty selector matches every pod
    (_spread({"matchLabels": {"app": "web"}}), _KIND),
    (_spread({"matchLabels": {"app": "web"}}, "ScheduleAnyway"), None),
    (_spread(None), None),  # no selector matches none
]


@pytest.mark.parametrize(("spec", "reason"), _TWICE)
def test_when_two_cannot_be_there_at_once(spec: dict[str, Any], reason: str | None) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "m"}], **spec},
    }
    workload = {"metadata": {"name": "web"}, "spec": {"template": template}}
    observed = Observed(context="c", namespace="n", kind=Kind.DEPLOYMENT, workload=workload)
    chosen, why = choose_handover(entry(), observed)
    if reason is None:
        assert (chosen, why) == (Handover.SEAMLESS, None)
    else:
        assert chosen is Handover.EXCLUSIVE and reason in (why or "")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, ""),
        ({}, ""),
        ({"matchLabels": {"a": "1", "b": "2"}}, "a=1,b=2"),
        (
            {
                "matchLabels": {"a": "1"},
                "matchExpressions": [
                    {"key": "b", "operator": "In", "values": ["x", "y"]},
                    {"key": "c", "operator": "NotIn", "values": ["z"]},
                    {"key": "d", "operator": "Exists"},
                    {"key": "e", "operator": "DoesNotExist"},
                ],
            },
            "a=1,b in (x,y),c notin (z),d,!e",
        ),
    ],
)
def test_selectors_as_the_api_wants_them(selector: dict[str, Any] | None, expected: str) -> None:
    assert selector_text(selector) == expected


def test_a_services_target_by_name_number_or_neither() -> None:
    containers = [
        {"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
        {"ports": [{"name": "http", "containerPort": 3000}]},
    ]
    assert target_port({"port": 80, "targetPort": "http"}, containers) == 3000
    assert target_port({"port": 80, "targetPort": 8080}, containers) == 8080
    assert target_port({"port": 80}, containers) == 80
    assert target_port({"port": 53, "targetPort": "dns"}, containers) is None
