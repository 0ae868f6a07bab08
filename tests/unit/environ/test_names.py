"""The cluster's names: which there are, where, and the hosts file that says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.environ.names import (
    NotAName,
    added_name,
    api_server,
    cluster_names,
    dns_domain,
    files_first,
    hosts_file,
    joined,
    loopback_address,
    udp_ports,
)


def service(name: str, *ports: int, ip: str = "10.96.0.9", **spec: Any) -> dict[str, Any]:
    listed = [{"port": port, "protocol": "TCP"} for port in ports]
    return {"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": listed, **spec}}


def endpoints(name: str, *hostnames: str, port: int = 5432, ready: bool = True) -> dict[str, Any]:
    found = [
        {"hostname": each, "addresses": ["10.88.0.7"], "conditions": {"ready": ready}}
        for each in hostnames
    ]
    return {
        "metadata": {"labels": {"kubernetes.io/service-name": name}},
        "ports": [{"port": port, "protocol": "TCP"}],
        "endpoints": found,
    }


def test_the_spellings_of_a_service_the_whole_one_first() -> None:
    [name] = cluster_names([service("api", 80, 9090)], None, namespace="shop")
    whole = "api.shop.svc.cluster.local"
    assert name.aliases == (whole, "api", "api.shop", "api.shop.svc", whole + ".")
    assert (name.ports, name.addresses) == ((80, 9090), ("10.96.0.9",))


def test_a_headless_service_and_its_pods_have_the_pods_ports() -> None:
    headless = service("db", 5432, ip="None")
    names = cluster_names(
        [headless], [endpoints("db", "db-0", "db-1", port=15432)], namespace="shop"
    )
    assert [name.aliases[1] for name in names] == ["db", "db-0.db", "db-1.db"]
    assert {name.ports for name in names} == {(5432, 15432)}
    assert names[0].addresses == ()
    assert names[1].addresses == ("10.88.0.7",)


@pytest.mark.parametrize(
    ("slices", "is_empty"),
    [
        ([], True),
        ([endpoints("api", "x", ready=False)], True),
        ([endpoints("api", "x")], False),
        ([endpoints("web", "x")], True),
        (None, False),
    ],
)
def test_a_service_without_ready_endpoints_is_empty(
    slices: list[dict[str, Any]] | None, is_empty: bool
) -> None:
    [name] = cluster_names([service("api", 80)], slices, namespace="shop")
    assert name.is_empty == is_empty


def test_an_external_name_is_never_empty() -> None:
    outside = service("out", 443, type="ExternalName", externalName="example.com")
    assert not cluster_names([outside], [], namespace="shop")[0].is_empty


def test_udp_is_named() -> None:
    dns = service("dns", 53)
    dns["spec"]["ports"].append({"port": 53, "protocol": "UDP"})
    assert udp_ports([dns, service("api", 80)]) == ("dns 53/UDP",)
    assert cluster_names([dns], None, namespace="shop")[0].ports == (53,)


@pytest.mark.parametrize(
    ("text", "namespace", "aliases", "ports"),
    [
        ("redis.infra", "infra", ("redis.infra", "redis.infra.svc"), ()),
        ("redis.infra.svc:6379", "", ("redis.infra", "redis.infra.svc"), (6379,)),
        ("redis.infra.svc.cluster.local.", "infra", ("redis.infra", "redis.infra.svc"), ()),
        ("pg.example.com:5432,6432", "", ("pg.example.com",), (5432, 6432)),
        ("example.com:443", "", ("example.com",), (443,)),
        ("api", "shop", ("api", "api.shop", "api.shop.svc"), ()),
    ],
)
def test_names_of_the_manifest(
    text: str, namespace: str, aliases: tuple[str, ...], ports: tuple[int, ...]
) -> None:
    found, name = added_name(text, namespace="shop")
    assert (found, name.ports) == (namespace, ports)
    assert set(aliases) <= set(name.aliases)
    assert ("redis" in name.aliases) is False, "the short one is another namespace's here"


@pytest.mark.parametrize("text", ["", ":80", "api:no", "api:0", "pg.example.com", "a.b.c:70000"])
def test_names_of_the_manifest_that_are_none(text: str) -> None:
    with pytest.raises(NotAName):
        added_name(text, namespace="shop")


def test_the_domain_is_the_clusters_own() -> None:
    assert dns_domain(["shop.svc.k8s.corp", "svc.k8s.corp"], namespace="shop") == "k8s.corp"
    assert dns_domain(["corp.example"], namespace="shop") == "cluster.local"


LAPTOP = "127.0.0.1 localhost api\n# mine\n10.1.1.1  db.lan db # the old one\n10.1.1.2 db\n"


def test_the_clusters_name_stands_in_front_of_the_laptops() -> None:
    made = hosts_file(LAPTOP, {"127.70.0.1": ("db.shop.svc", "db")})
    assert made.clashes == ("db",)
    assert (
        made.text == "127.0.0.1 localhost api\n# mine\n10.1.1.1 db.lan\n127.70.0.1 db.shop.svc db\n"
    )


def test_localhost_stays_the_laptops() -> None:
    made = hosts_file("127.0.0.1 localhost\n", {"127.70.0.1": ("localhost.shop", "localhost")})
    assert made.text == "127.0.0.1 localhost\n127.70.0.1 localhost.shop\n"


def test_a_long_line_is_cut_into_lines_that_musl_reads_whole() -> None:
    aliases = tuple("x" * 60 + f".{n}" for n in range(30))
    made = hosts_file("", {"127.70.0.1": aliases})
    assert all(len(line) < 512 for line in made.text.splitlines())
    assert [w for line in made.text.splitlines() for w in line.split()[1:]] == list(aliases)


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=300))
def test_each_name_has_an_address_of_its_own_and_keeps_it(names: list[str]) -> None:
    taken: set[str] = set()
    for name in names:
        address = loopback_address(name, taken=taken)
        assert address not in taken
        parts = [int(part) for part in address.split(".")]
        assert parts[0] == 127 and 64 <= parts[1] <= 127 and 1 <= parts[3] <= 254
        taken.add(address)
    for name in names[:1]:
        assert loopback_address(name, taken=()) == loopback_address(name, taken=())


@given(st.text(alphabet="ab# \t\n.1x", max_size=200))
def test_any_hosts_file_survives(text: str) -> None:
    made = hosts_file(text, {"127.70.0.1": ("ab.shop", "ab")})
    words = [line.partition("#")[0].split() for line in made.text.splitlines()]
    found = {w[0] for w in words if "ab" in [each.lower() for each in w[1:]]}
    assert found == {"127.70.0.1"}, "no second address: some programs take both"


@pytest.mark.parametrize(
    ("hosts", "wanted"),
    [
        ("hosts:          files mdns4_minimal [NOTFOUND=return] dns", None),
        ("hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns",
         "hosts: files mymachines resolve [!UNAVAIL=return] myhostname dns"),
        ("hosts:dns # files", "hosts: files dns"),
        ("# hosts: dns", None),
    ],
)  # fmt: skip
def test_the_hosts_file_is_asked_first(hosts: str, wanted: str | None) -> None:
    text = f"passwd: files\n{hosts}\nnetworks: files\n"
    made = files_first(text)
    assert made == (None if wanted is None else f"passwd: files\n{wanted}\nnetworks: files\n")


def test_a_name_that_comes_twice_has_all_of_both() -> None:
    own = cluster_names([service("kubernetes", 443, ip="10.96.0.1")], [], namespace="default")
    [(host, name)] = joined((*own, api_server("10.96.0.1", 8443))).items()
    assert host == "kubernetes.default.svc.cluster.local"
    assert "kubernetes" in name.aliases and len(set(name.aliases)) == len(name.aliases)
    assert (name.ports, name.addresses, name.is_empty) == ((443, 8443), ("10.96.0.1",), False)
