"""Everything that is decided before anything is changed: plan, questions, local checks."""

from __future__ import annotations

import fnmatch
import getpass
import os
import secrets
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from towline._kit.paths import folders, private, written
from towline._kit.together import together
from towline.cluster.api import Api
from towline.cluster.apply import taken
from towline.cluster.guard import why_no_guard
from towline.cluster.observe import observe
from towline.cluster.pods import quota_error
from towline.errors import (
    CommandError,
    NeedsConfirmation,
    NotFound,
    PortInUse,
    SessionTaken,
    TowlineError,
)
from towline.manifest.model import Entry, Handover, Mode, Original, Port
from towline.payload.pieces import Piece, installed
from towline.plan.build import build_plan
from towline.plan.model import Observed, Owner, Plan
from towline.plan.record import read_record
from towline.process.listening import listeners, owner_of
from towline.session import local
from towline.session.events import Events
from towline.session.options import Options
from towline.session.takeover import end_other

# Most nodes; where it is wrong the pod says "exec format error" and the hint what to set.
_GUESSED_ARCH = "amd64"


def this_owner() -> Owner:
    """Who runs this, and where: what others are told."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return Owner(user=user, host=socket.gethostname())


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A plan, and what it is made with."""

    plan: Plan
    parts: tuple[Piece, ...]


def plan_for(entry: Entry, observed: Observed, *, wants_guard: bool = True) -> Prepared:
    """The plan of one `up`, with a session of its own."""
    arch = observed.arch or entry.node_selector.get("kubernetes.io/arch") or _GUESSED_ARCH
    # An image brings the agent along.
    parts = () if entry.settings.agent_image is not None else installed().pieces(arch)
    plan = build_plan(
        entry,
        observed,
        session=secrets.token_hex(4),
        owner=this_owner(),
        parts=parts,
        arch=arch,
        wants_guard=wants_guard,
    )
    return Prepared(plan=plan, parts=parts)


async def prepare(
    entry: Entry, *, api: Api, options: Options, events: Events, process_runs: bool = False
) -> tuple[Entry, Observed, Prepared]:
    """Look, decide, ask. Nothing is changed, but a dead session of ours is cleared away.

    Args:
        process_runs: the local ports are its own.

    Returns:
        The entry with what was found and answered in it, what was seen, and the plan.

    Raises:
        TowlineError: what stands in the way, before anything was touched.
    """
    check_allowed(entry, context=api.access.target.context, namespace=api.namespace)
    observed = await observe(entry, api=api)
    if observed.record is not None:
        await _settle(observed, api=api, options=options, events=events)
        observed = await observe(entry, api=api)
    # After the question whose the workload is: a session of one's own in another terminal
    # has these ports, and its name says more.
    if not process_runs:
        check_local_ports(entry)
    entry = await with_found_services(entry, api=api)
    wants_guard = not options.no_guard
    observed, prepared = await tried_plan(entry, observed, api=api, wants_guard=wants_guard)
    if observed.guard_refused is not None and prepared.plan.original is Original.REPLACE:
        instead = await _kept_instead(entry, prepared.plan, api=api, options=options)
        if instead is not None:
            return instead
    return entry, observed, prepared


async def _kept_instead(
    entry: Entry, plan: Plan, *, api: Api, options: Options
) -> tuple[Entry, Observed, Prepared] | None:
    """Where no guard can be made: the same with the original kept, if that can be and is wanted.

    Its agent passes everything on when the laptop is gone, with nobody's help.
    """
    if options.ask is None or options.assume_yes or _mark_of(plan, unguarded=True).exists():
        return None
    kept = replace(entry, settings=replace(entry.settings, original=Original.KEEP))
    try:
        observed, prepared = await tried_plan(kept, await observe(kept, api=api), api=api)
    except TowlineError:
        return None
    question = (
        f"{plan.workload} can get no guard here, which would give it back if this laptop dies. "
        "Keep the original up beside it (`original: keep`): it then serves while the laptop is "
        "away?"
    )
    return (kept, observed, prepared) if await options.ask(question) else None


async def tried_plan(
    entry: Entry, observed: Observed, *, api: Api, wants_guard: bool = True
) -> tuple[Observed, Prepared]:
    """The plan, after dry runs: is there room beside the original, and may there be a guard."""
    prepared = plan_for(entry, observed, wants_guard=wants_guard)
    plan = prepared.plan
    full, refused = await together(
        quota_error(api, plan.dev_workload), why_no_guard(api, plan.guard)
    )
    if plan.handover is not Handover.SEAMLESS:
        full = None  # the original makes room, whatever the quota says now
    if full is None and refused is None:
        return observed, prepared
    observed = replace(observed, quota_error=full, guard_refused=refused)
    return observed, plan_for(entry, observed, wants_guard=wants_guard)


def check_allowed(entry: Entry, *, context: str, namespace: str) -> None:
    """Hold to the manifest's `contexts` and `namespaces`."""
    for what, value, allowed in (
        ("context", context, entry.settings.contexts),
        ("namespace", namespace, entry.settings.namespaces),
    ):
        if allowed and not any(fnmatch.fnmatchcase(value, pattern) for pattern in allowed):
            raise TowlineError(
                f"the manifest does not allow {what} {value!r} (only: {', '.join(allowed)})",
                hint=f"choose another one with `--context` or `-n`, or change `{what}s:`",
            )


def check_local_ports(entry: Entry) -> None:
    """See that the ports the command will listen on are free.

    Without a command an IDE may listen there already, and should; so may whatever it is
    for in sync mode, where the command is not here.
    """
    table = listeners()
    if table is None or entry.command is None or entry.mode is Mode.SYNC:
        return
    busy = {listener.port for listener in table if listener.answers_on_loopback}
    for reverse in entry.reverse:
        if reverse.local in busy:
            raise PortInUse(
                f"localhost:{reverse.local} is already in use{_by_whom(reverse.local)}",
                hint=f"stop it, or choose another local port: `reverse: {reverse.remote}:<port>`",
            )


def name_owner(error: PortInUse, entry: Entry) -> PortInUse:
    """The error of a forward's port with the name of who has it, where that can be seen."""
    for forward in entry.forward:
        if f":{forward.local} " in error.message and error.hint is None:
            return PortInUse(
                error.message + _by_whom(forward.local),
                hint="stop it, or choose another local port: "
                f"`forward: <port>:{str(forward).partition(':')[2]}`",
            )
    return error


def _by_whom(port: Port) -> str:
    """Who has a port: the process, and the session of ours that it belongs to."""
    owner = owner_of(port)
    session = next((s for s in local.sessions() if port in s.reverse_ports), None)
    if session is None:
        return f" by {owner}" if owner else ""
    name = f"your session {session.entry} (session {session.session})"
    return f" by {owner} of {name}" if owner else f" by {name}"


async def with_found_services(entry: Entry, *, api: Api) -> Entry:
    """The entry with each forward's `labels` replaced by the name of the Service they find."""
    if not any(forward.labels for forward in entry.forward):
        return entry
    found = []
    for forward in entry.forward:
        if not forward.labels:
            found.append(forward)
            continue
        labels = ",".join(f"{k}={v}" for k, v in forward.labels.items())
        names = [
            str(s["metadata"]["name"])
            for s in (await api.list_("services", labels=labels)).get("items") or []
        ]
        if len(names) != 1:
            raise NotFound(
                f"forward {forward}: labels {labels} match "
                + (f"{len(names)} Services: {', '.join(names)}" if names else "no Service"),
                hint="name the Service instead: `forward: <local>:<service>:<port>`",
            )
        found.append(replace(forward, host=names[0], labels=None))
    return replace(entry, forward=tuple(found))


async def _settle(observed: Observed, *, api: Api, options: Options, events: Events) -> None:
    """Deal with a record that is there already: ours and dead, ours and alive, or another's."""
    assert observed.record is not None
    record = read_record(observed.record)
    mine = str(record.owner) == str(this_owner())
    alive = mine and any(s.session == record.session for s in local.sessions())
    if alive and not options.end_other_session:
        raise SessionTaken(
            f"{record.kind} {record.workload} is in development in another terminal here "
            f"(session {record.session}, since {record.since})",
            hint=f"end it with `towline down {record.entry}`, or use --end-other-session",
        )
    if not mine and not options.end_other_session:
        raise taken(record)
    await end_other(api, record, by=this_owner(), events=events, timeout_s=options.ready_timeout_s)


async def confirm(
    observed: Observed, plan: Plan, *, options: Options, also: tuple[str, ...] = ()
) -> None:
    """Ask before the first takeover in a context and namespace; remember the answer.

    Args:
        also: the names of services that go into development with it.

    Raises:
        NeedsConfirmation: nobody is there to ask, or the answer was no.
    """
    unguarded = not plan.guard and not options.no_guard
    mark = _mark_of(plan, unguarded=unguarded and plan.original is Original.REPLACE)
    if options.assume_yes:
        _remember(mark)
        return
    if mark.exists():
        return
    replicas = observed.ready_replicas
    displaced = f"{replicas} ready replica{'' if replicas == 1 else 's'}"
    where = "your laptop" if plan.mode is Mode.HYBRID else "your dev pod"
    question = (
        f"{plan.kind} {plan.workload} in namespace {plan.namespace} of context {plan.context}: "
        f"everyone there will reach {where} instead of its {displaced}"
    )
    if unguarded and plan.original is Original.KEEP:
        question += ", and if it dies, the original again: see above"
    elif unguarded:
        question += ", and if it dies, nobody until somebody runs `towline down`: see above"
    if also:
        question += f"; {', '.join(also)} too"
    if options.ask is None:
        raise NeedsConfirmation(
            f"the first takeover in namespace {plan.namespace} of context {plan.context} "
            f"displaces {displaced} of {plan.workload} for everyone there"
            + (", and no guard can give it back if this machine dies" if unguarded else ""),
            hint="say yes with --yes"
            + (", or keep the original up with --original keep" if unguarded else ""),
        )
    if not await options.ask(f"{question}. Go on?"):
        raise NeedsConfirmation("nothing was changed")
    _remember(mark)


def _remember(mark: Path) -> None:
    with written(mark.parent):
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()


def _mark_of(plan: Plan, *, unguarded: bool) -> Path:
    marks = private(folders(os.environ).state) / "confirmed"
    return marks / _mark(plan, unguarded=unguarded)


def _mark(plan: Plan, *, unguarded: bool) -> str:
    import hashlib

    # Context names hold slashes and colons (cloud providers' do): not for file names.
    return hashlib.sha256(f"{plan.context}\0{plan.namespace}".encode()).hexdigest()[:32] + (
        "-unguarded" if unguarded else ""
    )


def check_folder(entry: Entry) -> Path:
    """The local process's folder, seen to exist.

    Raises:
        CommandError: it does not.
    """
    assert entry.workdir is not None
    if not entry.workdir.is_dir():
        raise CommandError(
            f"workdir {entry.workdir} is not a folder",
            hint="it is relative to the manifest's folder",
        )
    return entry.workdir
