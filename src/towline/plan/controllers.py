"""Who else keeps an object as they have it, and what exactly makes them leave a field. [pure]

Read of what is there anyway: an object's marks, its field managers, its autoscalers. A
controller's own objects (Application, Kustomization, ScaledObject) take rights that few have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from towline._kit.objects import JsonObject
from towline.plan.model import Observed

_ARGO = "argocd.argoproj.io/"
_KUSTOMIZE, _HELM = "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/"
_SCALED_OBJECT = "scaledobject.keda.sh/name"
# What may stand in a command that somebody pastes; an annotation may hold anything.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


class Program(Enum):
    """A controller that is known, as people call it."""

    ARGO_CD = "Argo CD"
    KUSTOMIZE = "Flux"
    HELM = "Flux (Helm)"
    KEDA = "KEDA"
    AUTOSCALER = "HorizontalPodAutoscaler"


# By the beginnings of their field managers: what they set themselves, else their program's
# name. Not `helm`, which is whoever types it. An autoscaler runs in the controller manager
# (seen on 1.34), which scales nothing of its own accord.
_MANAGERS = {
    "argocd": Program.ARGO_CD,
    "kustomize-controller": Program.KUSTOMIZE,
    "helm-controller": Program.HELM,
    "keda": Program.KEDA,
    "kube-controller-manager": Program.AUTOSCALER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A field that somebody else may keep: of which object, and who scales that.

    Attributes:
        found: the object, with its marks and managed fields.
        field: a JSON pointer (RFC 6901).
    """

    found: JsonObject
    kind: str
    namespace: str
    field: str
    autoscalers: Iterable[JsonObject] = ()

    @property
    def name(self) -> str:
        return str(self.found["metadata"]["name"])

    @property
    def marks(self) -> dict[str, str]:
        metadata = self.found["metadata"]
        return {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}


def replicas_held(observed: Observed) -> Held:
    """The replicas of the original."""
    return Held(
        found=observed.workload,
        kind=observed.kind.value,
        namespace=observed.namespace,
        field="/spec/replicas",
        autoscalers=observed.autoscalers,
    )


def selector_held(service: JsonObject, *, namespace: str) -> Held:
    """The selector of a Service."""
    return Held(found=service, kind="Service", namespace=namespace, field="/spec/selector")


def controllers_of(held: Held) -> tuple[tuple[Program, str], ...]:
    """The controllers that may put a field back, each with its remedy; none that is told to rest.

    An autoscaler rests by itself while what it scales is at 0, unless its own minimum is 0.
    """
    found = dict.fromkeys([*_marked(held.marks), *_managing(held), *_scaling(held.autoscalers)])
    return tuple((each, _remedy(each, held)) for each in found if not _rests(each, held.marks))


def remedy(manager: str, held: Held) -> str:
    """What makes the owner of a field leave it alone, whoever that is."""
    program = program_called(manager)
    if program is not None:
        return _remedy(program, held)
    field = held.field.strip("/").replace("/", ".")
    return f"find out what {manager} is and pause it meanwhile, or let it ignore {field}"


def program_called(manager: str) -> Program | None:
    """The controller that a field manager's name is of; None for all others, and for people."""
    name = manager.lower()
    return next((each for begin, each in _MANAGERS.items() if name.startswith(begin)), None)


def scaled_object(autoscaler: JsonObject) -> str | None:
    """The ScaledObject of which KEDA has made an autoscaler; None where it is somebody's own."""
    metadata = autoscaler["metadata"]
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("kind") == "ScaledObject":
            return str(owner["name"])
    name = (metadata.get("labels") or {}).get(_SCALED_OBJECT)
    return None if name is None else str(name)


def scales_from_zero(autoscaler: JsonObject) -> bool:
    """Whether an autoscaler of somebody's own begins at 0 (Kubernetes' HPAScaleToZero)."""
    return scaled_object(autoscaler) is None and autoscaler["spec"].get("minReplicas") == 0


def _marked(marks: dict[str, str]) -> Iterator[Program]:
    if _ARGO + "tracking-id" in marks or _ARGO + "instance" in marks:
        yield Program.ARGO_CD
    if any(key.startswith(_KUSTOMIZE) for key in marks):
        yield Program.KUSTOMIZE
    if any(key.startswith(_HELM) for key in marks):
        yield Program.HELM


def _managing(held: Held) -> Iterator[Program]:
    for entry in held.found["metadata"].get("managedFields") or []:
        program = program_called(str(entry.get("manager") or ""))
        # The controller manager also writes every status; its autoscalers are seen themselves.
        if program not in (None, Program.AUTOSCALER):
            yield program


def _scaling(autoscalers: Iterable[JsonObject]) -> Iterator[Program]:
    for each in autoscalers:
        if scaled_object(each) is not None:
            yield Program.KEDA
        elif scales_from_zero(each):
            yield Program.AUTOSCALER


def _rests(program: Program, marks: dict[str, str]) -> bool:
    key = {Program.KUSTOMIZE: _KUSTOMIZE + "reconcile", Program.HELM: _HELM + "driftDetection"}
    return program in key and marks.get(key[program], "").lower() == "disabled"


def _remedy(program: Program, held: Held) -> str:
    match program:
        case Program.ARGO_CD:
            return _argo_cd(held)
        case Program.KUSTOMIZE:
            return _flux(held, "kustomization", _KUSTOMIZE, "reconcile")
        case Program.HELM:
            return _flux(held, "helmrelease", _HELM, "driftDetection")
        case Program.KEDA:
            return _keda(held)
        case Program.AUTOSCALER:
            return _autoscaler(held)


def _argo_cd(held: Held) -> str:
    marks = held.marks
    tracked = marks.get(_ARGO + "tracking-id", "").partition(":")[0]
    # Of an Application outside Argo CD's own namespace: NAMESPACE_NAME, for the CLI with a slash.
    name = _shown(tracked or marks.get(_ARGO + "instance"), "APPLICATION").replace("_", "/", 1)
    group = "" if held.kind == "Service" else "group apps, "
    return (
        f"let Argo CD ignore it: in the Application, spec.ignoreDifferences with {group}"
        f"kind {held.kind}, name {held.name}, jsonPointers [{held.field}], and "
        f"RespectIgnoreDifferences=true; or `argocd app set {name} --self-heal=false` meanwhile"
    )


def _flux(held: Held, what: str, prefix: str, mark: str) -> str:
    name = _shown(held.marks.get(prefix + "name"), "NAME")
    where = _shown(held.marks.get(prefix + "namespace"), "NAMESPACE")
    return (
        f"`flux suspend {what} {name} -n {where}` meanwhile; or `kubectl -n {held.namespace} "
        f"annotate {held.kind.lower()} {held.name} {prefix}{mark}=disabled`"
    )


def _keda(held: Held) -> str:
    name = next(filter(None, map(scaled_object, held.autoscalers)), None)
    return (
        f"`kubectl -n {held.namespace} annotate scaledobject {_shown(name, 'NAME')} "
        "autoscaling.keda.sh/paused=true` meanwhile"
    )


def _autoscaler(held: Held) -> str:
    own = [each for each in held.autoscalers if scales_from_zero(each)]
    name = _shown(str(own[0]["metadata"]["name"]) if own else None, "NAME")
    return (
        f'`kubectl -n {held.namespace} patch hpa {name} -p \'{{"spec":{{"minReplicas":1}}}}\'` '
        "meanwhile: with that it rests while there are 0"
    )


def _shown(name: str | None, else_: str) -> str:
    return name if name and _NAME.fullmatch(name) else else_
