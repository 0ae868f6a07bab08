"""(Entry, Observed) → Plan: everything that will be done, decided before any of it. [pure]"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from towline._kit.objects import JsonObject
from towline.errors import ManifestError, NotFound, TowlineError
from towline.manifest.model import Entry, Handover, Mode, Original
from towline.payload.pieces import Piece
from towline.plan.command import sync_command
from towline.plan.controllers import (
    Held,
    controllers_of,
    replicas_held,
    scaled_object,
    scales_from_zero,
    selector_held,
)
from towline.plan.folders import (
    Lies,
    claim_name,
    claim_object,
    folder_notices,
    image_user,
    kept_folders,
)
from towline.plan.guard import guard_name, guard_objects
from towline.plan.handover import choose_handover
from towline.plan.keep import (
    labels_left,
    point_actions,
    policy_notices,
    services_to_point,
    unguarded_notice,
    way_back,
    way_back_action,
    way_back_name,
)
from towline.plan.model import (
    Action,
    ActionKind,
    AgentPorts,
    Kind,
    Names,
    Observed,
    Owner,
    Plan,
)
from towline.plan.patch import dev_workload
from towline.plan.services import routed_ports, target_ports

_FIRST_AGENT_PORT = 48222
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def names_for(kind: Kind, workload: str, *, session: str) -> Names:
    """The names of a session's objects, within the 253 (63 for pods' names) that are allowed."""
    return Names(
        session=session,
        record=f"towline-{kind.value.lower()}-{workload}"[:253],
        secret=f"towline-session-{session}",
        dev_workload=f"{workload[:45].rstrip('-.')}-towline",
    )


def choose_container(entry: Entry, template: JsonObject) -> str:
    """The dev container: the manifest's, kubectl's default, else the first.

    Raises:
        NotFound: there is none of that name.
    """
    containers = [str(c["name"]) for c in template["spec"]["containers"]]
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    wanted = entry.container or annotations.get(_DEFAULT_CONTAINER) or containers[0]
    if wanted not in containers:
        raise NotFound(
            f"{entry.name}: there is no container {wanted!r} (there: {', '.join(containers)})",
            hint="set `container:` in the manifest to one of them",
        )
    return str(wanted)


def _named(container: str, template: JsonObject) -> JsonObject:
    found: JsonObject = next(c for c in template["spec"]["containers"] if c["name"] == container)
    return found


def build_plan(
    entry: Entry,
    observed: Observed,
    *,
    session: str,
    owner: Owner,
    parts: Iterable[Piece],
    arch: str,
    wants_guard: bool = True,
) -> Plan:
    """Decide a takeover.

    Raises:
        TowlineError: it cannot be done, with the reason and what to do.
    """
    parts = tuple(parts)
    _refuse_what_cannot_be(entry, observed)
    container = choose_container(entry, observed.template)
    if entry.mode is Mode.SYNC:
        sync_command(entry, _named(container, observed.template))
    names = names_for(observed.kind, observed.name, session=session)
    handover, reason = choose_handover(entry, observed)
    ports = _agent_ports(entry, observed.template)
    reverse: dict[int, int] = {each.remote: each.local for each in entry.reverse}
    if entry.mode is Mode.SYNC:
        # The process is in the pod and listens there itself.
        for port in target_ports(observed.services, template=observed.template):
            reverse.setdefault(port, port)
    is_kept = entry.settings.original is Original.KEEP
    pointed = services_to_point(entry, observed, reverse=reverse) if is_kept else ()
    back = (
        way_back(entry, observed, pointed, container=container, names=names, reverse=reverse)
        if is_kept
        else None
    )
    routed, warnings = routed_ports(
        pointed if is_kept else observed.services,
        template=observed.template,
        reverse=reverse,
        passed=back.passes if back is not None else (),
    )
    workload = dev_workload(
        observed, container=container, names=names, ports=ports, parts=parts, arch=arch, entry=entry
    )
    claim = _claim(entry, observed, container, owner)
    guard: tuple[JsonObject, ...] = ()
    if wants_guard and observed.guard_refused is None:
        guard = guard_objects(
            observed.template,
            container=container,
            kind=observed.kind,
            workload=observed.name,
            names=names,
            parts=parts,
            arch=arch,
            settings=entry.settings,
            pointed=tuple(str(each["metadata"]["name"]) for each in pointed),
        )
    return Plan(
        session=session,
        owner=owner,
        context=observed.context,
        namespace=observed.namespace,
        kind=observed.kind,
        workload=observed.name,
        workload_uid=str(observed.workload["metadata"].get("uid") or ""),
        container=container,
        replicas=observed.replicas,
        ready_replicas=observed.ready_replicas,
        handover=handover,
        handover_reason=reason,
        names=names,
        agent_ports=ports,
        arch=arch,
        ports=routed,
        warnings=(
            *warnings,
            *_other_warnings(entry, observed, pointed),
            *_probe_warnings(entry, _named(container, observed.template)),
            *folder_notices(
                entry,
                _named(container, observed.template),
                observed.template["spec"],
                uid=image_user(observed.pods, container),
            ),
        ),
        actions=_actions(
            observed,
            names=names,
            handover=handover,
            parts=parts,
            has_guard=bool(guard),
            claim=claim,
            pointed=pointed,
        ),
        dev_workload=workload,
        guard=guard,
        managed_fields=tuple(observed.workload["metadata"].get("managedFields") or ()),
        claim=claim,
        mode=entry.mode,
        made=observed.workload if observed.is_to_be_made else None,
        original=entry.settings.original,
        way_back=back,
    )


def _claim(entry: Entry, observed: Observed, container: str, owner: Owner) -> JsonObject | None:
    spec = observed.template["spec"]
    uid = image_user(observed.pods, container)
    kept = kept_folders(entry, _named(container, observed.template), spec, uid=uid)
    if Lies.CLAIM not in kept.values():
        return None
    if entry.persistent_volume.volume_mode != "Filesystem":
        raise ManifestError(
            f"{entry.places.get('persistentVolume', entry.place)}: {entry.name}: "
            f"persistentVolume.volumeMode {entry.persistent_volume.volume_mode} holds no folders",
            hint="leave it out, or write Filesystem",
        )
    return claim_object(entry, claim_name(observed.kind, observed.name), observed.name, owner)


def _refuse_what_cannot_be(entry: Entry, observed: Observed) -> None:
    spec = observed.template["spec"]
    if spec.get("hostNetwork"):
        raise TowlineError(
            f"{observed.kind} {observed.name} uses the node's own network (hostNetwork): the "
            "agent's loopback would be every process's on the node",
            hint="take another workload into development",
        )
    if (spec.get("os") or {}).get("name") == "windows":
        raise TowlineError(
            f"{observed.kind} {observed.name} runs on Windows nodes: the agent does not"
        )


def _agent_ports(entry: Entry, template: JsonObject) -> AgentPorts:
    taken = {each.remote for each in entry.reverse}
    for container in template["spec"]["containers"]:
        taken |= {port["containerPort"] for port in container.get("ports") or []}
    line = entry.ssh_server_port
    if line is not None and line in taken:
        raise ManifestError(
            f"{entry.places.get('sshServerPort', entry.place)}: {entry.name}: sshServerPort "
            f"{line} is a port of the pod already",
        )
    free = (port for port in range(_FIRST_AGENT_PORT, 65536) if port not in {*taken, line})
    return AgentPorts(line=line or next(free), gate=next(free))


def _other_warnings(entry: Entry, observed: Observed, pointed: tuple[JsonObject, ...]) -> list[str]:
    found = []
    for autoscaler in observed.autoscalers if not pointed else ():
        if scaled_object(autoscaler) is None and not scales_from_zero(autoscaler):
            found.append(
                f"HorizontalPodAutoscaler {autoscaler['metadata']['name']} rests while the "
                "original is at 0, and goes on after it"
            )
    inits = [
        c["name"]
        for c in observed.template["spec"].get("initContainers") or []
        if c.get("restartPolicy") != "Always"
    ]
    if inits and entry.settings.init_containers.value == "run":
        found.append(
            f"init containers run again in the dev pod: {', '.join(inits)} "
            "(`initContainers: skip` in a towline.yml leaves them out)"
        )
    names = [str(each["metadata"]["name"]) for each in pointed]
    if pointed:
        labels = (observed.template.get("metadata") or {}).get("labels") or {}
        found += policy_notices(observed, left=labels_left(labels, observed))
        if observed.ready_replicas == 0:
            found.append(f"{observed.name} has no ready pod: what is not the laptop's gets nothing")
    if observed.guard_refused is not None and pointed:
        found.append(unguarded_notice(observed.name, names, observed.guard_refused))
    elif observed.guard_refused is not None:
        found.append(
            f"no guard: if this laptop is gone, {observed.name} stays at 0 until somebody runs "
            f"`towline down` ({observed.guard_refused})"
        )
    for service in pointed:
        held = selector_held(service, namespace=observed.namespace)
        found += _held_warnings(held, "selector")
    if not pointed:
        found += _held_warnings(replicas_held(observed), "replicas")
    return found


def _probe_warnings(entry: Entry, container: JsonObject) -> list[str]:
    found = []
    if entry.probes.readiness:
        found.append(
            "probes.readiness: in development readiness is the gate, which opens while the "
            "process listens; a pod can have one readiness probe only"
        )
    kept = [
        name
        for name, stays in (
            ("livenessProbe", entry.probes.liveness),
            ("startupProbe", entry.probes.startup),
        )
        if stays and name in container
    ]
    if kept:
        found.append(
            f"{' and '.join(kept)} stay on: the kubelet restarts the dev container while the "
            "process does not answer, at a breakpoint, too"
        )
    return found


def _held_warnings(held: Held, what: str) -> list[str]:
    return [
        f"{program.value} looks after {held.kind} {held.name} and may put its {what} back: {remedy}"
        for program, remedy in controllers_of(held)
    ]


def _actions(
    observed: Observed,
    *,
    names: Names,
    handover: Handover,
    parts: Iterable[Piece],
    has_guard: bool,
    claim: JsonObject | None,
    pointed: tuple[JsonObject, ...] = (),
) -> tuple[Action, ...]:
    def action(
        kind: ActionKind, resource: str, name: str, do: str, undo: str, **values: Any
    ) -> Action:
        return Action(kind=kind, resource=resource, name=name, do=do, undo=undo, values=values)

    kind, name, replicas = observed.kind, observed.name, observed.replicas
    pieces = [piece.name for piece in parts]
    first = [
        action(
            ActionKind.WRITE_RECORD, "configmaps", names.record,
            f"write the record: ConfigMap {names.record}", f"delete ConfigMap {names.record}",
        ),
        *([action(
            ActionKind.SHARE_PIECES, "configmaps", "",
            f"share the agent: {len(pieces)} ConfigMaps {', '.join(pieces)}",
            "the garbage collector removes them with their last session", pieces=pieces,
        )] if pieces else []),
        action(
            ActionKind.CREATE_SECRET, "secrets", names.secret,
            f"create Secret {names.secret}: this session's keys", f"delete Secret {names.secret}",
        ),
    ]  # fmt: skip
    if observed.is_to_be_made:
        first.insert(1, action(
            ActionKind.MAKE_WORKLOAD, kind.resource, name,
            f"make {kind} {name} with 0 replicas: there is none",
            f"the garbage collector removes {kind} {name} with the record",
        ))  # fmt: skip
    if claim is not None:
        made = claim["metadata"]["name"]
        first.append(action(
            ActionKind.CREATE_CLAIM, "persistentvolumeclaims", made,
            f"create claim {made}, or take it as it was left",
            f"keep claim {made} (`towline down --volumes` deletes it)",
        ))  # fmt: skip
    dev = action(
        ActionKind.CREATE_DEV_WORKLOAD, "deployments", names.dev_workload,
        f"create Deployment {names.dev_workload}: 1 pod with the agent",
        f"delete Deployment {names.dev_workload}, wait for its pod's end",
    )  # fmt: skip
    stop = action(
        ActionKind.STOP_ORIGINAL, kind.resource, name,
        f"scale {kind} {name} from {replicas} to 0"
        + (" once the dev pod is ready" if handover is Handover.SEAMLESS else ", wait for its end"),
        f"scale {kind} {name} from 0 to {replicas}, wait until it is ready",
        replicas=replicas,
    )  # fmt: skip
    if pointed:
        to_guard = _post_guard(names) if has_guard else ()
        points = point_actions(pointed, session=names.session)
        return (
            first[0],
            way_back_action(way_back_name(names.session)),
            *first[1:],
            dev,
            *to_guard,
            *points,
        )
    middle = (*(_post_guard(names) if has_guard else ()), *_retain_claims(observed))
    if handover is Handover.SEAMLESS:
        return (*first, dev, *middle, stop)
    return (*first, *middle, stop, dev)


def _post_guard(names: Names) -> tuple[Action, ...]:
    name = guard_name(names.session)
    return (
        Action(
            kind=ActionKind.POST_GUARD,
            resource="deployments",
            name=name,
            do=f"post the guard: Deployment {name}, which gives back when this laptop is gone",
            undo="the garbage collector removes the guard with the record",
        ),
    )


def _retain_claims(observed: Observed) -> tuple[Action, ...]:
    policy = observed.workload["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    if observed.kind is not Kind.STATEFULSET or policy.get("whenScaled") != "Delete":
        return ()
    return (
        Action(
            kind=ActionKind.RETAIN_CLAIMS,
            resource=observed.kind.resource,
            name=observed.name,
            do=f"set {observed.name}'s claim retention on scaling to Retain",
            undo=f"set {observed.name}'s claim retention on scaling back to Delete",
            values={"when_scaled": "Delete"},
        ),
    )
