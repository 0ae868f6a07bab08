"""The laptop dies, or sleeps: the cluster gives back by itself, in two steps."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from .conftest import HERE, Node, Session, Towline, dump, free_port, wait_until

pytestmark = pytest.mark.usefixtures("unchanged")
# Short for a test; the mechanism is the one that has minutes.
GIVE_BACK_S, KEEP_S = 6, 30


def guarded(towline: Towline, *, give_back_s: int = GIVE_BACK_S, keep_s: int = KEEP_S) -> Session:
    text = (towline.folder / "towline.yml").read_text()
    times = f"giveBackAfter: {give_back_s}s\nkeepFor: {keep_s}s\n"
    towline.manifest(times + text)
    session = towline.up("frontend").serving()
    assert session.event("will-restore")["by_itself_after_s"] == give_back_s
    return session


def guard_runs(node: Node, namespace: str, session: Session) -> None:
    name = f"deploy/towline-guard-{session.id}"
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
    guard_runs(node, namespace, session)
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
    guard_runs(node, namespace, session)
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


@contextmanager
def sleeping(node: Node, namespace: str, session: Session) -> Iterator[None]:
    """The laptop sleeps until the guard has removed all of its session."""
    guard_runs(node, namespace, session)
    session.process.send_signal(signal.SIGSTOP)
    record = ["-n", namespace, "cm", "-l", "towline.dev/kind=record"]
    try:
        wait_until("the end", lambda: not node.get(*record)["items"], within_s=40)
        yield
    finally:
        session.process.send_signal(signal.SIGCONT)


def test_one_that_sleeps_for_longer_takes_over_anew_below_the_same_process(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = guarded(towline, keep_s=12)
    pid = session.event("command-started")["pid"]
    with sleeping(node, namespace, session):
        wait_until("the original", lambda: spec_replicas(node, namespace) == 2)
    told = session.event("taking-anew")
    assert told["reason"] == "this laptop was away for longer than keepFor (12 s)"
    again = session.event("taken-anew")["session"]
    assert again != session.id
    wait_until("at 0 again", lambda: spec_replicas(node, namespace) == 0)
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    assert [e["pid"] for e in session.events if e["event"] == "command-started"] == [pid]
    status = json.loads(towline.run("status", "-n", namespace, "-o", "json").stdout)
    [row] = status["sessions"]
    assert (row["session"], row["command_pid"], row["here"]) == (again, pid, True)
    assert towline.run("env", "frontend").returncode == 0
    # What was built anew is guarded as the first was.
    node.kubectl("-n", namespace, "wait", "--for=condition=Available",
                 f"deploy/towline-guard-{again}", "--timeout=60s")  # fmt: skip
    done = towline.run("down", "frontend", "-n", namespace)
    assert done.returncode == 0, done.stderr
    assert session.process.wait(timeout=30) == 128 + signal.SIGTERM
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))


def test_one_that_sleeps_for_longer_leaves_the_service_to_who_has_it_by_then(
    node: Node, namespace: str, towline: Towline, colleague: Towline
) -> None:
    session = guarded(towline, keep_s=12)
    port = free_port()
    towline.manifest(
        f"dev:\n  frontend:\n    mode: hybrid\n    reverse: 3000:{port}\n"
        f"    command: exec {sys.executable} -m http.server {port}\n"
    )
    with sleeping(node, namespace, session):
        theirs = colleague.up("frontend").serving()
    assert session.process.wait(timeout=60) == 7
    reasons = [e["reason"] for e in session.events if e["event"] == "restoring"]
    assert reasons == ["away for longer than keepFor (12 s), and it cannot be taken over anew"]
    [error] = [line for line in session.errors if line.startswith("towline:")]
    assert f"is in development by colleague@{HERE}" in error and theirs.id in error
    assert spec_replicas(node, namespace) == 0, "nothing of theirs is given back"
    assert theirs.end() == 130


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
