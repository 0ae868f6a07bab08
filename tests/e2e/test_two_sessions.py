"""One person, several sessions at once: what they share, and what they cannot."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .conftest import Node, Towline, free_port, wait_until

pytestmark = pytest.mark.usefixtures("unchanged")

SERVER = f"{sys.executable} -u -m http.server --bind 127.0.0.1"


def two_entries(towline: Towline, *, forwards: tuple[str, str]) -> tuple[int, int]:
    """A manifest with both services of the shop, each a web server of this machine."""
    ports = free_port(), free_port()
    towline.manifest(
        "dev:\n"
        + "".join(
            f"  {name}:\n"
            "    mode: hybrid\n"
            f"    reverse: {remote}:{port}\n"
            f"    forward: {forward}\n"
            f"    command: exec {SERVER} {port}\n"
            for name, remote, port, forward in (
                ("frontend", 3000, ports[0], forwards[0]),
                ("api", 8000, ports[1], forwards[1]),
            )
        )
    )
    return ports


# The shop's Redis wants a password first: nobody else answers so.
PONG = "-NOAUTH Authentication required.\r\n"


def ping(port: int) -> str:
    """What the shop's Redis answers through a forward, by a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as asking:
        asking.settimeout(20)
        asking.sendall(b"PING\r\n")
        return asking.recv(100).decode()


@contextmanager
def pinged_all_the_time(port: int) -> Iterator[list[str]]:
    """New connections one after the other; what each one came to."""
    answers: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(ping(port))
            except OSError as error:
                answers.append(repr(error))
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def test_a_forward_is_shared_and_handed_over(towline: Towline) -> None:
    port = free_port()
    two_entries(towline, forwards=(f"{port}:db:6379", f"{port}:db:6379"))
    first = towline.up("frontend").serving()
    second = towline.up("api").serving()
    told = second.event("stage-done", stage="ports")["text"]
    assert told.endswith(f"db:6379, shared with frontend (session {first.id})")
    with pinged_all_the_time(port) as answers:
        wait_until("both go on", lambda: len(answers) > 20)
        assert first.end() == 130
        count = len(answers)
        wait_until("the second goes on alone", lambda: len(answers) > count + 20)
    # One that the first had taken may go with it; none is refused.
    broken = [each for each in answers if each != PONG]
    assert not [each for each in broken if "refused" in each], broken
    assert len(broken) <= 1, broken
    # A third time around, and as hard as can be: the sockets are the kernel's.
    third = towline.up("frontend").serving()
    assert "shared with api" in third.event("stage-done", stage="ports")["text"]
    second.end(signal.SIGKILL)
    with pinged_all_the_time(port) as answers:
        wait_until("the third goes on alone", lambda: len(answers) > 20)
    assert set(answers) == {PONG}
    down = towline.run("down", "api", "-n", towline.namespace)
    assert down.returncode == 0, down.stderr


def test_a_port_that_leads_elsewhere_is_an_error_that_names_the_session(
    towline: Towline,
) -> None:
    port = free_port()
    ports = two_entries(towline, forwards=(f"{port}:db:6379", f"{port}:frontend:80"))
    first = towline.up("frontend").serving()
    done = towline.run("up", "api", "-n", towline.namespace, "--yes")
    assert done.returncode == 6, done.stderr
    where = f"in namespace {towline.namespace}"
    assert (
        f"localhost:{port} leads to db:6379 {where} for your session frontend (session "
        f"{first.id}), and is to lead to frontend:80 {where} here" in done.stderr
    )
    assert "choose another local port: `forward: <port>:frontend:80`" in done.stderr
    assert ping(port) == PONG, "the first one's is as it was"
    # Another service's process is no forward, and still one of ours.
    two_entries(towline, forwards=(f"{free_port()}:db:6379", f"{ports[0]}:db:6379"))
    done = towline.run("up", "api", "-n", towline.namespace, "--yes")
    assert done.returncode == 6, done.stderr
    assert f"localhost:{ports[0]} is already in use by" in done.stderr
    assert f"your session frontend (session {first.id})" in done.stderr
    rows = json.loads(towline.run("status", "-n", towline.namespace, "-o", "json").stdout)
    assert [row["service"] for row in rows["sessions"]] == ["frontend"]


def test_several_services_in_one_terminal(node: Node, towline: Towline) -> None:
    port = free_port()
    two_entries(towline, forwards=(f"{port}:db:6379", f"{port}:db:6379"))
    session = towline.up("frontend", "api")
    for name in ("frontend", "api"):
        session.event("stage-done", stage="takeover", service=name)

    def answered_by(host: str, port: int, path: str) -> set[str]:
        """The prefixes of the lines in which a web server says what it was asked."""
        url = f"http://{host}.{towline.namespace}.svc.cluster.local:{port}{path}"
        words = ["exec", "--name", node.name, "--", "curl", "-sS", "-m", "12", url]
        # Until the nodes have followed, the original may still be asked.
        node.run(*words, check=False)
        return {line[:11] for line in session.errors if path in line}

    wait_until("frontend", lambda: answered_by("frontend", 80, "/a") == {"frontend │ "})
    wait_until("api", lambda: answered_by("api", 8000, "/b") == {"api      │ "})
    assert all(line.startswith(("frontend │ ", "api      │ ")) for line in session.errors)
    done = towline.run("down", "api", "-n", towline.namespace)
    assert done.returncode == 0, done.stderr
    assert "Deployment api is back at" in done.stderr
    session.event("restored", service="api")
    rows = json.loads(towline.run("status", "-n", towline.namespace, "-o", "json").stdout)
    assert [row["service"] for row in rows["sessions"]] == ["frontend"]
    assert ping(port) == PONG, "what it shared with api is its own now"
    assert session.end() == 130
    assert session.events[-1] | {"seconds": 0} == {
        "event": "restored", "service": "frontend", "seconds": 0,
        "text": "Deployment frontend is back at 2",
    }  # fmt: skip


def test_several_services_begin_together_or_not_at_all(node: Node, towline: Towline) -> None:
    two_entries(towline, forwards=(f"{free_port()}:db:6379", f"{free_port()}:db:6379"))
    text = (towline.folder / "towline.yml").read_text()
    towline.manifest(text + "  nothere:\n    mode: hybrid\n")
    done = towline.run("up", "frontend", "nothere", "-n", towline.namespace, "--yes")
    assert done.returncode == 4
    assert "towline: nothere: there is no Deployment or StatefulSet 'nothere'" in done.stderr
    assert "dev pod" not in done.stderr, "nothing was changed for frontend"
    # One that fails later on: the other is given back, and the code is its own.
    towline.manifest(text.replace(f"exec {SERVER}", "exit 3; exec", 1))
    done = towline.run("up", "frontend", "api", "-n", towline.namespace, "--yes")
    assert done.returncode == 3, done.stderr
    assert "api      │  ■ ending: frontend could not begin" in done.stderr
    assert not node.get("-n", towline.namespace, "cm", "-l", "towline.dev/kind")["items"]
