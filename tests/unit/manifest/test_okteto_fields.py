"""Every property of Okteto's published schema and structs is known here.

The list is of names only, as published: schema.json of okteto/okteto, and the
fields of the structs behind `dev` that the schema leaves out or has given up.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from towline.manifest import fields
from towline.manifest.records import Field, Record
from towline.manifest.shapes import Json, ListOf, Made, MapOf, OneOf, OneOrMany, Shape

from .reading import problems, read


def words(text: str) -> list[str]:
    return text.split()


TOP = words(
    "build context dependencies deploy destroy dev external forward icon image name namespace test "
    "variables"
)
SCHEMA = words("""
    affinity autocreate command container envFiles environment externalVolumes forward image
    imagePullPolicy initContainer interface lifecycle metadata mode nodeSelector persistentVolume
    priorityClassName probes remote resources reverse secrets securityContext selector
    serviceAccount services sync timeout tolerations volumes workdir
""")
STRUCT = words("args name replicas sshServerPort")
GIVEN_UP = words("""
    annotations context divert docker healthchecks initFromImage k8sObjectType keda labels
    mountpath namespace push subpath
""")
INSIDE = words("""
    forward.labels forward.localPort forward.name forward.remotePort
    initContainer.image initContainer.resources
    lifecycle.postStart.command lifecycle.postStart.enabled lifecycle.preStop.command
    lifecycle.preStop.enabled lifecycle.postStop
    metadata.annotations metadata.labels
    persistentVolume.accessMode persistentVolume.annotations persistentVolume.enabled
    persistentVolume.labels persistentVolume.size persistentVolume.storageClass
    persistentVolume.volumeMode
    probes.liveness probes.readiness probes.startup
    resources.limits resources.requests
    securityContext.allowPrivilegeEscalation securityContext.capabilities securityContext.fsGroup
    securityContext.runAsGroup securityContext.runAsNonRoot securityContext.runAsUser
    securityContext.readOnlyRootFilesystem
    services.annotations services.command services.container services.environment services.image
    services.labels services.name services.replicas services.resources services.sync
    services.workdir
    sync.compression sync.folders sync.rescanInterval sync.verbose
    timeout.default timeout.resources
""")


def records(shape: Shape[object]) -> Iterator[dict[str, Field]]:
    """The fields that a shape can have, through lists and alternatives."""
    if isinstance(shape, Record):
        yield dict(shape.fields)
    elif isinstance(shape, Made | ListOf | MapOf | OneOrMany):
        yield from records(shape.shape)
    elif isinstance(shape, OneOf):
        for inner in (shape.scalar, shape.items, shape.fields):
            if inner is not None:
                yield from records(inner)


def schema_names(schema: Json) -> set[str]:
    names = set(schema.get("properties", {}))
    for inner in [*schema.get("anyOf", []), schema.get("items")]:
        if inner:
            names |= schema_names(inner)
    return names


@pytest.mark.parametrize("name", TOP)
def test_the_top_level(name: str) -> None:
    assert name in fields.MANIFEST_FIELDS


@pytest.mark.parametrize("name", [*SCHEMA, *STRUCT, *GIVEN_UP])
def test_an_entry(name: str) -> None:
    assert name in fields.ENTRY_FIELDS and fields.ENTRY_FIELDS[name].doc


@pytest.mark.parametrize("path", INSIDE)
def test_inside_of_a_field(path: str) -> None:
    first, *rest = path.split(".")
    shape = fields.ENTRY_FIELDS[first].shape
    for name in rest:
        known = schema_names(shape.schema())
        assert name in known, f"{path}: there are {sorted(known)}"
        inner = [found[name] for found in records(shape) if name in found]
        if inner:
            shape = inner[0].shape


@pytest.mark.parametrize("name", GIVEN_UP)
def test_what_okteto_has_given_up_stops_nobody(name: str) -> None:
    value = {"labels": "{a: b}", "annotations": "{a: b}", "healthchecks": "true"}.get(name, "x")
    text = f"dev: {{api: {{{name}: {value}}}}}"
    assert problems(text) == []
    assert read(text).notices or name in ("annotations", "healthchecks")


def test_a_manifest_with_every_field_is_read() -> None:
    text = """
build: {api: {context: .}}
deploy: [kubectl apply -f k8s]
forward: [9000:mq:9000]
dev:
  api:
    autocreate: false
    affinity: {podAffinity: {}}
    args: [-v]
    command: [python, app.py]
    container: main
    envFiles: [.env.dev]
    environment: {A: b}
    externalVolumes: [data:/data]
    forward: [5432:db:5432]
    image: python:3
    imagePullPolicy: IfNotPresent
    initContainer: {image: x, resources: {limits: {cpu: 1}}}
    interface: 0.0.0.0
    lifecycle: {postStart: {enabled: true, command: x}, preStop: true}
    metadata: {labels: {a: b}, annotations: {c: "d e"}}
    mode: sync
    nodeSelector: {disk: ssd}
    persistentVolume: {enabled: true, size: 1Gi, storageClass: fast, accessMode: ReadWriteOnce,
                       volumeMode: Filesystem, labels: {a: b}, annotations: {a: b}}
    priorityClassName: high
    probes: {liveness: true, readiness: false, startup: true}
    remote: 22000
    resources: {limits: {cpu: 1, memory: 1Gi, nvidia.com/gpu: 1}, requests: {cpu: 100m}}
    reverse: [9001:9001]
    secrets: [key:/key:400]
    securityContext: {runAsUser: 0, capabilities: {add: [SYS_PTRACE]}}
    selector: {app: api}
    serviceAccount: api
    services: [{name: worker, replicas: 1, sync: ".:/app", labels: {}}]
    sshServerPort: 2222
    sync: {folders: [.:/app], compression: true, verbose: false, rescanInterval: 300}
    timeout: {default: 3m, resources: 5m}
    tolerations: [{key: a, operator: Exists}]
    volumes: [/home/node/.cache]
    workdir: /app
"""
    manifest = read(text.replace(", labels: {}", ""))
    assert [n.split(": ", 1)[1] for n in manifest.notices] == [
        "'build', 'deploy' are not used",
        "dev.api.initContainer: is not used; nothing is injected by an init container",
    ]
