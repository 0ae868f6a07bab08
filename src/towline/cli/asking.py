"""Questions on the terminal that do not hold up the event loop, nor Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click


async def ask(question: str) -> bool:
    """Ask a question; yes is `y` or `yes`, anything else is no."""
    click.echo(f"{question} [y/N]: ", err=True, nl=False)
    answer = await _typed()
    if not answer:
        click.echo(err=True)
    return answer.strip().lower() in (b"y", b"yes")


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
