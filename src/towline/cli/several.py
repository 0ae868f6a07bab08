"""`towline up a b`: one screen, several sessions."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from towline.session.events import Events, Warned
from towline.session.several import Part, Several
from towline.ui.lines import JsonLines
from towline.ui.prefixed import prefixed_output, prefixes
from towline.ui.terminal import Terminal, wants_colour

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from towline.cluster.api import Api
    from towline.manifest.model import Entry
    from towline.session.options import Options

T = TypeVar("T")


async def up_several(
    entries: tuple[Entry, ...],
    *,
    options: Options,
    output: str,
    open_api: Callable[[], AbstractAsyncContextManager[Api]],
) -> int:
    """Take them into development; the first exit code that is not 0.

    Raises:
        TowlineError: one could not begin; the others are given back.
    """
    from towline.session.requests import signals
    from towline.session.run import develop

    names = [entry.name for entry in entries]
    one_at_a_time = asyncio.Lock()
    options = replace(
        options,
        ask=_in_turn(options.ask, one_at_a_time),
        offer=_in_turn(options.offer, one_at_a_time),
    )
    if options.terminal:
        text = (
            "the commands have no input from this terminal, which cannot be all of theirs: for a "
            "prompt or a debugger `towline up` one service alone"
        )
        Terminal()(Warned(text=text))
    with ExitStack() as outputs:
        parts = []
        for entry in entries:
            own = replace(options, terminal=False)
            if not options.keep_output:
                pipes = outputs.enter_context(prefixed_output(entry.name, names))
                own = replace(own, outputs=pipes)
            parts.append(Part(entry=entry, options=own, events=_shown(entry.name, names, output)))
        async with open_api() as api:
            several = Several(parts, develop=develop, api=api)
            with signals(several.end):
                return await several.run()


def _shown(name: str, names: list[str], output: str) -> Events:
    if output == "json":
        return JsonLines(service=name)
    return Terminal(prefix=prefixes(names, colour=wants_colour(sys.stderr, os.environ))[name])


def _in_turn(
    ask: Callable[[str], Coroutine[None, None, T]] | None, turn: asyncio.Lock
) -> Callable[[str], Coroutine[None, None, T]] | None:
    """One question at a time: there is one keyboard."""
    if ask is None:
        return None

    async def asked(question: str) -> T:
        async with turn:
            return await ask(question)

    return asked
