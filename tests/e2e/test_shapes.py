"""Workloads of other shapes than the sample's, and clusters that have no room."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from .conftest import HERE, Node, Towline, dump, wait_until
from .shapes import (
    PYTHON_IMAGE,
    SCRATCH_IMAGE,
    here,
    load_scratch_image,
    pod_spec,
    service,
    workload,
)

_PYTHON_SERVER = ["python3", "-m", "http.server", "8080"]


def start(node: Node, towline: Towline, made: dict[str, Any], *others: dict[str, Any]) -> None:
    """Deploy a workload, and wait for its pods to be ready."""
    node.apply(*others, made, namespace=towline.namespace)
    name = f"{made['kind'].lower()}/{made['metadata']['name']}"
    wait_for = "--for=jsonpath={.status.readyReplicas}=" + str(made["spec"]["replicas"])
    node.kubectl("-n", towline.namespace, "wait", wait_for, name, "--timeout=60s")


def pod_names(node: Node, namespace: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in node.get("-n", namespace, "pods")["items"]]


def given_back(node: Node, towline: Towline, before: dict[str, Any]) -> None:
    """The namespace is as it was; the garbage collector takes a moment."""
    namespace = towline.namespace
    wait_until("nothing is left", lambda: dump(node, namespace).keys() == before.keys())
    assert dump(node, namespace) == before


def test_a_scratch_image_with_an_arbitrary_user_and_a_read_only_root(
    node: Node, elsewhere: Towline, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No shell, no tar, no libc; a user that no image knows, and no fsGroup."""
    load_scratch_image(node, tmp_path_factory.mktemp("scratch"))
    spec = pod_spec(SCRATCH_IMAGE, env=[{"name": "GREETING", "value": "from the spec"}])
    spec["securityContext"] = {**spec["securityContext"], "runAsUser": 1234567}
    start(node, elsewhere, workload("Deployment", "tiny", spec), service("tiny"))
    before = dump(node, elsewhere.namespace)
    wait_until("it", lambda: "uid: 1234567" in node.ask(elsewhere.namespace, "tiny"))
    elsewhere.manifest(here("tiny"))
    session = elsewhere.up("tiny").serving()
    wanted = f"here: {HERE} from the spec"
    wait_until("the laptop", lambda: node.ask(elsewhere.namespace, "tiny") == wanted)
    ran = elsewhere.run("exec", "tiny", "--", "sh")
    assert ran.returncode == 127, "there is no shell, and that is said"
    assert "sh" in ran.stderr
    assert session.end() == 130
    assert "uid: 1234567" in node.ask(elsewhere.namespace, "tiny")
    given_back(node, elsewhere, before)


@pytest.mark.parametrize("mode", ["hybrid", "sync"])
def test_the_agent_comes_from_an_image_where_that_is_wanted(
    node: Node, elsewhere: Towline, mode: str
) -> None:
    """No ConfigMap has it; guard, dev pod and what fills its folders all run the image's."""
    name, archive = "towline.local/agent:1", str(elsewhere.folder / "agent.tar")
    done = elsewhere.run("agent-image", archive, "--name", name)
    assert done.returncode == 0, done.stderr
    node.run("load", archive, "--name", node.name)
    spec = pod_spec(PYTHON_IMAGE, command=_PYTHON_SERVER)
    start(node, elsewhere, workload("Deployment", "web", spec), service("web"))
    before = dump(node, elsewhere.namespace)
    entry = {"mode": "sync", "sync": ["site:/site"], "workdir": "/site", "command": _PYTHON_SERVER}
    (elsewhere.folder / "site").mkdir()
    (elsewhere.folder / "site" / "index.html").write_text("from the laptop")
    text = here("web") if mode == "hybrid" else json.dumps({"dev": {"web": entry}})
    elsewhere.manifest(json.dumps({"agent": {"image": name}, **json.loads(text)}))
    session = elsewhere.up("web").serving()
    wanted = HERE if mode == "hybrid" else "from the laptop"
    wait_until("here", lambda: wanted in node.ask(elsewhere.namespace, "web"))
    for each in node.get("-n", elsewhere.namespace, "configmaps")["items"]:
        assert each["metadata"].get("labels", {}).get("towline.dev/kind") != "piece"
    guard = f"deploy/towline-guard-{session.id}"
    node.kubectl("-n", elsewhere.namespace, "wait", "--for=condition=Available", guard)
    assert session.end() == 130
    given_back(node, elsewhere, before)


def test_a_stateful_sets_pod_is_stood_in_for_with_its_name_and_claim(
    node: Node, elsewhere: Towline
) -> None:
    """`store-0.store` leads here, and what the claim holds is there in the dev pod."""
    spec = pod_spec(
        PYTHON_IMAGE,
        command=["sh", "-c", "date +%N >> /kept/starts; exec python3 -m http.server 8080"],
        volumeMounts=[{"name": "kept", "mountPath": "/kept"}],
        env=[{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        workingDir="/kept",
    )
    # The sandbox's provisioner makes folders for root alone.
    root = {"runAsNonRoot": False, "runAsUser": 0}
    spec["securityContext"] = {**spec["securityContext"], **root}
    enforce = "pod-security.kubernetes.io/enforce=baseline"
    node.kubectl("label", "--overwrite", "namespace", elsewhere.namespace, enforce)
    made = workload(
        "StatefulSet",
        "store",
        spec,
        serviceName="store",
        persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete", "whenDeleted": "Retain"},
        volumeClaimTemplates=[
            {
                "metadata": {"name": "kept"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Mi"}},
                },
            }
        ],
    )
    start(node, elsewhere, made, service("store", clusterIP="None"))
    before = dump(node, elsewhere.namespace)
    kubectl = ["-n", elsewhere.namespace, "exec", "store-0", "--", "cat", "/kept/starts"]
    first = node.kubectl(*kubectl)
    elsewhere.manifest(here("store"))
    session = elsewhere.up("store").serving()
    cluster = session.event("stage-done", stage="cluster")
    assert "a StatefulSet's pod is one of a kind" in cluster["text"]
    assert "store-0" not in pod_names(node, elsewhere.namespace), "the set would adopt it"
    asked = f"store-0.store.{elsewhere.namespace}.svc.cluster.local:8080"
    words = ["exec", "--name", node.name, "--", "curl", "-sS", "-m", "5", asked]
    wait_until("its own name", lambda: f"here: {HERE}" in node.run(*words, check=False))
    ran = elsewhere.run(
        "exec", "store", "--", "sh", "-c", "cat /etc/hostname; echo $NAME; cat starts"
    )
    assert ran.stdout == f"store-0\nstore-0\n{first}", "ordinal 0's identity and claim"
    session.end()
    wait_until("the set's own", lambda: "store-0" in pod_names(node, elsewhere.namespace))
    assert node.kubectl(*kubectl).startswith(first), "the claim outlived scaling to 0"
    given_back(node, elsewhere, before)


def test_where_no_node_has_room_for_both_the_original_stops_first(
    node: Node, elsewhere: Towline
) -> None:
    status = node.get("nodes")["items"][0]["status"]
    cores = int(status["allocatable"]["cpu"])
    spec = pod_spec(PYTHON_IMAGE, command=_PYTHON_SERVER)
    spec["containers"][0]["resources"] = {"requests": {"cpu": f"{cores * 550}m"}}
    start(node, elsewhere, workload("Deployment", "large", spec), service("large"))
    before = dump(node, elsewhere.namespace)
    elsewhere.manifest(here("large"))
    session = elsewhere.up("large")
    waits = session.event("waiting", stage="dev pod")
    assert "no node for it" in waits["reason"]
    assert "Insufficient cpu" in waits["reason"]
    session.serving()
    assert any("no room for the dev pod" in e.get("text", "") for e in session.events)
    wait_until("the laptop", lambda: f"here: {HERE}" in node.ask(elsewhere.namespace, "large"))
    session.end()
    given_back(node, elsewhere, before)


def test_a_pod_that_no_node_takes_ends_at_its_time_out_with_the_reason(
    node: Node, elsewhere: Towline
) -> None:
    spec = pod_spec(PYTHON_IMAGE, command=_PYTHON_SERVER)
    start(node, elsewhere, workload("Deployment", "picky", spec), service("picky"))
    before = dump(node, elsewhere.namespace)
    picky = {"nodeSelector": {"disk": "of-gold"}, "timeout": "4s"}
    elsewhere.manifest(here("picky", **picky))
    done = elsewhere.run("up", "picky", "-n", elsewhere.namespace, "--yes")
    assert done.returncode == 5, done.stderr
    assert "no node for it" in done.stderr
    assert "didn't match Pod's node affinity/selector" in done.stderr
    assert "`timeout:`" in done.stderr
    given_back(node, elsewhere, before)


def test_an_image_that_is_gone_is_named_and_given_back(node: Node, elsewhere: Towline) -> None:
    """The original runs from the node's copy, which is gone when the dev pod wants it."""
    name = "towline.local/passing:1"
    tag = ["exec", "--name", node.name, "--", "ctr", "images", "tag", "--force"]
    node.run(*tag, PYTHON_IMAGE, name)
    spec = pod_spec(name, command=_PYTHON_SERVER)
    start(node, elsewhere, workload("Deployment", "passing", spec), service("passing"))
    before = dump(node, elsewhere.namespace)
    node.run("exec", "--name", node.name, "--", "ctr", "images", "remove", name)
    elsewhere.manifest(here("passing"))
    done = elsewhere.run("up", "passing", "-n", elsewhere.namespace, "--yes")
    assert done.returncode == 5, done.stderr
    assert name in done.stderr
    given_back(node, elsewhere, before)


def test_the_namespace_is_deleted_during_a_session(node: Node, elsewhere: Towline) -> None:
    spec = pod_spec(PYTHON_IMAGE, command=_PYTHON_SERVER)
    doomed = workload("Deployment", "doomed", spec)
    start(node, elsewhere, doomed, service("doomed"))
    elsewhere.manifest(here("doomed"))
    session = elsewhere.up("doomed").serving()
    pid = session.event("command-started")["pid"]
    node.kubectl("delete", "namespace", elsewhere.namespace, "--wait=false")
    code = session.process.wait(timeout=60)
    assert code == 0, session.errors
    reason = session.event("restoring")["reason"]
    assert reason == f"namespace {elsewhere.namespace} is being deleted"
    assert "nothing of session" in session.events[-1]["text"]
    assert not any(line.startswith("towline:") for line in session.errors), session.errors
    assert subprocess.run(["kill", "-0", str(pid)], capture_output=True).returncode != 0
