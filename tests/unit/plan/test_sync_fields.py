"""Every field of a sync entry that is the dev pod's, from its text to the pod's spec."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.manifest.reading import read

from towline.errors import ManifestError
from towline.payload.pieces import pieces
from towline.plan.build import build_plan
from towline.plan.model import Kind, Observed, Owner, Plan

PROBE = {"httpGet": {"path": "/", "port": 1}}
CONTAINER = {
    "name": "main",
    "image": "own:1",
    "command": ["serve"],
    "env": [{"name": "A", "value": "own"}],
    "livenessProbe": PROBE,
    "startupProbe": PROBE,
    "readinessProbe": PROBE,
    "lifecycle": {"postStart": {"exec": {"command": ["warm"]}}, "preStop": {"sleep": {}}},
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
}


def plan_of(fields: str, container: dict[str, Any] | None = None) -> Plan:
    text = "dev:\n  web:\n    sync: .:/app\n" + "".join(
        f"    {line}\n" for line in fields.split("\n")
    )
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [CONTAINER, {"name": "side", "image": "s", **(container or {})}]},
    }
    workload = {"metadata": {"name": "web", "uid": "u"}, "spec": {"template": template}}
    return build_plan(
        read(text).entries["web"],
        Observed(context="c", namespace="n", kind=Kind.DEPLOYMENT, workload=workload),
        session="5e551011",
        owner=Owner(user="me", host="here"),
        parts=pieces(agent_gz=b"agent", starter=b"starter"),
        arch="amd64",
    )


def at(pod: dict[str, Any], path: str) -> Any:
    found: Any = pod
    for step in path.split("."):
        if step.isdigit():
            found = found[int(step)] if int(step) < len(found) else None
        else:
            found = found.get(step)
    return found


C = "spec.containers.0"


@pytest.mark.parametrize(
    ("fields", "path", "value"),
    [
        ("image: dev:1", f"{C}.image", "dev:1"),
        ("imagePullPolicy: Always", f"{C}.imagePullPolicy", "Always"),
        ("workdir: /app/src", f"{C}.workingDir", "/app/src"),
        ("environment: {B: s3cret}", f"{C}.env.0.name", "B"),
        ("environment: {B: s3cret}", f"{C}.env.0.valueFrom.secretKeyRef.key", "variable.0"),
        ("environment: {B: '1', A: '2'}", f"{C}.env.1.valueFrom.secretKeyRef.key", "variable.1"),
        ("environment: {A: '2'}", f"{C}.env.1", None),
        ("resources: {limits: {cpu: 2}}", f"{C}.resources.limits", {"memory": "1Gi", "cpu": "2"}),
        ("resources: {requests: {cpu: 2}}", f"{C}.resources.requests", {"cpu": "2"}),
        ("securityContext: {runAsUser: 7}", f"{C}.securityContext", {"runAsUser": 7}),
        (
            "securityContext: {capabilities: {add: [SYS_PTRACE]}}",
            f"{C}.securityContext.capabilities",
            {"add": ["SYS_PTRACE"]},
        ),
        ("securityContext: {fsGroup: 7}", "spec.securityContext", {"fsGroup": 7}),
        ("serviceAccount: dev", "spec.serviceAccountName", "dev"),
        ("nodeSelector: {disk: fast}", "spec.nodeSelector.disk", "fast"),
        ("tolerations: [{key: gpu}]", "spec.tolerations", [{"key": "gpu"}]),
        ("affinity: {nodeAffinity: {}}", "spec.affinity", {"nodeAffinity": {}}),
        ("priorityClassName: high", "spec.priorityClassName", "high"),
        ("metadata: {labels: {team: a}}", "metadata.labels.team", "a"),
        ("metadata: {annotations: {note: a}}", "metadata.annotations.note", "a"),
        ("annotations: {note: a}", "metadata.annotations.note", "a"),
        ("externalVolumes: ['data:/data']", f"{C}.volumeMounts.3.mountPath", "/data"),
        ("externalVolumes: ['data:sub:/data']", f"{C}.volumeMounts.3.subPath", "sub"),
        ("probes: {liveness: true}", f"{C}.livenessProbe", PROBE),
        ("probes: true", f"{C}.startupProbe", PROBE),
        ("probes: true", f"{C}.readinessProbe.httpGet.path", "/towline/ready"),
        ("healthchecks: true", f"{C}.livenessProbe", PROBE),
        ("command: x", f"{C}.livenessProbe", None),
        ("command: x", f"{C}.lifecycle", None),
        ("lifecycle: true", f"{C}.lifecycle", CONTAINER["lifecycle"]),
        ("lifecycle: {preStop: true}", f"{C}.lifecycle", {"preStop": {"sleep": {}}}),
        (
            "lifecycle: {postStart: {command: [warm, up]}}",
            f"{C}.lifecycle.postStart.exec.command",
            ["warm", "up"],
        ),
        (
            "lifecycle: {postStart: {command: warm && up}}",
            f"{C}.lifecycle.postStart.exec.command",
            ["sh", "-c", "warm && up"],
        ),
        ("container: side", "spec.containers.1.command", ["/towline/boot/starter"]),
        ("container: side", f"{C}.command", ["serve"]),
    ],
)  # fmt: skip
def test_a_field_is_where_kubernetes_reads_it(fields: str, path: str, value: Any) -> None:
    template = plan_of(fields).dev_workload["spec"]["template"]
    assert at(template, path) == value


def test_the_agents_port_can_be_chosen() -> None:
    assert plan_of("sshServerPort: 2222").agent_ports.line == 2222
    assert plan_of("sshServerPort: 48223").agent_ports.gate == 48222


def test_a_probe_that_stays_is_told_and_readiness_is_the_gate() -> None:
    told = "\n".join(plan_of("probes: true").warnings)
    assert "livenessProbe and startupProbe stay on" in told
    assert "readiness is the gate" in told
    assert "stay on" not in "\n".join(plan_of("command: x").warnings)


def test_a_claim_is_an_action_that_down_does_not_undo() -> None:
    plan = plan_of("volumes: [/cache]\npersistentVolume: {size: 3Gi, accessMode: ReadWriteMany}")
    (action,) = (each for each in plan.actions if each.kind == "create-claim")
    assert "keep claim" in action.undo
    assert plan.claim is not None
    assert plan.claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert plan.claim["metadata"]["annotations"]["towline.dev/owner"] == "me@here"
    with pytest.raises(ManifestError, match="Block holds no folders"):
        plan_of("persistentVolume: {volumeMode: Block}")
