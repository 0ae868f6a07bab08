"""`towline up a b`: one screen, several sessions."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from towline.session.events import Event, Events, Warned
from towline.session.several import Part, Several
from towline.ui.lines import JsonLines
from towline.ui.prefixed import prefixed_output, prefixes
from towline.ui.terminal import Terminal, wants_colour

if TYPE_CHECKING:
    from towline.cluster.api import Api
    from towline.manifest.model import Entry
    from towline.session.options import Options

T = TypeVar("T")
Ask = Callable[[str], Coroutine[None, None, T]]


async def up_several(
    entries: tuple[Entry, ...],
    *,
    options: Options,
    shells: frozenset[str],
    output: str,
    open_api: Callable[[], AbstractAsyncContextManager[Api]],
) -> int:
    """Take them into development; the first exit code that is not 0.

    Args:
        shells: the names of those whose command would have been a shell.

    Raises:
        TowlineError: one could not begin; the others are given back.
    """
    from towline.session.requests import signals
    from towline.session.run import develop

    names = [entry.name for entry in entries]
    screen = _Screen()
    options = replace(
        options, ask=screen.for_questions(options.ask), offer=screen.in_turn(options.offer)
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
            events = screen.showing(_shown(entry.name, names, output))
            if entry.name in shells:
                text = (
                    "its command would be a shell, which needs a terminal of its own: the session "
                    f"holds, and `towline exec {entry.name}` opens one"
                )
                events(Warned(text=text))
            parts.append(Part(entry=entry, options=own, events=events))
        async with open_api() as api:
            several = Several(parts, develop=develop, api=api)
            with signals(several.end):
                return await several.run()


def _shown(name: str, names: list[str], output: str) -> Events:
    if output == "json":
        return JsonLines(service=name)
    return Terminal(prefix=prefixes(names, colour=wants_colour(sys.stderr, os.environ))[name])


class _Screen:
    """One keyboard and one screen: a question at a time, and nothing between it and its answer."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._is_asking = False
        self._held: list[tuple[Events, Event]] = []

    def showing(self, events: Events) -> Events:
        """The same, held while a question waits."""

        def show(event: Event) -> None:
            if self._is_asking:
                self._held.append((events, event))
            else:
                events(event)

        return show

    def for_questions(self, ask: Ask[bool] | None) -> Ask[bool] | None:
        """A question at a time, and what happens meanwhile is shown after it."""
        if ask is None:
            return None

        async def asked(question: str) -> bool:
            async with self._turn:
                self._is_asking = True
                try:
                    return await ask(question)
                finally:
                    self._is_asking = False
                    held, self._held = self._held, []
                    for events, event in held:
                        events(event)

        return asked

    def in_turn(self, offer: Ask[str] | None) -> Ask[str] | None:
        """An offer at a time."""
        if offer is None:
            return None

        async def offered(keys: str) -> str:
            async with self._turn:
                return await offer(keys)

        return offered
