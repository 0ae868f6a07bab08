"""`towline exec` and `towline run`: commands inside a running session."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from towline.cli.common import open_session_api, read_manifest
from towline.cli.common import run as run_async
from towline.errors import UsageError

if TYPE_CHECKING:
    from towline.session.local import LocalSession

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def split_service(words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """`[SERVICE] [-- COMMAND…]`: what is before `--`, and what is behind it.

    click keeps a `--` behind the first word and drops one that comes first.
    """
    if "--" in words:
        before, command = words[: words.index("--")], words[words.index("--") + 1 :]
    elif "--" in sys.argv:
        before, command = (), words
    else:
        before, command = words[:1], words[1:]
    options = [each for each in before[1:] if each.startswith("-")]
    if options:
        raise UsageError(
            f"no such option: {options[0]}",
            hint="the service's name is enough: the session is one of this machine's; a "
            "command's own options stand behind `--`",
        )
    if len(before) > 1:
        raise UsageError(f"one service at a time: {' '.join(before)}")
    return (before[0] if before else None), command


@click.command(
    "exec",
    context_settings=_PASS_ON,
    epilog="\b\nExamples:\n  towline exec frontend -- ls -l /app\n"
    "  towline exec                        a shell, where the image has one\n"
    "  tar c . | towline exec frontend -- tar x -C /tmp",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SERVICE] [-- COMMAND...]")
def exec_(words: tuple[str, ...]) -> int:
    """Run a command in the dev container, with a terminal if there is one."""
    service, command = split_service(words)
    return run_async(_exec(service, command))


async def _exec(service: str | None, command: tuple[str, ...]) -> int:
    from towline.session.attach import attached, pick_session
    from towline.transport.command import run_in_container

    session = pick_session(service)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    async with (
        open_session_api(session) as api,
        attached(session, api=api, events=_told(session)) as (line, ssh),
    ):
        return await run_in_container(ssh, command, terminal=terminal, is_lost=lambda: line.is_lost)


def _told(session: LocalSession) -> Callable[[object], None]:
    """One line when the network goes, and one when it is back."""
    from towline.line.line import Healed, Lost

    def tell(event: object) -> None:
        if isinstance(event, Lost):
            click.echo(
                f"! connection lost: the command runs on, and is waited for {session.keep_for_s:g} "
                "s long (keepFor); Ctrl-C ends the wait",
                err=True,
            )
        elif isinstance(event, Healed):
            click.echo(f"connection back after {event.after_s:.1f} s, nothing lost", err=True)

    return tell


@click.command(
    context_settings=_PASS_ON,
    epilog="\b\nExamples:\n  towline run -- npm test\n  towline run frontend -- env",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SERVICE] [-- COMMAND...]")
def run(words: tuple[str, ...]) -> int:
    """Run a command here, in the service's folder, with the session's environment."""
    service, command = split_service(words)
    if not command:
        raise UsageError("no command is given", hint="towline run -- COMMAND…")
    return run_async(_run(service, command))


def _tell_unseen(text: str) -> None:
    from towline.ui.view import printable

    click.echo(printable(f"not there for the command: {text}"), err=True)


async def _run(service: str | None, command: tuple[str, ...]) -> int:
    from towline.manifest.model import Command
    from towline.process import supervised
    from towline.session.asking import NotAnswering, environment_of, environment_read_anew
    from towline.session.attach import pick_session
    from towline.session.surroundings import Surroundings

    session = pick_session(service)
    manifest = read_manifest(Path(session.manifest))
    entry = manifest.entries[session.entry]
    try:
        made = await asyncio.to_thread(environment_of, session, entry)
    except NotAnswering:
        made = await environment_read_anew(session, entry, open_api=open_session_api)
    folder = entry.workdir or Path.cwd()
    surroundings = Surroundings.of_session(session.folder)
    values, _ = surroundings.environment(made.environment)
    async with supervised(
        command=Command(argv=command),
        env=values,
        cwd=folder,
        view=surroundings.view,
        on_unseen=_tell_unseen,
        terminal=sys.stdin.isatty() and os.isatty(2),
    ) as process:
        ending = await process.ended()
    return ending.exit_code
