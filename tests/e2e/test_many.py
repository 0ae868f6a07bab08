"""A thousand connections whose readers have stopped, and an agent with 64 MiB."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from .conftest import SANDBOX, Node, Towline, free_port, wait_until
from .shapes import PYTHON_IMAGE, pod_spec, service, workload

COUNT = 1000
# The first byte says what becomes of a connection: s reads no more, e is an echo.
SERVER = """
import asyncio, sys
async def serve(reader, writer):
    if await reader.read(1) == b"s":
        writer.transport.pause_reading()
        await asyncio.sleep(300)
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", int(sys.argv[1]), backlog=512)
    await server.serve_forever()
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
print("files", resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
asyncio.run(main())
"""
# What does not fit in the agent's memory is reset.
# Opens them all, sends to each until nothing more goes, then asks the echo; says so, and
# holds them until its input ends.
SENDER = """
import resource, select, socket, sys, time
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
def echo():
    told = b""
    try:
        with socket.create_connection((host, port), 30) as s:
            s.settimeout(30)
            s.sendall(b"estill here")
            while len(told) < 10 and (data := s.recv(100)):
                told += data
    except OSError as error:
        return repr(error)
    return told.decode(errors="replace")
# Nodes follow a Service a moment late: until then some connections reach the original.
deadline, row = time.time() + 30, 0
while row < 12 and time.time() < deadline:
    row = row + 1 if echo() == "still here" else 0
    time.sleep(0.02)
block, held = b"x" * 16384, []
for _ in range(count):
    s = socket.create_connection((host, port), 30)
    # Enough to fill what is on the way, and not the machine's memory.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    s.sendall(b"s")
    s.setblocking(False)
    held.append(s)
for _ in range(8):
    for s in held:
        try:
            s.send(block)
        except BlockingIOError:
            pass
    time.sleep(0.1)
print(echo(), flush=True)
sys.stdin.read()
"""


def sends(words: list[str], host: str, port: int) -> None:
    """Run the sender: all connections are there, and one more gets through."""
    process = subprocess.Popen(
        [*words, "python3", "-c", SENDER, host, str(port), str(COUNT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == "still here\n"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


# Each in a session of its own: what a reader that has stopped was sent stays under way for
# as long as it does not close.
@pytest.mark.parametrize("way", ["reverse", "forward"])
def test_a_thousand_stopped_readers_in_64_MiB(node: Node, elsewhere: Towline, way: str) -> None:
    namespace = elsewhere.namespace
    spec = pod_spec(PYTHON_IMAGE, command=["python3", "-m", "http.server", "8080"])
    sink = pod_spec(PYTHON_IMAGE, command=["python3", "-c", SERVER, "8080"])
    sink["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}}
    node.apply(
        workload("Deployment", "many", spec), service("many"),
        workload("Deployment", "sink", sink), service("sink"), namespace=namespace,
    )  # fmt: skip
    node.kubectl("-n", namespace, "wait", "--for=condition=Available", "deploy", "--all")
    local, forward = free_port(), free_port()
    entry = {
        "mode": "hybrid",
        "reverse": [f"8080:{local}"],
        "forward": [f"{forward}:sink:80"],
        "command": [sys.executable, "-c", SERVER, str(local)],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    elsewhere.manifest(json.dumps({"dev": {"many": entry}}))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # as a shell gives it
    try:
        session = elsewhere.up("many").serving()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    original = ["-l", "app=many,!towline.dev/session", "--for=delete", "--timeout=60s"]
    node.kubectl("-n", namespace, "wait", "pod", *original)
    pod = session.event("stage-done", stage="dev pod")["text"].split()[0]
    address = node.get("-n", namespace, "service", "many")["spec"]["clusterIP"]
    wait_until("the laptop", lambda: "files 1024\n" in session.output)
    if way == "reverse":
        inside = [*SANDBOX, "exec", "--name", node.name, "--"]
        sends(inside, address, 80)
        # As many again are more than fits: they are reset, and the agent lives.
        words = [*inside, "python3", "-c", SENDER, address, "80", str(COUNT)]
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=90)
    else:
        sends([], "127.0.0.1", forward)
    [status] = node.get("-n", namespace, "pod", pod)["status"]["containerStatuses"]
    assert status["restartCount"] == 0, status
    assert not any(e["event"] in ("network-lost", "pod-replaced") for e in session.events)
    session.end()
