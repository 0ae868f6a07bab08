"""`towline ssh-config`."""

from __future__ import annotations

from pathlib import Path

import click

from towline.cli.common import open_session_api, read_manifest, run

_EPILOG = """\b
Examples:
  towline ssh-config api > ~/.ssh/towline     then in ~/.ssh/config: Include towline
  ssh -F ~/.ssh/towline api.shop.towline      entry, namespace, towline
  scp -F ~/.ssh/towline file api.shop.towline:/tmp/
"""


@click.command("ssh-config", epilog=_EPILOG)
@click.argument("service", required=False)
@click.option("-n", "--namespace", metavar="NAME", help="The session in this namespace.")
@click.option(
    "--proxy", is_flag=True, help="Carry one SSH connection over stdin and stdout (ProxyCommand)."
)
def ssh_config(service: str | None, namespace: str | None, proxy: bool) -> None:
    """Print the Host entry for plain ssh, scp, sftp, rsync and IDEs into the dev container.

    It holds for later sessions of the service, too. With `remote: PORT` in the manifest
    that local port is used. sftp and scp are served by the agent; rsync and an IDE's
    remote mode need what they run in the image.
    """
    from towline.session.attach import pick_session
    from towline.session.plain_ssh import carry_stdio, host_entry, write_identity

    session = pick_session(service, namespace=namespace)
    if proxy:

        async def carry() -> None:
            async with open_session_api(session) as api:
                await carry_stdio(session, api=api)

        run(carry())
        return
    write_identity(session, session.keys())
    entry = read_manifest(Path(session.manifest)).entries.get(session.entry)
    remote, interface = (entry.remote, entry.interface) if entry else (None, "localhost")
    click.echo(host_entry(session, remote=remote, interface=interface), nl=False)
