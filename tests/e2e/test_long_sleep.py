"""A laptop that sleeps for longer than `keepFor` finds its session over, and what it does then.

SIGSTOP of the client and all that it has started is the sleep, and the settings are short; the
guard and the clocks are the real ones.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from fakes.badserver import BadServer
from fakes.netfault import FaultyNetwork

from .chaos import signal_all
from .conftest import HERE, Node, Session, Towline, dump, free_port, wait_until
from .shapes import PYTHON_IMAGE, pod_spec, service, workload
from .test_guard import guard_runs, guarded, spec_replicas
from .test_network import REFUSED, GoesAway
from .test_shapes import given_back, start
from .ways import Loop, Network, through_server

unchanged = pytest.mark.usefixtures("unchanged")
SESSION = "towline.dev/session"


@contextmanager
def stopped(session: Session, *, for_at_least_s: float = 0.0) -> Iterator[None]:
    """The laptop sleeps while the block runs, and for so long."""
    signal_all(session, signal.SIGSTOP)
    began = time.monotonic()
    try:
        yield
        wait_until(
            "the sleep's end",
            lambda: time.monotonic() - began > for_at_least_s,
            within_s=for_at_least_s + 1,
        )
    finally:
        signal_all(session, signal.SIGCONT)


@contextmanager
def sleeping(node: Node, namespace: str, session: Session) -> Iterator[None]:
    """The laptop sleeps until the guard has removed all of its session."""
    guard_runs(node, namespace, session.id)
    record = ["-n", namespace, "cm", "-l", "towline.dev/kind=record"]
    with stopped(session):
        wait_until("the end", lambda: not node.get(*record)["items"], within_s=40)
        yield


@unchanged
def test_one_that_sleeps_for_longer_takes_over_anew_below_the_same_process(
    node: Node, namespace: str, towline: Towline, network: Network
) -> None:
    session = guarded(network.person, keep_s=12)
    pid = session.event("command-started")["pid"]
    with sleeping(node, namespace, session):
        network.do(FaultyNetwork.freeze)
        wait_until("the original", lambda: spec_replicas(node, namespace) == 2)
    # The Wi-Fi comes back a moment after the laptop, and its old connections do not.
    network.do(FaultyNetwork.reset)
    network.do(FaultyNetwork.thaw)
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
    guard_runs(node, namespace, again)
    done = towline.run("down", "frontend", "-n", namespace)
    assert done.returncode == 0, done.stderr
    assert session.process.wait(timeout=30) == 128 + signal.SIGTERM
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))


@unchanged
@pytest.mark.parametrize("at", [("POST", "/configmaps"), ("POST", "/secrets")])
def test_an_api_server_that_goes_away_once_more_while_it_takes_over_anew_is_waited_for(
    node: Node, namespace: str, towline: Towline, token: str, loop: Loop, at: tuple[str, str]
) -> None:  # fmt: skip
    with through_server(BadServer, towline, token=token, loop=loop) as (bad, person):
        session = guarded(person, keep_s=12)
        with sleeping(node, namespace, session):
            bad.decide = away = GoesAway(*at)
        session.event("taken-anew")
        assert away.refused == REFUSED
        wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
        assert session.end() == 130


@unchanged
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


@unchanged
def test_one_that_a_person_has_ended_meanwhile_is_not_taken_over_anew(
    node: Node, namespace: str, towline: Towline, colleague: Towline
) -> None:
    """It was, however deliberately it was ended: a `down` looked as the guard's end does."""
    session = guarded(towline, keep_s=HAND_KEEPS_S)
    guard_runs(node, namespace, session.id)
    with stopped(session, for_at_least_s=HAND_KEEPS_S + 2):
        down = colleague.run("down", "frontend", "-n", namespace, "--end-other-session")
        assert down.returncode == 0, down.stderr
    assert session.process.wait(timeout=60) == 0, "as of one that was awake"
    reasons = [e["reason"] for e in session.events if e["event"] == "restoring"]
    assert reasons == [f"ended by colleague@{HERE} (`towline down`)"]
    assert not [e for e in session.events if e["event"] == "taking-anew"]
    assert spec_replicas(node, namespace) == 2
    assert "host: frontend-" in node.ask(namespace, "frontend")


@unchanged
def test_one_that_a_person_has_ended_for_a_session_of_their_own_leaves_it_to_them(
    node: Node, namespace: str, towline: Towline, colleague: Towline
) -> None:
    session = guarded(towline, keep_s=HAND_KEEPS_S)
    guard_runs(node, namespace, session.id)
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


def selector(node: Node, namespace: str) -> dict[str, str]:
    found: dict[str, str] = node.get("-n", namespace, "service", "frontend")["spec"]["selector"]
    return found


@unchanged
def test_with_original_keep_the_services_lead_here_anew(
    node: Node, namespace: str, towline: Towline
) -> None:
    before = selector(node, namespace)
    towline.manifest("original: keep\n" + (towline.folder / "towline.yml").read_text())
    session = guarded(towline, keep_s=12)
    pid = session.event("command-started")["pid"]
    with sleeping(node, namespace, session):
        assert selector(node, namespace) == before
        wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))
    again = session.event("taken-anew")["session"]
    wait_until("it leads here", lambda: selector(node, namespace) == {SESSION: again})
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    assert spec_replicas(node, namespace) == 2, "the original stays up"
    assert [e["pid"] for e in session.events if e["event"] == "command-started"] == [pid]
    # It is followed as the first one was: the agent's way back, and the guard.
    guard_runs(node, namespace, again)
    with stopped(session):
        wait_until("the guard", lambda: selector(node, namespace) == before, within_s=30)
    wait_until("here again", lambda: selector(node, namespace) == {SESSION: again})
    assert session.end() == 130
    assert selector(node, namespace) == before
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))


@unchanged
def test_an_exclusive_handover_stops_the_original_first_once_more(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = guarded(towline, "--handover", "exclusive", keep_s=12)
    pid = session.event("command-started")["pid"]
    with sleeping(node, namespace, session):
        wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))
    again = session.event("taken-anew")["session"]
    wait_until("at 0 again", lambda: spec_replicas(node, namespace) == 0)
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    assert [e["pid"] for e in session.events if e["event"] == "command-started"] == [pid]
    # A sleep of the shorter kind, which the next session has to survive like any other.
    guard_runs(node, namespace, again)
    with stopped(session):
        wait_until("step one", lambda: spec_replicas(node, namespace) == 2, within_s=30)
    wait_until("at 0 once more", lambda: spec_replicas(node, namespace) == 0)
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    assert session.end() == 130
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))


def test_services_beside_an_entry_are_taken_over_anew_too(node: Node, elsewhere: Towline) -> None:
    namespace = elsewhere.namespace
    pages = ["python3", "-m", "http.server", "8080"]
    spec = pod_spec(PYTHON_IMAGE, command=pages, workingDir="/app")
    for name in ("thing", "worker"):
        start(node, elsewhere, workload("Deployment", name, spec), service(name))
    before = dump(node, namespace)
    page = elsewhere.folder / "src/index.html"
    page.parent.mkdir()
    page.write_text("first")
    made = {
        "sync": ["./src:/app"],
        "workdir": "/app",
        "command": pages,
        "services": [{"name": "worker"}],
    }
    settings = {"giveBackAfter": "6s", "keepFor": "12s"}
    elsewhere.manifest(yaml.safe_dump({**settings, "dev": {"thing": made}}))
    session = elsewhere.up("thing").serving()

    def answers() -> set[str]:
        return {node.ask(namespace, name, "/index.html") for name in ("thing", "worker")}

    def records() -> set[str]:
        found = node.get("-n", namespace, "cm", "-l", "towline.dev/kind=record")["items"]
        return {str(each["metadata"]["labels"][SESSION]) for each in found}

    wait_until("both", lambda: answers() == {"first"}, within_s=60)
    first = records()
    assert len(first) == 2
    for each in first:
        guard_runs(node, namespace, each)
    with stopped(session):
        wait_until("the end of both", lambda: not records(), within_s=60)
        page.write_text("asleep")
    session.event("taken-anew")
    wait_until("both again", lambda: answers() == {"asleep"}, within_s=90)
    again = records()
    assert len(again) == 2 and not again & first
    assert session.end() == 130
    assert not [e for e in session.events if "not given back" in e.get("text", "")]
    given_back(node, elsewhere, before)
