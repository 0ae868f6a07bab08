"""The dev pod goes without anybody's asking: evicted, killed for memory, its node drained."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from .conftest import HERE, Node, Session, Towline, free_port, wait_until
from .pods import deleted, drained, evicted, killed, pod_of

# Answers with the variable that only a local process has, and which process it is.
SERVER = """
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"host: laptop {os.getpid()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""
pytestmark = pytest.mark.usefixtures("unchanged")


@pytest.mark.parametrize("goes", [evicted, killed, drained])
def test_another_pod_takes_its_place_below_the_same_process(
    node: Node, namespace: str, towline: Towline, goes: Callable[[Node, str, str], None]
) -> None:
    local = free_port()
    entry = {"mode": "hybrid", "reverse": [f"3000:{local}"],
             "command": [sys.executable, "-c", SERVER, str(local)]}  # fmt: skip
    towline.manifest(json.dumps({"dev": {"frontend": entry}}))
    session = towline.up("frontend").serving()
    # One look, not two: the original still has a share of the requests for a moment.
    asked = partial(node.ask, namespace, "frontend")
    before = wait_until("here", lambda: answer if "laptop" in (answer := asked()) else "")
    goes(node, namespace, pod_of(session))
    session.event("pod-replaced", within_s=90)
    wait_until("here again", lambda: asked() == before, within_s=60)
    assert [e["event"] for e in session.events].count("command-started") == 1
    assert session.end() == 130


def test_a_container_that_is_killed_again_and_again_is_not_waited_for(
    node: Node, namespace: str, towline: Towline
) -> None:
    """The kubelet waits longer each time before it starts it once more, and the session ended."""
    session = towline.up("frontend").serving()
    for before in range(3):
        killed(node, namespace, pod_of(session))
        replaced = partial(events, session, "pod-replaced", after=before)
        [last] = wait_until("replaced", replaced)
        assert last["after_s"] < 10, "less than the first wait"
        wait_until("here", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    assert not [e for e in events(session, "warned") if "was changed by" in e["text"]]
    assert len(events(session, "command-started")) == 1
    assert session.end() == 130


def events(session: Session, name: str, *, after: int = 0) -> list[dict[str, Any]]:
    return [each for each in list(session.events) if each["event"] == name][after:]


def test_one_that_goes_in_the_middle_of_the_handover_is_waited_for(
    node: Node, namespace: str, towline: Towline
) -> None:
    """Its gate is open, and the kubelet has not told the Service yet: `up` ended with 5."""
    session = towline.up("frontend")
    assert session.event("gate-changed")["is_open"]
    deleted(node, namespace, pod_of(session))
    session.event("pod-replaced")
    session.serving()
    wait_until("here", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    assert session.end() == 130


def test_a_forwards_new_connections_wait_for_the_next_pod(
    node: Node, namespace: str, towline: Towline
) -> None:
    port = free_port()
    entry = {"mode": "hybrid", "forward": [f"{port}:db:6379"], "command": ["sleep", "3600"]}
    towline.manifest(json.dumps({"dev": {"frontend": entry}}))
    session = towline.up("frontend").serving()
    assert ping(port) == b"-NOAUTH"
    pod = pod_of(session)
    deleted(node, namespace, pod)
    session.event("warned", text=f"the dev pod {pod} is gone: waiting for another one")
    assert ping(port) == b"-NOAUTH", "neither refused nor reset"
    session.event("pod-replaced")
    assert session.end() == 130


def ping(port: int) -> bytes:
    """What Redis answers to a connection of its own: that it wants a password."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(7, socket.MSG_WAITALL)
