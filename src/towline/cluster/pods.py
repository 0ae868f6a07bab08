"""The dev pod: waiting for it to run, and saying why it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from enum import Enum

from towline._kit.moments import time_text
from towline._kit.objects import JsonObject
from towline._kit.tasks import Tasks
from towline.cluster.api import Api
from towline.cluster.watch import continuous_watch, patiently
from towline.errors import ClusterError, Forbidden, NotFound, PodError, Refused
from towline.plan.model import ANNOTATION_REPLACED, LABEL_SESSION
from towline.plan.record import Record

# The kubelet's word for a container that has ended more than once: 10 s, then twice as long.
_BACKS_OFF = "CrashLoopBackOff"
# States of a waiting container that do not mend themselves, at least not soon.
_HOPELESS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    _BACKS_OFF,
}
# A Secret or ConfigMap may be written a moment after the pod; a pull may fail once.
_HOPELESS_AFTER_S = 4.0
_QUIET = {"ContainerCreating", "PodInitializing", ""}
NO_ROOM_AFTER_S = 10.0
"""How long no node takes the pod before the original makes room for it (design §9)."""


class Stuck(Enum):
    """Whether what a pod waits for comes by itself."""

    NO = "it takes its time"
    HOPELESS = "it does not mend itself"
    NO_NODE = "no node has room for it"


class NoRoom(PodError):
    """There is no room for the dev pod as long as the original is there."""


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
    lost: DevPod | None = None,
    no_room_after_s: float | None = None,
) -> DevPod:
    """Wait until the dev container runs; `waiting` is told each new reason why it does not yet.

    Args:
        lost: ran until now. Its container may come back in it; where the kubelet waits before
            it starts it once more, longer each time, the pod gives way to another.
        no_room_after_s: raise NoRoom when no node takes the pod for so long, and at once when
            a quota is full; None waits on.

    Raises:
        PodError: it will not run, or not within `timeout_s`; with the reason and its event.
        Refused: the cluster does not let the pod be made (quota, admission).
    """
    progress = _Progress(waiting, no_room_after_s=no_room_after_s)
    try:
        async with asyncio.timeout(timeout_s), Tasks() as tasks:
            refusals = _watch_refusals(api, record, makes_room=no_room_after_s is not None)
            tasks.start(refusals, name="dev workload")
            return await _watch_pods(api, record, progress, lost)
    except TimeoutError as error:
        reason = progress.reason or "it was not even made"
        raise PodError(
            f"the dev pod does not run after {timeout_s:.0f} s: {reason}",
            hint="`timeout:` in the manifest gives it longer",
        ) from error


class _Progress:
    """Why the pod does not run yet, and until when that is waited for."""

    def __init__(self, tell: Callable[[str], None], *, no_room_after_s: float | None) -> None:
        self._tell = tell
        self._patience_s = {Stuck.HOPELESS: _HOPELESS_AFTER_S}
        if no_room_after_s is not None:
            self._patience_s[Stuck.NO_NODE] = no_room_after_s
        self._since = 0.0
        self.reason = ""
        self.stuck = Stuck.NO

    def update(self, reason: str, stuck: Stuck) -> None:
        if stuck is not self.stuck:
            self.stuck, self._since = stuck, time.monotonic()
        if reason and reason != self.reason:
            self.reason = reason
            self._tell(reason)

    def left_s(self) -> float | None:
        """How much longer to wait for it to mend; None for as long as it takes."""
        patience_s = self._patience_s.get(self.stuck)
        if patience_s is None:
            return None
        return max(self._since + patience_s - time.monotonic(), 0.0)


async def _watch_pods(api: Api, record: Record, progress: _Progress, lost: DevPod | None) -> DevPod:
    labels = f"{LABEL_SESSION}={record.session}"
    given_up = ""
    deadline: asyncio.Timeout
    while True:
        try:
            async with (
                asyncio.timeout(None) as deadline,
                aclosing(continuous_watch(api, "pods", labels=labels)) as events,  # type: ignore[type-var]
            ):
                async for event in events:
                    metadata = event.object["metadata"]
                    if metadata["uid"] == given_up or metadata.get("deletionTimestamp"):
                        continue
                    if event.kind == "DELETED":
                        continue
                    pod = _running(event.object, record.container)
                    if pod is not None:
                        return pod
                    reason, stuck = why_not(event.object, record.container)
                    if lost is not None and metadata["uid"] == lost.uid:
                        # It ran: that it ended is no sign that it will not.
                        stuck = Stuck.NO
                        if _BACKS_OFF in reason:
                            given_up = lost.uid
                            await patiently(lambda: _give_way(api, record))
                            continue
                    progress.update(reason, stuck)
                    left_s = progress.left_s()
                    now = asyncio.get_running_loop().time()
                    deadline.reschedule(None if left_s is None else now + left_s)
        except TimeoutError:
            if not deadline.expired():
                raise
            if progress.stuck is Stuck.NO_NODE:
                raise NoRoom(progress.reason) from None
            raise await _hopeless(api, record, progress.reason) from None


async def _give_way(api: Api, record: Record) -> None:
    """Have the dev workload make another pod; this takes no right to delete one."""
    template = {"metadata": {"annotations": {ANNOTATION_REPLACED: time_text()}}}
    with suppress(NotFound):  # taken away meanwhile, which its watch tells
        body = {"spec": {"template": template}}
        await api.patch("deployments", record.names.dev_workload, body)


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


def why_not(pod: JsonObject, container: str) -> tuple[str, Stuck]:
    """Why a pod's dev container does not run yet, and whether that mends itself."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            text = f"no node for it: {condition.get('message', condition.get('reason'))}"
            return text, Stuck.NO_NODE
    if status.get("phase") == "Failed":
        return f"{status.get('reason') or 'failed'}: {status.get('message') or ''}", Stuck.HOPELESS
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
            return text + (f" ({last.strip()})" if last else ""), Stuck.HOPELESS
        ended = state.get("terminated") or {}
        if each["name"] == container and ended:
            said = str(ended.get("message") or "").strip()
            code = ended.get("exitCode")
            text = f"container {container} ended with {code} at once: {said}"
            return text.rstrip(": "), Stuck.HOPELESS
        if reason not in _QUIET:
            return f"container {each['name']}: {reason}", Stuck.NO
    return "", Stuck.NO


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


async def _watch_refusals(api: Api, record: Record, *, makes_room: bool) -> None:
    """Raise what keeps the dev workload from making its pod: quota, Pod Security, webhooks."""
    name = record.names.dev_workload
    events = continuous_watch(api, "deployments", fields=f"metadata.name={name}")
    async with aclosing(events) as changes:  # type: ignore[type-var]
        async for event in changes:
            for condition in (event.object.get("status") or {}).get("conditions") or []:
                if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                    message = str(condition.get("message") or condition.get("reason"))
                    if makes_room and "exceeded quota" in message:
                        raise NoRoom(message)
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


async def quota_error(api: Api, dev_workload: JsonObject) -> str | None:
    """Which quota has no room for the dev workload's pod now, by a dry run.

    None also where a dry run tells nothing: without the right to create pods, or where a
    policy or a webhook has something against pods without a controller. What they have
    against the real one is seen when its controller makes it.
    """
    template = dev_workload["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "generateName": "towline-dry-run-"},
        "spec": template["spec"],
    }
    try:
        await api.create("pods", pod, dry_run=True)
    except ClusterError as error:
        _, exceeded, text = error.message.partition("exceeded quota: ")
        return text if exceeded else None
    return None


async def pod_ready(api: Api, pod: DevPod) -> None:
    """Wait until a pod is Ready: the gate is open and the kubelet has seen it.

    Raises:
        PodError: the pod is gone, or has failed and lies there as an evicted one does.
        Unreachable: the network is away.
    """
    # Not a continuous watch: it would not tell that a pod is gone already. Nor a get, which
    # takes a right that nothing else needs (docs/rights.yaml).
    fields = f"metadata.name={pod.name}"
    while True:
        listed = await api.list_("pods", fields=fields)
        if _is_ready(pod, next(iter(listed.get("items") or ()), None)):
            return
        version = str(listed["metadata"]["resourceVersion"])
        changes = api.watch("pods", resource_version=version, fields=fields)
        async with aclosing(changes) as events:  # type: ignore[type-var]
            async for event in events:
                if event.kind == "BOOKMARK":
                    continue
                if _is_ready(pod, None if event.kind == "DELETED" else event.object):
                    return


def _is_ready(pod: DevPod, found: JsonObject | None) -> bool:
    """Whether it is; raises PodError where it cannot be any more."""
    status = (found or {}).get("status") or {}
    is_gone = found is None or found["metadata"]["uid"] != pod.uid
    if is_gone or status.get("phase") in ("Failed", "Succeeded"):
        raise PodError(f"the dev pod {pod.name} is gone")
    conditions = status.get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


async def service_only_at(api: Api, service: str, address: str) -> None:
    """Wait until a Service's only ready endpoint is `address`; at once without the right to see."""
    await _service_endpoints(api, service, lambda ready: ready == {address})


async def service_not_at(api: Api, service: str, addresses: set[str]) -> None:
    """Wait until none of a Service's ready endpoints is one of `addresses`."""
    await _service_endpoints(api, service, lambda ready: not ready & addresses)


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
