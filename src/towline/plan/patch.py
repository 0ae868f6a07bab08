"""An original's pod template → the dev workload that stands in for it. [pure]

Everything the original's pod has stays as it is, but for: the dev container's command
(the starter), its probes and hooks, three mounts under /towline, and the labels that
name the session. So environment, volumes, user, service account and network are the
original's by construction.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from towline._kit.objects import JsonObject, mutable
from towline.manifest.model import Entry, InitContainers, Mode, Original
from towline.payload.pieces import Piece, image_container, volume
from towline.plan.folders import claim_name, image_user, lay_sync_over, variable_key
from towline.plan.keep import GRACE_S, labels_left
from towline.plan.model import LABEL_SESSION, MANAGED_BY, AgentPorts, Kind, Names, Observed

FOLDER = "/towline"
GATE_PATH = "/towline/ready"
SECRET_KEYS = ("config.json", "host_key", "client_key", "line_key")
"""What of the session's Secret the agent reads (docs/protocol.md)."""
_BOOT, _RUN, _SESSION = "towline-boot", "towline-run", "towline-session"
# Labels that a controller puts on the pods it made; a copy of them would make the dev
# pod that controller's own.
_CONTROLLER_LABELS = ("pod-template-hash", "controller-revision-hash")
# An entry has both security contexts in one map, as Okteto's have it: these are the pod's.
_POD_SECURITY = (
    "fsGroup", "fsGroupChangePolicy", "supplementalGroups", "supplementalGroupsPolicy", "sysctls",
)  # fmt: skip
# The kubelet's request is held back while the gate is shut: it must wait longer than
# the agent does (8 s).
_PROBE_TIMEOUT_S = 10


def dev_workload(
    observed: Observed,
    *,
    container: str,
    names: Names,
    ports: AgentPorts,
    parts: Iterable[Piece],
    arch: str,
    entry: Entry,
) -> JsonObject:
    """The Deployment that stands in for the original; its record's owner is added on creation."""
    template = copy.deepcopy(observed.template)
    metadata = _template_metadata(template, names, entry)
    spec = template["spec"]
    if entry.settings.original is Original.KEEP:
        kept = labels_left(metadata["labels"], observed)
        metadata["labels"] = {**kept, LABEL_SESSION: names.session}
        grace_s = int(spec.get("terminationGracePeriodSeconds", 30))
        spec["terminationGracePeriodSeconds"] = max(grace_s, GRACE_S)
    if observed.kind is Kind.STATEFULSET:
        _take_identity(observed.workload, metadata, spec)
    _patch_pod(spec, names, parts, arch, entry)
    held = _container(spec, container)
    _patch_container(held, ports, entry, secret=names.secret)
    if entry.mode is Mode.SYNC:
        lay_sync_over(
            spec,
            held,
            entry,
            agent=_agent_mounts()[:2],
            claim=claim_name(observed.kind, observed.name),
            secret=names.secret,
            uid=image_user(observed.pods, container),
        )
    if (image := entry.settings.agent_image) is not None:
        # Before all others: what prepares the folders runs it.
        boot = image_container(image, like=held, folder=f"{FOLDER}/boot", volume=_BOOT)
        spec["initContainers"] = [boot, *(spec.get("initContainers") or [])]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.dev_workload,
            "labels": {LABEL_SESSION: names.session, **MANAGED_BY},
        },
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 0,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {LABEL_SESSION: names.session}},
            "template": {"metadata": metadata, "spec": spec},
        },
    }


def _template_metadata(template: JsonObject, names: Names, entry: Entry) -> JsonObject:
    metadata = template.get("metadata") or {}
    labels = {
        key: value
        for key, value in (metadata.get("labels") or {}).items()
        if key not in _CONTROLLER_LABELS
    }
    return {
        "labels": {**entry.metadata.labels, **labels, LABEL_SESSION: names.session},
        "annotations": {**(metadata.get("annotations") or {}), **entry.metadata.annotations},
    }


def _take_identity(stateful_set: JsonObject, metadata: JsonObject, spec: JsonObject) -> None:
    """Give the pod ordinal 0's host name, claims and labels.

    Never its name: the set would adopt a pod named like one of its own.
    """
    set_spec = stateful_set["spec"]
    ordinal = int((set_spec.get("ordinals") or {}).get("start") or 0)
    pod_name = f"{stateful_set['metadata']['name']}-{ordinal}"
    spec["hostname"] = pod_name
    if set_spec.get("serviceName"):
        spec["subdomain"] = set_spec["serviceName"]
    metadata["labels"]["statefulset.kubernetes.io/pod-name"] = pod_name
    metadata["labels"]["apps.kubernetes.io/pod-index"] = str(ordinal)
    claims = [
        {
            "name": claim["metadata"]["name"],
            "persistentVolumeClaim": {"claimName": f"{claim['metadata']['name']}-{pod_name}"},
        }
        for claim in set_spec.get("volumeClaimTemplates") or []
    ]
    taken = {claim["name"] for claim in claims}
    kept = [v for v in spec.get("volumes") or [] if v["name"] not in taken]
    spec["volumes"] = kept + claims
    for each in [*(spec.get("initContainers") or []), *spec["containers"]]:
        for variable in each.get("env") or []:
            reference = (variable.get("valueFrom") or {}).get("fieldRef") or {}
            if reference.get("fieldPath") == "metadata.name":
                del variable["valueFrom"]
                variable["value"] = pod_name


def _patch_pod(
    spec: JsonObject, names: Names, parts: Iterable[Piece], arch: str, entry: Entry
) -> None:
    spec["nodeSelector"] = {
        **(spec.get("nodeSelector") or {}),
        **entry.node_selector,
        "kubernetes.io/arch": arch,
    }
    if entry.settings.init_containers is InitContainers.SKIP:
        # Those that restart always are sidecars, not preparation.
        kept = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
        spec["initContainers"] = kept
    for key, value in (
        ("serviceAccountName", entry.service_account),
        ("serviceAccount", entry.service_account),
        ("tolerations", entry.tolerations),
        ("affinity", entry.affinity),
        ("priorityClassName", entry.priority_class_name),
    ):
        if value:
            spec[key] = mutable(value)
    if entry.priority_class_name is not None:
        # Filled in by admission from the class's name; the old number would be refused.
        spec.pop("priority", None)
    pods = {k: mutable(v) for k, v in entry.security_context.items() if k in _POD_SECURITY}
    if pods:
        spec["securityContext"] = {**(spec.get("securityContext") or {}), **pods}
    if any(each.remote < 1024 for each in entry.reverse):
        _allow_low_ports(spec)
    # The user's own secrets and variables are in the same Secret in sync mode, and are not
    # for all who can read the agent's files.
    items = {}
    if entry.mode is Mode.SYNC:
        items = {"items": [{"key": key, "path": key} for key in SECRET_KEYS]}
    mode = 0o440 if (spec.get("securityContext") or {}).get("fsGroup") is not None else 0o444
    spec["volumes"] = [
        *(spec.get("volumes") or []),
        volume(parts, name=_BOOT),
        {"name": _RUN, "emptyDir": {}},
        {"name": _SESSION, "secret": {"secretName": names.secret, "defaultMode": mode, **items}},
        *_external_claims(entry),
    ]


def _allow_low_ports(spec: JsonObject) -> None:
    """Let a non-root user bind ports below 1024: a safe sysctl, allowed under `restricted`."""
    name = "net.ipv4.ip_unprivileged_port_start"
    security = spec.setdefault("securityContext", {})
    others = [s for s in security.get("sysctls") or [] if s["name"] != name]
    security["sysctls"] = [*others, {"name": name, "value": "0"}]


def _claim_volumes(entry: Entry) -> dict[str, str]:
    """The volume name of each external claim; one claim may be mounted more than once."""
    claims = dict.fromkeys(each.claim for each in entry.external_volumes)
    return {claim: f"towline-claim-{n}" for n, claim in enumerate(claims)}


def _external_claims(entry: Entry) -> list[JsonObject]:
    return [
        {"name": name, "persistentVolumeClaim": {"claimName": claim}}
        for claim, name in _claim_volumes(entry).items()
    ]


def _container(spec: JsonObject, name: str) -> JsonObject:
    container: JsonObject = next(c for c in spec["containers"] if c["name"] == name)
    return container


def _agent_mounts() -> list[JsonObject]:
    return [
        {"name": _BOOT, "mountPath": f"{FOLDER}/boot", "readOnly": True},
        {"name": _RUN, "mountPath": f"{FOLDER}/run"},
        {"name": _SESSION, "mountPath": f"{FOLDER}/session", "readOnly": True},
    ]


def _patch_container(
    container: JsonObject, ports: AgentPorts, entry: Entry, *, secret: str
) -> None:
    container["command"] = [f"{FOLDER}/boot/starter"]
    # What the starter or the agent said last is then in the pod's status, readable without logs.
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    container.pop("args", None)
    for key, stays in (
        ("livenessProbe", entry.probes.liveness),
        ("startupProbe", entry.probes.startup),
    ):
        if not stays:
            container.pop(key, None)
    hooks = _hooks(container.pop("lifecycle", None) or {}, entry)
    if hooks:
        container["lifecycle"] = hooks
    container["readinessProbe"] = {
        "httpGet": {"path": GATE_PATH, "port": ports.gate, "scheme": "HTTP"},
        "periodSeconds": 1,
        "timeoutSeconds": _PROBE_TIMEOUT_S,
        "successThreshold": 1,
        "failureThreshold": 1,
    }
    volumes = _claim_volumes(entry)
    container["volumeMounts"] = [
        *(container.get("volumeMounts") or []),
        *_agent_mounts(),
        *(
            {
                "name": volumes[each.claim],
                "mountPath": str(each.mount_path),
                **({"subPath": each.sub_path} if each.sub_path else {}),
            }
            for each in entry.external_volumes
        ),
    ]
    # In sync mode envFiles and -e are among them: a Deployment is read by more people.
    _lay_over(container, entry, secret=secret if entry.mode is Mode.SYNC else None)


def _hooks(own: JsonObject, entry: Entry) -> JsonObject:
    """The lifecycle hooks that are on: the entry's command, or the container's own hook."""
    wanted = {"postStart": entry.lifecycle.post_start, "preStop": entry.lifecycle.pre_stop}
    hooks: JsonObject = {}
    for name, hook in wanted.items():
        if not hook.enabled:
            continue
        if hook.command is not None:
            argv = list(hook.command.argv) or ["sh", "-c", str(hook.command.shell)]
            hooks[name] = {"exec": {"command": argv}}
        elif name in own:
            hooks[name] = own[name]
    return hooks


def _lay_over(container: JsonObject, entry: Entry, *, secret: str | None) -> None:
    if entry.environment:
        env = container.get("env") or []
        container["env"] = _with_own_variables(env, entry, secret=secret)
    resources = container.get("resources") or {}
    for key, wanted in (
        ("limits", entry.resources.limits),
        ("requests", entry.resources.requests),
    ):
        if wanted:
            container["resources"] = resources
            resources[key] = {**(resources.get(key) or {}), **wanted}
    if entry.security_context:
        container["securityContext"] = {
            **(container.get("securityContext") or {}),
            **{
                key: mutable(value)
                for key, value in entry.security_context.items()
                if key not in _POD_SECURITY
            },
        }


def _with_own_variables(
    env: list[JsonObject], entry: Entry, *, secret: str | None = None
) -> list[JsonObject]:
    """The container's `env` with the dev entry's: each in its place, new ones before all.

    So that a value of the container that refers to one, `redis://$(DB_HOST)`, has it: a
    reference sees only what is defined before it.

    Args:
        secret: the Secret that has the values; None puts them into the pod's spec.
    """
    # The kubelet would expand `$(NAME)` in a value; the manifest's are final. `$$` is a dollar.
    own: dict[str, JsonObject] = {
        each.name: {"name": each.name, "value": each.value.replace("$", "$$")}
        for each in entry.environment
    }
    if secret is not None:
        own = {
            each.name: {
                "name": each.name,
                "valueFrom": {"secretKeyRef": {"name": secret, "key": variable_key(number)}},
            }
            for number, each in enumerate(entry.environment)
        }
    there = {each["name"] for each in env}
    merged = [made for name, made in own.items() if name not in there]
    for each in env:
        if each["name"] not in own:
            merged.append(each)
        elif own[each["name"]] not in merged:
            merged.append(own[each["name"]])
    return merged
