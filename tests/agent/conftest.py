from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from towline.line.line import Event, Line, resumable_line
from towline.line.redial import Redial
from towline.payload.build import build_agent, find_go
from towline.transport.packets import PacketConnection, connect

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def agent_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent of this checkout, built as the wheel's is."""
    scratch = tmp_path_factory.mktemp("agent")
    build_agent(ROOT, "amd64", go=find_go(), scratch=scratch)
    return scratch / "agent-amd64"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Agent:
    """An agent that runs here as a process, and its session's secrets."""

    binary: Path
    folder: Path
    config: dict[str, Any]
    host_key: asyncssh.SSHKey
    client_key: asyncssh.SSHKey
    line_key: bytes
    process: subprocess.Popen[bytes]

    @property
    def line_port(self) -> int:
        return int(self.config["line_port"])

    @property
    def reverse_port(self) -> int:
        return int(self.config["reverse"][0])

    @property
    def gate_port(self) -> int:
        return int(self.config["gate"]["port"])

    def restart(self) -> None:
        """Start anew with the same secrets, as a container that was restarted does."""
        self.process.kill()
        self.process.wait()
        self.process = start(self.binary, self.folder)


def start(
    binary: Path, folder: Path, environ: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [binary, "-session", folder],
        stderr=subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    assert process.stderr is not None
    told = process.stderr.readline()
    assert b"listening" in told, told
    process.stderr.close()
    return process


@contextmanager
def running_agent(binary: Path, folder: Path, **settings: Any) -> Iterator[Agent]:
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    client_key = asyncssh.generate_private_key("ssh-ed25519")
    line_key = os.urandom(32)
    ports = [free_port() for _ in range(3)]
    config = {
        "version": 1,
        "session": "4be1c07a",
        "line_port": ports[0],
        "gate": {"port": ports[1], "path": "/towline/ready"},
        "reverse": ports[2:],
        "hold_for_s": 10,
        "keep_for_s": 600,
        "carrier_lost_shut_s": 30,
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    host_key.write_private_key(folder / "host_key")
    client_key.write_public_key(folder / "client_key")
    (folder / "line_key").write_bytes(line_key)
    agent = Agent(binary, folder, config, host_key, client_key, line_key, start(binary, folder))
    try:
        yield agent
    finally:
        agent.process.kill()
        agent.process.wait()


@pytest.fixture
def agent(agent_binary: Path, tmp_path: Path) -> Iterator[Agent]:
    with running_agent(agent_binary, tmp_path / "session") as agent:
        yield agent


class TcpCarrier(asyncio.Protocol):
    """A carrier with no API server in between: the real interface over plain TCP."""

    def __init__(self) -> None:
        self._early: list[bytes] = []
        self._receive: Callable[[bytes], None] | None = None
        self._lost: Callable[[Exception | None], None] | None = None
        self._pause: Callable[[bool], None] = lambda paused: None
        self._over = False
        self._error: Exception | None = None
        self._closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._receive is None:
            self._early.append(data)
        else:
            self._receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over, self._error = True, exc
        if not self._closed.done():
            self._closed.set_result(None)
        if self._lost is not None:
            self._lost(exc)

    def pause_writing(self) -> None:
        self._pause(True)

    def resume_writing(self) -> None:
        self._pause(False)

    def attach(
        self, receive: Callable[[bytes], None], lost: Callable[[Exception | None], None]
    ) -> None:
        self._receive, self._lost = receive, lost
        for data in self._early:
            receive(data)
        if self._over:
            lost(self._error)

    def on_pause(self, callback: Callable[[bool], None]) -> None:
        self._pause = callback

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()

    async def aclose(self) -> None:
        self._transport.close()
        await self._closed


def dial_to(port: int) -> Callable[[], Awaitable[TcpCarrier]]:
    async def dial() -> TcpCarrier:
        loop = asyncio.get_running_loop()
        _, carrier = await loop.create_connection(TcpCarrier, "127.0.0.1", port)
        return carrier

    return dial


async def ssh_over(line: Line, agent: Agent, **options: Any) -> PacketConnection:
    known = asyncssh.import_known_hosts(f"agent {agent.host_key.export_public_key().decode()}")
    return await connect(
        "agent",
        22,
        tunnel=line,
        username="towline",
        client_keys=[agent.client_key],
        known_hosts=known,
        config=None,
        agent_path=None,
        compression_algs=["none"],
        **{"encryption_algs": ["aes128-gcm@openssh.com"], **options},
    )


class Recorder:
    """What a line told, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def seen(self, kind: type[Any], *, count: int = 1, within_s: float = 20.0) -> Any:
        """Wait until there were so many events of that kind; returns the last."""
        async with asyncio.timeout(within_s):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)[-1]


@dataclass
class Connected:
    line: Line
    ssh: PacketConnection
    told: Recorder


@asynccontextmanager
async def connected(
    agent: Agent, *, port: int | None = None, **options: Any
) -> AsyncIterator[Connected]:
    """A line and SSH in it, through another port than the agent's own if one is given."""
    told = Recorder()
    async with resumable_line(
        dial=dial_to(port or agent.line_port),
        key=agent.line_key,
        events=told,
        redial=Redial(gap=lambda: 0.05),
    ) as line:
        ssh = await ssh_over(line, agent, **options)
        try:
            yield Connected(line, ssh, told)
        finally:
            ssh.abort()
            await ssh.wait_closed()
