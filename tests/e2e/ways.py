"""Ways to the API server that are the tests' own, and an event loop that they run in."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

import pytest

from fakes.netfault import FaultyNetwork

from .conftest import Node, Towline


class Server(Protocol):
    """What decides on requests on their way to the API server, where its TLS begins."""

    port: int

    def running(self) -> AbstractAsyncContextManager[Any]: ...


AnyServer = TypeVar("AnyServer", bound=Server)


class Loop:
    """An event loop in a thread of its own: the tests themselves wait for processes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, job: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(30)

    def call(self, function: Callable[[], None]) -> None:
        async def job() -> None:
            function()

        self.run(job())

    @contextmanager
    def running(self, server: AnyServer) -> Iterator[AnyServer]:
        """A server that runs in it while the block does."""
        running = server.running()
        self.run(running.__aenter__())
        try:
            yield server
        finally:
            self.run(running.__aexit__(None, None, None))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def kubeconfig(towline: Towline) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(towline.kubeconfig).read_text())
    return found


def through(towline: Towline, config: dict[str, Any]) -> Towline:
    """`towline` with another kubeconfig."""
    path = towline.home / "kubeconfig-through"
    path.write_text(json.dumps(config))
    return replace(towline, kubeconfig=str(path), sessions=towline.sessions)


def endpoint(towline: Towline) -> tuple[str, int, ssl.SSLContext, str]:
    """The API server's host and port, and what its TLS is checked with."""
    cluster = kubeconfig(towline)["clusters"][0]["cluster"]
    server = urlsplit(cluster["server"])
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    assert server.hostname is not None and server.port is not None
    tls = ssl.create_default_context(cadata=authority)
    return server.hostname, server.port, tls, cluster["tls-server-name"]


@contextmanager
def through_server(
    kind: Callable[..., AnyServer], towline: Towline, *, token: str, loop: Loop
) -> Iterator[tuple[AnyServer, Towline]]:
    """A server, and a `towline` whose requests come to it: in plain HTTP, and with a token."""
    host, port, tls, name = endpoint(towline)
    with loop.running(kind(host, port, tls=tls, tls_name=name)) as made:
        config = kubeconfig(towline)
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{made.port}"}
        config["users"][0]["user"] = {"token": token}
        yield made, through(towline, config)


Given = ParamSpec("Given")


@dataclass(frozen=True, slots=True)
class Network:
    """A way to the API server that can be made bad, from a test's own thread."""

    faulty: FaultyNetwork
    loop: Loop
    towline: Towline

    def do(
        self,
        what: Callable[Concatenate[FaultyNetwork, Given], None],
        *args: Given.args,
        **settings: Given.kwargs,
    ) -> None:
        """One of FaultyNetwork's functions, done when this returns."""
        self.loop.call(lambda: what(self.faulty, *args, **settings))

    @property
    def kubeconfig(self) -> dict[str, Any]:
        """That leads over it."""
        config = kubeconfig(self.towline)
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.faulty.port}"
        return config

    @property
    def person(self) -> Towline:
        """The test's `towline`, whose way it is."""
        return through(self.towline, self.kubeconfig)


@pytest.fixture
def network(towline: Towline, loop: Loop) -> Iterator[Network]:
    host, port, _, _ = endpoint(towline)
    faulty = FaultyNetwork(host, port)
    loop.run(faulty.open())
    yield Network(faulty, loop, towline)
    loop.run(faulty.close())


# Who the token is of.
ACCOUNT = "passer"


@pytest.fixture
def token(node: Node, namespace: str) -> Iterator[str]:
    """Credentials that get through where TLS ends on the way; a certificate does not."""
    account = ["-n", namespace, "create", "serviceaccount", ACCOUNT]
    binding = ["-n", namespace, "create", "rolebinding", ACCOUNT, "--clusterrole=admin"]
    node.kubectl(*account)
    try:
        node.kubectl(*binding, f"--serviceaccount={namespace}:{ACCOUNT}")
        yield node.kubectl("-n", namespace, "create", "token", ACCOUNT).strip()
    finally:
        both = [f"rolebinding/{ACCOUNT}", f"serviceaccount/{ACCOUNT}", "--ignore-not-found"]
        node.kubectl("-n", namespace, "delete", *both)
