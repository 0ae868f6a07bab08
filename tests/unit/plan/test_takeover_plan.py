"""The plan of a takeover: what is chosen, what is left as it is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from towline.errors import NotFound, TowlineError
from towline.manifest import load
from towline.manifest.model import Entry, Handover
from towline.payload.pieces import pieces, split, verify
from towline.plan.build import build_plan
from towline.plan.fields import REPLICAS, managers_put_back, owner_of
from towline.plan.model import ActionKind, Kind, Observed, Owner, Plan
from towline.plan.record import read_record, record_object, record_of
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
