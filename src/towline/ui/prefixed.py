"""Lines of several services on one screen, each with its service's name before it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import click

from towline.ui.terminal import wants_colour

_COLOURS = ("cyan", "magenta", "green", "blue", "yellow")
# What outlives its command and holds the pipe does not hold us.
_REST_S = 1.0


def prefixes(names: Sequence[str], *, colour: bool) -> dict[str, str]:
    """What stands before the lines of each service."""
    width = max(map(len, names))
    plain = {name: f"{name.ljust(width)} │ " for name in names}
    if not colour:
        return plain
    return {
        name: click.style(plain[name], fg=_COLOURS[number % len(_COLOURS)])
        for number, name in enumerate(names)
    }


@contextmanager
def prefixed_output(name: str, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Descriptors for a command's stdout and stderr, shown on ours line by line.

    A line is shown when it ends; what has none is shown at the end.
    """
    readers: list[threading.Thread] = []
    written: list[int] = []
    try:
        for stream in (sys.stdout, sys.stderr):
            prefix = prefixes(names, colour=wants_colour(stream, os.environ))[name].encode()
            reading, writing = os.pipe()
            written.append(writing)
            lines = os.fdopen(reading, "rb")
            reader = threading.Thread(
                target=_show, args=(lines, stream.fileno(), prefix), name=name, daemon=True
            )
            reader.start()
            readers.append(reader)
        yield written[0], written[1]
    finally:
        for each in written:
            os.close(each)
        for reader in readers:
            reader.join(timeout=_REST_S)


def _show(lines: BinaryIO, out: int, prefix: bytes) -> None:
    with lines:
        for line in lines:
            whole = line if line.endswith(b"\n") else line + b"\n"
            # One write, or lines of two services would mix.
            try:
                os.write(out, prefix + whole)
            except OSError:
                continue  # nobody looks any more; the command is not to wait for that
