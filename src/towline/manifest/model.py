"""The manifest as values: frozen, complete, with every default filled in.

What is None or empty here was not in the file and has no default of its own:
the workload's own value holds then. Paths on the laptop are absolute `Path`s,
paths in a container are `PurePosixPath`s. Times are seconds.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import NewType

from towline.manifest.places import Place

Port = NewType("Port", int)
"""1 to 65535."""

Tree = Mapping[str, object]
"""A map in Kubernetes' own form: str, int, bool, tuple and Mapping, nothing else."""


class Mode(StrEnum):
    SYNC = "sync"
    HYBRID = "hybrid"


class Original(StrEnum):
    """What becomes of the original while the dev workload stands in for it."""

    REPLACE = "replace"
    KEEP = "keep"


class Handover(StrEnum):
    SEAMLESS = "seamless"
    EXCLUSIVE = "exclusive"


class EnvironmentOrder(StrEnum):
    """Which wins where an envFrom ConfigMap and a later Secret have the same key."""

    TOWLINE = "towline"
    KUBERNETES = "kubernetes"


class InitContainers(StrEnum):
    RUN = "run"
    SKIP = "skip"


class Reach(StrEnum):
    """How far the local process sees the container's files, or the cluster's names.

    ON is all that the platform can do, ENV only what goes through environment
    variables (no namespaces of the kernel), OFF nothing.
    """

    ON = "on"
    ENV = "env"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run: an argv taken literally, or a text for a shell; one of the two."""

    argv: tuple[str, ...] = ()
    shell: str | None = None

    @property
    def is_shell(self) -> bool:
        return self.shell is not None

    def __str__(self) -> str:
        # For people: quoting is only as much as is needed to see the words.
        return self.shell if self.shell is not None else shlex.join(self.argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One name and value of `environment`; what is unset on the laptop is left out."""

    name: str
    value: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Laptop → cluster: `local` here leads to `remote` on a host, or in the dev pod.

    Attributes:
        host: a name that the pod resolves; None is the dev pod itself, unless
            `labels` say which Service.
        labels: find the Service by these; None when it is named or there is none.
    """

    local: Port
    remote: Port
    host: str | None = None
    labels: Mapping[str, str] | None = None
    place: Place

    def __str__(self) -> str:
        if self.labels is not None:
            labels = ",".join(f"{k}={v}" for k, v in self.labels.items())
            return f"{self.local}:[{labels}]:{self.remote}"
        if self.host is None:
            return f"{self.local}:{self.remote}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.local}:{host}:{self.remote}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverse:
    """Cluster → laptop: `remote` in the dev pod leads to `local` on the laptop."""

    remote: Port
    local: Port
    place: Place

    def __str__(self) -> str:
        return f"{self.remote}:{self.local}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Which of the container's own probes stay on in development."""

    liveness: bool = False
    readiness: bool = False
    startup: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A lifecycle hook: the container's own, or `command` in its place."""

    enabled: bool = False
    command: Command | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    post_start: Hook = Hook()
    pre_stop: Hook = Hook()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Kubernetes quantities by resource name, such as cpu, memory, nvidia.com/gpu."""

    limits: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFolder:
    local: Path
    remote: PurePosixPath
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    folders: tuple[SyncFolder, ...] = ()
    compression: bool = True
    verbose: bool = False
    rescan_interval_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """A file of the laptop that is put into the container; `mode` as in chmod."""

    local: Path
    remote: PurePosixPath
    mode: int = 0o644
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalVolume:
    """A claim that exists already, mounted into the dev container."""

    claim: str
    mount_path: PurePosixPath
    sub_path: str | None = None
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentVolume:
    enabled: bool = False
    size: str = "5Gi"
    storage_class: str | None = None
    access_mode: str = "ReadWriteOnce"
    volume_mode: str = "Filesystem"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Which of the container's mounts are mirrored on the laptop, and what more."""

    reach: Reach = Reach.ON
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    add: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Which names of the cluster the local process can reach.

    Attributes:
        add: names beside the namespace's own Services.
        keep: variables whose value is never rewritten to a local address.
        free: local ports that the process listens on itself, beside those of `reverse`.
        proxy: offer a proxy that resolves in the cluster, by environment.
    """

    reach: Reach = Reach.ON
    add: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    free: tuple[Port, ...] = ()
    proxy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Towline's own settings; an entry's beat the file's.

    Attributes:
        handover: None lets the plan choose.
        inherit_environment: `all`, `minimal`, or the names of the laptop's
            variables that the local process gets (globs).
        keep_environment: names that stay the laptop's, beside the usual ones (globs).
        drop_environment: names that the local process never gets (globs).
        contexts, namespaces: globs; empty means any.
    """

    original: Original = Original.REPLACE
    handover: Handover | None = None
    environment_order: EnvironmentOrder = EnvironmentOrder.TOWLINE
    inherit_environment: str | tuple[str, ...] = "all"
    keep_environment: tuple[str, ...] = ()
    drop_environment: tuple[str, ...] = ()
    files: Files = Files()
    names: Names = Names()
    give_back_after_s: float = 120.0
    keep_for_s: float = 600.0
    hold_for_s: float = 10.0
    init_containers: InitContainers = InitContainers.RUN
    agent_image: str | None = None
    contexts: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What an entry and each of its `services` say of one workload.

    Attributes:
        places: where each field's value stands, by the field's name in the file.
        workload: the workload's name; None when `selector` finds it.
        command: with `args` in it already; None lets the mode decide (sync: the
            shell `sh` has been filled in; hybrid: no process is started).
        args: what `args` said by itself, for the case that there is no command.
        container_workdir: in the container (sync mode).
        env_files: dotenv files, a later one beats an earlier one.
    """

    name: str
    place: Place
    places: Mapping[str, Place] = field(default_factory=dict)
    workload: str | None
    selector: Mapping[str, str] | None = None
    container: str | None = None
    image: str | None = None
    image_pull_policy: str | None = None
    command: Command | None = None
    args: Command | None = None
    container_workdir: PurePosixPath | None = None
    environment: tuple[Variable, ...] = ()
    env_files: tuple[Path, ...] = ()
    sync: Sync = Sync()
    volumes: tuple[PurePosixPath, ...] = ()
    external_volumes: tuple[ExternalVolume, ...] = ()
    resources: Resources = Resources()
    security_context: Tree = field(default_factory=dict)
    service_account: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Tree, ...] = ()
    affinity: Tree = field(default_factory=dict)
    priority_class_name: str | None = None
    metadata: Metadata = Metadata()
    probes: Probes = Probes()
    lifecycle: Lifecycle = Lifecycle()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Workload):
    """A further workload that goes into dev mode with the same folders."""

    replicas: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Workload):
    """One entry of `dev`, with the top-level forwards and settings merged in.

    Attributes:
        workdir: the local process's folder (hybrid mode; else None). Whether it
            exists is looked at by `check_files`, when it matters.
        timeout_s: how long `up --detach` waits for the service, beyond its own work.
        resources_timeout_s: how long to wait for the dev pod to run, with the nodes and
            volumes that it needs; `timeout` alone means both.
        remote: the laptop's port for plain ssh; None when none is asked for.
        is_service: one of another entry's `services`, made an entry for its session.
    """

    is_service: bool = False
    mode: Mode = Mode.SYNC
    workdir: Path | None = None
    forward: tuple[Forward, ...] = ()
    reverse: tuple[Reverse, ...] = ()
    interface: str = "localhost"
    secrets: tuple[SecretFile, ...] = ()
    persistent_volume: PersistentVolume = PersistentVolume()
    autocreate: bool = False
    services: tuple[Service, ...] = ()
    timeout_s: float = 300.0
    resources_timeout_s: float = 300.0
    remote: Port | None = None
    ssh_server_port: Port | None = None
    settings: Settings = Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest that has been read and found good.

    Attributes:
        path: the file.
        folder: what its relative paths are relative to.
        forwards: the top-level `forward`; part of each entry's already.
        notices: lines worth showing once, each with its place.
    """

    path: Path
    folder: Path
    entries: Mapping[str, Entry]
    forwards: tuple[Forward, ...] = ()
    settings: Settings = Settings()
    notices: tuple[str, ...] = ()
