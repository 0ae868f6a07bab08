"""Controllers that keep what a takeover changes: by what they are known, and what is said."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from towline.manifest.model import Original, Settings
from towline.plan.build import build_plan
from towline.plan.controllers import remedy, replicas_held
from towline.plan.model import Kind, Observed

from .test_takeover_plan import ME, SERVICE, deployment, entry

ARGO = "argocd.argoproj.io/"
KUSTOMIZE, HELM = "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/"
FLUX_LABELS = {f"{KUSTOMIZE}name": "shop", f"{KUSTOMIZE}namespace": "flux-system"}
HELM_LABELS = {f"{HELM}name": "shop", f"{HELM}namespace": "apps"}

ARGO_WORDS = (
    "let Argo CD ignore it: in the Application, spec.ignoreDifferences with {group}kind {kind}, "
    "name front, jsonPointers [{field}], and RespectIgnoreDifferences=true; or "
    "`argocd app set {app} --self-heal=false` meanwhile"
)
FLUX_WORDS = (
    "`flux suspend {what} {name} -n {where}` meanwhile; or `kubectl -n n annotate {lower} front "
    "{mark}=disabled`"
)
KEDA_WORDS = "`kubectl -n n annotate scaledobject {name} autoscaling.keda.sh/paused=true` meanwhile"


def kustomization(name: str = "shop", where: str = "flux-system") -> str:
    mark = f"{KUSTOMIZE}reconcile"
    return FLUX_WORDS.replace("{what}", "kustomization").replace("{mark}", mark).replace(
        "{name}", name).replace("{where}", where)  # fmt: skip


def helm_release(name: str = "shop", where: str = "apps") -> str:
    mark = f"{HELM}driftDetection"
    return FLUX_WORDS.replace("{what}", "helmrelease").replace("{mark}", mark).replace(
        "{name}", name).replace("{where}", where)  # fmt: skip


def managed_by(*managers: str) -> dict[str, Any]:
    return {"managedFields": [{"manager": each, "fieldsV1": {}} for each in managers]}


WHO = [
    ({"annotations": {f"{ARGO}tracking-id": "shop:apps/Deployment:n/front"}}, "Argo CD",
     ARGO_WORDS.replace("{app}", "shop")),
    ({"annotations": {f"{ARGO}tracking-id": "team_shop:apps/Deployment:n/front"}}, "Argo CD",
     ARGO_WORDS.replace("{app}", "team/shop")),
    ({"annotations": {f"{ARGO}tracking-id": "x; rm -rf ~:apps/Deployment:n/front"}}, "Argo CD",
     ARGO_WORDS.replace("{app}", "APPLICATION")),
    ({"labels": {f"{ARGO}instance": "shop"}}, "Argo CD", ARGO_WORDS.replace("{app}", "shop")),
    (managed_by("kubectl", "argocd-controller"), "Argo CD",
     ARGO_WORDS.replace("{app}", "APPLICATION")),
    ({"labels": FLUX_LABELS, **managed_by("kustomize-controller")}, "Flux", kustomization()),
    (managed_by("kustomize-controller"), "Flux", kustomization("NAME", "NAMESPACE")),
    ({"labels": HELM_LABELS}, "Flux (Helm)", helm_release()),
    (managed_by("helm-controller"), "Flux (Helm)", helm_release("NAME", "NAMESPACE")),
]  # fmt: skip


def warnings_of(
    tmp_path: Path, *, original: Original, metadata: dict[str, Any], autoscalers: Any = ()
) -> list[str]:
    """What the plan says of who looks after what is changed: replicas, or a selector."""
    workload, service = deployment(), copy.deepcopy(SERVICE)
    workload["metadata"].pop("labels")
    (workload if original is Original.REPLACE else service)["metadata"] |= metadata
    observed = Observed(
        context="c", namespace="n", kind=Kind.DEPLOYMENT, workload=workload, services=(service,),
        autoscalers=autoscalers,
    )  # fmt: skip
    wanted = replace(entry(tmp_path), settings=Settings(original=original))
    plan = build_plan(wanted, observed, session="5e551011", owner=ME, parts=(), arch="amd64")
    return [each for each in plan.warnings if "looks after" in each or "Autoscaler" in each]


@pytest.mark.parametrize(("metadata", "who", "words"), WHO)
@pytest.mark.parametrize("original", [Original.REPLACE, Original.KEEP])
def test_a_controller_is_seen_before_the_takeover_and_the_remedy_said(
    tmp_path: Path, original: Original, metadata: dict[str, Any], who: str, words: str
) -> None:
    kind, what = ("Deployment", "replicas") if original is Original.REPLACE else (
        "Service", "selector")  # fmt: skip
    group = "group apps, " if kind == "Deployment" else ""
    exact = (
        words.replace("{group}", group)
        .replace("{kind}", kind)
        .replace("{lower}", kind.lower())
        .replace("{field}", f"/spec/{what}")
    )
    assert warnings_of(tmp_path, original=original, metadata=metadata) == [
        f"{who} looks after {kind} front and may put its {what} back: {exact}"
    ]


@pytest.mark.parametrize(
    "metadata",
    [
        managed_by("kubectl-client-side-apply", "helm", "anna"),
        managed_by("kube-controller-manager"),  # it writes every status
        {"labels": FLUX_LABELS, "annotations": {f"{KUSTOMIZE}reconcile": "Disabled"}},
        {"labels": {**HELM_LABELS, f"{HELM}driftDetection": "disabled"}},
    ],
)
@pytest.mark.parametrize("original", [Original.REPLACE, Original.KEEP])
def test_people_and_controllers_that_were_told_to_rest_are_not_warned_of(
    tmp_path: Path, original: Original, metadata: dict[str, Any]
) -> None:
    assert not warnings_of(tmp_path, original=original, metadata=metadata)


def autoscaler(*, minimum: int = 1, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "hpa", **metadata}, "spec": {"minReplicas": minimum}}


OF_KEDA = autoscaler(ownerReferences=[{"kind": "ScaledObject", "name": "scaler"}])
BY_LABEL = autoscaler(labels={"scaledobject.keda.sh/name": "scaler"})
OWN = autoscaler()
FROM_ZERO = autoscaler(minimum=0)
LOOKS_AFTER = "looks after Deployment front and may put its replicas back: "


@pytest.mark.parametrize(
    ("scaler", "metadata", "said"),
    [
        (OF_KEDA, {}, f"KEDA {LOOKS_AFTER}{KEDA_WORDS.format(name='scaler')}"),
        (BY_LABEL, managed_by("keda-operator"),
         f"KEDA {LOOKS_AFTER}{KEDA_WORDS.format(name='scaler')}"),
        (None, managed_by("keda"), f"KEDA {LOOKS_AFTER}{KEDA_WORDS.format(name='NAME')}"),
        (OWN, {}, "HorizontalPodAutoscaler hpa rests while the original is at 0, and goes on "
         "after it"),
        (FROM_ZERO, {}, f"HorizontalPodAutoscaler {LOOKS_AFTER}`kubectl -n n patch hpa hpa -p "
         "'{\"spec\":{\"minReplicas\":1}}'` meanwhile: with that it rests while there are 0"),
    ],
)  # fmt: skip
def test_an_autoscaler_that_begins_at_0_is_not_said_to_rest(
    tmp_path: Path, scaler: dict[str, Any] | None, metadata: dict[str, Any], said: str
) -> None:
    scalers = (scaler,) if scaler else ()
    seen = {"metadata": metadata, "autoscalers": scalers}
    assert warnings_of(tmp_path, original=Original.REPLACE, **seen) == [said]


def test_an_original_that_is_kept_is_its_autoscalers_as_before(tmp_path: Path) -> None:
    seen: dict[str, Any] = {"metadata": {}, "autoscalers": (OF_KEDA, FROM_ZERO)}
    assert not warnings_of(tmp_path, original=Original.KEEP, **seen)


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        ("argocd-controller", "`argocd app set APPLICATION --self-heal=false` meanwhile"),
        ("argocd-application-controller", "jsonPointers [/spec/replicas]"),
        ("kustomize-controller", "`flux suspend kustomization shop -n flux-system` meanwhile"),
        ("helm-controller", "`flux suspend helmrelease NAME -n NAMESPACE` meanwhile"),
        ("keda", KEDA_WORDS.format(name="scaler")),
        ("keda-operator", KEDA_WORDS.format(name="scaler")),
        ("kube-controller-manager", "`kubectl -n n patch hpa hpa -p "),
        ("helm", "find out what helm is and pause it meanwhile, or let it ignore spec.replicas"),
    ],
)
def test_the_remedy_of_who_put_it_back(manager: str, words: str) -> None:
    workload = deployment()
    workload["metadata"]["labels"] = FLUX_LABELS
    observed = Observed(
        context="c", namespace="n", kind=Kind.DEPLOYMENT, workload=workload,
        autoscalers=(OF_KEDA, FROM_ZERO),
    )  # fmt: skip
    assert words in remedy(manager, replicas_held(observed))
