"""Somebody who has the agent's keys and speaks SSH to the client in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from towline.transport.keys import make_keys
from towline.transport.ssh import ssh_session


class Impostor(asyncssh.SSHServer):
    """Takes whoever comes."""

    def __init__(self, connected: asyncio.Future[asyncssh.SSHServerConnection]) -> None:
        self._connected = connected

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connected.set_result(conn)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return Anything()


class Anything(asyncssh.SSHServerSession[bytes]):
    def subsystem_requested(self, subsystem: str) -> bool:
        return True


class Direct:
    """A way to the impostor with no line in it."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.create_connection(factory, "127.0.0.1", self._port)


Conn = asyncssh.SSHServerConnection


async def _tcp(conn: Conn, port: int, folder: Path) -> None:
    await conn.create_connection(asyncssh.SSHTCPSession, "localhost", port)


async def _unix(conn: Conn, port: int, folder: Path) -> None:
    await conn.create_unix_connection(asyncssh.SSHUNIXSession, str(folder / "socket"))


async def _agent(conn: Conn, port: int, folder: Path) -> None:
    # Not by its connection's own method: that keeps to what the client asked for.
    await conn.create_agent_channel().open(asyncssh.SSHUNIXSession)


async def _x11(conn: Conn, port: int, folder: Path) -> None:
    await conn.create_x11_connection(asyncssh.SSHTCPSession)


@pytest.mark.parametrize(
    ("opens", "answer"),
    [
        (_tcp, "No such listener"),
        (_unix, "No such listener"),
        (_agent, "Auth agent forwarding disabled"),
        (_x11, "X11 forwarding disabled"),
    ],
)
async def test_it_opens_nothing_on_the_laptop(
    opens: Callable[[Conn, int, Path], Any],
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dialled = asyncio.Event()

    async def laptops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.set()
        writer.close()

    connected: asyncio.Future[Conn] = asyncio.get_running_loop().create_future()
    keys, agents = make_keys()
    acceptor = await asyncssh.create_server(
        lambda: Impostor(connected),
        "127.0.0.1",
        0,
        server_host_keys=[asyncssh.import_private_key(agents["host_key"])],
        encoding=None,
    )
    own = await asyncio.start_server(laptops, "127.0.0.1", 0)
    socket = await asyncio.start_unix_server(laptops, tmp_path / "socket")
    # What somebody works with whose SSH agent and screen could be reached.
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "socket"))
    monkeypatch.setenv("DISPLAY", "localhost:0")
    async with acceptor, own, socket, ssh_session(Direct(acceptor.get_port()), keys=keys):
        conn = await connected
        with pytest.raises(asyncssh.ChannelOpenError, match=answer):
            async with asyncio.timeout(10):
                await opens(conn, own.sockets[0].getsockname()[1], tmp_path)
        assert not dialled.is_set()
