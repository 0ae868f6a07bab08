"""The fields of an entry of `dev`: name, shape and one sentence for each.

This table is what the reader, the messages and the JSON Schema go by. The names
are those of Okteto's published schema and of the structs behind it, so that an
okteto.yml is read as it is; what became of those it has given up is said too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from towline.manifest import forms, kube, settings
from towline.manifest.model import (
    Command,
    ExternalVolume,
    Forward,
    Hook,
    Lifecycle,
    Mode,
    PersistentVolume,
    Port,
    Probes,
    Reverse,
    Variable,
)
from towline.manifest.parse import ListNode, MapNode, Node, ScalarNode
from towline.manifest.records import Field, Record, Values, record
from towline.manifest.shapes import (
    Anything,
    At,
    Json,
    ListOf,
    Made,
    MapOf,
    OneOf,
    OneOrMany,
    Shape,
    Text,
    choice,
    found,
)

_PORT_JSON: Json = {
    "type": ["integer", "string"],
    "minimum": 1,
    "maximum": 65535,
    "pattern": r"^[0-9]+$|\$",
}
# `pattern` is asked of strings only.
_BOOLEAN_JSON: Json = {
    "type": ["boolean", "string"],
    "pattern": r"^(true|false|yes|no|on|off)$|\$",
}
_SCALAR_JSON: Json = {"type": ["string", "number", "boolean"]}

TEXT = Text(str)
PORT = Text(forms.port, _PORT_JSON, "a port")
BOOLEAN = Text(forms.boolean, _BOOLEAN_JSON, "true or false")
DURATION = settings.DURATION
_NAME_JSON: Json = {"type": "string", "pattern": r"^[a-z0-9][a-z0-9.-]*$|\$"}
NAME = Text(forms.object_name, _NAME_JSON, "a name")


def _command(value: str | tuple[str, ...], _node: Node, _at: At) -> Command | None:
    if isinstance(value, str):
        return Command(shell=value)
    if len(value) == 1 and " " in value[0]:
        # `["yarn start"]`: no program has such a name, and Okteto's users write it.
        return Command(shell=value[0])
    return Command(argv=value) if value else None


_WORD = Text(str, _SCALAR_JSON, expands=False)
_WORDS: Shape[object] = OneOf(scalar=_WORD, items=ListOf(_WORD))
COMMAND: Shape[Command] = Made(_WORDS, _command)


class _Environment(Shape[tuple[Variable, ...]]):
    """A list of `K=V` or `K`, or a map; without a value it is the laptop's."""

    def read(self, node: Node, at: At) -> tuple[Variable, ...] | None:
        if isinstance(node, MapNode):
            read = [self._pair(k.text, v, at) for k, v in node.entries]
        elif isinstance(node, ListNode):
            read = [self._item(item, at.item(i)) for i, item in enumerate(node.items)]
        else:
            at.error(node, f"{found(node)} is not possible here; write {self.forms}")
            return None
        by_name: dict[str, Variable] = {}
        for variable in read:
            if variable is None:
                continue
            if variable.name in by_name:
                at.findings.notice(
                    variable.place,
                    f"{at.name}: '{variable.name}' is given twice; the last one counts",
                )
            by_name[variable.name] = variable
        return tuple(by_name.values())

    def _item(self, node: Node, at: At) -> Variable | None:
        if not isinstance(node, ScalarNode):
            at.error(node, f"{found(node)} is not possible here; write 'NAME=value'")
            return None
        name, equals, value = node.text.partition("=")
        if not equals:
            expanded = at.expanded(node, name)
            return None if expanded is None else self._laptops(expanded, node, at)
        return self._variable(name, value, node, at)

    def _pair(self, name: str, node: Node, at: At) -> Variable | None:
        if not isinstance(node, ScalarNode):
            at.child(name).error(node, f"{found(node)} is not possible here; write a text")
            return None
        if node.text == "" and node.plain:
            return self._laptops(name, node, at)
        return self._variable(name, node.text, node, at.child(name))

    def _variable(self, name: str, text: str, node: ScalarNode, at: At) -> Variable | None:
        value = at.expanded(node, text)
        if value is None or not self._is_name(name, node, at):
            return None
        if "\0" in value:
            at.error(node, f"the value of '{name}' has a NUL in it, which no variable can")
            return None
        return Variable(name=name, value=value, place=node.place)

    def _laptops(self, name: str, node: ScalarNode, at: At) -> Variable | None:
        value = at.variables.get(name)
        if not self._is_name(name, node, at) or value is None:
            return None
        return Variable(name=name, value=value, place=node.place)

    def _is_name(self, name: str, node: ScalarNode, at: At) -> bool:
        try:
            forms.variable_name(name)
        except ValueError as error:
            at.error(node, f"'{name}' {error}")
            return False
        return True

    def schema(self) -> Json:
        return {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
                },
            ]
        }

    @property
    def forms(self) -> str:
        return "a list of 'NAME=value', or a map"


def _forward_text(value: tuple[int, str | None, int], node: Node, _at: At) -> Forward:
    local, host, remote = value
    return Forward(local=Port(local), host=host, remote=Port(remote), place=node.place)


def _forward_map(values: Values, at: At) -> Forward | None:
    local, remote = values.get("localPort"), values.get("remotePort")
    if values.has("name") and values.has("labels"):
        at.error(values.node, "'name' and 'labels' are both here; one of them finds the Service")
        return None
    if local is None or remote is None:
        return None
    return Forward(local=local, remote=remote, host=values.get("name"),
                   labels=values.get("labels"), place=values.node.place)  # fmt: skip


_HOST = Text(forms.host, what="a name")
_FORWARD_JSON: Json = {"type": "string", "pattern": r"^([0-9]+:([^:]+:)?[0-9]+|.*\$.*)$"}
_ONE_FORWARD: Shape[Forward] = OneOf(
    scalar=Made(Text(forms.forward, _FORWARD_JSON, "'local:remote'"), _forward_text),
    fields=record(
        {
            "localPort": Field(PORT, "The port on the laptop."),
            "remotePort": Field(PORT, "The port of the Service or the dev pod."),
            "name": Field(_HOST, "The Service, by name."),
            "labels": Field(kube.LABELS, "The Service, by its labels."),
        },
        _forward_map,
        required=("localPort", "remotePort"),
    ),
)
FORWARD = OneOrMany(_ONE_FORWARD)


def _reverse(value: tuple[int, int], node: Node, _at: At) -> Reverse:
    return Reverse(remote=Port(value[0]), local=Port(value[1]), place=node.place)


_REVERSE_JSON: Json = {"type": "string", "pattern": r"^([0-9]+:[0-9]+|.*\$.*)$"}
REVERSE: Shape[tuple[Reverse, ...]] = OneOrMany(
    Made(Text(forms.reverse, _REVERSE_JSON, "'remote:local'"), _reverse)
)


def _probes(values: Values, _at: At) -> Probes:
    return Probes(**values.given({k: k for k in ("liveness", "readiness", "startup")}))


PROBES: Shape[Probes] = OneOf(
    scalar=Made(BOOLEAN, lambda on, _n, _a: Probes(liveness=on, readiness=on, startup=on)),
    fields=record(
        {
            "liveness": Field(BOOLEAN, "Keep the liveness probe."),
            "readiness": Field(BOOLEAN, "Keep the readiness probe beside the gate."),
            "startup": Field(BOOLEAN, "Keep the startup probe."),
        },
        _probes,
    ),
)


def _hook(values: Values, _at: At) -> Hook:
    command = values.get("command")
    return Hook(enabled=values.get("enabled", command is not None), command=command)


_HOOK: Shape[Hook] = OneOf(
    scalar=Made(BOOLEAN, lambda on, _n, _a: Hook(enabled=on)),
    fields=record(
        {
            "enabled": Field(BOOLEAN, "Run this hook in development."),
            "command": Field(COMMAND, "What to run in place of the container's own hook."),
        },
        _hook,
    ),
)


def _lifecycle(values: Values, _at: At) -> Lifecycle:
    return Lifecycle(**values.given({"postStart": "post_start", "preStop": "pre_stop",
                                     "postStop": "pre_stop"}))  # fmt: skip


LIFECYCLE: Shape[Lifecycle] = OneOf(
    scalar=Made(
        BOOLEAN,
        lambda on, _n, _a: Lifecycle(post_start=Hook(enabled=on), pre_stop=Hook(enabled=on)),
    ),
    fields=record(
        {
            "postStart": Field(_HOOK, "The hook after the container's start."),
            "preStop": Field(_HOOK, "The hook before the container's end."),
            "postStop": Field(_HOOK, "What older manifests call preStop."),
        },
        _lifecycle,
    ),
)

# Local paths stay text here: they are made absolute where the file's folder is known.
_PAIR = Text(str, {"type": "string", "pattern": r"^.+:/.*$|\$"}, "'local:remote'")
SYNC: Shape[object] = OneOf(
    scalar=_PAIR,
    items=ListOf(_PAIR),
    fields=Record(
        {
            "folders": Field(OneOrMany(_PAIR), "Pairs 'local:remote' of folders."),
            "compression": Field(BOOLEAN, "Compress what goes over."),
            "verbose": Field(BOOLEAN, "Tell of each file."),
            "rescanInterval": Field(DURATION, "How often everything is compared anew."),
        },
        required=("folders",),
    ),
)


def _external_volume(
    value: tuple[str, str | None, PurePosixPath], node: Node, _at: At
) -> ExternalVolume:
    claim, sub_path, mount = value
    return ExternalVolume(claim=claim, sub_path=sub_path, mount_path=mount,
                          place=node.place)  # fmt: skip


_ACCESS = {m: m for m in ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")}


def _persistent_volume(values: Values, _at: At) -> PersistentVolume:
    names = {"enabled": "enabled", "size": "size", "storageClass": "storage_class",
             "accessMode": "access_mode", "volumeMode": "volume_mode", "labels": "labels",
             "annotations": "annotations"}  # fmt: skip
    return PersistentVolume(**{"enabled": True, **values.given(names)})


PERSISTENT_VOLUME = record(
    {
        "enabled": Field(BOOLEAN, "Keep the synced folders and volumes over sessions."),
        "size": Field(kube.QUANTITY, "How large the claim is."),
        "storageClass": Field(NAME, "The claim's storage class."),
        "accessMode": Field(choice(_ACCESS), "The claim's access mode."),
        "volumeMode": Field(
            choice({"Filesystem": "Filesystem", "Block": "Block"}), "The claim's volume mode."
        ),
        "labels": Field(kube.LABELS, "Labels that the claim gets."),
        "annotations": Field(kube.ANNOTATIONS, "Annotations that the claim gets."),
    },
    _persistent_volume,
)


def _timeout(values: Values, _at: At) -> tuple[float | None, float | None]:
    return values.get("default"), values.get("resources")


TIMEOUT: Shape[tuple[float | None, float | None]] = OneOf(
    scalar=Made(DURATION, lambda seconds, _n, _a: (seconds, None)),
    fields=record(
        {
            "default": Field(DURATION, "How long to wait for the dev pod."),
            "resources": Field(DURATION, "How long to wait for nodes and volumes."),
        },
        _timeout,
    ),
)

_INIT_CONTAINER = Record(
    {
        "image": Field(TEXT, "Not used: nothing is injected by an init container."),
        "resources": Field(kube.RESOURCES, "Not used."),
    }
)
_PULL = choice({"Always": "Always", "IfNotPresent": "IfNotPresent", "Never": "Never"})
_ANYTHING = Anything()

WORKLOAD_FIELDS: Mapping[str, Field] = {
    "name": Field(NAME, "The workload's name, where it is not the entry's."),
    "selector": Field(kube.LABELS, "Find the workload by these labels instead of by its name."),
    "labels": Field(kube.LABELS, "What older manifests call selector."),
    "annotations": Field(kube.ANNOTATIONS, "What older manifests call metadata.annotations."),
    "container": Field(NAME, "The container to develop; default: the first."),
    "image": Field(TEXT, "The dev image (sync mode); default: the container's own."),
    "imagePullPolicy": Field(_PULL, "When the image is pulled."),
    "command": Field(COMMAND, "What runs: a text for a shell, or a list taken literally."),
    "args": Field(COMMAND, "Arguments after the command."),
    "workdir": Field(TEXT, "Where the command runs: in the container, or (hybrid) on the laptop."),
    "environment": Field(_Environment(), "Variables of the process; they beat all others."),
    "envFiles": Field(OneOrMany(TEXT), "Files of variables; a later one beats an earlier one."),
    "sync": Field(SYNC, "Folders kept in step: 'local:remote'."),
    "volumes": Field(OneOrMany(TEXT), "Folders of the container kept over sessions."),
    "externalVolumes": Field(
        OneOrMany(Made(Text(forms.external_volume, _PAIR.json, "'claim:/path'"), _external_volume)),
        "Claims that exist, mounted: 'claim:/path' or 'claim:subpath:/path'.",
    ),
    "resources": Field(kube.RESOURCES, "Requests and limits of the dev container."),
    "securityContext": Field(kube.SECURITY_CONTEXT, "User, group and rights."),
    "serviceAccount": Field(NAME, "The dev pod's service account."),
    "nodeSelector": Field(kube.LABELS, "Labels of the nodes that the dev pod may run on."),
    "tolerations": Field(ListOf(kube.TOLERATION), "Taints that the dev pod tolerates."),
    "affinity": Field(kube.AFFINITY, "Where the dev pod may run, in Kubernetes' form."),
    "priorityClassName": Field(NAME, "The dev pod's priority class."),
    "metadata": Field(kube.METADATA, "Labels and annotations of the dev pod."),
    "probes": Field(PROBES, "Which probes stay on in development."),
    "lifecycle": Field(LIFECYCLE, "Which lifecycle hooks stay on in development."),
    "initContainer": Field(_INIT_CONTAINER, "Read, not used."),
    "healthchecks": Field(BOOLEAN, "What older manifests call probes."),
    **{
        name: Field(_ANYTHING, "Read, not used.", unused="is no longer a field; it is not used")
        for name in ("mountpath", "subpath", "namespace", "context", "push", "docker", "divert",
                     "initFromImage", "k8sObjectType", "keda", "schedule")
    },
}  # fmt: skip

SERVICE_FIELDS: Mapping[str, Field] = {
    **WORKLOAD_FIELDS,
    "replicas": Field(Text(forms.integer, {"type": "integer"}), "How many replicas."),
    **{
        name: Field(_ANYTHING, "Not used here.", unused="has no meaning inside 'services'")
        for name in ("mode", "forward", "reverse", "interface", "secrets", "services", "timeout",
                     "persistentVolume", "autocreate", "remote", "sshServerPort")
    },
}  # fmt: skip

_SERVICE = Record(SERVICE_FIELDS)

ENTRY_FIELDS: Mapping[str, Field] = {
    "mode": Field(choice({m.value: m for m in Mode}), "Where the process runs."),
    **WORKLOAD_FIELDS,
    "forward": Field(FORWARD, "Laptop → cluster: 'local:remote' or 'local:service:remote'."),
    "reverse": Field(REVERSE, "Cluster → laptop: 'remote:local'."),
    "interface": Field(_HOST, "The laptop's address for all ports; default: localhost."),
    "secrets": Field(OneOrMany(_PAIR), "Files put into the container: 'local:remote:mode'."),
    "persistentVolume": Field(PERSISTENT_VOLUME, "The claim that keeps folders over sessions."),
    "autocreate": Field(BOOLEAN, "Make the workload if there is none of that name."),
    "services": Field(ListOf(_SERVICE), "Further workloads with the same folders."),
    "replicas": Field(_ANYTHING, "Only inside services.",
                      unused="has a meaning only inside 'services'"),
    "timeout": Field(TIMEOUT, "How long to wait for the dev pod."),
    "remote": Field(PORT, "The laptop's port for plain ssh."),
    "sshServerPort": Field(PORT, "The agent's port in the dev pod."),
    **settings.ENTRY_FIELDS,
}  # fmt: skip

ENTRY = Record(ENTRY_FIELDS)
_UNUSED_SECTION = Field(_ANYTHING, "Okteto's; not used.", unused="")
# Sections of an okteto.yml that Towline has no part in: neither expanded nor checked.
UNUSED_SECTIONS = ("name", "icon", "build", "deploy", "destroy", "test", "dependencies",
                   "external", "context", "namespace", "image", "variables", "devs")  # fmt: skip

_LISTED: Shape[object] = OneOf(scalar=NAME, fields=ENTRY)
DEV: Shape[object] = OneOf(
    items=ListOf(_LISTED),
    fields=MapOf(ENTRY, key=forms.object_name),
)
MANIFEST_FIELDS: Mapping[str, Field] = {
    "extends": Field(TEXT, "The file that this one differs from.", own=True),
    "dev": Field(DEV, "What can be developed: one entry for each workload."),
    "forward": Field(FORWARD, "Forwards that every session has."),
    **settings.MANIFEST_FIELDS,
    **dict.fromkeys(UNUSED_SECTIONS, _UNUSED_SECTION),
}
