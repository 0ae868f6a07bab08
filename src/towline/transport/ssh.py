"""The session's SSH connection, over anything that asyncssh can tunnel through."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from towline.errors import ConnectionLost
from towline.transport.channel import TunnelChannel, open_channel
from towline.transport.control import SUBSYSTEM, Control
from towline.transport.credit import Budget
from towline.transport.keys import USER, Keys
from towline.transport.packets import PacketConnection, connect

# Below errors asyncssh has a line for every channel: names and ports of the user's.
logging.getLogger("asyncssh").setLevel(logging.ERROR)

_HOST = "towline-agent"
_ALGORITHMS: dict[str, Any] = {
    "kex_algs": ["curve25519-sha256", "curve25519-sha256@libssh.org"],
    "encryption_algs": ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com"],
    "mac_algs": ["hmac-sha2-256-etm@openssh.com"],
    "compression_algs": ["none"],
    "signature_algs": ["ssh-ed25519"],
    "server_host_key_algs": ["ssh-ed25519"],
}


class SshSession:
    """An SSH connection to the agent."""

    def __init__(self, connection: PacketConnection) -> None:
        self._connection = connection
        self._budget = Budget()
        self.control = Control()

    async def open_channel(self, host: str, port: int) -> TunnelChannel:
        """Open a tunnel channel (docs/protocol.md has the names that are special).

        Raises:
            ConnectionLost: the connection is gone, or the agent refused the channel.
        """
        try:
            return await open_channel(self._connection, host, port, budget=self._budget)
        except (asyncssh.Error, OSError) as error:
            raise ConnectionLost(f"no channel to the agent: {error}") from error

    async def open_control(self) -> None:
        """Open the control subsystem; `control` can be used from here on."""
        _, session = await self._connection.create_session(
            Control, subsystem=SUBSYSTEM, encoding=None
        )
        assert isinstance(session, Control)
        self.control = session

    @property
    def connection(self) -> PacketConnection:
        """asyncssh's own, for `transport` alone."""
        return self._connection

    async def wait_closed(self) -> None:
        """Wait until the connection is over, from either side."""
        await self._connection.wait_closed()


@asynccontextmanager
async def ssh_session(tunnel: Any, *, keys: Keys) -> AsyncIterator[SshSession]:
    """An SSH connection through `tunnel`, with the host key pinned to the session's.

    asyncssh's own keep-alive is off: the line below decides what is alive.

    Raises:
        ConnectionLost: it does not come about.
    """
    known = asyncssh.import_known_hosts(f"{_HOST} {keys.host_public}\n")
    try:
        connection = await connect(
            _HOST,
            22,
            tunnel=tunnel,
            username=USER,
            client_keys=[asyncssh.import_private_key(keys.client_private)],
            known_hosts=known,
            config=None,
            agent_path=None,
            keepalive_interval=0,
            login_timeout=60,
            **_ALGORITHMS,
        )
    except (asyncssh.Error, OSError) as error:
        raise ConnectionLost(f"SSH to the dev pod failed: {error}") from error
    session = SshSession(connection)
    try:
        await session.open_control()
        yield session
    finally:
        connection.abort()
        await connection.wait_closed()
