"""`original: keep`: the original stays up, and the Services lead to the laptop and back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from .conftest import HERE, SANDBOX, Node, Session, Towline, dump, free_port, wait_until
from .shapes import PYTHON_IMAGE, pod_spec, service, workload

pytestmark = pytest.mark.usefixtures("unchanged")


def kept(towline: Towline, *words: str, settings: str = "") -> Session:
    text = (towline.folder / "towline.yml").read_text()
    towline.manifest("original: keep\n" + settings + text)
    return towline.up("frontend", *words).serving()


def selector(node: Node, namespace: str) -> dict[str, str]:
    found: dict[str, str] = node.get("-n", namespace, "service", "frontend")["spec"]["selector"]
    return found


def replicas(node: Node, namespace: str) -> int:
    return int(node.get("-n", namespace, "deploy", "frontend")["spec"]["replicas"])


def test_the_service_leads_here_and_back_while_the_original_stays_up(
    node: Node, namespace: str, towline: Towline
) -> None:
    before = selector(node, namespace)
    session = kept(towline)
    assert selector(node, namespace) == {"towline.dev/session": session.id}
    assert replicas(node, namespace) == 2
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    text = session.event("stage-done", stage="takeover")["text"]
    assert "Service frontend leads here, the original stays up" in text
    assert session.end() == 130
    assert selector(node, namespace) == before
    assert (
        session.event("restored")["text"] == "Service frontend leads to Deployment frontend again"
    )
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))


def laptop_is_asked(node: Node, namespace: str) -> bool:
    return f"host: {HERE}" in node.ask(namespace, "frontend")


def original_is_asked(node: Node, namespace: str) -> bool:
    return "host: frontend-" in node.ask(namespace, "frontend")


def test_the_agent_fails_over_by_itself_and_the_guard_points_back(
    node: Node, namespace: str, towline: Towline
) -> None:
    before = dump(node, namespace)
    session = kept(towline, settings="giveBackAfter: 25s\nkeepFor: 45s\n")
    here = {"towline.dev/session": session.id}
    wait = ["-n", namespace, "wait", "--for=condition=Available", "--timeout=60s"]
    node.kubectl(*wait, f"deploy/towline-guard-{session.id}")
    session.process.send_signal(signal.SIGSTOP)
    try:
        # Nobody writes anything for this: the agent passes connections on.
        wait_until("the agent passes on", lambda: original_is_asked(node, namespace))
        assert selector(node, namespace) == here
        wait_until("the guard", lambda: selector(node, namespace) != here, within_s=60)
    finally:
        session.process.send_signal(signal.SIGCONT)
    wait_until("here again", lambda: selector(node, namespace) == here)
    wait_until("the laptop", lambda: laptop_is_asked(node, namespace))
    session.end(signal.SIGKILL)
    wait_until("all of it goes", lambda: dump(node, namespace).keys() == before.keys(), within_s=90)
    assert selector(node, namespace) == {"app": "frontend"}


def test_a_dev_pod_that_goes_is_not_asked_meanwhile(
    node: Node, namespace: str, towline: Towline
) -> None:
    session = kept(towline)
    pod = session.event("stage-done", stage="dev pod")["text"].split()[0]
    node.kubectl("-n", namespace, "delete", "pod", pod, "--wait=false")
    session.event("pod-replaced", within_s=90)
    here = {"towline.dev/session": session.id}
    wait_until("here again", lambda: selector(node, namespace) == here)
    wait_until("the laptop", lambda: laptop_is_asked(node, namespace))
    assert session.end() == 130


# Answers with who it is. While the file is there it does not listen. When it is to end, it
# finishes what it has begun, as a server should. Before it closes its port, a filter on it
# drops what knocks: whoever was queued by then has an answer, and nobody can queue between
# the last look and the close (the kernel would reset them, not Towline).
WHO = """
import ctypes, os, selectors, signal, socket, sys, threading, time
me, port, away = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ended, jobs = threading.Event(), []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: ended.set())
def serve(s):
    with s:
        s.settimeout(30)
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            data = s.recv(4096)
            if not data:
                return
            head += data
        head = b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"
        s.sendall(head % len(me) + me.encode())
def accept_all(listener):
    while True:
        try:
            s, _ = listener.accept()
        except BlockingIOError:
            return
        s.setblocking(True)
        jobs.append(threading.Thread(target=serve, args=(s,), daemon=True))
        jobs[-1].start()
def deaf(listener):
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
    return_zero = b"\\x06" + bytes(7)
    program = Program(1, return_zero)
    so_attach_filter = 26
    listener.setsockopt(socket.SOL_SOCKET, so_attach_filter, bytes(program))
while not ended.is_set():
    while os.path.exists(away):
        time.sleep(0.05)
    listener = socket.create_server(("", port), backlog=512)
    listener.setblocking(False)
    poll = selectors.DefaultSelector()
    poll.register(listener, selectors.EVENT_READ)
    while not os.path.exists(away) and not ended.is_set():
        poll.select(0.05)
        accept_all(listener)
    deaf(listener)
    accept_all(listener)
    listener.close()
    poll.close()
for job in jobs:
    job.join(10)
"""
# Asks a Service so often a second, each time on a new connection, until its input ends; says
# each time that the last 50 answers were from another one, and at last what went wrong with
# those asked since it said so first: before that, the node may not know the new Service yet.
LOAD = """
import asyncio, sys
host, per_second = sys.argv[1], float(sys.argv[2])
asked, errors, last, told, jobs = 0, [], [], None, set()
async def ask():
    global asked, told
    counts = told is not None
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(host, 80)
            writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            head, _, who = (await reader.read()).partition(b"\\r\\n\\r\\n")
            assert head.startswith(b"HTTP/1.1 200") and who, head
            writer.close()
    except Exception as error:
        if counts:
            errors.append(repr(error))
        return
    asked += 1
    last.append(who)
    del last[:-50]
    if len(last) == 50 and set(last) == {who} and who != told:
        told = who
        print(who.decode(), flush=True)
async def main():
    loop, due = asyncio.get_running_loop(), 0.0
    ended = loop.run_in_executor(None, sys.stdin.read)
    start, number = loop.time(), 0
    while not ended.done():
        number += 1
        job = loop.create_task(ask())
        jobs.add(job)
        job.add_done_callback(jobs.discard)
        await asyncio.sleep(max(start + number / per_second - loop.time(), 0))
    await asyncio.gather(*jobs)
    print(f"{asked} {len(errors)} {errors[:3]}", flush=True)
asyncio.run(main())
"""
SWITCHES = 20


def test_twenty_switches_under_load_lose_no_connection(node: Node, elsewhere: Towline) -> None:
    namespace, away = elsewhere.namespace, elsewhere.folder / "away"
    spec = pod_spec(PYTHON_IMAGE, command=["python3", "-c", WHO, "original", "8080", "/nowhere"])
    node.apply(workload("Deployment", "who", spec, replicas=2), service("who"), namespace=namespace)
    node.kubectl("-n", namespace, "wait", "--for=condition=Available", "deploy/who")
    local = free_port()
    entry = {"mode": "hybrid", "reverse": [f"8080:{local}"],
             "command": [sys.executable, "-c", WHO, "laptop", str(local), str(away)]}  # fmt: skip
    elsewhere.manifest(json.dumps({"original": "keep", "holdFor": "1s", "dev": {"who": entry}}))
    address = node.get("-n", namespace, "service", "who")["spec"]["clusterIP"]
    words = [*SANDBOX, "exec", "--name", node.name, "--", "python3", "-c", LOAD, address, "200"]
    load = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert load.stdin is not None and load.stdout is not None
    try:
        assert load.stdout.readline() == "original\n"
        session = elsewhere.up("who").serving()
        for number in range(SWITCHES):
            assert load.stdout.readline() == ("original\n" if number % 2 else "laptop\n")
            if number == SWITCHES - 2:
                session.process.send_signal(signal.SIGINT)
            elif number % 2 == 0:
                away.touch()
            elif number < SWITCHES - 2:
                away.unlink()
        session.end()
        load.stdin.close()
        asked, errors, what = load.stdout.read().split(" ", 2)
        assert int(asked) > 1000
        assert errors == "0", what
    finally:
        load.stdin.close()
        load.stdout.close()
        load.wait(60)
