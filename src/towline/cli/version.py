"""`towline version`."""

from __future__ import annotations

import json

import click

from towline import __version__
from towline.cli.common import output_option


@click.command(epilog="Example:  towline version -o json")
@output_option
def version(output: str) -> None:
    """Print the versions of Towline and its agent."""
    from towline.payload.pieces import installed

    try:
        built = installed().versions()
    except OSError:
        built = {}
    if output == "json":
        click.echo(json.dumps({"towline": __version__, "agent": built}))
        return
    click.echo(f"towline {__version__}")
    if not built:
        click.echo("agent: not in this installation")
    for name in ("go", "zig"):
        if name in built:
            click.echo(f"agent built with {name} {built[name]}")
