"""The kubelet's algorithm, rule by rule; the kubelet itself is asked in tests/e2e."""

from __future__ import annotations

import pytest

from towline.environ.definitions import Kind, Objects, config_maps_first
from towline.environ.resolve import references, resolve

from .pods import (
    MASTER,
    Json,
    config_map,
    from_map,
    from_secret,
    pod,
    resolved,
    secret,
    service,
    value_from,
    values,
)


def test_a_later_source_stands_before_an_earlier_one_and_env_before_all() -> None:
    found = resolved(
        pod(
            env_from=[from_map("m"), from_secret("s"), from_map("n", prefix="P_")],
            env=[{"name": "C", "value": "own"}],
        ),
        config_maps={"m": config_map(A="m", B="m", C="m"), "n": config_map(A="n")},
        secrets={"s": secret(B=b"s\n", C=b"s")},
    )
    assert values(found) == {"A": b"m", "B": b"s\n", "C": b"own", "P_A": b"n"}
    variable = found.variables["C"]
    assert str(variable.definition) == "container env"
    assert [str(s) for s in variable.shadows] == ["Secret s/C", "ConfigMap m/C"]
    assert str(found.variables["P_A"].definition) == "ConfigMap n/A"


def test_names_that_no_shell_knows_are_taken_as_they_are() -> None:
    found = resolved(
        pod(env_from=[from_map("m", prefix="a b/")], env=[{"name": "1.2-3", "value": "x"}]),
        config_maps={"m": {"data": {"k.e-y": "v"}, "binaryData": {"raw": "AAAA"}}},
    )
    assert values(found) == {"a b/k.e-y": b"v", "1.2-3": b"x"}, "since 1.34; binaryData never"


def test_what_is_optional_and_not_there_leaves_what_was_before() -> None:
    env = [
        {"name": "A", "value": "before"},
        value_from("A", "configMapKeyRef", name="none", key="k", optional=True),
        value_from("A", "secretKeyRef", name="s", key="none", optional=True),
        value_from("B", "configMapKeyRef", name="m", key="none", optional=True),
    ]
    found = resolved(
        pod(
            env_from=[from_map("none", optional=True), from_secret("none", optional=True)], env=env
        ),
        config_maps={"none": None, "m": config_map()},
        secrets={"none": None, "s": secret()},
    )
    assert values(found) == {"A": b"before"}
    assert not found.problems


def test_what_is_missing_is_named_with_its_object_and_key() -> None:
    env = [
        value_from("A", "configMapKeyRef", name="none", key="k"),
        value_from("B", "configMapKeyRef", name="m", key="k.y"),
        value_from("C", "secretKeyRef", name="s", key="k"),
        value_from("D", "fieldRef", fieldPath="status.phase"),
        value_from("E", "resourceFieldRef", resource="limits.pods"),
        {"name": "F", "value": "there"},
    ]
    found = resolved(
        pod(env_from=[from_secret("none")], env=env),
        config_maps={"none": None, "m": config_map()},
        secrets={"none": None, "s": secret()},
    )
    assert found.problems == (
        "envFrom: there is no Secret shop/none",
        "A: there is no ConfigMap shop/none",
        "B: there is no key 'k.y' in ConfigMap shop/m",
        "C: there is no key 'k' in Secret shop/s",
        "D: field 'status.phase' cannot be an environment variable",
        "E: resource 'limits.pods' cannot be an environment variable",
    )
    assert values(found) == {"F": b"there"}


def test_what_the_runtime_does_not_take_is_a_problem_where_it_is_in_force() -> None:
    found = resolved(
        pod(env_from=[from_secret("s")], env=[{"name": "C", "value": "x"}]),
        secrets={"s": secret(A=b"a\0b", B=b"\xff", C=b"\xff\0")},
    )
    assert found.problems == (
        "A: the value of Secret s/A has a NUL in it",
        "B: the value of Secret s/B is not UTF-8",
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['example.com/tier']", "front"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "a\nb"),
        ("spec.nodeName", "node-1"),
        ("spec.host", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "10.0.0.1"),
        ("status.hostIPs", "10.0.0.1"),
        ("status.podIP", "10.1.0.5"),
        ("status.podIPs", "10.1.0.5,fd00::5"),
    ],
)
def test_fields(path: str, value: str) -> None:
    found = resolved(pod(env=[value_from("X", "fieldRef", fieldPath=path)]))
    assert values(found)["X"] == value.encode()
    assert str(found.variables["X"].definition) == f"field {path}"


def test_of_a_template_the_pods_own_is_unknown_and_so_is_what_is_made_of_it() -> None:
    template = pod(
        env=[
            value_from("NAME", "fieldRef", fieldPath="metadata.name"),
            {"name": "URL", "value": "http://$(NAME)/"},
        ]
    )
    del template["metadata"]["name"]
    found = resolved(template)
    assert values(found) == {"NAME": None, "URL": None}
    assert found.variables["URL"].definition.unknown == "metadata.name is the dev pod's own"


ALLOCATABLE = {"cpu": "3500m", "memory": "1000Ki", "ephemeral-storage": "2G"}


@pytest.mark.parametrize(
    ("resource", "divisor", "limits", "value"),
    [
        ("limits.cpu", None, {"cpu": "250m"}, "1"),
        ("limits.cpu", "1m", {"cpu": "250m"}, "250"),
        ("limits.cpu", "0", {"cpu": "1.5"}, "2"),
        ("limits.cpu", "1m", {}, "3500"),
        ("limits.cpu", "1m", {"cpu": "0"}, "3500"),
        ("limits.memory", None, {"memory": "64Mi"}, "67108864"),
        ("limits.memory", "1Mi", {"memory": "65M"}, "62"),
        ("limits.memory", "1k", {}, "1024"),
        ("limits.memory", None, {"memory": "1e3"}, "1000"),
        ("limits.memory", None, {"memory": "1500m"}, "2"),
        ("limits.ephemeral-storage", "1Gi", {}, "2"),
        ("requests.cpu", "1m", {"cpu": "250m"}, "250"),
        ("requests.memory", None, {}, "0"),
        ("limits.hugepages-2Mi", "1Mi", {"hugepages-2Mi": "4Mi"}, "4"),
        ("requests.hugepages-2Mi", None, {}, "0"),
    ],
)
def test_resources(resource: str, divisor: str | None, limits: Json, value: str) -> None:
    reference = {"resource": resource} | ({"divisor": divisor} if divisor else {})
    of = pod(
        env=[value_from("X", "resourceFieldRef", **reference)],
        container_resources={"limits": limits} if limits else {},
    )
    assert values(resolved(of, allocatable=ALLOCATABLE))["X"] == value.encode()


def test_resources_of_another_container_and_of_the_pod() -> None:
    def reference(name: str | None) -> Json:
        named = {"containerName": name} if name else {}
        return value_from("X", "resourceFieldRef", resource="limits.cpu", divisor="1m", **named)

    side = {"name": "side", "resources": {"limits": {"cpu": "7m"}}}
    init = {"name": "init"}
    found = {
        name: values(
            resolved(
                pod(
                    env=[reference(name)],
                    others=[side],
                    initContainers=[init],
                    resources={"limits": {"cpu": "2"}},
                ),
                allocatable=ALLOCATABLE,
            )
        )["X"]
        for name in ("side", None, "init")
    }
    assert found == {"side": b"7", None: b"2000", "init": b"0"}


def test_a_limit_of_the_nodes_is_unknown_without_the_node() -> None:
    found = resolved(pod(env=[value_from("X", "resourceFieldRef", resource="limits.cpu")]))
    assert values(found)["X"] is None


WEB = service(
    "my-web", {"name": "http-alt", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}
)


def test_service_links() -> None:
    headless = service("db", {"port": 5432}, address="None")
    six = service("six", {"port": 1}, address="fd00::1")
    found = resolved(pod(), services=(WEB, headless, six))
    assert values(found) == {
        "MY_WEB_SERVICE_HOST": b"10.96.0.9",
        "MY_WEB_SERVICE_PORT": b"80",
        "MY_WEB_SERVICE_PORT_HTTP_ALT": b"80",
        "MY_WEB_SERVICE_PORT_DNS": b"53",
        "MY_WEB_PORT": b"tcp://10.96.0.9:80",
        "MY_WEB_PORT_80_TCP": b"tcp://10.96.0.9:80",
        "MY_WEB_PORT_80_TCP_PROTO": b"tcp",
        "MY_WEB_PORT_80_TCP_PORT": b"80",
        "MY_WEB_PORT_80_TCP_ADDR": b"10.96.0.9",
        "MY_WEB_PORT_53_UDP": b"udp://10.96.0.9:53",
        "MY_WEB_PORT_53_UDP_PROTO": b"udp",
        "MY_WEB_PORT_53_UDP_PORT": b"53",
        "MY_WEB_PORT_53_UDP_ADDR": b"10.96.0.9",
        "SIX_SERVICE_HOST": b"fd00::1",
        "SIX_SERVICE_PORT": b"1",
        "SIX_PORT": b"tcp://[fd00::1]:1",
        "SIX_PORT_1_TCP": b"tcp://[fd00::1]:1",
        "SIX_PORT_1_TCP_PROTO": b"tcp",
        "SIX_PORT_1_TCP_PORT": b"1",
        "SIX_PORT_1_TCP_ADDR": b"fd00::1",
    }
    assert found.variables["KUBERNETES_SERVICE_HOST"].definition.value == b"10.96.0.1"


def test_links_are_below_all_and_can_be_referred_to() -> None:
    env = [{"name": "URL", "value": "$(MY_WEB_PORT)/"}, {"name": "MY_WEB_PORT", "value": "mine"}]
    found = resolved(pod(env=env), services=(WEB,))
    assert values(found)["URL"] == b"tcp://10.96.0.9:80/"
    variable = found.variables["MY_WEB_PORT"]
    assert (variable.definition.value, str(variable.shadows[0])) == (b"mine", "service link my-web")


def test_without_links_kubernetes_stays() -> None:
    found = resolved(pod(enableServiceLinks=False), services=(WEB,))
    assert values(found) == {}
    assert found.variables["KUBERNETES_PORT_443_TCP"].definition.value == b"tcp://10.96.0.1:443"


def test_a_service_named_kubernetes_stands_before_the_real_one() -> None:
    found = resolved(pod(), services=(service("kubernetes", {"port": 1}),))
    assert found.variables["KUBERNETES_SERVICE_PORT"].definition.value == b"1"


def test_what_may_not_be_read_is_unknown_and_no_problem() -> None:
    env = [
        value_from("A", "secretKeyRef", name="s", key="k"),
        {"name": "B", "value": "x$(A)"},
    ]
    found = resolved(pod(env_from=[from_secret("all")], env=env), master=None)
    assert values(found) == {"A": None, "B": None}
    assert found.unread == ((Kind.SECRET, "all"), (Kind.SECRET, "s"))
    assert found.variables["B"].definition.unknown == "Secret s may not be read"
    assert found.variables["B"].definition.is_secret
    assert found.variables["KUBERNETES_SERVICE_HOST"].definition.value is None
    assert not found.problems


def test_what_is_made_of_a_secret_is_one() -> None:
    env = [{"name": "URL", "value": "redis://:$(P)@db"}, {"name": "PLAIN", "value": "$(M)"}]
    found = resolved(
        pod(env_from=[from_map("m"), from_secret("s")], env=env),
        config_maps={"m": config_map(M="m")},
        secrets={"s": secret(P=b"p")},
    )
    url, plain = found.variables["URL"].definition, found.variables["PLAIN"].definition
    assert url.value == b"redis://:p@db"
    assert (url.is_secret, plain.is_secret) == (True, False)
    assert url.uses == {(Kind.SECRET, "s")}
    assert plain.uses == {(Kind.CONFIG_MAP, "m")}


def test_config_maps_first_is_for_two_env_from_only() -> None:
    found = resolved(
        pod(
            env_from=[from_map("m"), from_secret("s")],
            env=[
                value_from("C", "secretKeyRef", name="s", key="A"),
                {"name": "D", "value": "$(A)"},
            ],
        ),
        config_maps={"m": config_map(A="m", C="m")},
        secrets={"s": secret(A=b"s", B=b"s")},
    )
    first = {n: config_maps_first(v) for n, v in found.variables.items()}
    assert str(first["A"].definition) == "ConfigMap m/A"
    assert [str(s) for s in first["A"].shadows] == ["Secret s/A"]
    assert str(first["B"].definition) == "Secret s/B"
    assert str(first["C"].definition) == "Secret s/A"
    assert first["D"].definition.value == b"s", "the container's value"


def test_references() -> None:
    of = pod(
        env_from=[from_map("m"), from_secret("s")],
        env=[
            value_from("A", "configMapKeyRef", name="n", key="k"),
            value_from("B", "secretKeyRef", name="t", key="k"),
        ],
    )
    assert references(of, "app") == ({"m", "n"}, {"s", "t"})


def test_the_chosen_container() -> None:
    of = pod(env=[{"name": "A", "value": "app"}], others=[{"name": "side"}])
    found = resolve(of, "side", Objects(master=MASTER))
    assert found.variables.keys() == resolved(pod()).variables.keys()
