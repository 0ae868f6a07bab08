"""`original: keep`: the original stays up, and the Services lead to the laptop and back."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from .conftest import HERE, Node, Session, Towline, dump, free_port, wait_until
from .loads import WHO, load_on
from .shapes import PYTHON_IMAGE, pod_spec, service, workload

pytestmark = pytest.mark.usefixtures("unchanged")


def kept(towline: Towline, *words: str, settings: str = "") -> Session:
    text = (towline.folder / "towline.yml").read_text()
    towline.manifest("original: keep\n" + settings + text)
    return towline.up("frontend", *words).serving()


def selector(node: Node, namespace: str) -> dict[str, str]:
    found: dict[str, str] = node.get("-n", namespace, "service", "frontend")["spec"]["selector"]
    return found


def replicas(node: Node, namespace: str) -> int:
    return int(node.get("-n", namespace, "deploy", "frontend")["spec"]["replicas"])


def test_the_service_leads_here_and_back_while_the_original_stays_up(
    node: Node, namespace: str, towline: Towline
) -> None:
    before = selector(node, namespace)
    session = kept(towline)
    assert selector(node, namespace) == {"towline.dev/session": session.id}
    assert replicas(node, namespace) == 2
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    text = session.event("stage-done", stage="takeover")["text"]
    assert "Service frontend leads here, the original stays up" in text
    assert session.end() == 130
    assert selector(node, namespace) == before
    assert (
        session.event("restored")["text"] == "Service frontend leads to Deployment frontend again"
    )
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))


def laptop_is_asked(node: Node, namespace: str) -> bool:
    return f"host: {HERE}" in node.ask(namespace, "frontend")


def original_is_asked(node: Node, namespace: str) -> bool:
    return "host: frontend-" in node.ask(namespace, "frontend")


def test_the_agent_fails_over_by_itself_and_the_guard_points_back(
    node: Node, namespace: str, towline: Towline
) -> None:
    before = dump(node, namespace)
    session = kept(towline, settings="giveBackAfter: 25s\nkeepFor: 45s\n")
    here = {"towline.dev/session": session.id}
    wait = ["-n", namespace, "wait", "--for=condition=Available", "--timeout=60s"]
    node.kubectl(*wait, f"deploy/towline-guard-{session.id}")
    session.process.send_signal(signal.SIGSTOP)
    try:
        # Nobody writes anything for this: the agent passes connections on.
        wait_until("the agent passes on", lambda: original_is_asked(node, namespace))
        assert selector(node, namespace) == here
        wait_until("the guard", lambda: selector(node, namespace) != here, within_s=60)
    finally:
        session.process.send_signal(signal.SIGCONT)
    wait_until("here again", lambda: selector(node, namespace) == here)
    wait_until("the laptop", lambda: laptop_is_asked(node, namespace))
    session.end(signal.SIGKILL)
    wait_until("all of it goes", lambda: dump(node, namespace).keys() == before.keys(), within_s=90)
    assert selector(node, namespace) == {"app": "frontend"}


def test_a_dev_pod_that_goes_is_not_asked_meanwhile(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = kept(towline)
    pod = session.event("stage-done", stage="dev pod")["text"].split()[0]
    node.kubectl("-n", namespace, "delete", "pod", pod, "--wait=false")
    session.event("pod-replaced", within_s=90)
    here = {"towline.dev/session": session.id}
    wait_until("here again", lambda: selector(node, namespace) == here)
    wait_until("the laptop", lambda: laptop_is_asked(node, namespace))
    assert session.end() == 130


SWITCHES = 20


def test_twenty_switches_under_load_lose_no_connection(node: Node, elsewhere: Towline) -> None:
    namespace, away = elsewhere.namespace, elsewhere.folder / "away"
    spec = pod_spec(PYTHON_IMAGE, command=["python3", "-c", WHO, "original", "8080", "/nowhere"])
    node.apply(workload("Deployment", "who", spec, replicas=2), service("who"), namespace=namespace)
    node.kubectl("-n", namespace, "wait", "--for=condition=Available", "deploy/who")
    local = free_port()
    entry = {"mode": "hybrid", "reverse": [f"8080:{local}"],
             "command": [sys.executable, "-c", WHO, "laptop", str(local), str(away)]}  # fmt: skip
    elsewhere.manifest(json.dumps({"original": "keep", "holdFor": "1s", "dev": {"who": entry}}))
    with load_on(node, namespace, "who") as load:
        load.next_answers_are("original")
        session = elsewhere.up("who").serving()
        for number in range(SWITCHES):
            load.next_answers_are("original" if number % 2 else "laptop")
            if number == SWITCHES - 2:
                session.process.send_signal(signal.SIGINT)
            elif number % 2 == 0:
                away.touch()
            elif number < SWITCHES - 2:
                away.unlink()
        session.end()
        asked, errors = load.ended()
    assert asked > 1000
    assert not errors
