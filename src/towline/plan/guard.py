"""The guard: what gives the service back when the laptop is gone, as objects. [pure]

One replica of the original's image with starter and agent (`agent -guard`), its own
small requests and service account, and a Role with a few verbs on the session's
objects by name. All of it is owned by the record, so it goes with the session.
"""

from __future__ import annotations

from collections.abc import Iterable

from towline._kit.objects import JsonObject
from towline.manifest.model import Original, Settings
from towline.payload.pieces import Piece, image_container, volume
from towline.plan.model import MANAGED_BY, Kind, Names

LABEL_GUARD = "towline.dev/guard"
_FOLDER = "/towline"
_BOOT, _RUN = "towline-boot", "towline-run"
_RBAC = "rbac.authorization.k8s.io"
# Of the pod: what images, nodes and policies need to be told. Never labels, by which a
# Service or a controller would take the guard for the original.
_TAKEN_FROM_POD = ("imagePullSecrets", "nodeSelector", "tolerations", "runtimeClassName")


def guard_name(session: str) -> str:
    """The name of the guard's Deployment, service account, Role and binding."""
    return f"towline-guard-{session}"


def lease_name(session: str) -> str:
    """The name of the Lease that the client renews and the guard watches."""
    return f"towline-{session}"


def guard_objects(
    template: JsonObject,
    *,
    container: str,
    kind: Kind,
    workload: str,
    names: Names,
    parts: Iterable[Piece],
    arch: str,
    settings: Settings,
    pointed: tuple[str, ...] = (),
) -> tuple[JsonObject, ...]:
    """The guard's objects in the order in which they are made; owners are added then."""
    name = guard_name(names.session)
    metadata = {"name": name, "labels": {LABEL_GUARD: names.session, **MANAGED_BY}}
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": _rules(kind, workload, names, pointed),
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name}],
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 0,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {LABEL_GUARD: names.session}},
                "template": {
                    "metadata": {"labels": {LABEL_GUARD: names.session, **MANAGED_BY}},
                    "spec": _pod(template["spec"], container, names, parts, arch, settings),
                },
            },
        },
    )


def _rules(kind: Kind, workload: str, names: Names, pointed: tuple[str, ...]) -> list[JsonObject]:
    def rule(group: str, resource: str, name: str, *verbs: str) -> JsonObject:
        return {
            "apiGroups": [group],
            "resources": [resource],
            "resourceNames": [name],
            "verbs": list(verbs),
        }

    return [
        rule("apps", kind.resource, workload, "get", "patch"),
        rule("apps", "deployments", names.dev_workload, "get", "patch", "delete"),
        rule("", "configmaps", names.record, "get", "delete"),
        rule("coordination.k8s.io", "leases", lease_name(names.session), "get"),
        *(rule("", "services", name, "get", "patch") for name in pointed),
    ]


def _pod(
    original: JsonObject,
    container: str,
    names: Names,
    parts: Iterable[Piece],
    arch: str,
    settings: Settings,
) -> JsonObject:
    source = next(c for c in original["containers"] if c["name"] == container)
    security = {k: v for k, v in (original.get("securityContext") or {}).items() if k != "sysctls"}
    taken = {key: original[key] for key in _TAKEN_FROM_POD if original.get(key)}
    made: JsonObject = {
        "name": "guard",
        "image": source["image"],
        "command": [f"{_FOLDER}/boot/starter"],
        "args": [
            f"-guard={names.record}",
            f"-lease={lease_name(names.session)}",
            f"-give-back-after={settings.give_back_after_s:g}s",
            f"-keep-for={settings.keep_for_s:g}s",
            *(["-original-is-kept"] if settings.original is Original.KEEP else []),
        ],
        # A limit for memory alone: throttled, it would be late when it counts.
        "resources": {
            "requests": {"cpu": "5m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": _BOOT, "mountPath": f"{_FOLDER}/boot", "readOnly": True},
            {"name": _RUN, "mountPath": f"{_FOLDER}/run"},
        ],
    }
    for key in ("imagePullPolicy", "securityContext"):
        if source.get(key):
            made[key] = source[key]
    first = []
    if (image := settings.agent_image) is not None:
        folder = f"{_FOLDER}/boot"
        first = [image_container(image, like=made, folder=folder, volume=_BOOT)]
    return {
        **taken,
        "nodeSelector": {**(original.get("nodeSelector") or {}), "kubernetes.io/arch": arch},
        "serviceAccountName": guard_name(names.session),
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "securityContext": security,
        **({"initContainers": first} if first else {}),
        "containers": [made],
        "volumes": [volume(parts, name=_BOOT), {"name": _RUN, "emptyDir": {}}],
    }


def lease_object(session: str, *, owner: str, now: str, give_back_after_s: float) -> JsonObject:
    """The session's Lease. Only that it changes counts, never what time it names."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": lease_name(session),
            "labels": {LABEL_GUARD: session, **MANAGED_BY},
        },
        "spec": {
            "holderIdentity": owner,
            "leaseDurationSeconds": max(int(give_back_after_s), 1),
            "acquireTime": now,
            "renewTime": now,
        },
    }
