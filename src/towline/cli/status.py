"""`towline status`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from towline.cli.common import cluster_options, open_api, output_option, run, size_text
from towline.errors import ClusterError


@click.command(epilog="Example:  towline status -o json")
@cluster_options
@output_option
def status(
    kubeconfig: Path | None, context: str | None, namespace: str | None, output: str
) -> None:
    """Show your sessions, and others' in the namespace: stage, ports, line; and kept claims."""
    rows, claims = run(_rows(kubeconfig=kubeconfig, context=context, namespace=namespace))
    if output == "json":
        click.echo(json.dumps({"sessions": rows, "claims": claims}, indent=1))
        return
    if not rows:
        click.echo("no sessions; begin one with `towline up`")
    for row in rows:
        for line in _lines(row):
            click.echo(line)
    for claim in claims:
        click.echo(_claim_line(claim))


def _claim_line(claim: dict[str, Any]) -> str:
    from towline.ui.view import printable

    return printable(
        f"claim {claim['name']}, {claim['size']}, since {claim['since']}: keeps folders of "
        f"{claim['workload']} (towline down {claim['entry']} --volumes deletes it)"
    )


def _lines(row: dict[str, Any]) -> list[str]:
    from towline.ui.view import printable

    if "error" in row:
        return [f"the cluster's other sessions cannot be seen: {printable(row['error'])}"]
    lines = [
        f"{row['service']} · {row['mode']} · namespace {row['namespace']} · "
        f"context {row['context']} · session {row['session']}",
        f"  stage    {row['stage']}, gate {row['gate']}",
        f"  owner    {row['owner']} since {row['since']}" + (" (here)" if row["here"] else ""),
    ]
    if row["ports"]:
        lines.append(f"  ports    {' · '.join(row['ports'])}")
    if row.get("command"):
        where = f"process {row['command_pid']}" if row["command_pid"] else "in the dev container"
        lines.append(f"  command  {row['command']} ({where})")
    lines += [f"  sync     {each}" for each in row.get("sync") or ()]
    if row.get("pod"):
        line = row["line"]
        trip = f"{line['round_trip_ms']} ms" if line["round_trip_ms"] is not None else "unknown"
        since = f", connected since {line['connected_since']}" if line["connected_since"] else ""
        lines.append(
            f"  line     pod {row['pod']}, round trip {trip}{since}, "
            f"{size_text(line['bytes_in'])} in, {size_text(line['bytes_out'])} out"
        )
    return [printable(line) for line in lines]


async def _rows(
    *, kubeconfig: Path | None, context: str | None, namespace: str | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from towline.cluster.claims import kept_claims
    from towline.session.end import session_rows

    try:
        async with open_api(kubeconfig=kubeconfig, context=context, namespace=namespace) as api:
            rows = await session_rows(api)
            return rows, [asdict(claim) for claim in await kept_claims(api)]
    except ClusterError as error:
        # What this laptop knows is worth showing also without the cluster.
        return [*await session_rows(None), {"error": error.message}], []
