"""Questions on the terminal that do not hold up the event loop, nor Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from towline.ui.view import printable


async def ask(question: str) -> bool:
    """Ask a question; yes is `y` or `yes`, anything else is no."""
    return (await _answer(f"{question} [y/N]: ") or "").lower() in ("y", "yes")


async def choose(question: str, names: Sequence[str]) -> str | None:
    """Ask for one of some names, until it is one; None at the terminal's end."""
    while True:
        answer = await _answer(f"{question} ({', '.join(names)}): ")
        if answer is None or answer in names:
            return answer


async def _answer(prompt: str) -> str | None:
    # It has names of the cluster's in it.
    click.echo(printable(prompt), err=True, nl=False)
    answer = await _typed()
    if not answer:
        click.echo(err=True)
        return None
    return answer.decode(errors="replace").strip()


async def key(wanted: str) -> str:
    """Wait until one of some keys is pressed; the last of them stands for the terminal's end."""
    with _single_keys():
        while True:
            pressed = (await _typed()).decode(errors="replace").lower()
            if not pressed:
                return wanted[-1]
            if pressed[0] in wanted:
                return pressed[0]


async def _typed() -> bytes:
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[bytes] = loop.create_future()
    stdin = sys.stdin.fileno()

    def read() -> None:
        if not typed.done():
            try:
                typed.set_result(os.read(stdin, 1024))
            except OSError:  # the terminal is gone
                typed.set_result(b"")

    loop.add_reader(stdin, read)
    try:
        return await typed
    finally:
        loop.remove_reader(stdin)


@contextmanager
def _single_keys() -> Iterator[None]:
    import termios
    import tty

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
