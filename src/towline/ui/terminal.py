"""Lines on stderr, for people: colours and passing lines only where a terminal is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

import click

from towline.session.events import Event
from towline.ui.view import Line, Tone, lines_for

_STYLES: dict[Tone, dict[str, object]] = {
    "head": {"bold": True},
    "done": {"fg": "green"},
    "note": {"dim": True},
    "warning": {"fg": "yellow"},
    "command": {"fg": "cyan", "bold": True},
}


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Colours for a terminal, unless NO_COLOR (no-color.org) or TERM=dumb say otherwise."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    return bool(environ.get("FORCE_COLOR")) or stream.isatty()


class Terminal:
    """Shows events as they come. Call it with an event.

    Args:
        prefix: stands before each line; others write here, too, so none is written over.
    """

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, prefix: str = ""
    ) -> None:
        self._stream = stream or sys.stderr
        self._colour = wants_colour(self._stream, os.environ)
        self._overwrites = self._stream.isatty() and not prefix
        self._prefix = prefix
        self._passing = False
        self._quiet = quiet

    def __call__(self, event: Event) -> None:
        for line in lines_for(event):
            self.show(line)

    def show(self, line: Line) -> None:
        """Write one line, in place of a passing one."""
        if self._quiet and line.tone not in ("warning",):
            return
        text = line.text
        if line.mark:
            mark = click.style(line.mark, **_STYLES[line.tone]) if self._colour else line.mark  # type: ignore[arg-type]
            text = f" {mark} {self._styled(line)}" if line.tone != "command" else f"{mark} {text}"
        else:
            text = self._styled(line)
        before = "\r\033[K" if self._passing else ""
        self._passing = line.passing and self._overwrites
        end = "" if self._passing else "\n"
        try:
            self._stream.write(f"{before}{self._prefix}{text}{end}")
            self._stream.flush()
        except OSError:
            # The terminal is gone (SIGHUP comes too): the session still has to be ended
            # in order.
            self._passing = False

    def _styled(self, line: Line) -> str:
        if not self._colour or line.tone == "done":
            return line.text
        return click.style(line.text, **_STYLES[line.tone])  # type: ignore[arg-type]
