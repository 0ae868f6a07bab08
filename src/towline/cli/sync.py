"""`towline sync` and `towline sync resume`."""

from __future__ import annotations

import json
from typing import Any

import click

from towline.cli.common import output_option
from towline.errors import UsageError

_EPILOG = """\b
Examples:
  towline sync                             how the folders stand
  towline sync api -o json                 for programs
  towline sync resume                      go on after a halt; look at both folders first
  towline sync resume --accept-deletions   … and delete on the other side, too
"""


@click.command(epilog=_EPILOG)
@click.argument("words", nargs=-1, metavar="[resume] [SERVICE]")
@click.option(
    "--accept-deletions",
    is_flag=True,
    help="With resume: do on the other side the deletions that stopped the sync.",
)
@output_option
def sync(words: tuple[str, ...], accept_deletions: bool, output: str) -> None:
    """Show how the synced folders of a session stand, or go on after a halt."""
    from towline.session.attach import pick_session
    from towline.session.control_socket import ask

    resumes = words[:1] == ("resume",)
    service = words[resumes:]
    if len(service) > 1:
        raise UsageError(f"one service at a time: {' '.join(service)}")
    if accept_deletions and not resumes:
        raise UsageError("--accept-deletions is for `towline sync resume`")
    session = pick_session(service[0] if service else None)
    if session.mode != "sync":
        raise UsageError(f"{session.entry} is in {session.mode} mode: no folder is synced")
    if resumes:
        answer = ask(session.folder, "sync-resume", accept_deletions=accept_deletions)
    else:
        answer = ask(session.folder, "sync")
    if output == "json":
        click.echo(json.dumps(answer, indent=1))
        return
    from towline.ui.view import printable

    if resumes:
        for folder in answer["resumed"]:
            text = f"{folder} is looked at again; `towline sync` shows what came of it"
            click.echo(printable(text))
    else:
        for folder in answer["folders"]:
            for line in _lines(folder, session.entry):
                click.echo(printable(line))


def _lines(folder: dict[str, Any], entry: str) -> list[str]:
    lines = [f"{entry} · {folder['local']} ↔ {folder['remote']}"]
    paths = f", {folder['paths']} paths" if folder["paths"] is not None else ""
    lines.append(f"  {folder['stage']}{paths}")
    for halt in folder["halts"]:
        lines.append(f"  stopped     {halt['reason']}, {halt['side']}: {halt['text']}")
    if folder["foreign"]:
        lines.append(f"  container's {folder['foreign']} paths are its own, and stay there")
    if folder["conflicts"]:
        lines.append(f"  conflicts   {folder['conflicts']} since the session began")
        lines += [f"    {each['path']} → {each['kept']}" for each in folder["last_conflicts"][-10:]]
    if folder["not_synced"]:
        lines.append(f"  not synced  {folder['not_synced']}")
        lines += [
            f"    {each['path']} ({each['side']}): {each['reason']}"
            for each in folder["first_not_synced"][:10]
        ]
    return lines
