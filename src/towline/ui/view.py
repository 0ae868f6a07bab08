"""Events → lines of text. [pure]"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Literal

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

Tone = Literal["head", "done", "note", "warning", "command"]
_STAGE_COLUMNS = 12
_TEXT_COLUMNS = 70


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its mark, its words, how it is meant. `passing` ones may be overwritten."""

    mark: str
    text: str
    tone: Tone
    passing: bool = False


def printable(text: str) -> str:
    """Text from outside, with nothing in it that a terminal would obey."""
    return "".join(c if c == "\t" or unicodedata.category(c)[0] != "C" else "�" for c in text)


def _padded(text: str, columns: int) -> str:
    return text + " " * max(columns - len(text), 0)


def _staged(stage: str, text: str, seconds: float | None = None) -> str:
    line = _padded(stage, _STAGE_COLUMNS) + " " + text
    return line if seconds is None else f"{_padded(line, _TEXT_COLUMNS)}  {seconds:.2f} s"


def lines_for(event: Event) -> list[Line]:
    """The lines that show an event; none for what is not worth one."""
    match event:
        case Began():
            where = [f"namespace {event.namespace}", f"context {event.context}"]
            text = " · ".join([event.entry, event.mode, *where])
            return [Line("", printable(text), "head")]
        case StageDone():
            text = _staged(event.stage, event.text, event.seconds)
            return [Line("✓", printable(text), "done")]
        case WillRestore():
            return [Line(" ", _staged("restore", _how_restored(event)), "note")]
        case Waiting():
            return [Line("…", printable(_staged(event.stage, event.reason)), "note", passing=True)]
        case Warned():
            return [Line("!", printable(event.text), "warning")]
        case PathSynced():
            done = "deleted" if event.is_gone else "brought"
            return [Line("·", printable(f"{event.path} {done} ({event.to})"), "note")]
        case CommandStarting():
            return [Line("▶", printable(event.command), "command")]
        case TakingAnew():
            then = "the process runs on" if event.process_kept else "files, then the command"
            text = f"{event.reason}: {event.entry} is taken over anew; {then}"
            return [Line("!", printable(text), "warning")]
        case CommandStarted() | Applied() | Holding() | TakenAnew():
            return []
        case CommandEnded():
            return _command_ended(event)
        case GateChanged():
            return _gate_changed(event)
        case EnvironmentChanged():
            return [_environment_changed(event)]
        case NetworkLost():
            return [Line("!", "connection lost: connections wait, the process runs on", "warning")]
        case NetworkBack():
            text = f"connection back after {event.after_s:.1f} s, nothing lost"
            return [Line("✓", text, "done")]
        case PodReplaced():
            then = "the process kept running" if event.process_kept else "files, then the command"
            text = f"{event.pod} stands in after {event.after_s:.1f} s; {then}"
            return [Line("✓", printable(_staged("dev pod", text)), "done")]
        case Restoring():
            return [Line("■", f"ending: {printable(event.reason)}", "note")]
        case Restored():
            return [Line("✓", printable(_staged("restored", event.text, event.seconds)), "done")]


def _how_restored(event: WillRestore) -> str:
    after_s = event.by_itself_after_s
    if after_s is None:
        return "when this ends (Ctrl-C), or `towline down` from anywhere"
    after = f"{after_s / 60:g} min" if after_s >= 60 else f"{after_s:g} s"
    return f"when this ends (Ctrl-C), or by itself {after} after this laptop is gone"


def _command_ended(event: CommandEnded) -> list[Line]:
    how = f"signal {event.signal}" if event.signal is not None else f"exit code {event.code}"
    if event.session_goes_on:
        text = f"the command failed ({how}). r restarts it, q ends the session"
        return [Line("■", text, "warning")]
    return [Line("■", f"the command ended ({how})", "note")]


_NAMES_SHOWN = 8


def _environment_changed(event: EnvironmentChanged) -> Line:
    names = ", ".join(event.names[:_NAMES_SHOWN])
    if len(event.names) > _NAMES_SHOWN:
        names += f" and {len(event.names) - _NAMES_SHOWN} more"
    then = "restarting the command" if event.restarts else "in force when the command restarts"
    return Line("!", printable(f"{event.object} changed: {names}; {then}"), "warning")


def _gate_changed(event: GateChanged) -> list[Line]:
    ports = ", ".join(f"{printable(event.where)}:{p}" for p in event.ports)
    if not ports or event.is_open:
        return []
    text = f"nothing listens on {ports}: the Service has no endpoint until it does"
    if event.original_serves:
        text = f"nothing listens on {ports}: the original serves until it does"
    return [Line("!", text, "warning")]
