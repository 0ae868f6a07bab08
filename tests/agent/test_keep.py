"""An original that is kept: the agent passes on to it what the laptop does not take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from fakes.netfault import FaultyNetwork
from towline._kit.tasks import Tasks
from towline.transport.channel import TunnelChannel, open_channel
from towline.transport.control import SUBSYSTEM, Control
from towline.transport.credit import Budget
from towline.tunnels.reverse import Reverse

from .conftest import Agent, Connected, connected, free_port, running_agent
from .test_tunnels import SPARE, echo, server, spare


@asynccontextmanager
async def control(it: Connected) -> AsyncIterator[Control]:
    channel, made = await it.ssh.create_session(Control, subsystem=SUBSYSTEM, encoding=None)
    try:
        yield made
    finally:
        channel.close()


async def ask(port: int, sent: bytes = b"hello") -> bytes:
    """What somebody on the port answers to a connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def is_ready(agent: Agent) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", agent.gate_port)
    try:
        writer.write(b"GET /towline/ready HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(20):
            return (await reader.readline()).split()[1] == b"200"
    finally:
        writer.close()


@pytest.fixture
def original() -> int:
    return free_port()


@pytest.fixture
def keeping(agent_binary: Path, tmp_path: Path, original: int) -> Iterator[Agent]:
    reverse, passed = free_port(), free_port()
    to = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{original}"]  # the first does not answer
    settings = {
        "reverse": [reverse],
        "original": {str(reverse): to, str(passed): to},
        "carrier_lost_shut_s": 1,
        "hold_for_s": 2,
        "permit": [f"localhost:{original}"],
    }
    with running_agent(agent_binary, tmp_path / "session", **settings) as agent:
        yield agent


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"original " + await reader.read())


@pytest.fixture
async def served(original: int) -> Any:
    running = await asyncio.start_server(closing(answers), "127.0.0.1", original)
    yield
    running.close()


def closing(handle: Any) -> Any:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()

    return serve


class Ssh:
    """What `Reverse` needs of a connection."""

    def __init__(self, it: Connected) -> None:
        self._it, self._budget = it, Budget()

    async def open_channel(self, host: str, port: int) -> TunnelChannel:
        return await open_channel(self._it.ssh, host, port, budget=self._budget)


async def never(port: int) -> bool:
    return False


def reverse_of(
    agent: Agent, it: Connected, *, local: int, tasks: Tasks, original: int | None = None
) -> Reverse:
    ssh = Ssh(it)

    async def instead(port: int) -> TunnelChannel:
        assert original is not None and port == agent.reverse_port
        channel = await ssh.open_channel(*SPARE)
        name = b"localhost"
        head = original.to_bytes(2, "big") + len(name).to_bytes(2, "big")
        channel.write_header(head + name)
        return channel

    return Reverse(
        remote=agent.reverse_port,
        local=local,
        interface="127.0.0.1",
        ssh=ssh,  # type: ignore[arg-type]
        tasks=tasks,
        wait_for_port=never,
        instead=instead if original is not None else None,
    )


async def laptop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"laptop " + await reader.read())


@pytest.mark.usefixtures("served")
async def test_the_gate_leads_to_the_laptop_and_the_pod_is_ready_all_the_time(
    keeping: Agent,
) -> None:
    passed = next(int(p) for p in keeping.config["original"] if int(p) != keeping.reverse_port)
    assert await is_ready(keeping)
    assert await ask(keeping.reverse_port) == b"original hello"
    async with connected(keeping) as it, control(it) as told, server(laptop) as local:
        assert await ask(keeping.reverse_port) == b"original hello", "the gate is shut"
        async with Tasks() as tasks:
            reverse_of(keeping, it, local=local, tasks=tasks).fill()
            await told.gate(is_open=True)
            assert await ask(keeping.reverse_port) == b"laptop hello"
            assert await ask(passed) == b"original hello", "no port of the laptop's"
            await told.gate(is_open=False)
            assert await ask(keeping.reverse_port) == b"original hello"
            await told.gate(is_open=True)
            assert await ask(keeping.reverse_port) == b"laptop hello"
    async with asyncio.timeout(30):  # the agent learns a moment later that the line ended
        while await ask(keeping.reverse_port) != b"original hello":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await is_ready(keeping)


@pytest.mark.usefixtures("served")
async def test_a_connection_that_nobody_takes_is_the_originals(keeping: Agent) -> None:
    async with connected(keeping) as it, control(it) as told:
        await told.gate(is_open=True)
        # No channel waits for it: it is held for 2 s, and then not reset.
        assert await ask(keeping.reverse_port) == b"original hello"


@pytest.mark.usefixtures("served")
async def test_what_came_here_and_finds_nobody_is_led_back(keeping: Agent, original: int) -> None:
    size = 3_000_000
    async with connected(keeping) as it, control(it) as told, Tasks() as tasks:
        nobody = free_port()
        reverse = reverse_of(keeping, it, local=nobody, tasks=tasks, original=original)
        reverse.fill()
        await told.gate(is_open=True)
        sent = bytes(range(256)) * (size // 256)
        assert await ask(keeping.reverse_port, sent) == b"original " + sent
        async with asyncio.timeout(10):
            while reverse.active:  # noqa: ASYNC110 - counted down by the channels' last callbacks
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("served")
async def test_it_fails_over_by_itself_when_the_laptop_falls_silent(keeping: Agent) -> None:
    network = FaultyNetwork("127.0.0.1", keeping.line_port)
    await network.open()
    try:
        async with (
            connected(keeping, port=network.port) as it,
            control(it) as told,
            server(laptop) as local,
            Tasks() as tasks,
        ):
            reverse_of(keeping, it, local=local, tasks=tasks).fill()
            await told.gate(is_open=True)
            assert await ask(keeping.reverse_port) == b"laptop hello"
            network.freeze()
            began = time.monotonic()
            await told_by_agent(keeping)
            # 4 s of silence and 1 s without a carrier; the rest is a busy machine's.
            assert time.monotonic() - began < 15
            network.thaw()
            await told.gate(is_open=True)
            assert await ask(keeping.reverse_port) == b"laptop hello"
    finally:
        await network.close()


async def told_by_agent(agent: Agent) -> None:
    """Ask until the original answers; each try waits no longer than a moment."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with asyncio.timeout(1):
                    if await ask(agent.reverse_port) == b"original hello":
                        return
            except TimeoutError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise


async def test_only_what_is_permitted_is_dialled(keeping: Agent, original: int) -> None:
    async with connected(keeping) as it, server(echo) as other:
        budget = Budget()
        for host, port in (("127.0.0.1", other), ("localhost", keeping.line_port)):
            end = await spare(it, budget, host, port)
            await end.until(over=True)
            assert end.reset == "the session does not permit this target"
            with pytest.raises(asyncssh.ChannelOpenError, match="does not permit"):
                await it.ssh.open_connection(host, port)
        allowed = await asyncio.start_server(closing(echo), "127.0.0.1", original)
        end = await spare(it, budget, "localhost", original)
        end.channel.write(b"hello")
        end.channel.write_eof()
        await end.until(over=True)
        assert end.reset is None and end.data == b"hello!"
        allowed.close()


def listening(pid: int) -> set[tuple[bool, int]]:
    """Whether for all addresses, and the port, of each socket that a process listens on."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(link.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                found.add((not address.strip("0"), int(port, 16)))
    return found


async def test_it_listens_for_others_on_its_declared_ports_only(keeping: Agent) -> None:
    """`permitlisten`: no request of SSH opens a port, and the line is on loopback alone."""
    async with connected(keeping) as it:
        with pytest.raises(asyncssh.ChannelListenError):
            await it.ssh.forward_remote_port("", 0, "127.0.0.1", 1)
    found = listening(keeping.process.pid)
    declared = {int(p) for p in keeping.config["original"]} | {keeping.gate_port}
    assert {port for for_all, port in found if for_all} == declared
    assert {port for for_all, port in found if not for_all} == {keeping.line_port}
