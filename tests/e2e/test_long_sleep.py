"""A laptop that sleeps for longer than `keepFor` finds its session over, and what it does then.

SIGSTOP is the sleep, and the settings are short; the guard and the clocks are the real ones.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .conftest import HERE, Node, Session, Towline, free_port, wait_until
from .test_guard import guard_runs, guarded, spec_replicas

pytestmark = pytest.mark.usefixtures("unchanged")


@contextmanager
def stopped(session: Session, *, for_at_least_s: float = 0.0) -> Iterator[None]:
    """The laptop sleeps while the block runs, and for so long."""
    session.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        yield
        wait_until(
            "the sleep's end",
            lambda: time.monotonic() - began > for_at_least_s,
            within_s=for_at_least_s + 1,
        )
    finally:
        session.process.send_signal(signal.SIGCONT)


@contextmanager
def sleeping(node: Node, namespace: str, session: Session) -> Iterator[None]:
    """The laptop sleeps until the guard has removed all of its session."""
    guard_runs(node, namespace, session)
    record = ["-n", namespace, "cm", "-l", "towline.dev/kind=record"]
    with stopped(session):
        wait_until("the end", lambda: not node.get(*record)["items"], within_s=40)
        yield


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


# Long enough for somebody to end the session before the guard does.
HAND_KEEPS_S = 25


def test_one_that_a_person_has_ended_meanwhile_is_not_taken_over_anew(
    node: Node, namespace: str, towline: Towline, colleague: Towline
) -> None:
    """It was, however deliberately it was ended: a `down` looked as the guard's end does."""
    session = guarded(towline, keep_s=HAND_KEEPS_S)
    guard_runs(node, namespace, session)
    with stopped(session, for_at_least_s=HAND_KEEPS_S + 2):
        down = colleague.run("down", "frontend", "-n", namespace, "--end-other-session")
        assert down.returncode == 0, down.stderr
    assert session.process.wait(timeout=60) == 0, "as of one that was awake"
    reasons = [e["reason"] for e in session.events if e["event"] == "restoring"]
    assert reasons == [f"ended by colleague@{HERE} (`towline down`)"]
    assert not [e for e in session.events if e["event"] == "taking-anew"]
    assert spec_replicas(node, namespace) == 2
    assert "host: frontend-" in node.ask(namespace, "frontend")


def test_one_that_a_person_has_ended_for_a_session_of_their_own_leaves_it_to_them(
    node: Node, namespace: str, towline: Towline, colleague: Towline
) -> None:
    session = guarded(towline, keep_s=HAND_KEEPS_S)
    guard_runs(node, namespace, session)
    port = free_port()
    towline.manifest(
        f"dev:\n  frontend:\n    mode: hybrid\n    reverse: 3000:{port}\n"
        f"    command: exec {sys.executable} -m http.server {port}\n"
    )
    with stopped(session, for_at_least_s=HAND_KEEPS_S + 2):
        theirs = colleague.up("frontend", "--end-other-session").serving()
    assert session.process.wait(timeout=60) == 0
    reasons = [e["reason"] for e in session.events if e["event"] == "restoring"]
    assert reasons == [f"ended by colleague@{HERE} (`towline up`)"]
    assert spec_replicas(node, namespace) == 0, "nothing of theirs is given back"
    assert theirs.end() == 130
