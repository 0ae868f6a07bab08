"""What others do to the original during a session."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .conftest import HERE, Node, Session, Towline, wait_until


def patched(
    node: Node, namespace: str, manager: str, patch: dict[str, Any], what: str = "deploy/frontend"
) -> None:
    words = ["patch", what, "--type=merge", f"--field-manager={manager}"]
    node.kubectl("-n", namespace, *words, "-p", json.dumps(patch))


def made_by(node: Node, namespace: str, manager: str, found: dict[str, Any]) -> None:
    """Make an object anew, or as it was, as somebody who has its manifest."""
    metadata = {k: v for k, v in found["metadata"].items() if k in ("name", "labels")}
    body = {**found, "metadata": metadata, "status": {}}
    words = ["apply", "--server-side", "--force-conflicts", f"--field-manager={manager}", "-f", "-"]
    node.kubectl("-n", namespace, *words, text=json.dumps(body))


def is_given_back(node: Node, namespace: str) -> None:
    """The original serves, and nothing of a session is left."""
    assert node.get("-n", namespace, "deploy", "frontend")["spec"]["replicas"] == 2
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))
    assert not node.get("-n", namespace, "cm", "-l", "towline.dev/kind=record")["items"]


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


def warnings(session: Session) -> str:
    return "\n".join(e.get("text", "") for e in session.events if e["event"] == "warned")


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
    is_given_back(node, namespace)


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


DEV = "deploy/frontend-towline"
AT_0 = json.dumps({"spec": {"replicas": 0}})


@pytest.mark.parametrize("original", ["replace", "keep"])
@pytest.mark.parametrize(
    ("words", "how"),
    [
        (["delete", DEV], "deleted by somebody"),
        (["delete", DEV, "--cascade=foreground", "--wait=false"], "deleted by somebody"),
        (["patch", DEV, "--field-manager=anna", "-p", AT_0], "scaled to 0 by anna"),
    ],
)
def test_a_dev_workload_that_is_taken_away_ends_the_session_with_the_name(
    node: Node, namespace: str, towline: Towline, words: list[str], how: str, original: str
) -> None:
    """Its pod was waited for 5 minutes, with the original at 0."""
    session = towline.up("frontend", "--original", original).serving()
    node.kubectl("-n", namespace, *words)
    assert session.process.wait(timeout=90) == 11, session.errors
    session.end()
    said = "".join(session.errors)
    which = "Deployment frontend-towline, which stands in for Deployment frontend,"
    assert f"{which} was {how}: the session ends" in said
    is_given_back(node, namespace)


def test_a_dev_workload_that_is_taken_away_before_it_serves_ends_the_session(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = towline.up("frontend", "--handover", "exclusive")
    session.event("applied")
    node.kubectl("-n", namespace, "delete", DEV)
    assert session.process.wait(timeout=90) == 11, session.errors
    session.end()
    assert "was deleted by somebody: the session ends" in "".join(session.errors)
    is_given_back(node, namespace)


def test_a_dev_workload_that_is_changed_is_told_of(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = towline.up("frontend").serving()
    patched(node, namespace, "anna", {"spec": {"replicas": 2}}, DEV)
    text = "Deployment frontend-towline was scaled to 2 by anna: only one pod gets anything"
    wait_until("scaled", lambda: text in warnings(session))
    note = {"metadata": {"annotations": {"note": "1"}}}
    patched(node, namespace, "ben", {"spec": {"replicas": 1, "template": note}}, DEV)
    text = "Deployment frontend-towline was changed by ben: another pod takes its place"
    wait_until("changed", lambda: text in warnings(session))
    session.event("pod-replaced")
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    assert session.end() == 130
    is_given_back(node, namespace)


@pytest.mark.parametrize(
    ("original", "spec", "told"),
    [
        (
            "replace",
            {"selector": {"app": "theirs"}},
            "Service frontend was pointed elsewhere by anna: left so, nothing comes here by it any "
            "more",
        ),
        (
            "keep",
            {"selector": {"app": "theirs", "towline.dev/session": None}},
            "Service frontend was pointed elsewhere by anna: left so",
        ),
        *(
            (
                original,
                {"ports": [{"name": "http", "port": 80, "targetPort": 9999}]},
                "Service frontend was changed by anna: its port 80 leads to 9999 and no more to "
                "3000; left so, the next `up` takes it",
            )
            for original in ("replace", "keep")
        ),
        ("replace", None, "Service frontend was deleted by somebody: nothing comes here by it"),
        ("keep", None, "Service frontend was deleted meanwhile: nothing of it will be put back"),
    ],
)
def test_a_service_that_leads_elsewhere_is_told_of_and_left_alone(
    node: Node,
    namespace: str,
    towline: Towline,
    original: str,
    spec: dict[str, Any] | None,
    told: str,
) -> None:
    service = ["-n", namespace, "service", "frontend"]
    before = node.get(*service)
    session = towline.up("frontend", "--original", original).serving()
    try:
        if spec is None:
            node.kubectl("-n", namespace, "delete", "service", "frontend")
        else:
            patched(node, namespace, "anna", {"spec": spec}, "service/frontend")
        wait_until("told", lambda: told in warnings(session))
        assert session.process.poll() is None
        if original == "replace":
            made_by(node, namespace, "ben", before)
            again = "Service frontend leads here again"
            wait_until("again", lambda: again in warnings(session))
            wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
            assert session.end() == 130
        else:
            theirs = [] if spec is None else [node.get(*service)["spec"]]
            assert session.end() == 130
            found = node.get("-n", namespace, "service")["items"]
            left = [each["spec"] for each in found if each["metadata"]["name"] == "frontend"]
            if spec is None or "selector" in spec:
                assert left == theirs, "anna's"
            else:
                assert left[0]["ports"] == theirs[0]["ports"], "anna's"
                assert left[0]["selector"] == before["spec"]["selector"], "ours, put back"
    finally:
        session.end()
        made_by(node, namespace, "ben", before)
    is_given_back(node, namespace)


@pytest.mark.parametrize("original", ["replace", "keep"])
def test_an_original_that_is_made_anew_is_told_of_and_left_alone(
    node: Node, namespace: str, towline: Towline, original: str
) -> None:
    workload = ["-n", namespace, "deploy", "frontend"]
    before = node.get(*workload)
    session = towline.up("frontend", "--original", original).serving()
    try:
        node.kubectl("-n", namespace, "delete", "deploy", "frontend")
        text = "Deployment frontend was deleted meanwhile: nothing of it will be put back"
        wait_until("deleted", lambda: text in warnings(session))
    finally:
        made_by(node, namespace, "anna", before)
    anew = "Deployment frontend was made anew by anna: left so"
    beside = ", it serves beside this laptop" if original == "replace" else ""
    wait_until("anew", lambda: anew + beside in warnings(session))
    uid = node.get(*workload)["metadata"]["uid"]
    assert session.process.poll() is None
    assert session.end() == 130
    found = node.get(*workload)["metadata"]
    assert found["uid"] == uid and "towline.dev/restore" not in found.get("annotations", {})
    is_given_back(node, namespace)


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (["delete"], "deleted by somebody"),
        (["patch", "--field-manager=anna", "-p", AT_0], "scaled to 0 by anna"),
    ],
)
def test_a_guard_that_is_taken_away_is_told_of(
    node: Node, namespace: str, towline: Towline, words: list[str], how: str
) -> None:
    session = towline.up("frontend").serving()
    guard = f"towline-guard-{session.id}"
    node.kubectl("-n", namespace, "wait", "--for=condition=Available", f"deploy/{guard}")
    node.kubectl("-n", namespace, words[0], f"deploy/{guard}", *words[1:])
    text = f"until somebody runs `towline down` (its Deployment was {how})"
    wait_until("no guard", lambda: text in warnings(session))
    assert session.end() == 130
    is_given_back(node, namespace)


@pytest.mark.parametrize(
    "words", [[], ["--handover", "exclusive"], ["--original", "keep"]], ids=" ".join
)
def test_an_end_from_elsewhere_is_not_taken_for_somebody_who_deletes(
    node: Node, namespace: str, towline: Towline, colleague: Towline, words: list[str]
) -> None:
    """`down` deletes the dev workload before the record by which the session knows of it."""
    session = towline.up("frontend", *words).serving()
    ended = colleague.run("down", "frontend", "-n", namespace, "--end-other-session")
    assert ended.returncode == 0, ended.stderr
    assert session.process.wait(timeout=60) == 0, session.errors
    assert session.event("restoring")["reason"].startswith("ended by colleague@")
    is_given_back(node, namespace)
