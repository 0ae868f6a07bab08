"""`towline doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from towline.cli.common import cluster_options, manifest_option, open_api, output_option, run
from towline.errors import TowlineError

if TYPE_CHECKING:
    from towline.cluster.checks import Finding


@click.command(epilog="Example:  towline doctor -n shop")
@manifest_option
@cluster_options
@output_option
def doctor(
    file: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    output: str,
) -> int:
    """Check what `up` needs: manifest, ports, cluster, rights; and say what to do."""
    from towline.ui.view import printable

    findings = [*_local(file), *run(_machine()), *run(_cluster(kubeconfig, context, namespace))]
    well = all(finding.ok for finding in findings)
    if output == "json":
        click.echo(json.dumps({"ok": well, "findings": [asdict(f) for f in findings]}, indent=1))
        return 0 if well else 1
    for finding in findings:
        mark = click.style("✓", fg="green") if finding.ok else click.style("✗", fg="red")
        click.echo(printable_line(mark, finding.check, printable(finding.text)))
        if finding.hint:
            click.echo(f"              → {printable(finding.hint)}")
    return 0 if well else 1


def printable_line(mark: str, check: str, text: str) -> str:
    return f" {mark} {check:<10} {text}"


def _local(file: Path | None) -> list[Finding]:
    from towline.cli.common import read_manifest
    from towline.cluster.checks import Finding
    from towline.payload.pieces import ARCHITECTURES, installed
    from towline.session.prepare import check_local_ports

    findings = []
    try:
        manifest = read_manifest(file)
    except TowlineError as error:
        first = error.message.splitlines()[0]
        findings.append(Finding(check="manifest", ok=False, text=first, hint=error.hint))
    else:
        text = f"{manifest.path}: {', '.join(manifest.entries)}"
        findings.append(Finding(check="manifest", ok=True, text=text))
        for entry in manifest.entries.values():
            try:
                check_local_ports(entry)
            except TowlineError as error:
                text = f"{entry.name}: {error.message}"
                findings.append(Finding(check="ports", ok=False, text=text, hint=error.hint))
    built = installed()
    for arch in ARCHITECTURES:
        try:
            count = len(built.pieces(arch))
        except TowlineError as error:
            findings.append(Finding(check="agent", ok=False, text=error.message, hint=error.hint))
        else:
            text = f"for {arch}, in {count} pieces"
            findings.append(Finding(check="agent", ok=True, text=text))
    return findings


async def _machine() -> list[Finding]:
    from towline.session.machine import check_machine

    return await check_machine()


async def _cluster(
    kubeconfig: Path | None, context: str | None, namespace: str | None
) -> list[Finding]:
    from towline.cluster.checks import Finding, check_namespace, check_reach, check_rights
    from towline.session.machine import check_low_ports

    try:
        async with open_api(kubeconfig=kubeconfig, context=context, namespace=namespace) as api:
            return [
                await check_reach(api),
                *await check_rights(api),
                *await check_namespace(api),
                *await check_low_ports(api),
            ]
    except TowlineError as error:
        return [Finding(check="cluster", ok=False, text=error.message, hint=error.hint)]
