"""Pod specs with ConfigMaps and Secrets, for the comparison with the kubelet.

Names and values are few and odd on purpose, so that they meet: one name comes from
several sources, values refer to names that are there, come later or never.
"""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

CONTAINERS = 25
_KEYS = st.sampled_from(["A", "B", "C", "a.b", "x-y", "1N", "WEB_SERVICE_HOST", "KEY_a", "PATH"])
_NAMES = st.one_of(
    _KEYS, st.sampled_from(["D", "P_A", "P_B", "sp ace", "$", "é".encode().hex(), "HOSTNAME"])
)
_PREFIXES = st.sampled_from(["", "", "P_", "a b ", "$(", "1"])
_PIECES = st.sampled_from(
    ["$", "$$", "(", ")", "$(", "A", "$(A)", "$(B)", "$(P_A)", "$(a.b)", "$(sp ace)", "$(NOT)",
     "$$(A)", "$$$(B)", "$(WEB_SERVICE_HOST)", "$(KUBERNETES_PORT)", "=", "\n", "\r\n", " ", "é",
     "'", '"', "\\", "#", "${A}", "`", "\t", "x"]
)  # fmt: skip
_TEXTS = st.one_of(
    st.lists(_PIECES, max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
# Bytes that are not UTF-8, and NULs, stop a container: few, so that most say something.
_BYTES = st.one_of(
    *[_TEXTS.map(str.encode)] * 12, st.sampled_from([b"\xff", b"caf\xe9", b"a\0b", b"\xc3"])
)
OBJECTS = ("one", "two", "three", "missing")

CONFIG_MAPS = st.fixed_dictionaries(
    {name: st.dictionaries(_KEYS, _TEXTS, max_size=5) for name in OBJECTS if name != "missing"}
)
SECRETS = st.fixed_dictionaries(
    {name: st.dictionaries(_KEYS, _BYTES, max_size=5) for name in OBJECTS if name != "missing"}
)

# Most references lead somewhere, or may lead nowhere: a container that cannot start
# says little of the others.
_OPTIONAL = st.sampled_from([True, True, True, True, False])


@st.composite
def _env_from(draw: st.DrawFn) -> Json:
    kind = draw(st.sampled_from(["configMapRef", "secretRef"]))
    name = draw(st.sampled_from(OBJECTS))
    optional = name == "missing" and draw(_OPTIONAL)
    return {kind: {"name": name, "optional": optional}, "prefix": draw(_PREFIXES)}


_FIELDS = st.sampled_from(
    ["metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels['app']",
     "metadata.labels['towline.example/x']", "metadata.labels['none']",
     "metadata.annotations['note']", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
     "status.hostIPs", "status.podIP", "status.podIPs"]
)  # fmt: skip


@st.composite
def _resource(draw: st.DrawFn) -> Json:
    which = draw(st.sampled_from(["limits", "requests"]))
    name = draw(st.sampled_from(["cpu", "memory", "ephemeral-storage"]))
    divisors = ["1m", "1", "0"] if name == "cpu" else ["1", "1k", "1Mi", "1M", "1Gi", "0"]
    reference = {"resource": f"{which}.{name}", "divisor": draw(st.sampled_from(divisors))}
    if draw(st.booleans()):
        reference["containerName"] = f"c{draw(st.integers(0, CONTAINERS - 1))}"
    return {"resourceFieldRef": reference}


@st.composite
def _env(draw: st.DrawFn) -> Json:
    name = draw(_NAMES)
    kind = draw(st.sampled_from(["value", "value", "value", "config", "secret", "field", "size"]))
    if kind == "value":
        return {"name": name, "value": draw(_TEXTS)}
    if kind == "field":
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": draw(_FIELDS)}}}
    if kind == "size":
        return {"name": name, "valueFrom": draw(_resource())}
    reference = {"name": draw(st.sampled_from(OBJECTS)), "key": draw(_KEYS)}
    reference["optional"] = draw(_OPTIONAL)
    return {"name": name, "valueFrom": {f"{_REFERENCES[kind]}KeyRef": reference}}


_REFERENCES = {"config": "configMap", "secret": "secret"}


@st.composite
def _resources(draw: st.DrawFn) -> Json:
    limits = {
        "cpu": draw(st.sampled_from([None, "0", "150m", "1.5", "2"])),
        "memory": draw(st.sampled_from([None, "64Mi", "65M", "0.1Gi", "1e8"])),
        "ephemeral-storage": draw(st.sampled_from([None, "1Gi", "1500k"])),
    }
    requests = {
        "cpu": draw(st.sampled_from([None, "1m"])) if limits["cpu"] in (None, "0") else "1m",
        "memory": None if limits["memory"] is None else draw(st.sampled_from(["1Mi", "1000k"])),
    }
    return {
        "limits": {k: v for k, v in limits.items() if v is not None},
        "requests": {k: v for k, v in requests.items() if v is not None and limits[k] != "0"},
    }


@st.composite
def pods(draw: st.DrawFn) -> Json:
    """A pod's spec and metadata, without a name."""
    of_pod = draw(st.sampled_from([None, None, {"cpu": "3"}, {"memory": "1Gi", "cpu": "2500m"}]))
    containers = [
        {
            "name": f"c{n}",
            "image": "towline.local/environ-reader:1",
            "imagePullPolicy": "Never",
            "envFrom": draw(st.lists(_env_from(), max_size=4)),
            "env": draw(st.lists(_env(), max_size=8)),
            **({} if of_pod else {"resources": draw(_resources())}),
        }
        for n in range(CONTAINERS)
    ]
    spec: Json = {
        "containers": containers,
        "restartPolicy": "Never",
        "enableServiceLinks": draw(st.sampled_from([True, True, False])),
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
    }
    if of_pod:
        spec["resources"] = {
            "limits": of_pod,
            "requests": {k: "10M" if k == "memory" else "10m" for k in of_pod},
        }
    return {
        "metadata": {
            "labels": {"app": "oracle", "towline.example/x": draw(st.sampled_from(["", "1.a_b"]))},
            "annotations": {"note": draw(_TEXTS)},
        },
        "spec": spec,
    }


def config_map(name: str, values: dict[str, str]) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": values}


def secret(name: str, values: dict[str, bytes]) -> Json:
    encoded = {key: base64.b64encode(value).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def service(name: str, *ports: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": list(ports), **spec},
    }


SERVICES = (
    service("web", {"name": "http", "port": 80}, {"name": "metrics-2", "port": 9090}),
    service("my-dns", {"port": 53, "protocol": "UDP"}),
    service("headless", {"port": 5432}, clusterIP="None"),
    service("outside", {"port": 443}, type="ExternalName", externalName="example.com"),
)
