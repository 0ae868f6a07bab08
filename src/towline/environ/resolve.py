"""A container's environment from its pod's spec, as the kubelet resolves it. [pure]

The algorithm of Kubernetes 1.34 (`makeEnvironmentVariables`): envFrom in its order, a
later source over an earlier one; then `env` in its order over that, each value expanded
by what is defined before it; service links below all. Every value keeps where it comes
from and what it stands before. tests/e2e/test_oracle.py compares it with the kubelet.

What the container's image sets, and the runtime, is not in the spec: see `explain`.
"""

from __future__ import annotations

import base64

from towline._kit.objects import JsonObject
from towline.environ.definitions import Definition, Kind, Objects, Resolution, Variable
from towline.environ.downward import UnknownYet, Unsupported, field_value, resource_value
from towline.environ.expansion import references_in
from towline.environ.links import MASTER, MASTER_NAMES, link_variables, linked_services


def references(pod: JsonObject, container: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the ConfigMaps and of the Secrets that a container's environment uses."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    spec = find_container(pod, container)
    for each in spec.get("envFrom") or []:
        if each.get("configMapRef"):
            config_maps.add(str(each["configMapRef"].get("name", "")))
        elif each.get("secretRef"):
            secrets.add(str(each["secretRef"].get("name", "")))
    for each in spec.get("env") or []:
        source = each.get("valueFrom") or {}
        if "configMapKeyRef" in source:
            config_maps.add(str(source["configMapKeyRef"].get("name", "")))
        elif "secretKeyRef" in source:
            secrets.add(str(source["secretKeyRef"].get("name", "")))
    return frozenset(config_maps), frozenset(secrets)


def find_container(pod: JsonObject, name: str) -> JsonObject:
    """The container of that name; raises KeyError when there is none."""
    for each in pod["spec"]["containers"]:
        if each["name"] == name:
            found: JsonObject = each
            return found
    raise KeyError(name)


def resolve(pod: JsonObject, container: str, objects: Objects) -> Resolution:
    """Resolve a container's environment.

    Args:
        pod: the pod, or its template with the namespace; what a template lacks of a pod
            (name, addresses, node) is unknown.
        container: its name.
        objects: what there is to refer to.
    """
    return _Resolver(pod, find_container(pod, container), objects).resolve()


class _Stop(Exception):
    """A variable cannot be had; the words are the problem."""


class _Resolver:
    def __init__(self, pod: JsonObject, container: JsonObject, objects: Objects) -> None:
        self._pod = pod
        self._container = container
        self._objects = objects
        self._namespace = str((pod.get("metadata") or {}).get("namespace") or "")
        self._stacks: dict[str, list[Definition]] = {}
        self._links: dict[str, Definition] = {}
        self._problems: list[str] = []
        self._unread: dict[tuple[Kind, str], None] = {}

    def resolve(self) -> Resolution:
        self._link()
        for source in self._container.get("envFrom") or []:
            self._take_all(source)
        for variable in self._container.get("env") or []:
            try:
                definition = self._defined(variable)
            except (_Stop, Unsupported) as error:
                self._problems.append(f"{variable['name']}: {error}")
                continue
            if definition is not None:
                self._define(definition)
        for name, link in self._links.items():
            self._stacks.setdefault(name, []).insert(0, link)
        variables = {
            name: Variable(definition=stack[-1], shadows=tuple(reversed(stack[:-1])))
            for name, stack in self._stacks.items()
        }
        for made in variables.values():
            self._check(made)
        return Resolution(
            variables=variables,
            problems=tuple(self._problems),
            unread=tuple(self._unread),
        )

    def _define(self, definition: Definition) -> None:
        self._stacks.setdefault(definition.name, []).append(definition)

    def _check(self, variable: Variable) -> None:
        """Whether the container runtime takes it: the kubelet itself takes any bytes."""
        value, where = variable.definition.value, variable.definition
        if value is not None and b"\0" in value:
            self._problems.append(f"{where.name}: the value of {where} has a NUL in it")
        elif value is not None and not _is_utf8(value):
            # Seen with 1.34: the kubelet's request to the runtime cannot hold it.
            self._problems.append(f"{where.name}: the value of {where} is not UTF-8")

    def _link(self) -> None:
        enabled = self._pod["spec"].get("enableServiceLinks", True)
        master = self._objects.master
        for service in linked_services(self._objects.services, master=master, enabled=enabled):
            owner = str(service["metadata"]["name"])
            for name, value in link_variables(service):
                self._links[name] = Definition(
                    name=name, value=value.encode(), kind=Kind.SERVICE, object=owner
                )
        if master is None and not self._links.keys() & set(MASTER_NAMES):
            unknown = "the Service kubernetes of namespace default may not be read"
            for name in MASTER_NAMES:
                self._links[name] = Definition(
                    name=name, value=None, kind=Kind.SERVICE, object=MASTER, unknown=unknown
                )

    def _take_all(self, source: JsonObject) -> None:
        """One entry of envFrom."""
        prefix = str(source.get("prefix") or "")
        if source.get("configMapRef") is not None:
            kind, reference = Kind.CONFIG_MAP, source["configMapRef"]
        elif source.get("secretRef") is not None:
            kind, reference = Kind.SECRET, source["secretRef"]
        else:
            return
        name = str(reference.get("name", ""))
        try:
            values = self._values(kind, name)
        except UnknownYet:
            return
        if values is None:
            if not reference.get("optional"):
                self._problems.append(f"envFrom: there is no {kind} {self._namespace}/{name}")
            return
        for key, value in values.items():
            self._define(
                Definition(
                    name=prefix + key,
                    value=value,
                    kind=kind,
                    object=name,
                    key=key,
                    from_all=True,
                    is_secret=kind is Kind.SECRET,
                    uses=frozenset({(kind, name)}),
                )
            )

    def _values(self, kind: Kind, name: str) -> dict[str, bytes] | None:
        """What is in a ConfigMap or Secret; None when there is none.

        Raises:
            UnknownYet: it may not be read.
        """
        objects = self._objects.secrets if kind is Kind.SECRET else self._objects.config_maps
        if name not in objects:
            self._unread[kind, name] = None
            raise UnknownYet(f"{kind} {name} may not be read")
        found = objects[name]
        if found is None:
            return None
        pairs = (found.get("data") or {}).items()
        if kind is Kind.SECRET:
            return {str(k): base64.b64decode(v or "") for k, v in pairs}
        # What is in binaryData is no variable.
        return {str(k): str(v).encode() for k, v in pairs}

    def _defined(self, variable: JsonObject) -> Definition | None:
        """One entry of `env`; None where an optional reference leads nowhere."""
        name, text = str(variable["name"]), str(variable.get("value") or "")
        source = variable.get("valueFrom") or {}
        if text or not source:
            return self._expanded(name, text.encode())
        if "configMapKeyRef" in source:
            return self._keyed(name, Kind.CONFIG_MAP, source["configMapKeyRef"])
        if "secretKeyRef" in source:
            return self._keyed(name, Kind.SECRET, source["secretKeyRef"])
        value: str | None = None
        unknown: str | None = None
        kind, key = Kind.FILE, str((source.get("fileKeyRef") or {}).get("key"))
        try:
            if "fieldRef" in source:
                kind, key = Kind.FIELD, str(source["fieldRef"]["fieldPath"])
                value = field_value(key, self._pod)
            elif "resourceFieldRef" in source:
                kind, key = Kind.RESOURCE, str(source["resourceFieldRef"]["resource"])
                value = resource_value(
                    source["resourceFieldRef"], self._pod, self._container,
                    allocatable=self._objects.allocatable,
                )  # fmt: skip
            else:
                unknown = "it is read from a file in a volume of the pod"
        except UnknownYet as error:
            unknown = str(error)
        encoded = None if value is None else value.encode()
        return Definition(name=name, value=encoded, kind=kind, key=key, unknown=unknown)

    def _keyed(self, name: str, kind: Kind, reference: JsonObject) -> Definition | None:
        of, key = str(reference.get("name", "")), str(reference["key"])
        value: bytes | None = None
        unknown: str | None = None
        try:
            values = self._values(kind, of)
            if values is None or key not in values:
                # What is optional leaves a definition before it in force.
                if reference.get("optional"):
                    return None
                raise _Stop(
                    f"there is no {kind} {self._namespace}/{of}"
                    if values is None
                    else f"there is no key {key!r} in {kind} {self._namespace}/{of}"
                )
            value = values[key]
        except UnknownYet as error:
            unknown = str(error)
        return Definition(
            name=name, value=value, kind=kind, object=of, key=key, unknown=unknown,
            is_secret=kind is Kind.SECRET, uses=frozenset({(kind, of)}),
        )  # fmt: skip

    def _expanded(self, name: str, text: bytes) -> Definition:
        parts: list[bytes] = []
        used: list[Definition] = []
        for literal, reference in references_in(text):
            parts.append(literal)
            if reference is None:
                continue
            found = self._before(reference.decode("utf-8", "surrogateescape"))
            if found is None:
                parts.append(b"$(" + reference + b")")
                continue
            used.append(found)
            parts.append(found.value or b"")
        unknown = next((u.unknown for u in used if u.value is None), None)
        return Definition(
            name=name,
            value=None if unknown else b"".join(parts),
            kind=Kind.LITERAL,
            is_secret=any(u.is_secret for u in used),
            unknown=unknown,
            uses=frozenset().union(*(u.uses for u in used)),
        )

    def _before(self, name: str) -> Definition | None:
        stack = self._stacks.get(name)
        return stack[-1] if stack else self._links.get(name)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
