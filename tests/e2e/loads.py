"""A load on a Service, and what answers it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from .conftest import SANDBOX, Node

# Answers with who it is. While the file is there it does not listen. When it is to end, it
# finishes what it has begun, as a server should. Before it closes its port, a filter on it
# drops what knocks: whoever was queued by then has an answer, and nobody can queue between
# the last look and the close (the kernel would reset them, not Towline); a container mostly
# may not do that.
WHO = """
import contextlib, ctypes, os, selectors, signal, socket, sys, threading, time
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
    with contextlib.suppress(PermissionError):
        deaf(listener)
    accept_all(listener)
    listener.close()
    poll.close()
for job in jobs:
    job.join(10)
"""
# Asks a Service so often a second, each time on a new connection, until its input ends; says
# each time that the last 50 answers were from another one, and at last how many were asked
# and what went wrong with those asked since it said so first: before that, the node may not
# know the new Service yet.
_LOAD = """
import asyncio, collections, json, sys
host, per_second = sys.argv[1], float(sys.argv[2])
asked, errors, last, told, jobs = 0, collections.Counter(), [], None, set()
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
            errors[repr(error)] += 1
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
    print(json.dumps([asked, errors]), flush=True)
asyncio.run(main())
"""


class Load:
    """What a running load says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._end, self._told = process, process.stdin, process.stdout

    def next_answers_are(self, who: str) -> None:
        """Wait until all answers come from another one, and see that it is that one."""
        assert self._told.readline() == f"{who}\n"

    def ended(self) -> tuple[int, dict[str, int]]:
        """Stop asking; returns how many were answered, and how often each error came."""
        self._end.close()
        asked, errors = json.loads(self._told.read())
        return asked, errors

    def close(self) -> None:
        self._end.close()
        self._told.close()
        self._process.wait(60)


@contextmanager
def load_on(node: Node, namespace: str, service: str, *, per_second: int = 200) -> Iterator[Load]:
    """Ask a Service from the node, on a new connection each time, while the block runs."""
    address = node.get("-n", namespace, "service", service)["spec"]["clusterIP"]
    words = [*SANDBOX, "exec", "--name", node.name, "--", "python3", "-c", _LOAD, address]
    load = Load(
        subprocess.Popen(
            [*words, str(per_second)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    )
    try:
        yield load
    finally:
        load.close()
