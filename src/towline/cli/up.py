"""`towline up`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from towline.cli.common import (
    cluster_options,
    has_terminal,
    manifest_option,
    open_api,
    output_option,
    pick_entries,
    read_manifest,
    run,
)
from towline.cli.completing import manifest_entries
from towline.errors import UsageError

if TYPE_CHECKING:
    from towline.cluster.api import Api
    from towline.manifest.model import Entry
    from towline.session.events import Events
    from towline.session.options import Options

_EPILOG = """\b
Examples:
  towline up                         the manifest's only service
  towline up frontend                the service named
  towline up frontend -- npm test    another command in its place
  towline up api --mode hybrid       run here what the manifest runs in the cluster
  towline up api --env LEVEL=debug   with a variable of one's own
  towline up api --dry-run           what would go over, what is ignored
  towline up frontend --detach       in the background; then status, logs, down
  towline up frontend api            both, until the last has ended or Ctrl-C


Several services begin together or not at all; after that each goes by itself. Their
lines have the service's name before them, no command has the terminal's input, and
the exit code is the first that is not 0.
"""


class _Up(click.Command):
    """What stands behind `--` is the command, also where no service is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:at])
        ctx.params["command"] = tuple(args[at + 1 :])
        return rest


@click.command(cls=_Up, epilog=_EPILOG)
@click.argument(
    "services", nargs=-1, metavar="[SERVICE]... [-- COMMAND...]", shell_complete=manifest_entries
)
@manifest_option
@cluster_options
@output_option
@click.option("--mode", type=click.Choice(["hybrid", "sync"]), help="Override the manifest's mode.")
@click.option(
    "--handover",
    type=click.Choice(["seamless", "exclusive"]),
    help="Whether the original goes on until the dev pod is ready.",
)
@click.option(
    "--original",
    type=click.Choice(["replace", "keep"]),
    help="Whether the original stops, or stays up beside the dev pod.",
)
@click.option("-e", "--env", "variables", multiple=True, metavar="K=V", help="Set a variable.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before the first takeover.")
@click.option("--end-other-session", is_flag=True, help="End the session that has the workload.")
@click.option(
    "--exit-with-command", is_flag=True, help="End the session when the command fails, too."
)
@click.option(
    "--no-guard", is_flag=True, help="Post nothing that gives back when this machine dies."
)
@click.option(
    "--restart-on-change",
    is_flag=True,
    help="Restart the command when a ConfigMap or Secret of its environment changes.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show what the first sync would bring over; change nothing."
)
@click.option("-d", "--detach", is_flag=True, help="Run in the background.")
@click.option(
    "--wait",
    type=click.Choice(["ready", "started"]),
    default="ready",
    help="With --detach: return when the service is here, or sooner.",
)
def up(
    services: tuple[str, ...],
    command: tuple[str, ...],
    file: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    output: str,
    mode: str | None,
    handover: str | None,
    original: str | None,
    variables: tuple[str, ...],
    yes: bool,
    end_other_session: bool,
    exit_with_command: bool,
    no_guard: bool,
    restart_on_change: bool,
    dry_run: bool,
    detach: bool,
    wait: str,
) -> int:
    """Take a service into development: its process here, or its files there.

    In hybrid mode the service's process runs on this machine with its container's
    environment, and the app in the cluster reaches it as if it ran there. In sync mode
    (the default) it runs in the cluster, in the dev container, and files follow from
    here. A takeover is for everyone in the namespace. Ctrl-C, `towline down`, or the
    command's end gives the cluster back.
    """
    manifest = read_manifest(file, mode=mode)
    is_detached = bool(os.environ.pop("TOWLINE_DETACHED", ""))
    picked = pick_entries(manifest, services, choose=output == "text")
    if len(picked) > 1 and (command or dry_run):
        what = "a command behind `--`" if command else "--dry-run"
        raise UsageError(f"{what} is for one service, and {len(picked)} are named")
    entries = tuple(
        changed(
            entry,
            command=command,
            handover=handover,
            has_terminal=not detach and not is_detached and len(picked) == 1,
            original=original,
        )
        for entry in picked
    )
    if restart_on_change and any(entry.mode == "sync" for entry in entries):
        raise UsageError(
            "--restart-on-change: in sync mode the variables are the container's, which has "
            "them from its start",
            hint="end the session and `towline up` again for new values",
        )
    if dry_run:
        from towline.cli.preview import show

        return show(entries[0], output=output)
    from towline.cli.asking import ask, key

    interactive = has_terminal() and output == "text"
    if detach:
        from towline.cli.detach import detached

        return detached(entries, wait=wait, output=output, ask=ask if interactive else None)
    from towline.session.options import Options

    options = Options(
        manifest=manifest.path,
        kubeconfig=str(kubeconfig or os.environ.get("KUBECONFIG", "")),
        variables=tuple(pair(text) for text in variables),
        ask=ask if interactive else None,
        offer=key if interactive else None,
        assume_yes=yes,
        end_other_session=end_other_session,
        exit_with_command=exit_with_command,
        no_guard=no_guard,
        restart_on_change=restart_on_change,
        terminal=interactive,
        keep_output=is_detached,
    )
    for notice in manifest.notices:
        from towline.session.events import Warned

        shown(output)(Warned(text=notice))
    way = partial(open_api, kubeconfig=kubeconfig, context=context, namespace=namespace)
    if len(entries) > 1:
        from towline.cli.several import up_several

        dropped = zip(picked, entries, strict=True)
        shells = frozenset(
            was.name
            for was, now in dropped
            if was.mode == "sync" and was.command and not now.command
        )
        return run(up_several(entries, options=options, shells=shells, output=output, open_api=way))
    return run(_up(entries[0], options=options, events=shown(output), open_api=way))


def shown(output: str) -> Events:
    """Where events are shown."""
    from towline.ui.lines import JsonLines
    from towline.ui.terminal import Terminal

    return JsonLines() if output == "json" else Terminal()


def changed(
    entry: Entry,
    *,
    command: tuple[str, ...],
    handover: str | None,
    has_terminal: bool,
    original: str | None = None,
) -> Entry:
    """The entry with what the command line says laid over it."""
    from towline.manifest.model import Command, Handover, Mode, Original
    from towline.session.sync_entry import has_default_command

    if command:
        entry = replace(entry, command=Command(argv=command))
    elif not has_terminal and entry.mode is Mode.SYNC and has_default_command(entry):
        # A shell that nobody can type into ends at once: the session waits for `exec`.
        entry = replace(entry, command=None)
    if handover is not None:
        entry = replace(entry, settings=replace(entry.settings, handover=Handover(handover)))
    if original is not None:
        entry = replace(entry, settings=replace(entry.settings, original=Original(original)))
    return entry


def pair(text: str) -> tuple[str, str]:
    """`K=V`, or `K` for the laptop's own value."""
    name, equals, value = text.partition("=")
    if not name or "\0" in text:
        raise UsageError(f"-e {text!r}: K=V is expected")
    return name, value if equals else os.environ.get(name, "")


async def _up(
    entry: Entry,
    *,
    options: Options,
    events: Events,
    open_api: Callable[[], AbstractAsyncContextManager[Api]],
) -> int:
    from towline.session.requests import Requests, signals
    from towline.session.run import develop

    requests = Requests()
    with signals(requests.end):
        try:
            async with open_api() as api:
                return await develop(
                    entry, api=api, options=options, events=events, requests=requests
                )
        except asyncio.CancelledError:
            if requests.reason is None:
                raise
            return 128 + requests.signal if requests.signal else 0
