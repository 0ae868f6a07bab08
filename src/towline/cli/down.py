"""`towline down`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from towline.cli.common import cluster_options, has_terminal, open_api, output_option, run
from towline.cli.completing import session_entries
from towline.errors import NotFound, TowlineError, UsageError

if TYPE_CHECKING:
    from towline.cluster.api import Api
    from towline.cluster.claims import Claim
    from towline.plan.record import Record

_EPILOG = """\b
Examples:
  towline down               the only session of yours in the namespace
  towline down frontend      that one, from any machine, without the manifest
  towline down frontend api  these two
  towline down --all         all of yours in the namespace
  towline down api --volumes    … and delete the claim that kept its folders
"""
_READY_WITHIN_S = 120.0


@click.command(epilog=_EPILOG)
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=session_entries)
@cluster_options
@output_option
@click.option("--all", "everything", is_flag=True, help="End all of your sessions there.")
@click.option(
    "-v", "--volumes", is_flag=True, help="Delete the claims that keep folders over sessions."
)
@click.option("--end-other-session", is_flag=True, help="End it also if it is somebody else's.")
def down(
    services: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    output: str,
    everything: bool,
    volumes: bool,
    end_other_session: bool,
) -> None:
    """End a session and give the cluster back.

    Works from any machine: what was there is written down in the cluster.
    """
    ended: list[str] = []
    errors: list[TowlineError] = []
    for service in services or (None,):
        try:
            ended += _end(
                service,
                everything=everything,
                volumes=volumes,
                asks=output == "text" and has_terminal(),
                anyones=end_other_session,
                kubeconfig=kubeconfig,
                context=context,
                namespace=namespace,
            )
        except TowlineError as error:  # the others are to be ended all the same
            errors.append(error)
    if errors:
        errors[0].message = "\n".join(error.message for error in errors)
        raise errors[0]
    if output == "json":
        click.echo(json.dumps({"ended": ended}))
    elif not ended and not volumes:
        click.echo("nothing to end", err=True)


def _end(
    service: str | None,
    *,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    **how: bool,
) -> list[str]:
    """End what is meant; the ids of what was ended."""
    from towline.session.local import sessions

    here = [
        s
        for s in sessions()
        if (service is None and "/" not in s.entry) or service in (s.entry, s.session)
    ]
    if namespace is None and context is None and kubeconfig is None and len(here) == 1:
        # The session knows where it is, better than the kubeconfig of this minute.
        namespace, context = here[0].namespace, here[0].context
        kubeconfig = Path(here[0].kubeconfig) if _is_one_file(here[0].kubeconfig) else None
    return run(_down(service, kubeconfig=kubeconfig, context=context, namespace=namespace, **how))


def _is_one_file(text: str) -> bool:
    return bool(text) and Path(text).is_file()


async def _the_one(mine: list[Record], namespace: str, *, asks: bool) -> list[Record]:
    """The only session there is, or the one that is chosen in the terminal."""
    if len(mine) < 2:
        return mine
    # An entry's services are ENTRY/SERVICE, and end with it.
    names = sorted({record.entry.partition("/")[0] for record in mine})
    if len(names) == 1:
        return mine
    chosen = None
    if asks:
        from towline.cli.asking import choose

        chosen = await choose("Which session", names)
    if chosen is None:
        raise UsageError(
            f"you have {len(names)} sessions in namespace {namespace}: {', '.join(names)}",
            hint="name one, or end them all with --all",
        )
    return [record for record in mine if record.entry.partition("/")[0] == chosen]


async def _down(
    service: str | None,
    *,
    everything: bool,
    volumes: bool,
    asks: bool,
    anyones: bool,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
) -> list[str]:
    import time

    from towline.cluster.claims import kept_claims
    from towline.session.end import end_session, find_records
    from towline.session.events import Restored, Warned
    from towline.session.prepare import this_owner
    from towline.ui.terminal import Terminal

    tell = Terminal()
    async with open_api(kubeconfig=kubeconfig, context=context, namespace=namespace) as api:
        claims = await kept_claims(api) if volumes else []
        try:
            found = await find_records(api, service)
        except NotFound:
            if not any(claim.is_of(service or "") for claim in claims):
                raise
            found = []
        if service is None:
            mine = [r for r in found if str(r.owner) == str(this_owner())]
            found = mine if everything else await _the_one(mine, api.namespace, asks=asks)
        if claims and not found and service is None and not everything:
            kept = ", ".join(sorted(claim.entry for claim in claims))
            raise UsageError(
                f"there is no session, and claims are kept of {kept}",
                hint="name one, or delete them all with --all --volumes",
            )
        for record in found:
            began = time.monotonic()
            text = await end_session(
                api,
                record,
                anyones=anyones,
                report=lambda text: tell(Warned(text=text)),
                ready_timeout_s=_READY_WITHIN_S,
            )
            tell(Restored(text=text, seconds=time.monotonic() - began))
        names = {record.entry for record in found} | ({service} if service else set())
        for claim in claims:
            if everything or any(claim.is_of(name) for name in names):
                await _delete(claim, api=api, anyones=anyones)
        return [record.session for record in found]


async def _delete(claim: Claim, *, api: Api, anyones: bool) -> None:
    from towline.cluster.claims import delete_claim
    from towline.session.prepare import this_owner
    from towline.ui.view import printable

    if claim.owner != str(this_owner()) and not anyones:
        text = f"is {claim.owner}'s: kept (--end-other-session deletes it, too)"
    else:
        await delete_claim(api, claim)
        text = f"({claim.size}) is deleted, with what was in it"
    click.echo(printable(f"claim {claim.name} {text}"), err=True)
