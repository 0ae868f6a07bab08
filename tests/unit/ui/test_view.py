"""Events → lines: what a person sees, snapshotted here in full."""

from __future__ import annotations

import io
import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis.strategies import builds, from_type, just, one_of, text

from towline.session import events as all_events
from towline.session.events import (
    Applied,
    Began,
    CommandEnded,
    CommandStarted,
    CommandStarting,
    EnvironmentChanged,
    Event,
    GateChanged,
    Holding,
    NetworkBack,
    NetworkLost,
    PathSynced,
    PodReplaced,
    Restored,
    Restoring,
    StageDone,
    TakenAnew,
    TakingAnew,
    Waiting,
    Warned,
    WillRestore,
)
from towline.ui.lines import JsonLines, event_of
from towline.ui.terminal import Terminal
from towline.ui.view import lines_for

SHOWN: list[tuple[Event, str]] = [
    (
        Began(session="4be1", entry="frontend", mode="hybrid", namespace="shop", context="dev"),
        "frontend · hybrid · namespace shop · context dev\n",
    ),
    (
        StageDone(stage="cluster", text="Deployment frontend, 2 replicas", seconds=0.084),
        " ✓ cluster      Deployment frontend, 2 replicas                            0.08 s\n",
    ),
    (
        StageDone(stage="takeover", text="original at 0", seconds=1.1),
        " ✓ takeover     original at 0                                              1.10 s\n",
    ),
    (
        WillRestore(by_itself_after_s=None),
        "   restore      when this ends (Ctrl-C), or `towline down` from anywhere\n",
    ),
    (
        WillRestore(by_itself_after_s=120.0),
        "   restore      when this ends (Ctrl-C), or by itself 2 min after this laptop is gone\n",
    ),
    (Applied(workload="frontend-towline"), ""),
    (Waiting(stage="dev pod", reason="no node for it"), " … dev pod      no node for it\n"),
    (PathSynced(path="a/b\x1b", to="container", is_gone=False), " · a/b� brought (container)\n"),
    (PathSynced(path="a/b", to="laptop", is_gone=True), " · a/b deleted (laptop)\n"),
    (Warned(text="a \x1b[2Jwarning"), " ! a �[2Jwarning\n"),
    (CommandStarting(command="yarn start"), "▶ yarn start\n"),
    (CommandStarted(pid=7), ""),
    (Holding(), ""),
    (
        CommandEnded(code=1, signal=None, session_goes_on=True),
        " ■ the command failed (exit code 1). r restarts it, q ends the session\n",
    ),
    (
        CommandEnded(code=None, signal=15, session_goes_on=False),
        " ■ the command ended (signal 15)\n",
    ),
    (GateChanged(is_open=True, ports=(8080,)), ""),
    (
        GateChanged(is_open=False, ports=(8080, 9000)),
        " ! nothing listens on localhost:8080, localhost:9000: the Service has no endpoint "
        "until it does\n",
    ),
    (
        EnvironmentChanged(object="ConfigMap web", names=("A", "B"), restarts=False),
        " ! ConfigMap web changed: A, B; in force when the command restarts\n",
    ),
    (
        EnvironmentChanged(
            object="Secret db", names=tuple(f"V{n}" for n in range(10)), restarts=True
        ),
        " ! Secret db changed: V0, V1, V2, V3, V4, V5, V6, V7 and 2 more; restarting the command\n",
    ),
    (NetworkLost(), " ! connection lost: connections wait, the process runs on\n"),
    (NetworkBack(after_s=12.34), " ✓ connection back after 12.3 s, nothing lost\n"),
    (
        PodReplaced(pod="frontend-towline-2", after_s=3.0),
        " ✓ dev pod      frontend-towline-2 stands in after 3.0 s; the process kept running\n",
    ),
    (
        TakingAnew(entry="api", reason="away for long", process_kept=False),
        " ! away for long: api is taken over anew; files, then the command\n",
    ),
    (TakenAnew(session="4be2"), ""),
    (Restoring(reason="Ctrl-C"), " ■ ending: Ctrl-C\n"),
    (
        Restored(text="Deployment frontend is back at 2", seconds=0.31),
        " ✓ restored     Deployment frontend is back at 2                           0.31 s\n",
    ),
]


@pytest.mark.parametrize(("event", "shown"), SHOWN, ids=lambda v: type(v).__name__)
def test_what_is_shown(event: Event, shown: str) -> None:
    stream = io.StringIO()
    Terminal(stream)(event)
    assert stream.getvalue() == shown


def test_every_event_is_in_the_list_above() -> None:
    assert {type(event) for event, _ in SHOWN} == set(get_args(Event))


@pytest.mark.parametrize("event", [event for event, _ in SHOWN], ids=lambda v: type(v).__name__)
def test_an_event_is_the_same_after_a_line_of_json(event: Event) -> None:
    import json

    stream = io.StringIO()
    JsonLines(stream)(event)
    line = stream.getvalue()
    assert line.endswith("\n") and line.count("\n") == 1
    assert event_of(json.loads(line)) == event


def test_events_of_a_newer_version_are_passed_over() -> None:
    assert event_of({"event": "invented"}) is None
    assert event_of({"event": "stage-done"}) is None
    assert event_of({"event": "command-started", "pid": 1, "new": True}) == CommandStarted(pid=1)


_ANY_EVENT = one_of(*[from_type(kind) for kind in get_args(all_events.Event)])


@given(one_of(_ANY_EVENT, builds(Warned, text=text()), just(NetworkLost())))
def test_nothing_from_outside_reaches_the_terminal_as_a_command(event: Event) -> None:
    for line in lines_for(event):
        controls = [c for c in line.text if unicodedata.category(c)[0] == "C" and c != "\t"]
        assert controls == []


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_passing_line_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = _Screen()
    show = Terminal(stream)
    show(Waiting(stage="dev pod", reason="pulling"))
    show(StageDone(stage="dev pod", text="running", seconds=1.0))
    first, _, second = stream.getvalue().partition("\r\033[K")
    assert first == " … dev pod      pulling"
    assert second.startswith(" ✓ dev pod      running")
