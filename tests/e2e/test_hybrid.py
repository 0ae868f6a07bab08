"""The main job, and what a user does around it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from .conftest import HERE, Node, Towline, asked_all_the_time, free_port, page_server, wait_until

pytestmark = pytest.mark.usefixtures("unchanged")


def test_the_cluster_is_answered_here_and_gets_its_own_back(
    node: Node, namespace: str, towline: Towline
) -> None:
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))
    session = towline.up("frontend").serving()
    # Nodes follow the Service up to a second late.
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    wait_until(
        "the database through forward",
        lambda: (
            f"db: PONG from localhost:{towline.ports[16379]}"
            in node.ask(namespace, "frontend", "/db")
        ),
    )
    source = towline.folder / "frontend/server.js"
    source.write_text(source.read_text().replace("VERSION = '1'", "VERSION = 'edited'"))
    wait_until("the edit", lambda: "version: edited" in node.ask(namespace, "frontend"))
    assert session.end() == 130
    # At once: while nodes still lead to the dev pod, its agent passes on to the original.
    assert "host: frontend-" in node.ask(namespace, "frontend")
    assert f"frontend 1 listens on {towline.ports[8080]}\n" in session.output


def test_no_request_is_lost_on_the_way_in_and_out(
    node: Node, namespace: str, towline: Towline, tmp_path: Path
) -> None:
    """New connections all the time, from before `up` until after the end."""
    with asked_all_the_time(node, namespace, "frontend", tmp_path / "answers"):
        session = towline.up("frontend").serving()
        time.sleep(1.5)  # what follows the endpoints late still has to come
        session.end()
        time.sleep(3.0)
    said = (tmp_path / "answers").read_text()
    assert said.count("ok") > 50
    assert "FAILED" not in said, said[-2000:]


def test_environment_has_the_containers_and_keeps_the_laptops(towline: Towline) -> None:
    towline.up("frontend").serving()
    done = towline.run("env", "--format", "json")
    values = json.loads(done.stdout)
    assert values["GREETING"] == "Welcome to the shop", "from the ConfigMap"
    assert values["REDIS_PASSWORD"], "from the Secret"
    assert values["PORT"] == str(towline.ports[8080]), "the manifest's, over the container's 3000"
    assert values["HOME"] == os.environ["HOME"], "the laptop's"
    assert values["PATH"].endswith(os.environ["PATH"]), "the laptop's, not the image's"
    assert values["FRONTEND_SERVICE_PORT"] == "80", "a service link"
    ran = towline.run("run", "--", "sh", "-c", "echo $GREETING $PORT; exit 3")
    assert (ran.stdout, ran.returncode) == (f"Welcome to the shop {towline.ports[8080]}\n", 3)


def test_exec_runs_in_the_container(towline: Towline) -> None:
    towline.up("frontend").serving()
    assert towline.run("exec", "--", "sh", "-c", "exit 7").returncode == 7
    piped = towline.run("exec", "frontend", "--", "cat", text="through\nthe pod")
    assert piped.stdout == "through\nthe pod"
    assert towline.run("exec", "--", "no-such-command").returncode == 127
    assert (
        towline.run("exec", "--", "node", "-p", "process.env.PORT").stdout
        == f"{towline.ports[8080]}\n"
    )


def test_detach_status_logs_down(towline: Towline, namespace: str) -> None:
    up = towline.run("up", "frontend", "-n", namespace, "--yes", "--detach")
    assert up.returncode == 0, up.stderr
    status = json.loads(towline.run("status", "-o", "json", "-n", namespace).stdout)
    [session] = status["sessions"]
    assert (session["service"], session["stage"], session["gate"]) == (
        "frontend", "serving", "open",
    )  # fmt: skip
    assert f"listens on {towline.ports[8080]}" in towline.run("logs").stdout
    assert "towline agent: listening" in towline.run("logs", "--pod").stdout
    following = towline.begin("logs", "--pod", "-f")
    try:
        assert following.stdout is not None
        assert "towline agent" in following.stdout.readline()
        assert following.poll() is None, "it goes on"
        down = towline.run("down")
        assert down.returncode == 0, down.stderr
        following.communicate(timeout=60)
        assert following.returncode == 0, "the pod is gone, and with it its log"
    finally:
        following.kill()
    status = json.loads(towline.run("status", "-o", "json", "-n", namespace).stdout)
    assert status == {"sessions": [], "claims": []}


def test_a_local_port_in_use_is_told_before_anything_changes(
    towline: Towline, namespace: str, node: Node
) -> None:
    for port in (towline.ports[16379], towline.ports[8080]):
        with socket.create_server(("127.0.0.1", port)):
            done = towline.run("up", "frontend", "-n", namespace, "--yes")
        assert done.returncode == 6
        assert f"localhost:{port} is already in use by" in done.stderr
    assert not node.get("-n", namespace, "cm", "-l", "towline.dev/kind")["items"]


def test_another_interface_than_loopback_is_told(towline: Towline) -> None:
    text = (towline.folder / "towline.yml").read_text()
    port = towline.ports[16379]
    for interface, warnings in (("localhost", 0), ("0.0.0.0", 1)):
        towline.manifest(
            text.replace("mode: hybrid", f"mode: hybrid\n    interface: {interface}", 1)
        )
        session = towline.up("frontend", "--", "sleep", "3600")
        ports = session.event("stage-done", stage="ports")["text"]
        assert f"{interface}:{port} → db:6379" in ports
        told = [e["text"] for e in session.events if "whoever reaches" in e.get("text", "")]
        assert len(told) == warnings
        assert all(f"{port} → db:6379" in each for each in told)
        assert session.end() == 130


def test_a_full_disk_is_told_and_nothing_stays(
    towline: Towline, namespace: str, tmp_path: Path
) -> None:
    full = tmp_path / "home/state"
    full.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(full)]
    subprocess.run(mount, check=True)
    try:
        with (full / "fill").open("wb") as file, pytest.raises(OSError, match="No space left"):
            file.write(bytes(1 << 20))
        other = replace(towline, home=tmp_path / "home")
        done = other.run("up", "frontend", "-n", namespace, "--yes")
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert done.returncode == 1
    assert "cannot be written to: No space left on device" in done.stderr
    assert "→ make room there" in done.stderr


def test_the_client_is_killed_and_down_comes_from_another_folder(
    towline: Towline, namespace: str, tmp_path: Path
) -> None:
    session = towline.up("frontend").serving()
    pid = session.event("command-started")["pid"]
    session.end(signal.SIGKILL)
    wait_until("the local process ends", lambda: not Path(f"/proc/{pid}").exists())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = towline.run("down", "frontend", "-n", namespace, cwd=elsewhere)
    assert done.returncode == 0, done.stderr


def test_a_second_owner_is_told_who_has_it_and_may_end_it(
    towline: Towline, colleague: Towline, namespace: str
) -> None:
    session = towline.up("frontend").serving()
    done = colleague.run("up", "frontend", "-n", namespace, "--yes")
    assert done.returncode == 7
    since = json.loads(towline.run("status", "-n", namespace, "-o", "json").stdout)
    assert (
        f"in development by tester@{HERE} since {since['sessions'][0]['since']} "
        f"(session {session.id})" in done.stderr
    )
    assert "--end-other-session" in done.stderr
    assert colleague.run("down", "frontend", "-n", namespace).returncode == 7
    ended = colleague.run("down", "frontend", "-n", namespace, "--end-other-session")
    assert ended.returncode == 0, ended.stderr
    assert session.process.wait(timeout=30) == 0
    by = f"ended by colleague@{HERE} (`towline down`)"
    assert by in [e.get("reason") for e in session.events]


def test_a_second_owner_may_take_it_and_the_first_is_told(
    node: Node, towline: Towline, colleague: Towline, namespace: str
) -> None:
    session = towline.up("frontend").serving()
    pid = session.event("command-started")["pid"]
    port = free_port()
    command = page_server(port)
    entry = {"mode": "hybrid", "reverse": [f"3000:{port}"], "command": command}
    towline.manifest(json.dumps({"dev": {"frontend": entry}}))
    theirs = colleague.up("frontend", "--end-other-session").serving()
    assert session.process.wait(timeout=30) == 0
    reasons = [e["reason"] for e in session.events if e["event"] == "restoring"]
    assert reasons == [f"ended by colleague@{HERE} (`towline up`)"]
    wait_until("the local process ends", lambda: not Path(f"/proc/{pid}").exists())
    assert theirs.process.poll() is None
    assert theirs.end() == 130


def endpoints(node: Node, namespace: str, service: str) -> set[str]:
    """The addresses that nodes lead a Service to."""
    labels = f"kubernetes.io/service-name={service}"
    slices = node.get("-n", namespace, "endpointslices", "-l", labels)["items"]
    return {
        each["addresses"][0]
        for found in slices
        for each in found.get("endpoints") or []
        if each["conditions"]["ready"]
    }


def test_the_service_leads_nowhere_while_nothing_listens(
    node: Node, namespace: str, towline: Towline
) -> None:
    port = free_port()
    entry = {"mode": "hybrid", "reverse": [f"3000:{port}"]}
    towline.manifest(json.dumps({"holdFor": "1s", "dev": {"frontend": entry}}))
    server = page_server(port)
    session = towline.up("frontend")
    session.event("holding")
    first = subprocess.Popen(server, stderr=subprocess.DEVNULL)
    try:
        session.serving()
        here = wait_until("here", lambda: endpoints(node, namespace, "frontend"))
    finally:
        first.terminate()
        first.wait()
    wait_until("nowhere", lambda: not endpoints(node, namespace, "frontend"))
    wait_until("nobody answers", lambda: not node.ask(namespace, "frontend"))
    second = subprocess.Popen(server, stderr=subprocess.DEVNULL)
    try:
        wait_until("here again", lambda: endpoints(node, namespace, "frontend") == here)
        wait_until("an answer", lambda: "Directory listing" in node.ask(namespace, "frontend"))
        gate = [e["is_open"] for e in session.events if e["event"] == "gate-changed"]
        assert gate == [True, False, True]
        assert session.end() == 130
    finally:
        second.terminate()
        second.wait()


def test_a_command_that_is_missing_ends_with_8_and_changes_nothing(
    towline: Towline, namespace: str
) -> None:
    done = towline.run("up", "frontend", "-n", namespace, "--yes", "--", "no-such-command")
    assert done.returncode == 8
    assert "no-such-command" in done.stderr


def test_a_failing_commands_code_passes_through(towline: Towline, namespace: str) -> None:
    done = towline.run("up", "frontend", "-n", namespace, "--yes", "--", "sh", "-c", "exit 42")
    assert done.returncode == 42


def test_sigterm_gives_back_while_the_process_still_answers(towline: Towline) -> None:
    session = towline.up("frontend").serving()
    assert session.end(signal.SIGTERM) == 143
    assert session.events[-1]["event"] == "restored"


def test_interrupted_while_the_pod_starts(towline: Towline) -> None:
    session = towline.up("frontend")
    session.event("stage-done", stage="cluster")
    assert session.end() == 130


def test_without_a_command_the_session_holds_for_an_ide(
    node: Node, namespace: str, towline: Towline
) -> None:
    text = (towline.folder / "towline.yml").read_text()
    towline.manifest(text.replace('    command: ["yarn start"]\n', ""))
    session = towline.up("frontend")
    session.event("stage-done", stage="environment")
    ide = subprocess.Popen(
        ["python3", "-m", "http.server", str(towline.ports[8080]), "--bind", "127.0.0.1"],
        cwd=towline.folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        session.serving()
        wait_until("the IDE", lambda: "towline.yml" in node.ask(namespace, "frontend"))
    finally:
        ide.kill()
        ide.wait()
    session.end()
