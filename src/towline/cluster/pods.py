"""The dev pod: waiting for it to run, and saying why it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from towline._kit.objects import JsonObject
from towline._kit.tasks import Tasks
from towline.cluster.api import Api
from towline.cluster.watch import continuous_watch
from towline.errors import Forbidden, PodError, Refused
from towline.plan.model import LABEL_SESSION
from towline.plan.record import Record

# States of a waiting container that do not mend themselves, at least not soon.
_HOPELESS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
}
# A Secret or ConfigMap may be written a moment after the pod; a pull may fail once.
_HOPELESS_AFTER_S = 4.0
_QUIET = {"ContainerCreating", "PodInitializing", ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class DevPod:
    """A dev pod whose dev container runs."""

    name: str
    uid: str
    container_id: str
    address: str


async def pod_running(
    api: Api,
    record: Record,
    *,
    timeout_s: float,
    waiting: Callable[[str], None],
    not_uid: str | None = None,
) -> DevPod:
    """Wait until the dev container runs; `waiting` is told each new reason why it does not yet.

    Args:
        not_uid: a pod that is known to be lost, and does not count.

    Raises:
        PodError: it will not run, or not within `timeout_s`; with the reason and its event.
        Refused: the cluster does not let the pod be made (quota, admission).
    """
    progress = _Progress(waiting)
    try:
        async with asyncio.timeout(timeout_s), Tasks() as tasks:
            tasks.start(_watch_refusals(api, record), name="dev workload")
            return await _watch_pods(api, record, progress, not_uid)
    except TimeoutError as error:
        reason = progress.reason or "it was not even made"
        raise PodError(
            f"the dev pod does not run after {timeout_s:.0f} s: {reason}",
            hint="`timeout:` in the manifest gives it longer",
        ) from error


class _Progress:
    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.reason = ""
        self.hopeless_since: float | None = None

    def update(self, reason: str, *, hopeless: bool) -> None:
        if hopeless and self.hopeless_since is None:
            self.hopeless_since = time.monotonic()
        if not hopeless:
            self.hopeless_since = None
        if reason and reason != self.reason:
            self.reason = reason
            self._tell(reason)


async def _watch_pods(api: Api, record: Record, progress: _Progress, not_uid: str | None) -> DevPod:
    labels = f"{LABEL_SESSION}={record.session}"
    deadline: asyncio.Timeout
    while True:
        try:
            async with (
                asyncio.timeout(None) as deadline,
                aclosing(continuous_watch(api, "pods", labels=labels)) as events,  # type: ignore[type-var]
            ):
                async for event in events:
                    metadata = event.object["metadata"]
                    if metadata["uid"] == not_uid or metadata.get("deletionTimestamp"):
                        continue
                    if event.kind == "DELETED":
                        continue
                    pod = _running(event.object, record.container)
                    if pod is not None:
                        return pod
                    reason, hopeless = why_not(event.object, record.container)
                    progress.update(reason, hopeless=hopeless)
                    if progress.hopeless_since is None:
                        deadline.reschedule(None)
                    else:
                        left = progress.hopeless_since + _HOPELESS_AFTER_S - time.monotonic()
                        deadline.reschedule(asyncio.get_running_loop().time() + max(left, 0.0))
        except TimeoutError:
            if not deadline.expired():
                raise
            raise await _hopeless(api, record, progress.reason) from None


def _running(pod: JsonObject, container: str) -> DevPod | None:
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status["name"] == container and "running" in (status.get("state") or {}):
            return DevPod(
                name=str(pod["metadata"]["name"]),
                uid=str(pod["metadata"]["uid"]),
                container_id=str(status.get("containerID") or ""),
                address=str(pod["status"].get("podIP") or ""),
            )
    return None


def why_not(pod: JsonObject, container: str) -> tuple[str, bool]:
    """Why a pod's dev container does not run yet, and whether that will not mend itself."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"no node for it: {condition.get('message', condition.get('reason'))}", False
    if status.get("phase") == "Failed":
        return f"{status.get('reason') or 'failed'}: {status.get('message') or ''}", True
    containers = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    for each in containers:
        state = each.get("state") or {}
        wait = state.get("waiting") or {}
        reason = str(wait.get("reason") or "")
        if reason in _HOPELESS:
            text = f"container {each['name']}: {reason}: {wait.get('message') or ''}".rstrip(": ")
            last = ((each.get("lastState") or {}).get("terminated") or {}).get("message")
            return text + (f" ({last.strip()})" if last else ""), True
        ended = state.get("terminated") or {}
        if each["name"] == container and ended:
            said = str(ended.get("message") or "").strip()
            code = ended.get("exitCode")
            return f"container {container} ended with {code} at once: {said}".rstrip(": "), True
        if reason not in _QUIET:
            return f"container {each['name']}: {reason}", False
    return "", False


async def _hopeless(api: Api, record: Record, reason: str) -> PodError:
    events = await _events(api, record)
    detail = f" ({events})" if events and events not in reason else ""
    hint = "the original runs with this image and configuration: has something changed since?"
    if "exec format error" in reason:
        hint = "the node is of another architecture: set `nodeSelector: {kubernetes.io/arch: …}`"
    elif "ermission denied" in reason:
        hint = "a policy forbids executing from volumes: use `agent: {image: …}` in a towline.yml"
    return PodError(f"the dev pod does not start: {reason}{detail}", hint=hint)


async def _events(api: Api, record: Record) -> str:
    """The newest warning about the dev pod, "" where events may not be read."""
    try:
        listed = await api.list_("events", fields="type=Warning,involvedObject.kind=Pod")
    except Forbidden:
        return ""
    about = [
        e
        for e in listed.get("items") or []
        if str(e["involvedObject"].get("name", "")).startswith(record.names.dev_workload)
    ]
    about.sort(key=lambda e: str(e.get("lastTimestamp") or ""))
    return str(about[-1].get("message") or "") if about else ""


async def _watch_refusals(api: Api, record: Record) -> None:
    """Raise what keeps the dev workload from making its pod: quota, Pod Security, webhooks."""
    name = record.names.dev_workload
    events = continuous_watch(api, "deployments", fields=f"metadata.name={name}")
    async with aclosing(events) as changes:  # type: ignore[type-var]
        async for event in changes:
            for condition in (event.object.get("status") or {}).get("conditions") or []:
                if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                    message = str(condition.get("message") or condition.get("reason"))
                    raise Refused(
                        f"the cluster does not let the dev pod be made: {message}",
                        hint=_refusal_hint(message),
                    )


def _refusal_hint(message: str) -> str | None:
    if "quota" in message:
        return "there is no room beside the original: `--handover exclusive` stops it first"
    if "PodSecurity" in message:
        return "the original's own template does not meet the namespace's level any more"
    return None


async def pod_ready(api: Api, pod: DevPod) -> None:
    """Wait until a pod is Ready: the gate is open and the kubelet has seen it.

    Raises:
        PodError: the pod is gone.
    """
    async with aclosing(  # type: ignore[type-var]
        continuous_watch(api, "pods", fields=f"metadata.name={pod.name}")
    ) as events:
        async for event in events:
            if event.kind == "DELETED" or event.object["metadata"]["uid"] != pod.uid:
                raise PodError(f"the dev pod {pod.name} is gone")
            for condition in (event.object.get("status") or {}).get("conditions") or []:
                if condition["type"] == "Ready" and condition["status"] == "True":
                    return


async def service_only_at(api: Api, service: str, address: str) -> None:
    """Wait until a Service's only ready endpoint is `address`; at once without the right to see."""
    await _service_endpoints(api, service, lambda ready: ready == {address})


async def _service_endpoints(api: Api, service: str, done: Callable[[set[str]], bool]) -> None:
    slices: dict[str, set[str]] = {}
    labels = f"kubernetes.io/service-name={service}"
    try:
        async with aclosing(  # type: ignore[type-var]
            continuous_watch(api, "endpointslices", labels=labels)
        ) as events:
            async for event in events:
                uid = str(event.object["metadata"]["uid"])
                slices[uid] = set() if event.kind == "DELETED" else _ready(event.object)
                if done(set().union(*slices.values())):
                    return
    except Forbidden:
        return


def _ready(endpoint_slice: JsonObject) -> set[str]:
    return {
        str(address)
        for endpoint in endpoint_slice.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint.get("addresses") or []
    }
