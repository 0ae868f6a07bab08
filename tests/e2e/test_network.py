"""The whole way between laptop and pod, when it is bad: lost, and choosy about upgrades."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
from typing import Any

import pytest

from fakes.badserver import Asked, BadServer, Breaks, Fault
from fakes.gateway import Gateway
from fakes.netfault import FaultyNetwork
from fakes.proxy import ConnectProxy

from . import chaos
from .conftest import HERE, SANDBOX, Node, Towline, free_port, wait_until
from .shapes import PYTHON_IMAGE, pod_spec, service
from .test_guard import guard_runs
from .ways import Loop, Network, kubeconfig, through, through_server

pytestmark = pytest.mark.usefixtures("unchanged")
# As long as it takes to change trains; the line's own patience is `keepFor`.
CUT_S = 20.0


@pytest.mark.parametrize(
    ("refused", "used"), [("websocket", "spdy/3.1"), ("spdy/3.1", "websocket")]
)
def test_a_proxy_that_refuses_one_kind_of_upgrade(
    node: Node,
    namespace: str,
    towline: Towline,
    token: str,
    loop: Loop,
    refused: str,
    used: str,
) -> None:
    with through_server(Gateway, towline, token=token, loop=loop) as (gateway, person):
        gateway.refused = {refused}
        session = person.up("frontend").serving()
        wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
        assert gateway.upgrades[-1] == used
        # The laptop moves: what passed is refused from now on, the other kind passes.
        gateway.refused = {used}
        loop.call(gateway.cut)
        session.event("network-back")
        wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
        assert gateway.upgrades[-1] == refused
        assert session.end() == 130


def test_a_proxy_that_goes_and_is_another_one_later_is_waited_for(
    node: Node, namespace: str, towline: Towline, loop: Loop
) -> None:
    """As where a VPN comes with a proxy of its own, at the same address."""
    config = kubeconfig(towline)
    with loop.running(ConnectProxy()) as first:
        config["clusters"][0]["cluster"]["proxy-url"] = f"http://127.0.0.1:{first.port}"
        session = through(towline, config).up("frontend").serving()
        assert first.asked
    session.event("network-lost")
    with loop.running(ConnectProxy(port=first.port)) as second:
        session.event("network-back")
        assert second.asked
        wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
        assert session.end() == 130


def test_a_load_balancer_that_closes_idle_streams_is_not_noticed(
    node: Node, namespace: str, colleague: Towline, network: Network
) -> None:
    """The line is never idle; the watches are, and begin anew."""
    network.do(FaultyNetwork.limit, idle_s=3.0)
    with chaos.session_of(network.person, node) as setup:
        faulty = network.faulty
        before = faulty.connections
        wait_until("watches begun anew", lambda: faulty.connections > before + 6, within_s=60)
        assert not setup.count("network-lost")
        assert chaos.reached(setup)
        done = colleague.run("down", "frontend", "-n", namespace, "--end-other-session")
        assert done.returncode == 0, done.stderr
        assert setup.session.process.wait(timeout=20) == 0, "seen by a watch"


def test_a_load_balancer_that_closes_every_stream_after_a_while_loses_nothing(
    node: Node, network: Network
) -> None:
    loads = [chaos.Requests(), chaos.Transfers(20, over_s=12.0)]
    with chaos.session_of(network.person, node) as setup:
        closing = chaos.Fault(
            name="every stream closed after 3 s",
            begin=lambda setup: network.do(FaultyNetwork.limit, lives_s=3.0),
            end=lambda setup: network.do(FaultyNetwork.limit),
            lasts_s=12.0,
        )
        [row] = chaos.run(setup, [closing], loads)
        assert setup.count("network-lost") >= 2
        assert not row.unhealed and row.restarted == 0
        assert (row.lost.bytes, row.lost.connections) == (0, 0), row.lost.note


# What becomes of a connection to each of some ports.
_TRIES = """
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 10).close()
        print("taken")
    except ConnectionRefusedError:
        print("refused")
"""


def test_another_pod_reaches_what_is_declared_and_the_gate_alone(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = towline.up("frontend").serving()
    label = ["-l", f"towline.dev/session={session.id}"]
    [secret] = node.get("-n", namespace, "secret", *label)["items"]
    config = json.loads(base64.b64decode(secret["data"]["config.json"]))
    name = session.event("stage-done", stage="dev pod")["text"].split()[0]
    address = node.get("-n", namespace, "pod", name)["status"]["podIP"]
    ports = [config["reverse"][0], config["gate"]["port"], config["line_port"], 22]
    words = ["python3", "-c", _TRIES, address, *map(str, ports)]
    tried = node.kubectl("-n", namespace, "exec", "deploy/api", "--", *words)
    assert tried.split() == ["taken", "taken", "refused", "refused"]
    assert session.end() == 130


class GoesAway:
    """An API server that is away from a first request on, and back after some more."""

    def __init__(self, method: str, resource: str) -> None:
        self._begins = (method, resource)
        self.refused = 0

    def __call__(self, asked: Asked) -> Fault:
        method, resource = self._begins
        begins = asked.write and asked.method == method and resource in asked.path
        if 0 < self.refused < REFUSED or (begins and not self.refused):
            self.refused += 1
            return Breaks(answered=False)
        return None


# Some of them are of watches and leases: more than one try of what is waited for.
REFUSED = 12


@pytest.mark.parametrize("original", ["replace", "keep"])
def test_an_api_server_that_goes_away_in_the_handover_is_waited_for(
    node: Node, namespace: str, towline: Towline, token: str, loop: Loop, original: str
) -> None:  # fmt: skip
    """The session ended, with the line to the dev pod whole."""
    with through_server(BadServer, towline, token=token, loop=loop) as (bad, person):
        text = (towline.folder / "towline.yml").read_text()
        person.manifest(f"original: {original}\n{text}")
        bad.decide = away = GoesAway("PATCH", "/deployments/frontend")
        session = person.up("frontend").serving()
        assert away.refused == REFUSED
        told = [e for e in session.events if e["event"] == "waiting" and e["stage"] == "takeover"]
        assert len(told) == 1 and "can't handle" not in told[0]["reason"], told
        assert told[0]["reason"].startswith("the API server ended the connection: ")
        wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
        guard_runs(node, namespace, session.id)
        assert session.end() == 130


PIECE = bytes(range(256)) * 256
PIECES = 150
# Answers slowly with what is checked there; the same here and in the pod.
SERVER = f"""
import http.server, time
PIECE, PIECES = bytes(range(256)) * 256, {PIECES}
"""
SERVER += """
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        if self.path == "/head":
            self.end_headers()
            self.wfile.write(b"here")
            return
        self.send_header("Content-Length", str(len(PIECE) * PIECES))
        self.end_headers()
        for number in range(PIECES):
            self.wfile.write(PIECE)
            time.sleep(0.03)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", PORT), H).serve_forever()
"""


def peer() -> list[dict[str, Any]]:
    """A pod of the cluster that sends slowly, with its Service."""
    code = SERVER.replace("PORT", "8080")
    spec = pod_spec(PYTHON_IMAGE, command=["python3", "-c", code])
    spec["containers"][0]["readinessProbe"]["httpGet"]["path"] = "/head"
    pod = {"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": "peer", "labels": {"app": "peer"}}, "spec": spec}  # fmt: skip
    return [pod, service("peer")]


def started(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_cut_of_20_s_loses_nothing_and_touches_no_process(
    node: Node, namespace: str, network: Network
) -> None:
    """One through `forward`, to the laptop, and one through `reverse`, from it."""
    node.apply(*peer(), namespace=namespace)
    try:
        wait = ["-n", namespace, "wait", "--for=condition=Ready", "pod/peer", "--timeout=60s"]
        node.kubectl(*wait)
        person = network.person
        local, down_port = free_port(), free_port()
        here = {"mode": "hybrid", "reverse": [f"3000:{local}"], "forward": [f"{down_port}:peer:80"],
                "command": [sys.executable, "-c", SERVER.replace("PORT", str(local))]}  # fmt: skip
        person.manifest(json.dumps({"dev": {"frontend": here}}))
        session = person.up("frontend").serving()
        pid = session.event("command-started")["pid"]
        head = lambda: node.ask(namespace, "frontend", "/head")  # noqa: E731
        # Nodes follow a Service a moment late: until then some connections reach the original.
        wait_until("all here", lambda: all(head() == "here" for _ in range(12)))
        download = started(["curl", "-sS", "-m", "120", f"http://localhost:{down_port}/"])
        url = f"http://frontend.{namespace}.svc.cluster.local/"
        upload = started(
            [*SANDBOX, "exec", "--name", node.name, "--", "curl", "-sS", "-m", "120", url]
        )
        wait_until("the middle of both", lambda: network.faulty.carried_bytes > 6_000_000)
        network.do(FaultyNetwork.cut)
        session.event("network-lost", within_s=5)
        time.sleep(CUT_S)  # the length of the cut is what is tested
        assert download.poll() is None, "the connection waits"
        assert upload.poll() is None, "the connection waits"
        network.do(FaultyNetwork.restore)
        back = session.event("network-back", within_s=5)
        assert back["after_s"] >= CUT_S
        for transfer in (download, upload):
            body, error = transfer.communicate(timeout=60)
            assert hashlib.sha256(body).digest() == hashlib.sha256(PIECE * PIECES).digest(), error
        assert session.event("command-started")["pid"] == pid
        assert [e["event"] for e in session.events].count("command-started") == 1
        assert session.end() == 130
    finally:
        node.kubectl("-n", namespace, "delete", "pod/peer", "service/peer", "--now")
