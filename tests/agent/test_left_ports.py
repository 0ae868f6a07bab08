"""Ports of the container's own command: held once it has left them, and given back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from .conftest import Agent, Connected, connected, free_port, running_agent
from .test_keep import answers, ask, closing, control

HOLD_FOR_S = 3.0
CTRL_C = b"\x03"

# Answers who it is. At Ctrl-C it closes its port and does what its second argument says.
SERVER = """
import ctypes, os, selectors, signal, socket, sys, time
me, then, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if "alone" in then:
    ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: nobody may have its sockets
asked_to_end = []
signal.signal(signal.SIGINT, lambda *_: asked_to_end.append(1))
def serve():
    listener = socket.create_server(("", port), backlog=4096)
    listener.settimeout(0.02)
    print("serving", os.environ.get("TOWLINE_PORTS"), flush=True)
    while not asked_to_end or then == "goes-on":
        try:
            conn, _ = listener.accept()
        except TimeoutError:
            if asked_to_end and then == "goes-on":
                print("caught", flush=True)
                asked_to_end.clear()
            continue
        with conn:
            conn.settimeout(10)
            data = conn.recv(100)
            conn.sendall(me.encode() + b" " + data)
    listener.close()
serve()
print("closed", flush=True)
if "lingers" in then:
    time.sleep(0.5)
if then == "prompts":
    input()
    asked_to_end.clear()
    serve()
"""

# What a package manager is to the server that it runs: it ends a while later.
BEHIND = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: None)
subprocess.call(sys.argv[1:])
time.sleep(0.2)
"""


@pytest.fixture
def agent(agent_binary: Path, tmp_path: Path) -> Iterator[Agent]:
    """In a PID namespace of its own, as in a container: who is started is no stranger's."""
    own = "" if os.geteuid() == 0 else "-Ur "
    # Root may have any process's sockets; a container's user may not.
    less = "setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace " if not own else ""
    wrapper = tmp_path / "agent"
    wrapper.write_text(
        f"#!/bin/sh\nexec unshare {own}--pid --fork --kill-child --mount-proc "
        f'{less}{agent_binary} "$@"\n'
    )
    wrapper.chmod(0o755)
    settings: dict[str, Any] = {"reverse": [], "hold_for_s": HOLD_FOR_S}
    with running_agent(wrapper, tmp_path / "session", **settings) as agent:
        yield agent


@pytest.fixture
def port() -> int:
    return free_port()


class Command:
    """A command in a terminal, to which a port belongs."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._process = process
        self._shown = b""

    def type(self, text: bytes) -> None:
        self._process.stdin.write(text)

    async def shown(self, text: bytes) -> None:
        """Wait until a text is shown; what was before it is forgotten."""
        async with asyncio.timeout(30):
            while text not in self._shown:
                data = await self._process.stdout.read(1000)
                assert data, self._shown
                self._shown += data
        self._shown = self._shown.partition(text)[2]

    async def end(self) -> int | None:
        async with asyncio.timeout(30):
            await self._process.wait_closed()
        return self._process.exit_status


@asynccontextmanager
async def command(it: Connected, port: int, line: str) -> AsyncIterator[Command]:
    async with it.ssh.create_process(
        line,
        term_type="xterm",
        term_size=(80, 24),
        encoding=None,
        env={"TOWLINE_PORTS": str(port)},
    ) as process:
        yield Command(process)


def server(tmp_path: Path, port: int, me: str = "first", *, then: str = "ends") -> str:
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    return f"{sys.executable} {program} {me} {then} {port}"


class Load:
    """Connects again and again, each asked and answered; counts who is refused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._going_on = True
        self._jobs: set[asyncio.Task[None]] = set()
        self.answers: list[bytes] = []
        self.broken: list[BaseException] = []

    async def _one(self) -> None:
        try:
            self.answers.append(await ask(self._port))
        except OSError as error:
            self.broken.append(error)

    async def run(self) -> None:
        while self._going_on:
            job = asyncio.create_task(self._one())
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
            await asyncio.sleep(0.004)
        await asyncio.gather(*self._jobs)

    def stop(self) -> None:
        self._going_on = False


@pytest.mark.parametrize("then", ["ends", "lingers"])
@pytest.mark.parametrize("behind", ["", f"{sys.executable} -c '{BEHIND}'"], ids=["", "behind"])
async def test_ctrl_c_refuses_nobody(
    agent: Agent, port: int, tmp_path: Path, then: str, behind: str
) -> None:
    """Neither behind a wrapper, as npm is, nor while the server takes its time to end."""
    original = free_port()
    passed_to = await asyncio.start_server(closing(answers), "127.0.0.1", original)
    load = Load(port)
    async with (
        passed_to,
        connected(agent) as it,
        control(it) as told,
        command(it, port, f"{behind} {server(tmp_path, port, then=then)}") as running,
    ):
        await running.shown(b"serving None")
        asking = asyncio.create_task(load.run())
        await _until(lambda: len(load.answers) > 100)
        assert port in (await told.request("listening"))["ports"]
        running.type(CTRL_C)
        await running.shown(b"closed")
        assert await running.end() == 0
        assert port not in (await told.request("listening"))["ports"], "what is held is not served"
        served = len(load.answers)
        await told.route("hold", hold_for_s=30, listen=[port])
        await told.route("pass", to={port: [f"127.0.0.1:{original}"]})
        await _until(lambda: len(load.answers) > served + 100)
        load.stop()
        await asking
    assert not load.broken, (len(load.answers), load.broken[:3])
    assert {b"first hello", b"original hello"} == set(load.answers)


async def test_a_process_whose_sockets_nobody_may_have_is_followed_all_the_same(
    agent: Agent, port: int, tmp_path: Path
) -> None:
    """As under a seccomp profile: between its close and the next try somebody is refused."""
    line = server(tmp_path, port, then="lingers-alone")
    async with connected(agent) as it, command(it, port, line) as running:
        await running.shown(b"serving")
        running.type(CTRL_C)
        await running.shown(b"closed")
        async with asyncio.timeout(30):
            waiting = await _connected(port)
        assert await running.end() == 0
        async with command(it, port, server(tmp_path, port, "second")) as next_one:
            await next_one.shown(b"serving")
            assert await _answer(waiting) == b"second hello"


async def test_who_catches_ctrl_c_keeps_its_port(agent: Agent, port: int, tmp_path: Path) -> None:
    line = server(tmp_path, port, then="goes-on")
    async with connected(agent) as it, control(it) as told, command(it, port, line) as running:
        await running.shown(b"serving")
        for _ in range(3):
            running.type(CTRL_C)
            await running.shown(b"caught")
            assert await ask(port) == b"first hello"
            assert port in (await told.request("listening"))["ports"]


@pytest.mark.parametrize("then", ["ends", "ends-alone"])
async def test_a_server_that_is_started_anew_by_a_loop_has_its_port(
    agent: Agent, port: int, tmp_path: Path, then: str
) -> None:
    """The shell goes on and starts the next one, which must not find its port taken."""
    line = f"trap : INT; while :; do {server(tmp_path, port, then=then)} || exit 7; done"
    async with connected(agent) as it, command(it, port, line) as running:
        for _ in range(5):
            await running.shown(b"serving")
            assert await ask(port) == b"first hello"
            running.type(CTRL_C)
            await running.shown(b"closed")
        await running.shown(b"serving")


async def test_a_prompt_may_open_the_port_again_with_what_is_typed(
    agent: Agent, port: int, tmp_path: Path
) -> None:
    """One process, as a REPL is; who came in between has its answer from the second server."""
    line = server(tmp_path, port, then="prompts")
    async with connected(agent) as it, command(it, port, line) as running:
        await running.shown(b"serving")
        running.type(CTRL_C)
        await running.shown(b"closed")
        waiting = await _connected(port)
        running.type(b"again\r")
        await running.shown(b"serving")
        assert await _answer(waiting) == b"first hello"
        assert await ask(port) == b"first hello"


async def test_what_waits_goes_to_the_next_command_or_is_given_up(
    agent: Agent, port: int, tmp_path: Path
) -> None:
    async with connected(agent) as it:
        async with command(it, port, server(tmp_path, port)) as running:
            await running.shown(b"serving")
            running.type(CTRL_C)
            assert await running.end() == 0
        waiting = await _connected(port)
        async with command(it, port, server(tmp_path, port, "second")) as running:
            await running.shown(b"serving")
            assert await _answer(waiting) == b"second hello"
            running.type(CTRL_C)
            assert await running.end() == 0
        # Nobody says what comes next: held for so long, and then the port is free.
        with pytest.raises(ConnectionResetError):
            await _answer(await _connected(port))
        await _until(lambda: _is_free(port))


async def _until(is_so: Any) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _is_free(port: int) -> bool:
    return f":{port:04X} " not in "".join(
        line[:30]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()
        if " 0A " in line
    )


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _connected(port: int) -> Streams:
    """A connection that is held: it is there, and nobody answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
    writer.write(b"hello")
    return reader, writer


async def _answer(streams: Streams) -> bytes:
    reader, writer = streams
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()
