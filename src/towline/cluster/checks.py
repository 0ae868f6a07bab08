"""What `doctor` asks the cluster: reach, rights, Pod Security, quotas."""

from __future__ import annotations

from dataclasses import dataclass

from towline._kit.objects import JsonObject
from towline._kit.together import together
from towline.cluster.api import Api
from towline.errors import ClusterError, Forbidden

# Group, resource (with subresource), verb: the smallest rights that `up` needs, as
# docs/rights.yaml grants them. The second list only makes it better.
NEEDED = (
    ("", "configmaps", "get"),
    ("", "configmaps", "list"),
    ("", "configmaps", "watch"),
    ("", "configmaps", "create"),
    ("", "configmaps", "patch"),
    ("", "configmaps", "delete"),
    ("", "secrets", "create"),
    ("", "secrets", "delete"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "pods/portforward", "get"),
    ("", "pods/portforward", "create"),
    ("", "services", "list"),
    ("apps", "deployments", "get"),
    ("apps", "deployments", "list"),
    ("apps", "deployments", "watch"),
    ("apps", "deployments", "create"),
    ("apps", "deployments", "patch"),
    ("apps", "deployments", "delete"),
    ("apps", "statefulsets", "get"),
    ("apps", "statefulsets", "list"),
    ("apps", "statefulsets", "watch"),
    ("apps", "statefulsets", "patch"),
    ("", "persistentvolumeclaims", "get"),
)
_KEEP = "`original: keep` points Services at the dev pod"
_GUARD = "a guard gives back when this laptop is gone"
USEFUL = (
    ("", "pods", "create", "a dry run tells before the takeover that a quota is full"),
    ("coordination.k8s.io", "leases", "get", _GUARD),
    ("coordination.k8s.io", "leases", "create", _GUARD),
    ("coordination.k8s.io", "leases", "patch", _GUARD),
    ("", "serviceaccounts", "create", _GUARD),
    ("rbac.authorization.k8s.io", "roles", "create", _GUARD),
    ("rbac.authorization.k8s.io", "rolebindings", "create", _GUARD),
    ("discovery.k8s.io", "endpointslices", "list", "sees when the Service has followed"),
    ("discovery.k8s.io", "endpointslices", "watch", "sees when the Service has followed"),
    ("", "services", "get", _KEEP),
    ("", "services", "create", _KEEP),
    ("", "services", "patch", _KEEP),
    ("networking.k8s.io", "networkpolicies", "list", "`original: keep` tells which do not hold"),
    ("", "services", "watch", "follows Services that are made or removed"),
    ("", "pods/log", "get", "`towline logs --pod`"),
    ("", "persistentvolumeclaims", "create", "`persistentVolume` keeps folders over sessions"),
    ("", "persistentvolumeclaims", "list", "`towline status` shows kept claims"),
    ("", "persistentvolumeclaims", "delete", "`towline down --volumes`"),
    ("", "events", "create", "tells of a takeover, and a laptop that slept who ended its session"),
    ("", "events", "list", "says why a pod does not start, and who ended a session meanwhile"),
    ("autoscaling", "horizontalpodautoscalers", "list", "warns of an autoscaler"),
)
# Not in the Role: they show what is secret.
MORE = (
    ("", "secrets", "get", "`towline env` before a session knows what comes from Secrets"),
    ("", "secrets", "list", "a Secret that changes is told"),
    ("", "secrets", "watch", "a Secret that changes is told"),
    ("", "pods/exec", "get", "`towline env` before a session knows what the image sets"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked: whether it is well, and what to do when it is not."""

    check: str
    ok: bool
    text: str
    hint: str | None = None


async def check_rights(api: Api) -> list[Finding]:
    """Ask for every right that `up` needs (SelfSubjectAccessReview), at once."""

    async def ask(group: str, resource: str, verb: str) -> bool:
        name, _, sub = resource.partition("/")
        attributes: JsonObject = {
            "namespace": api.namespace,
            "verb": verb,
            "group": group,
            "resource": name,
        }
        if sub:
            attributes["subresource"] = sub
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await api.create("selfsubjectaccessreviews", body)
        return bool((answer.get("status") or {}).get("allowed"))

    wanted = [*NEEDED, *((g, r, v) for g, r, v, _ in (*USEFUL, *MORE))]
    allowed = await together(*[ask(*each) for each in wanted])
    by_right = dict(zip(wanted, allowed, strict=True))
    missing: dict[str, list[str]] = {}
    for group, resource, verb in NEEDED:
        if not by_right[group, resource, verb]:
            missing.setdefault(f"{resource}{'.' + group if group else ''}", []).append(verb)
    findings = [
        Finding(
            check="rights",
            ok=False,
            text=f"you may not {', '.join(verbs)} {resource} in namespace {api.namespace}",
            hint="docs/rights.yaml is the smallest Role that `up` needs",
        )
        for resource, verbs in missing.items()
    ]
    if not findings:
        findings.append(Finding(check="rights", ok=True, text="all that `up` needs"))
    for group, resource, verb, use in (*USEFUL, *MORE):
        if not by_right[group, resource, verb]:
            text = f"without {verb} {resource} something is missing: {use}"
            findings.append(Finding(check="rights", ok=True, text=text))
    return findings


async def check_reach(api: Api) -> Finding:
    """Reach the API server, and learn its version."""
    version = await api.request("GET", "/version")
    target = api.access.target
    return Finding(
        check="cluster",
        ok=True,
        text=f"Kubernetes {version.get('gitVersion')} at {target.cluster.server} "
        f"(context {target.context}, namespace {api.namespace})",
    )


async def check_namespace(api: Api) -> list[Finding]:
    """Pod Security and quotas of the namespace, where they may be seen."""
    findings = []
    try:
        namespace = await api.find("namespaces", api.namespace)
    except Forbidden:
        namespace = {}
    if namespace is None:
        hint = "choose one with `-n`"
        text = f"there is no namespace {api.namespace}"
        return [Finding(check="namespace", ok=False, text=text, hint=hint)]
    labels = (namespace.get("metadata") or {}).get("labels") or {}
    level = labels.get("pod-security.kubernetes.io/enforce")
    if level:
        text = f"Pod Security {level}: the dev pod asks for nothing that the original does not"
        findings.append(Finding(check="namespace", ok=True, text=text))
    try:
        quotas = (await api.list_("resourcequotas")).get("items") or []
    except (Forbidden, ClusterError):
        quotas = []
    for quota in quotas:
        status = quota.get("status") or {}
        used, hard = status.get("used") or {}, status.get("hard") or {}
        full = [name for name in hard if name == "pods" and used.get(name) == hard[name]]
        findings.append(
            Finding(
                check="quota",
                ok=not full,
                text=f"ResourceQuota {quota['metadata']['name']}: "
                + ", ".join(f"{name} {used.get(name, '0')}/{hard[name]}" for name in hard),
                hint="there is no room for the dev pod beside the original: --handover exclusive"
                if full
                else None,
            )
        )
    return findings
