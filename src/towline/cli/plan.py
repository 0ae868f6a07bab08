"""`towline plan`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from towline.cli.common import (
    cluster_options,
    manifest_option,
    open_api,
    output_option,
    pick_entry,
    read_manifest,
    run,
)

if TYPE_CHECKING:
    from towline.manifest.model import Entry
    from towline.plan.model import Plan


@click.command(
    epilog="\b\nExamples:\n  towline plan frontend\n"
    "  kubectl get deploy,sts,svc,pods,hpa,pvc -o yaml > objects/all.yaml\n"
    "  towline plan frontend --objects objects/"
)
@click.argument("service", required=False)
@manifest_option
@cluster_options
@output_option
@click.option(
    "--objects",
    type=click.Path(path_type=Path, exists=True),
    help="Plan from YAML files of the cluster's objects, with no cluster.",
)
def plan(
    service: str | None,
    file: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    output: str,
    objects: Path | None,
) -> None:
    """Show what `up` would do to the cluster, and how `down` undoes it. Changes nothing."""
    from towline.session.run import checked

    entry = checked(pick_entry(read_manifest(file), service))
    made = (
        _offline(entry, objects, namespace)
        if objects is not None
        else run(_online(entry, kubeconfig, context, namespace))
    )
    if output == "json":
        click.echo(json.dumps(plan_json(made), indent=1))
        return
    for line in plan_lines(made):
        click.echo(line)


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as `-o json` has it; field names as in `plan.model.Plan`."""
    values = asdict(plan)
    values.pop("managed_fields")
    values["owner"] = str(plan.owner)
    return values


def plan_lines(plan: Plan) -> list[str]:
    """The plan for people."""
    from towline.ui.view import printable

    lines = [
        f"{plan.kind} {plan.workload} in namespace {plan.namespace} of context {plan.context}",
        f"container {plan.container}, {plan.replicas} replicas ({plan.ready_replicas} ready), "
        f"node architecture {plan.arch}",
        f"handover {plan.handover}" + (f": {plan.handover_reason}" if plan.handover_reason else ""),
    ]
    for port in plan.ports:
        ends = f" → localhost:{port.local}" if plan.mode == "hybrid" else " of the dev pod"
        lines.append(f"Service {port.service} {port.port} → {port.remote}{ends}")
    lines += [f"! {warning}" for warning in plan.warnings]
    lines += ["", "up:"]
    lines += [f"  {n}. {action.do}" for n, action in enumerate(plan.actions, 1)]
    lines += ["", "down:"]
    lines += [f"  {n}. {action.undo}" for n, action in enumerate(_way_back(plan), 1)]
    return [printable(line) for line in lines]


def _way_back(plan: Plan) -> list[Any]:
    return list(reversed(plan.actions))


async def _online(
    entry: Entry, kubeconfig: Path | None, context: str | None, namespace: str | None
) -> Plan:
    from towline.cluster.observe import observe
    from towline.session.prepare import tried_plan, with_found_services

    async with open_api(kubeconfig=kubeconfig, context=context, namespace=namespace) as api:
        observed = await observe(entry, api=api)
        entry = await with_found_services(entry, api=api)
        _, prepared = await tried_plan(entry, observed, api=api)
        return prepared.plan


def _offline(entry: Entry, objects: Path, namespace: str | None) -> Plan:
    from towline.plan.offline import observed_from, read_objects
    from towline.session.prepare import plan_for

    return plan_for(entry, observed_from(entry, read_objects(objects), namespace=namespace)).plan
