"""`towline completion`."""

from __future__ import annotations

import click


@click.command(epilog="Example:  towline completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import get_completion_class

    from towline.cli.main import towline

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(towline, {}, "towline", "_TOWLINE_COMPLETE").source())
