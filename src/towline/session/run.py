"""One session, stage by stage: the table of contents of the program."""

from __future__ import annotations

import asyncio
import importlib
import os
from contextlib import closing
from dataclasses import replace

from towline._kit.moments import time_text
from towline._kit.stopwatch import Stopwatch
from towline._kit.tasks import Tasks
from towline._kit.together import together
from towline.cluster.api import Api
from towline.errors import CredentialsEnded
from towline.manifest.model import Entry, Files, Handover, Mode, Names, Original, Reach
from towline.plan.model import Plan
from towline.plan.record import Record, record_of
from towline.session import local
from towline.session.agent_config import agent_config
from towline.session.anew import Anew
from towline.session.around import around
from towline.session.control_socket import Answer, answering
from towline.session.events import Applied, Began, Events, StageDone, Warned
from towline.session.local_ports import LocalPorts
from towline.session.options import Options
from towline.session.plain_ssh import identity, ssh_port
from towline.session.prepare import check_folder, confirm, prepare
from towline.session.private import private_folder
from towline.session.requests import Requests
from towline.session.services import service_label, services_beside
from towline.session.serving import Serving
from towline.session.standing import Standing
from towline.session.sync_entry import secret_files, sync_entry
from towline.session.takeover import applied, running_pod_of
from towline.transport.keys import make_keys
from towline.tunnels.spares import Spares


async def develop(
    entry: Entry, *, api: Api, options: Options, events: Events, requests: Requests
) -> int:
    """Run one session, from the manifest's entry to the cluster as it was.

    Returns:
        The command's exit code; 0 when there was no command, or it was told to end.

    Raises:
        TowlineError: it could not begin, or could not go on. The cluster is given back.
    """
    watch = Stopwatch()
    entry = checked(entry, options.variables)
    given = secret_files(entry) if entry.mode is Mode.SYNC else {}
    (entry, observed, prepared), (keys, files) = await together(
        prepare(entry, api=api, options=options, events=events), asyncio.to_thread(make_keys)
    )
    plan = prepared.plan
    events(
        Began(
            session=plan.session,
            entry=entry.name,
            mode=entry.mode.value,
            namespace=plan.namespace,
            context=plan.context,
        )
    )
    events(StageDone(stage="cluster", text=_cluster_text(plan), seconds=watch.lap()))
    for warning in plan.warnings:
        events(Warned(text=warning))
    also = tuple(service.name or service_label(service) for service in entry.services)
    await confirm(observed, plan, options=options, also=also)
    files |= given
    record = record_of(plan, since=time_text(), entry=entry.name, mode=entry.mode.value)
    session = _local_session(entry, plan, record, options)
    watch.lap()
    answers: dict[str, Answer] = {}
    api.access.ended = lambda error: events(Warned(text=_renewal_text(error)))
    ports = LocalPorts(entry, session, server=api.access.target.cluster.server)
    with (
        local.kept(session, keys),
        identity(session, keys, wanted=entry.remote is not None),
        private_folder(session.session) as folder,
        closing(ports),
    ):
        # Before the ports: whoever finds one taken asks whose it is.
        answers |= ports.methods()
        answers["end"] = requests.answer
        async with Tasks() as tasks, answering(session.folder, answers, tasks=tasks):
            spares = Spares(hold_for_s=entry.settings.hold_for_s, tasks=tasks)
            opened = await ports.listen(spares=spares, tasks=tasks)
            if exposed := ports.exposed():
                events(Warned(text=exposed))
            if options.before_change is not None:
                await options.before_change()
            async with (
                ssh_port(entry, api=api, tasks=tasks) as plain_ssh,
                services_beside(
                    entry, develop, api=api, options=options, events=events
                ) as services,
                around(
                    entry,
                    api=api,
                    plan=plan,
                    folder=folder,
                    state=session.folder,
                    spares=spares,
                    tell=lambda text: events(Warned(text=text)),
                ) as surroundings,
                applied(
                    plan,
                    record,
                    api=api,
                    parts=prepared.parts,
                    files={**files, "config.json": agent_config(entry, plan)},
                    settings=entry.settings,
                    ready_timeout_s=options.ready_timeout_s,
                    events=events,
                    requests=requests,
                ) as takeover,
            ):
                events(Applied(workload=takeover.record.names.dev_workload))
                # Only now: what is imported for it would hold up the pod.
                surroundings.begin()
                importing = tasks.start(_import_transport(), name="import")
                pod = await running_pod_of(entry, takeover, api=api, events=events)
                await importing
                text = f"{pod.name} running"
                events(StageDone(stage="dev pod", text=text, seconds=watch.lap()))
                serving = _serving(entry)(
                    entry=entry,
                    takeover=takeover,
                    api=api,
                    options=options,
                    events=events,
                    requests=requests,
                    keys=keys,
                    session=session,
                    around=surroundings,
                    spares=spares,
                    answers=answers,
                    anew=Anew(entry, api=api, options=options, events=events, files=files),
                    watch=watch,
                )
                plain_ssh.use(serving.link, serving.session)
                try:
                    return await serving.serve(pod, opened, observed)
                finally:
                    services.end()


def checked(entry: Entry, variables: tuple[tuple[str, str], ...] = ()) -> Entry:
    """The entry as its mode has it, its files and folders on the laptop seen to exist.

    Args:
        variables: `-e`, which in sync mode are the container's.

    Raises:
        CommandError, ManifestError: they do not.
    """
    if entry.mode is Mode.HYBRID:
        check_folder(entry)
        return entry
    # The process is in the cluster, where its names and files are.
    settings = replace(entry.settings, names=Names(reach=Reach.OFF), files=Files(reach=Reach.OFF))
    return replace(sync_entry(entry, variables), settings=settings)


def _serving(entry: Entry) -> type[Standing]:
    if entry.mode is Mode.HYBRID:
        return Serving
    from towline.session.service_serving import ServiceServing
    from towline.session.sync_serving import SyncServing

    return ServiceServing if entry.is_service else SyncServing


def _cluster_text(plan: Plan) -> str:
    replicas = f"{plan.replicas} replica{'' if plan.replicas == 1 else 's'}"
    parts = [f"{plan.kind} {plan.workload}, {replicas}"]
    parts += [f"Service {p.service} {p.port} → {p.remote}" for p in plan.ports]
    if plan.handover is Handover.EXCLUSIVE:
        parts.append(f"handover exclusive: {plan.handover_reason}")
    if plan.original is Original.KEEP:
        parts.append("the original stays up")
    return " · ".join(parts)


def _renewal_text(error: CredentialsEnded) -> str:
    hint = f" → {error.hint}" if error.hint else ""
    return f"the credentials have ended and cannot be renewed, tried on: {error.message}{hint}"


async def _import_transport() -> None:
    """Import what SSH needs while the pod starts: asyncssh alone takes 0.2 s."""
    names = ("towline.transport.ssh", "towline.line.line", "towline.tunnels.reverse")
    for name in names:
        await asyncio.to_thread(importlib.import_module, name)


def _local_session(
    entry: Entry, plan: Plan, record: Record, options: Options
) -> local.LocalSession:
    return local.LocalSession(
        session=plan.session,
        pid=os.getpid(),
        started=local.process_started(os.getpid()),
        since=record.since,
        context=plan.context,
        namespace=plan.namespace,
        kubeconfig=options.kubeconfig,
        manifest=str(options.manifest),
        entry=entry.name,
        mode=entry.mode.value,
        workload=plan.workload,
        container=plan.container,
        line_port=plan.agent_ports.line,
        keep_for_s=entry.settings.keep_for_s,
        command=str(entry.command) if entry.command else None,
        ports=tuple(
            [f"reverse {r.remote}:{r.local}" for r in entry.reverse]
            + [f"forward {f}" for f in entry.forward]
        ),
    )
