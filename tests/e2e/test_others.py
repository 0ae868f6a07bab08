"""What others do to the original during a session."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .conftest import Node, Towline, wait_until


def patched(node: Node, namespace: str, manager: str, patch: dict[str, object]) -> None:
    words = ["patch", "deploy/frontend", "--type=merge", f"--field-manager={manager}"]
    node.kubectl("-n", namespace, *words, "-p", json.dumps(patch))


@contextmanager
def reverting(node: Node, namespace: str) -> Iterator[None]:
    """A controller that puts the replicas back every 3 s, as Argo CD's self-heal does."""
    ended = threading.Event()

    def put_back() -> None:
        while not ended.wait(3.0):
            patched(node, namespace, "argocd-controller", {"spec": {"replicas": 2}})

    loop = threading.Thread(target=put_back)
    loop.start()
    try:
        yield
    finally:
        ended.set()
        loop.join()


def warnings(session: object) -> str:
    return "\n".join(e.get("text", "") for e in session.events if e["event"] == "warned")  # type: ignore[attr-defined]


def test_a_controller_that_reverts_ends_the_session_with_its_name(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = towline.up("frontend").serving()
    with reverting(node, namespace):
        code = session.process.wait(timeout=60)
    assert code == 11, session.errors
    said = "".join(session.errors)
    assert "scaled back to 2 by argocd-controller twice" in said
    assert "ignoreDifferences" in said, "the remedy"
    assert "by argocd-controller: scaled to 0 once more" in warnings(session)
    session.end()
    assert node.get("-n", namespace, "deploy", "frontend")["spec"]["replicas"] == 2
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))
    records = ["-n", namespace, "cm", "-l", "towline.dev/kind=record"]
    assert not node.get(*records)["items"]


def test_a_person_who_scales_or_redeploys_is_told_of_and_left_alone(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = towline.up("frontend").serving()
    try:
        patched(node, namespace, "anna", {"spec": {"replicas": 3}})
        wait_until("scaled", lambda: "was scaled to 3 by anna: left so" in warnings(session))
        note = {"metadata": {"annotations": {"note": str(time.time())}}}
        patched(node, namespace, "ben", {"spec": {"template": note}})
        wait_until("changed", lambda: "was changed by ben: the dev pod is" in warnings(session))
        assert session.process.poll() is None
        assert node.get("-n", namespace, "deploy", "frontend")["spec"]["replicas"] == 3
        assert session.end() == 130
        found = node.get("-n", namespace, "deploy", "frontend")
        assert found["spec"]["replicas"] == 3, "anna's"
        assert found["spec"]["template"]["metadata"]["annotations"]["note"], "ben's"
    finally:
        back = {"metadata": {"annotations": {"note": None}}}
        patched(node, namespace, "ben", {"spec": {"replicas": 2, "template": back}})


def test_a_selector_that_is_put_back_twice_ends_the_session(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = towline.up("frontend", "--original", "keep").serving()
    service = ["-n", namespace, "service", "frontend"]
    here = {"towline.dev/session": session.id}
    back = {"spec": {"selector": {"app": "frontend", "towline.dev/session": None}}}
    patch = ["-n", namespace, "patch", "service/frontend", "--type=merge"]
    for _ in range(2):
        wait_until("here", lambda: node.get(*service)["spec"]["selector"] == here)
        node.kubectl(*patch, "--field-manager=argocd-controller", "-p", json.dumps(back))
    assert session.process.wait(timeout=90) == 11, session.errors
    session.end()
    said = "".join(session.errors)
    assert "pointed back by argocd-controller: pointed here once more" in warnings(session)
    assert "Service frontend was pointed back by argocd-controller twice" in said
    assert "jsonPointers [/spec/selector]" in said, "the remedy"
    assert node.get(*service)["spec"]["selector"] == {"app": "frontend"}
