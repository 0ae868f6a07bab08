"""The plan of a takeover: what is chosen, what is left as it is."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from towline.errors import NotFound, TowlineError
from towline.manifest import load
from towline.manifest.model import Entry, Handover, Original, Settings
from towline.payload.pieces import pieces, split, verify
from towline.plan.build import build_plan
from towline.plan.fields import REPLICAS, managers_put_back, owner_of
from towline.plan.model import ANNOTATION_RESTORE, ActionKind, Kind, Observed, Owner, Plan
from towline.plan.record import (
    read_record,
    record_object,
    record_of,
    record_of_annotation,
    restore_annotation,
)
from towline.plan.services import routed_ports

ME = Owner(user="me", host="here")
PARTS = pieces(agent_gz=b"a" * 2_500_000, starter=b"s")


def deployment(**spec: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {
            "name": "front",
            "uid": "u-1",
            "labels": {"argocd.argoproj.io/instance": "shop", "app": "front"},
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "front"}},
            "template": {
                "metadata": {"labels": {"app": "front", "pod-template-hash": "123"}},
                "spec": {
                    "securityContext": {"runAsNonRoot": True},
                    "containers": [
                        {
                            "name": "front",
                            "image": "front:1",
                            "command": ["serve"],
                            "args": ["--now"],
                            "ports": [{"name": "http", "containerPort": 3000}],
                            "livenessProbe": {"httpGet": {"port": 3000}},
                            "env": [{"name": "PORT", "value": "3000"}],
                        },
                        {"name": "sidecar", "image": "sidecar:1"},
                    ],
                    **spec,
                },
            },
        },
        "status": {"readyReplicas": 2},
    }


SERVICE = {
    "metadata": {"name": "front"},
    "spec": {"selector": {"app": "front"}, "ports": [{"port": 80, "targetPort": "http"}]},
}


def entry(tmp_path: Path, text: str = "") -> Entry:
    path = tmp_path / "towline.yml"
    path.write_text(
        "dev:\n  front:\n    mode: hybrid\n    workdir: .\n    command: [serve]\n"
        + (text or "    reverse:\n    - 3000:8080\n")
    )
    return load(path, environ={}).entries["front"]


def plan_of(wanted: Entry, workload: dict[str, Any], kind: Kind = Kind.DEPLOYMENT) -> Plan:
    observed = Observed(
        context="c", namespace="n", kind=kind, workload=workload, services=(SERVICE,)
    )
    return build_plan(wanted, observed, session="5e551011", owner=ME, parts=PARTS, arch="amd64")


def dev_container(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = plan.dev_workload["spec"]["template"]["spec"]["containers"][0]
    return found


def test_the_dev_pod_is_the_original_with_another_command(tmp_path: Path) -> None:
    plan = plan_of(entry(tmp_path), deployment())
    container = dev_container(plan)
    assert container["image"] == "front:1"
    assert container["command"] == ["/towline/boot/starter"]
    assert container["env"] == [{"name": "PORT", "value": "3000"}]
    assert not {"args", "livenessProbe", "startupProbe", "lifecycle"} & container.keys()
    spec = plan.dev_workload["spec"]["template"]["spec"]
    assert spec["containers"][1] == {"name": "sidecar", "image": "sidecar:1"}
    assert spec["securityContext"] == {"runAsNonRoot": True}


def test_an_image_brings_the_agent_where_that_is_wanted(tmp_path: Path) -> None:
    wanted = entry(tmp_path)
    wanted = replace(wanted, settings=replace(wanted.settings, agent_image="agents:1"))
    observed = Observed(
        context="c", namespace="n", kind=Kind.DEPLOYMENT, workload=deployment(), services=(SERVICE,)
    )
    plan = build_plan(wanted, observed, session="5e551011", owner=ME, parts=(), arch="amd64")
    assert ActionKind.SHARE_PIECES not in {action.kind for action in plan.actions}
    guard = next(each for each in plan.guard if each["kind"] == "Deployment")
    for made in (plan.dev_workload, guard):
        spec = made["spec"]["template"]["spec"]
        first = spec["initContainers"][0]
        assert (first["image"], first["command"]) == ("agents:1", ["/agent"])
        mount = first["volumeMounts"][0]
        assert first["args"] == ["-install", *spec["containers"][0]["command"]]
        assert {"name": mount["name"], "emptyDir": {}} in spec["volumes"]


def test_controllers_labels_are_not_copied(tmp_path: Path) -> None:
    plan = plan_of(entry(tmp_path), deployment())
    labels = plan.dev_workload["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app": "front", "towline.dev/session": "5e551011"}
    assert "argocd.argoproj.io/instance" not in plan.dev_workload["metadata"]["labels"]


def test_planning_changes_nothing_that_was_observed(tmp_path: Path) -> None:
    workload = deployment()
    before = copy.deepcopy(workload)
    plan_of(entry(tmp_path), workload)
    assert workload == before


def test_seamless_stops_the_original_last_and_exclusive_first(tmp_path: Path) -> None:
    kinds = [a.kind for a in plan_of(entry(tmp_path), deployment()).actions]
    assert kinds[0] is ActionKind.WRITE_RECORD
    assert kinds[-1] is ActionKind.STOP_ORIGINAL
    exclusive = plan_of(entry(tmp_path, "    forward:\n    - 1234:db:1234\n"), deployment())
    assert exclusive.handover is Handover.EXCLUSIVE
    kinds = [a.kind for a in exclusive.actions]
    assert kinds.index(ActionKind.STOP_ORIGINAL) < kinds.index(ActionKind.CREATE_DEV_WORKLOAD)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": {"matchLabels": {"app": "front"}}}]}}}, "share a node"),
        ({"topologySpreadConstraints": [
            {"whenUnsatisfiable": "DoNotSchedule",
             "labelSelector": {"matchLabels": {"app": "front"}}}]}, "share a node"),
        ({"containers": [{"name": "front", "image": "i",
                          "ports": [{"containerPort": 3000, "hostPort": 80}]}]}, "host port"),
        ({"containers": [{"name": "front", "image": "i",
                          "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}, "nvidia.com/gpu"),
    ],
)  # fmt: skip
def test_what_cannot_be_side_by_side_is_exclusive(
    tmp_path: Path, spec: dict[str, Any], reason: str
) -> None:
    plan = plan_of(entry(tmp_path), deployment(**spec))
    assert plan.handover is Handover.EXCLUSIVE
    assert reason in (plan.handover_reason or "")


def test_host_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TowlineError, match="hostNetwork"):
        plan_of(entry(tmp_path), deployment(hostNetwork=True))


def test_a_container_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    text = "    container: web\n    reverse:\n    - 3000:8080\n"
    with pytest.raises(NotFound, match="front, sidecar"):
        plan_of(entry(tmp_path, text), deployment())


def test_a_stateful_sets_dev_pod_is_ordinal_0_by_everything_but_its_name(tmp_path: Path) -> None:
    workload = deployment()
    workload["spec"] |= {
        "serviceName": "peers",
        "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"},
    }
    container = workload["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    plan = plan_of(entry(tmp_path), workload, Kind.STATEFULSET)
    template = plan.dev_workload["spec"]["template"]
    assert (template["spec"]["hostname"], template["spec"]["subdomain"]) == ("front-0", "peers")
    assert template["spec"]["volumes"][0] == {
        "name": "data",
        "persistentVolumeClaim": {"claimName": "data-front-0"},
    }
    assert template["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "0"
    assert dev_container(plan)["env"] == [{"name": "ME", "value": "front-0"}]
    assert ActionKind.RETAIN_CLAIMS in [a.kind for a in plan.actions]
    assert plan.names.dev_workload == "front-towline"


def test_low_ports_get_the_safe_sysctl(tmp_path: Path) -> None:
    plan = plan_of(entry(tmp_path, "    reverse:\n    - 80:8080\n"), deployment())
    security = plan.dev_workload["spec"]["template"]["spec"]["securityContext"]
    assert security["sysctls"] == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]


def test_ports_that_do_not_fit_are_a_warning_with_the_fix() -> None:
    template = deployment()["spec"]["template"]
    routed, warnings = routed_ports([SERVICE], template=template, reverse={3000: 8080})
    assert [(r.service, r.port, r.remote, r.local) for r in routed] == [("front", 80, 3000, 8080)]
    assert warnings == ()
    routed, warnings = routed_ports([SERVICE], template=template, reverse={4000: 8080})
    assert routed == ()
    assert "add `reverse: 3000:<local port>`" in warnings[0]
    assert "no Service targets port 4000" in warnings[1]


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    plan = plan_of(entry(tmp_path), deployment())
    record = record_of(plan, since="2026-01-01T00:00:00Z", entry="front", mode="hybrid")
    found = record_object(record)
    found["metadata"]["uid"] = ""
    assert read_record(found) == record
    found["data"]["record.json"] = found["data"]["record.json"].replace(
        '"schema": 1', '"schema": 9'
    )
    with pytest.raises(TowlineError, match="newer Towline"):
        read_record(found)


def test_pieces_join_to_what_was_cut_and_others_are_refused() -> None:
    assert b"".join(split(b"abcdefg", limit_bytes=3)) == b"abcdefg"
    assert [len(p.content) for p in PARTS] == [1_000_000, 1_000_000, 500_000, 1]
    with pytest.raises(TowlineError, match="does not hold what its name says"):
        verify({"binaryData": {"agent.0": "AAAA"}}, PARTS[0])


def test_the_former_manager_owns_its_field_again() -> None:
    former = [
        {"manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1", "time": "1",
         "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {}}}},
    ]  # fmt: skip
    live = [
        {"manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1", "time": "2",
         "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"manager": "towline", "operation": "Update", "apiVersion": "apps/v1", "time": "3",
         "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]  # fmt: skip
    assert owner_of(live, REPLICAS) == "towline"
    assert managers_put_back(live, former=former, ours="towline", paths=[REPLICAS]) == former


def kept_plan(tmp_path: Path, text: str = "", **changes: Any) -> Plan:
    fields = text or "    reverse:\n    - 3000:8080\n"
    wanted = replace(entry(tmp_path, fields), settings=Settings(original=Original.KEEP))
    values: dict[str, Any] = {"workload": deployment(), "services": (SERVICE,), **changes}
    observed = Observed(context="c", namespace="n", kind=values.pop("kind", Kind.DEPLOYMENT),
                        **values)  # fmt: skip
    return build_plan(wanted, observed, session="5e551011", owner=ME, parts=PARTS, arch="amd64")


def test_a_kept_original_is_not_stopped_and_not_mistaken_for_the_dev_pod(tmp_path: Path) -> None:
    plan = kept_plan(tmp_path)
    kinds = [action.kind for action in plan.actions]
    assert ActionKind.STOP_ORIGINAL not in kinds
    assert kinds.index(ActionKind.CREATE_WAY_BACK) < kinds.index(ActionKind.CREATE_DEV_WORKLOAD)
    assert kinds[-1] is ActionKind.POINT_SERVICE
    assert plan.actions[-1].undo == "point Service front back at the original (app=front)"
    pod = plan.dev_workload["spec"]["template"]
    assert pod["metadata"]["labels"] == {"towline.dev/session": "5e551011"}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 40
    assert plan.handover is Handover.SEAMLESS


def test_what_is_not_the_laptops_is_passed_on(tmp_path: Path) -> None:
    """Several ports, one by name, one of another container's; a headless Service."""
    workload = deployment()
    containers = workload["spec"]["template"]["spec"]["containers"]
    containers[0]["ports"].append({"name": "admin", "containerPort": 9000})
    containers[1]["ports"] = [{"name": "metrics", "containerPort": 9090}]
    ports = [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": "admin"},
             {"port": 82, "targetPort": "metrics"}]  # fmt: skip
    selector = {"app": "front"}
    services = (
        {"metadata": {"name": "front"}, "spec": {"selector": selector, "ports": ports}},
        {"metadata": {"name": "bare"},
         "spec": {"selector": selector, "clusterIP": "None", "ports": [{"port": 3000}]}},
        {"metadata": {"name": "elsewhere"},
         "spec": {"selector": selector, "ports": [{"port": 9000}]}},
    )  # fmt: skip
    pods = ({"metadata": {"name": "p"}, "status": {"podIP": "10.1.2.3"}},)
    plan = kept_plan(tmp_path, workload=workload, services=services, pods=pods)
    assert plan.way_back is not None
    name = "towline-original-5e551011"
    assert plan.way_back.passes == {
        3000: (f"{name}:3000", "10.1.2.3:3000"),
        9000: (f"{name}:9000", "10.1.2.3:9000"),
    }
    assert plan.way_back.service["spec"]["selector"] == selector
    pointed = [each.name for each in record_of(plan, since="", entry="", mode="").pointed]
    assert pointed == ["front", "bare"], "elsewhere has no port of the laptop's"
    assert {(p.service, p.port) for p in plan.ports} == {("front", 80), ("bare", 3000)}
    assert not any("9000" in warning for warning in plan.warnings)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": Kind.STATEFULSET}, "known by their names"),
        ({"services": ()}, "no Service leads to a `reverse` port"),
        ({"sharing": {"front": ("Deployment other",)}}, "leads to Deployment other, too"),
        ({"quota_error": "pods: 3"}, "the quota has no room"),
        ({"claims": {"data": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}, "claim data"),
        (
            {"services": ({**SERVICE, "spec": {**SERVICE["spec"], "ports": [
                {"port": 80, "targetPort": "http"}, {"port": 53, "protocol": "UDP"}]}},)},
            "UDP port 53, which the dev pod cannot pass on",
        ),
    ],
)  # fmt: skip
def test_an_original_that_cannot_be_kept_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TowlineError, match=re.escape(reason)) as refused:
        kept_plan(tmp_path, **changes)
    assert refused.value.hint


def test_network_policies_by_the_originals_labels_are_told(tmp_path: Path) -> None:
    front = {"podSelector": {"matchLabels": {"app": "front"}}}
    policies = (
        {"metadata": {"name": "own"}, "spec": front},
        {"metadata": {"name": "all"}, "spec": {"podSelector": {}}},
        {"metadata": {"name": "db"},
         "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [front]}]}},
        {"metadata": {"name": "shop"},
         "spec": {"podSelector": {"matchLabels": {"app": "shop"}},
                  "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, {"to": [front]}]}},
        {"metadata": {"name": "open"},
         "spec": {"podSelector": {"matchLabels": {"app": "shop"}},
                  "egress": [{"to": [{"podSelector": {}}]}, {}]}},
    )  # fmt: skip
    told = "\n".join(kept_plan(tmp_path, policies=policies).warnings)
    assert "NetworkPolicy own holds for the original and not for the dev pod" in told
    assert "NetworkPolicy db lets the original in by labels that the dev pod lacks" in told
    assert (
        "NetworkPolicy shop lets pods out to the original by labels that the dev pod lacks: "
        "their connections to the dev pod may be refused" in told
    )
    assert "NetworkPolicy all" not in told and "NetworkPolicy open" not in told


def test_without_a_guard_it_says_what_stays(tmp_path: Path) -> None:
    plan = kept_plan(tmp_path, guard_refused="no right")
    assert any(
        "the dev pod passes everything on to front, and stays with Service front pointed at it "
        "until somebody runs `towline down` (no right)" in warning
        for warning in plan.warnings
    )


def test_a_kept_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = record_of(kept_plan(tmp_path), since="now", entry="front", mode="hybrid")
    made = record_object(record)
    made["metadata"]["uid"] = "u"
    again = read_record(made)
    assert again.is_kept and again.pointed == record.pointed
    workload = deployment()
    note = restore_annotation(record, namespace="n")
    workload["metadata"]["annotations"] = {ANNOTATION_RESTORE: note}
    left = record_of_annotation(workload)
    assert left is not None and left.is_kept and left.pointed == record.pointed
    assert "kubectl -n n set selector service front app=front" in json.loads(note)["undo"]
