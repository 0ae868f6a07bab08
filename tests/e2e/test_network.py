"""The whole way between laptop and pod, when it is bad: lost, and choosy about upgrades."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes.gateway import Gateway
from fakes.netfault import FaultyNetwork

from .conftest import HERE, SANDBOX, Node, Towline, free_port, wait_until
from .shapes import PYTHON_IMAGE, pod_spec, service
from .ways import Loop, endpoint, kubeconfig, through

pytestmark = pytest.mark.usefixtures("unchanged")
# As long as it takes to change trains; the line's own patience is `keepFor`.
CUT_S = 20.0


@contextmanager
def gateway_to(node: Node, loop: Loop) -> Iterator[Gateway]:
    host, port, tls, name = endpoint(node)
    made = Gateway(host, port, tls=tls, tls_name=name)
    running = made.running()
    loop.run(running.__aenter__())
    try:
        yield made
    finally:
        loop.run(running.__aexit__(None, None, None))


@pytest.mark.parametrize(
    ("refused", "used"), [("websocket", "spdy/3.1"), ("spdy/3.1", "websocket")]
)
def test_a_proxy_that_refuses_one_kind_of_upgrade(
    node: Node,
    namespace: str,
    towline: Towline,
    token: str,
    loop: Loop,
    tmp_path: Path,
    refused: str,
    used: str,
) -> None:
    with gateway_to(node, loop) as gateway:
        gateway.refused = {refused}
        config = kubeconfig(node)
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{gateway.port}"}
        config["users"][0]["user"] = {"token": token}
        person = through(towline, config, tmp_path)
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


PIECE = bytes(range(256)) * 256
PIECES = 150
# Answers GET slowly with what is checked there, and POST with the sum of what came.
SERVER = f"""
import hashlib, http.server, time
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
    def do_POST(self):
        left, seen = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            data = self.rfile.read(min(left, 65536))
            left -= len(data)
            seen.update(data)
        body = seen.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
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


def upload_words(node: Node, namespace: str) -> list[str]:
    """A command in the cluster that sends slowly to the Service, and prints the answer."""
    code = f"""
import http.client, time
piece, pieces = bytes(range(256)) * 256, {PIECES}
def slowly():
    for _ in range(pieces):
        yield piece
        time.sleep(0.03)
c = http.client.HTTPConnection("frontend.{namespace}.svc.cluster.local", timeout=120)
c.request("POST", "/", body=slowly(), headers={{"Content-Length": str(len(piece) * pieces)}})
print(c.getresponse().read().decode(), end="")
"""
    return [*SANDBOX, "exec", "--name", node.name, "--", "python3", "-c", code]


def started(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_cut_of_20_s_loses_nothing_and_touches_no_process(
    node: Node,
    namespace: str,
    towline: Towline,
    loop: Loop,
    network: FaultyNetwork,
    tmp_path: Path,
) -> None:
    """A download through `forward` and an upload through `reverse`, cut in the middle."""
    node.apply(*peer(), namespace=namespace)
    config = kubeconfig(node)
    try:
        wait = ["-n", namespace, "wait", "--for=condition=Ready", "pod/peer", "--timeout=60s"]
        node.kubectl(*wait)
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{network.port}"
        person = through(towline, config, tmp_path)
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
        upload = started(upload_words(node, namespace))
        wait_until("the middle of both", lambda: network.carried_bytes > 6_000_000)
        loop.call(network.cut)
        session.event("network-lost", within_s=5)
        time.sleep(CUT_S)  # the length of the cut is what is tested
        assert download.poll() is None, "the connection waits"
        assert upload.poll() is None, "the connection waits"
        loop.call(network.restore)
        back = session.event("network-back", within_s=5)
        assert back["after_s"] >= CUT_S
        body, _ = download.communicate(timeout=60)
        assert hashlib.sha256(body).hexdigest() == hashlib.sha256(PIECE * PIECES).hexdigest()
        said, error = upload.communicate(timeout=60)
        assert said.decode() == hashlib.sha256(PIECE * PIECES).hexdigest(), error
        assert session.event("command-started")["pid"] == pid
        assert [e["event"] for e in session.events].count("command-started") == 1
        assert session.end() == 130
    finally:
        node.kubectl("-n", namespace, "delete", "pod/peer", "service/peer", "--now")
