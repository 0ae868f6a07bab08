"""A laptop behind a proxy: real clients ask it for the internet, never for the cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from fakes.origin import answering
from towline.environ.container import ContainerEnvironment
from towline.environ.policy import Policy, local_environment
from towline.session.environment import cluster_names

HOSTS = ("api", "api.shop", "api.shop.svc", "api.shop.svc.cluster.local", "db-0.db.shop.svc")
CURL = [
    "curl", "-sS", "-m", "5", "--resolve", "{host}:{port}:127.0.0.1", "http://{host}:{port}/",
]  # fmt: skip
# Names resolve to loopback, as they do in the cluster's own network.
PYTHON = [
    sys.executable, "-I", "-c",
    "import socket,sys,urllib.request\n"
    "real = socket.getaddrinfo\n"
    "socket.getaddrinfo = lambda host, *rest, **more: real('127.0.0.1', *rest, **more)\n"
    "print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())",
    "http://{host}:{port}/",
]  # fmt: skip


def environment(proxy: int, spelling: str) -> dict[bytes, bytes]:
    laptop = {
        b"PATH": os.environ["PATH"].encode(),
        spelling.encode(): f"http://127.0.0.1:{proxy}".encode(),
        b"no_proxy": b"intranet.example",
    }
    made = local_environment(
        container=ContainerEnvironment(variables={}).values,
        manifest={},
        laptop=laptop,
        policy=Policy(no_proxy=cluster_names(["api", "db"], namespace="shop")),
    )
    return dict(made.values)


@pytest.mark.parametrize("client", [CURL, PYTHON], ids=["curl", "python"])
def test_a_proxy_is_asked_for_the_internet_alone(client: list[str]) -> None:
    if shutil.which(client[0]) is None:
        pytest.skip(f"there is no {client[0]} here")

    def get(host: str, port: int) -> str:
        words = [word.format(host=host, port=port) for word in client]
        done = subprocess.run(words, env=values, capture_output=True, check=True, timeout=20)
        return done.stdout.decode().strip()

    with answering("the proxy") as proxy, answering("the cluster") as cluster:
        # Lower case: curl takes no other for http.
        values = environment(proxy.port, "http_proxy")
        assert get("example.com", 80) == "the proxy"
        assert proxy.asked == ["http://example.com/"] or proxy.asked == ["http://example.com:80/"]
        for host in (*HOSTS, "localhost", "127.0.0.1", "intranet.example"):
            assert get(host, cluster.port) == "the cluster", host
        assert len(proxy.asked) == 1


def test_suffixes_come_before_names() -> None:
    """Thousands of Services may not all fit: what covers most is first."""
    names = cluster_names(["api"], namespace="shop")
    assert names.index(".cluster.local") < names.index("api")
