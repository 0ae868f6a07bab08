"""`towline agent-image`."""

from __future__ import annotations

from pathlib import Path

import click

from towline.errors import UsageError

_EPILOG = """\b
Examples:
  towline agent-image agent.tar --name registry.example.com/team/towline-agent:1
  docker load -i agent.tar && docker push registry.example.com/team/towline-agent:1

and in towline.yml:
  agent: {image: "registry.example.com/team/towline-agent:1"}
"""


@click.command("agent-image", epilog=_EPILOG)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", metavar="IMAGE", required=True, help="The image's name, with a tag.")
@click.option(
    "--arch",
    type=click.Choice(["amd64", "arm64"]),
    default="amd64",
    show_default=True,
    help="Of the cluster's nodes.",
)
def agent_image(file: Path, name: str, arch: str) -> None:
    """Write the agent as an image, to push where your cluster pulls from.

    Only for clusters that forbid to execute what comes from a ConfigMap. The image is of
    this version of Towline: write it again when that changes.
    """
    from towline.payload.image import write_image
    from towline.payload.pieces import installed

    try:
        write_image(file, built=installed(), arch=arch, name=name)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    click.echo(f"{file}: {name} ({arch})", err=True)
