"""The laptop dies, or sleeps: the cluster gives back by itself, in two steps."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from typing import Any

import pytest

from .conftest import HERE, Node, Session, Towline, dump, free_port, page_server, wait_until
from .shapes import PYTHON_IMAGE, pod_spec, service, workload
from .test_shapes import given_back, start

pytestmark = pytest.mark.usefixtures("unchanged")
# Short for a test; the mechanism is the one that has minutes.
GIVE_BACK_S, KEEP_S = 6, 30


def guarded(
    towline: Towline, *words: str, give_back_s: int = GIVE_BACK_S, keep_s: int = KEEP_S
) -> Session:
    text = (towline.folder / "towline.yml").read_text()
    times = f"giveBackAfter: {give_back_s}s\nkeepFor: {keep_s}s\n"
    towline.manifest(times + text)
    session = towline.up("frontend", *words).serving()
    assert session.event("will-restore")["by_itself_after_s"] == give_back_s
    return session


def guard_runs(node: Node, namespace: str, session: str) -> None:
    name = f"deploy/towline-guard-{session}"
    wait = ["-n", namespace, "wait", "--for=condition=Available", name, "--timeout=60s"]
    node.kubectl(*wait)


def spec_replicas(node: Node, namespace: str) -> int:
    found = node.get("-n", namespace, "deploy", "frontend")
    return int(found["spec"]["replicas"])


def test_a_killed_client_is_given_back_in_two_steps(
    node: Node, namespace: str, towline: Towline
) -> None:
    before = dump(node, namespace)
    session = guarded(towline)
    guard_runs(node, namespace, session.id)
    session.end(signal.SIGKILL)
    assert spec_replicas(node, namespace) == 0
    wait_until("step one", lambda: spec_replicas(node, namespace) == 2, within_s=GIVE_BACK_S + 10)
    dev = node.get("-n", namespace, "deploy", "-l", f"towline.dev/session={session.id}")
    assert dev["items"], "dev pod and line wait for the laptop"
    wait_until(
        "it serves", lambda: "host: frontend-" in node.ask(namespace, "frontend"), within_s=90
    )
    wait_until(
        "step two", lambda: dump(node, namespace).keys() == before.keys(), within_s=KEEP_S + 15
    )

    def pods() -> str:
        return node.kubectl("-n", namespace, "get", "pods", "-o", "name")

    wait_until("its pods end", lambda: "towline" not in pods())


def test_a_laptop_that_wakes_up_takes_the_service_back_on_the_same_line(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = guarded(towline, keep_s=600)
    guard_runs(node, namespace, session.id)
    session.process.send_signal(signal.SIGSTOP)
    try:
        wait_until("the original", lambda: spec_replicas(node, namespace) == 2, within_s=30)
        wait_until(
            "it serves", lambda: "host: frontend-" in node.ask(namespace, "frontend"), within_s=90
        )
    finally:
        session.process.send_signal(signal.SIGCONT)
    wait_until("at 0 again", lambda: spec_replicas(node, namespace) == 0, within_s=10)
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    again = [e for e in session.events if e.get("stage") == "takeover"]
    assert "the original served meanwhile" in again[-1]["text"]
    assert not any(e["event"] == "pod-replaced" for e in session.events), "the same line"
    assert session.end() == 130
    assert "host: frontend-" in node.ask(namespace, "frontend")


def test_the_gate_opens_again_after_a_long_cut(
    node: Node, namespace: str, towline: Towline
) -> None:
    """The agent shuts it 30 s after the laptop was last heard: it stayed shut for ever."""
    session = towline.up("frontend", "--no-guard").serving()
    pod = session.event("stage-done", stage="dev pod")["text"].split()[0]

    def is_ready() -> bool:
        conditions = node.get("-n", namespace, "pod", pod)["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    assert is_ready()
    session.process.send_signal(signal.SIGSTOP)
    try:
        wait_until("the gate shuts", lambda: not is_ready(), within_s=50)
    finally:
        session.process.send_signal(signal.SIGCONT)
    wait_until("the gate opens", is_ready, within_s=10)
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))


def test_a_second_ctrl_c_gives_back_without_waiting_for_the_original(
    node: Node, elsewhere: Towline
) -> None:
    """It waited all the same: there are two waits on the way back."""
    namespace = elsewhere.namespace
    spec = pod_spec(PYTHON_IMAGE, command=["python3", "-m", "http.server", "8080"])
    spec["containers"][0]["readinessProbe"]["initialDelaySeconds"] = 20
    start(node, elsewhere, workload("Deployment", "slow", spec), service("slow"))
    before = dump(node, namespace)
    port = free_port()
    command = page_server(port)
    entry = {"mode": "hybrid", "reverse": [f"8080:{port}"], "command": command}
    elsewhere.manifest(json.dumps({"dev": {"slow": entry}}))
    session = elsewhere.up("slow").serving()
    session.process.send_signal(signal.SIGINT)
    session.event("waiting", stage="original")
    session.process.send_signal(signal.SIGINT)
    told = session.event("restored")["text"]
    assert told == "Deployment slow is back at 1; whether it is ready is not waited for"
    assert session.process.wait(timeout=10) == 130
    assert "readyReplicas" not in node.get("-n", namespace, "deploy", "slow")["status"]
    given_back(node, elsewhere, before)


def test_without_the_right_to_post_a_guard_that_is_said_before(
    node: Node, namespace: str, towline: Towline
) -> None:
    """`edit` may make no Role; as another user, by impersonation in a kubeconfig."""
    config: dict[str, Any] = json.loads(node.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"]["as"] = "editor"
    path = towline.home / "as-editor"
    path.write_text(json.dumps(config))
    bind = ["create", "rolebinding", "editor", "--clusterrole=edit", "--user=editor"]
    node.kubectl("-n", namespace, *bind)
    try:
        editor = replace(towline, kubeconfig=str(path))
        done = editor.run("plan", "frontend", "-n", namespace)
    finally:
        node.kubectl("-n", namespace, "delete", "rolebinding", "editor")
    assert done.returncode == 0, done.stderr
    assert "! no guard: if this laptop is gone, frontend stays at 0 until" in done.stdout
    assert "post the guard" not in done.stdout
