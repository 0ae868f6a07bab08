"""What a plan is made from and of: observed objects in, ordered actions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from towline._kit.objects import JsonObject
from towline.manifest.model import Handover, Mode, Original

LABEL_SESSION = "towline.dev/session"
LABEL_KIND = "towline.dev/kind"
ANNOTATION_RESTORE = "towline.dev/restore"
ANNOTATION_GIVEN_BACK = "towline.dev/given-back"
"""The guard's, on an original that serves while its session still waits for the laptop."""
ANNOTATION_RETAKEN = "towline.dev/retaken"
"""On a dev workload: when the service was last taken back."""
ANNOTATION_REPLACED = "towline.dev/replaced"
"""On a dev workload's template: when its pod gave way to another."""
ANNOTATION_ENDED_BY = "towline.dev/ended-by"
"""On the record of a session that somebody else ends, and on its Event: who that is."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "towline"}


class Kind(StrEnum):
    """The kinds of workload that can be taken into development."""

    DEPLOYMENT = "Deployment"
    STATEFULSET = "StatefulSet"

    @property
    def resource(self) -> str:
        """The name in the API's paths."""
        return f"{self.value.lower()}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who holds a session, and where from."""

    user: str
    host: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The cluster as it was when it was looked at.

    Attributes:
        services: the Services whose selector matches the original's pods.
        pods: the original's pods.
        claims: the PersistentVolumeClaims that the pod template mounts, by name.
        arch: of the node that the original runs on, None where that cannot be read.
        quota_error: which quota has no room for one more such pod, and why; None where a dry
            run went through or could not be made.
        guard_refused: why no guard can be made, None where it can.
        is_to_be_made: the workload is not in the cluster yet (`autocreate`).
        sharing: to whom else a Service leads, by its name; looked at for `original: keep`.
        policies: the namespace's NetworkPolicies, for the same.
    """

    context: str
    namespace: str
    kind: Kind
    workload: JsonObject
    services: tuple[JsonObject, ...] = ()
    pods: tuple[JsonObject, ...] = ()
    autoscalers: tuple[JsonObject, ...] = ()
    claims: Mapping[str, JsonObject] = field(default_factory=dict)
    arch: str | None = None
    record: JsonObject | None = None
    quota_error: str | None = None
    guard_refused: str | None = None
    is_to_be_made: bool = False
    sharing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    policies: tuple[JsonObject, ...] = ()

    @property
    def name(self) -> str:
        return str(self.workload["metadata"]["name"])

    @property
    def template(self) -> JsonObject:
        template: JsonObject = self.workload["spec"]["template"]
        return template

    @property
    def replicas(self) -> int:
        return int(self.workload["spec"].get("replicas", 1))

    @property
    def ready_replicas(self) -> int:
        return int((self.workload.get("status") or {}).get("readyReplicas") or 0)


class ActionKind(StrEnum):
    """What can be done to a cluster, each with its way back."""

    WRITE_RECORD = "write-record"
    SHARE_PIECES = "share-pieces"
    MAKE_WORKLOAD = "make-workload"
    CREATE_SECRET = "create-secret"
    CREATE_CLAIM = "create-claim"
    RETAIN_CLAIMS = "retain-claims"
    STOP_ORIGINAL = "stop-original"
    CREATE_DEV_WORKLOAD = "create-dev-workload"
    POST_GUARD = "post-guard"
    CREATE_WAY_BACK = "create-way-back"
    POINT_SERVICE = "point-service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change to the cluster, and the words for it and for its way back."""

    kind: ActionKind
    resource: str
    name: str
    do: str
    undo: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedPort:
    """A Service's port that ends at a reverse port of the session."""

    service: str
    port: int
    remote: int
    local: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of a session's objects. The record's is the workload's: one can exist."""

    session: str
    record: str
    secret: str
    dev_workload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPorts:
    """Where the agent listens: the line on the pod's loopback, the gate for the kubelet."""

    line: int
    gate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """How the agent reaches an original that is kept.

    Attributes:
        service: the session's headless Service that leads to it.
        passes: by port of the dev pod, where the agent passes connections on to; the
            first that answers.
    """

    service: JsonObject
    passes: Mapping[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `up` will do to the cluster, in order, and what `down` undoes in reverse.

    Attributes:
        ports: the Service ports that will reach the laptop.
        warnings: one line each, with the fix.
        handover_reason: why the handover is as it is, None for the default.
        guard: its objects, none where it is not wanted or not allowed.
        made: the workload that is to be made first, None where there is one.
        claim: what keeps folders over sessions, None where none is to be kept.
        way_back: with `original: keep`.
    """

    session: str
    owner: Owner
    context: str
    namespace: str
    kind: Kind
    workload: str
    workload_uid: str
    container: str
    replicas: int
    ready_replicas: int
    handover: Handover
    handover_reason: str | None
    names: Names
    agent_ports: AgentPorts
    arch: str
    ports: tuple[RoutedPort, ...]
    warnings: tuple[str, ...]
    actions: tuple[Action, ...]
    dev_workload: JsonObject
    guard: tuple[JsonObject, ...]
    managed_fields: tuple[JsonObject, ...]
    claim: JsonObject | None = None
    made: JsonObject | None = None
    original: Original = Original.REPLACE
    way_back: WayBack | None = None
    mode: Mode = Mode.HYBRID
