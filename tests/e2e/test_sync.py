"""Sync mode on a whole node: the process in the dev container, the files following."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from .conftest import Node, Towline, asked_all_the_time, wait_until
from .terminal import Terminal

pytestmark = pytest.mark.usefixtures("unchanged")

# What a framework's reload does: look at the file, start anew.
RELOAD = """
import os, subprocess, sys, time
while True:
    seen = os.stat("/app/server.py").st_mtime_ns
    server = subprocess.Popen([sys.executable, "/app/server.py"])
    while server.poll() is None and os.stat("/app/server.py").st_mtime_ns == seen:
        time.sleep(0.02)
    server.terminate()
    server.wait()
"""

MANIFEST = """
dev:
  api:
    sync:
    - ./api:/app
    workdir: /app
    command: ["python3", "-u", "/app/reload.py"]
"""


@pytest.fixture
def api(towline: Towline) -> Path:
    (towline.folder / "api/reload.py").write_text(RELOAD)
    towline.manifest(MANIFEST)
    return towline.folder / "api"


def answer(node: Node, namespace: str) -> str:
    url = f"http://api.{namespace}.svc.cluster.local:8000/healthz"
    words = ["curl", "-sS", "-m", "3", url]
    return node.run("exec", "--name", node.name, "--", *words, check=False).strip()


def test_a_save_changes_what_the_service_answers(
    node: Node, namespace: str, towline: Towline, api: Path
) -> None:
    session = towline.up("api", "--mode", "sync").serving()
    wait_until("the dev pod", lambda: answer(node, namespace) == "ok")
    server = api / "server.py"
    saved = server.read_text().replace('lambda: "ok"', 'lambda: "edited"')
    server.write_text(saved)
    wait_until("the edit", lambda: answer(node, namespace) == "edited", within_s=10)
    # Both ways: what is made in the container comes here.
    made = towline.run("exec", "api", "--", "sh", "-c", "echo made > /app/made; cat /app/server.py")
    assert made.stdout == saved, made.stderr
    wait_until("the file", lambda: (api / "made").exists(), within_s=5)
    # Another container has nothing; the files come first, then the command.
    pod = session.event("stage-done", stage="dev pod")["text"].split()[0]
    node.kubectl("delete", "pod", "-n", namespace, pod, "--wait=false")
    session.event("pod-replaced")
    wait_until("the next pod", lambda: answer(node, namespace) == "edited", within_s=30)
    assert (api / "made").read_text() == "made\n"
    assert session.end() == 130
    wait_until("the original", lambda: answer(node, namespace) == "ok")


def test_the_service_answers_on_the_way_in_and_out(
    node: Node, namespace: str, towline: Towline, api: Path, tmp_path: Path
) -> None:
    """The original until the process listens; the agent holds the port that it has left."""
    with asked_all_the_time(node, namespace, "api:8000", tmp_path / "answers"):
        session = towline.up("api").serving()
        time.sleep(1.5)  # what follows the endpoints late still has to come
        on_the_way_in = (tmp_path / "answers").read_text()
        session.end()
        time.sleep(3.0)
    assert on_the_way_in.count("ok") > 20
    assert "FAILED" not in on_the_way_in, on_the_way_in[-2000:]
    rest = (tmp_path / "answers").read_text()[len(on_the_way_in) :]
    assert rest.count("ok") > 20
    # Until the agent knows of the process's end and listens, nobody does.
    assert rest.count("FAILED") <= 2, rest[-2000:]


def test_the_original_is_kept_and_answers_while_the_process_is_away(
    node: Node, namespace: str, towline: Towline, api: Path
) -> None:
    """It was told to be at 0."""
    server = api / "server.py"
    server.write_text(server.read_text().replace('lambda: "ok"', 'lambda: "edited"'))
    towline.manifest("holdFor: 2s\n" + MANIFEST)
    session = towline.up("api", "--mode", "sync", "--original", "keep").serving()
    told = session.event("stage-done", stage="takeover")["text"]
    assert told == (
        "port 8000 of the dev pod answers · Service api leads here, the original stays up; open "
        "connections stay where they are"
    )
    wait_until("the dev pod", lambda: answer(node, namespace) == "edited")
    assert node.get("-n", namespace, "deploy", "api")["status"]["readyReplicas"] == 1
    good = server.read_text()
    server.write_text("raise SystemExit('broken')\n")
    wait_until("the original", lambda: answer(node, namespace) == "ok")
    server.write_text(good)
    wait_until("the dev pod again", lambda: answer(node, namespace) == "edited")
    assert session.end() == 130
    assert answer(node, namespace) == "ok"


def test_after_a_sleep_beyond_keep_for_the_files_come_first_then_the_command(
    node: Node, namespace: str, towline: Towline, api: Path
) -> None:
    towline.manifest("giveBackAfter: 5s\nkeepFor: 10s\n" + MANIFEST)
    server = api / "server.py"
    server.write_text(server.read_text().replace('lambda: "ok"', 'lambda: "edited"'))
    session = towline.up("api", "--mode", "sync").serving()
    wait_until("the dev pod", lambda: answer(node, namespace) == "edited")
    guard = f"deploy/towline-guard-{session.id}"
    node.kubectl("-n", namespace, "wait", "--for=condition=Available", guard, "--timeout=60s")
    session.process.send_signal(signal.SIGSTOP)
    record = ["-n", namespace, "cm", "-l", "towline.dev/kind=record"]
    try:
        wait_until("the end", lambda: not node.get(*record)["items"], within_s=40)
        wait_until("the original", lambda: answer(node, namespace) == "ok", within_s=60)
        server.write_text(server.read_text().replace('"edited"', '"asleep"'))
    finally:
        session.process.send_signal(signal.SIGCONT)
    assert session.event("taking-anew")["process_kept"] is False
    session.event("pod-replaced")
    wait_until("the next dev pod", lambda: answer(node, namespace) == "asleep", within_s=60)
    assert session.end() == 130
    wait_until("the original again", lambda: answer(node, namespace) == "ok")


@pytest.mark.parametrize("code", [0, 7])
def test_the_commands_exit_code_passes_through(towline: Towline, api: Path, code: int) -> None:
    session = towline.up("api", "--mode", "sync", "--", "sh", "-c", f"echo from $PWD; exit {code}")
    assert session.process.wait(timeout=60) == code
    session.end()
    assert "from /app\n" in session.output


def test_the_command_has_a_terminal_of_its_own(towline: Towline, api: Path) -> None:
    script = (
        "trap 'test -e again && exit 130; touch again; exit 5' INT; stty size; read line;"
        "echo got $line; while :; do sleep 0.1; done"
    )
    words = ["api", "--mode", "sync", "-n", towline.namespace, "--yes", "--", "sh", "-c", script]
    terminal = Terminal(towline, *words, rows=31, columns=91)
    try:
        terminal.read_until(b"31 91\r")
        terminal.type(b"hello\r")
        terminal.read_until(b"got hello")
        terminal.type(b"\x03")  # to the process there, not to Towline
        terminal.read_until(b"exit code 5")
        # What was typed before it asks was for the command that is gone, and is dropped.
        wait_until("single keys", terminal.takes_single_keys)
        terminal.seen = b""
        terminal.type(b"r")  # and this one to Towline, not to what was there
        terminal.read_until(b"31 91\r")
        terminal.type(b"hello\r")
        terminal.read_until(b"got hello")
        terminal.type(b"\x03")
        assert terminal.end() == 130, "ended by somebody, so the session is over"
    finally:
        terminal.close()
