"""`towline env`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from towline.cli.common import open_session_api, read_manifest, run

if TYPE_CHECKING:
    from towline.environ.policy import LocalEnvironment


@click.command(
    epilog="\b\nExamples:\n  towline env frontend --format dotenv > .env.local\n"
    "  towline env --explain PORT",
)
@click.argument("service", required=False)
@click.option(
    "-o",
    "--format",
    "form",
    type=click.Choice(["dotenv", "json", "sh"]),
    default="dotenv",
    help="How it is printed; json is name → value.",
)
@click.option("--explain", "explain", is_flag=True, help="Say where each value comes from.")
def env(service: str | None, form: str, explain: bool) -> None:
    """Print the environment that the local process gets, of a running session."""

    made = run(_environment(service))
    values = {
        name.decode(errors="surrogateescape"): value.decode(errors="surrogateescape")
        for name, value in sorted(made.values.items())
    }
    if explain:
        _explain(made)
    elif form == "json":
        click.echo(json.dumps(values, indent=1))
    else:
        for name, value in values.items():
            quoted = shlex.quote(value) if form == "sh" else _dotenv(value)
            click.echo(f"{'export ' if form == 'sh' else ''}{name}={quoted}")


def _dotenv(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r") + '"'


def _explain(made: LocalEnvironment) -> None:

    for name, source in sorted(made.origins.items()):
        text = f"{name.decode(errors='replace')}: {source.origin.value}"
        if source.reason.value != "highest":
            text += f" ({source.reason.value})"
        if source.over:
            text += f", over {', '.join(o.value for o in source.over)}"
        click.echo(text)
    for name in made.left_out:
        click.echo(f"{name.decode(errors='replace')}: left out, it means the container's own disk")


async def _environment(service: str | None) -> LocalEnvironment:
    from towline.session.attach import attached, pick_session
    from towline.session.environment import session_environment

    session = pick_session(service)
    entry = read_manifest(Path(session.manifest)).entries[session.entry]
    async with open_session_api(session) as api, attached(session, api=api) as ssh:
        services = (await api.list_("services")).get("items") or []
        return session_environment(
            entry, await ssh.control.environ(), services=services, namespace=session.namespace
        )
