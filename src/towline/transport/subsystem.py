"""A subsystem of the SSH connection as a stream of bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import asyncssh

from towline.errors import ConnectionLost
from towline.transport.packets import PacketConnection

# What may be under way to us: a bulk of entries should not wait for a round trip each.
_WINDOW_BYTES = 4 << 20
_PACKET_BYTES = 128 << 10


class Stream(Protocol):
    """What sync needs of a connection; both raise ConnectionLost at its end."""

    async def read_exactly(self, size: int) -> bytes:
        """So many bytes, no fewer."""
        ...

    async def write(self, content: bytes) -> None:
        """Send; waits while much is under way."""
        ...


class Subsystem:
    """A `Stream` over a session channel."""

    def __init__(
        self, writer: asyncssh.SSHWriter[bytes], reader: asyncssh.SSHReader[bytes]
    ) -> None:
        self._writer, self._reader = writer, reader

    async def read_exactly(self, size: int) -> bytes:
        """Read so many bytes.

        Raises:
            ConnectionLost: it ended before.
        """
        try:
            return await self._reader.readexactly(size)
        except (EOFError, asyncssh.Error, OSError) as error:
            raise ConnectionLost(f"the agent's channel ended: {error}") from error

    async def write(self, content: bytes) -> None:
        """Send bytes, waiting while much is under way.

        Raises:
            ConnectionLost: the channel is closed.
        """
        try:
            self._writer.write(content)
            await self._writer.drain()
        except (asyncssh.Error, OSError) as error:
            raise ConnectionLost(f"the agent's channel ended: {error}") from error


@asynccontextmanager
async def open_subsystem(connection: PacketConnection, name: str) -> AsyncIterator[Subsystem]:
    """Open a subsystem of the agent's for as long as the block lasts.

    Raises:
        ConnectionLost: the connection is gone, or the agent does not have it.
    """
    try:
        writer, reader, _ = await connection.open_session(
            subsystem=name, encoding=None, window=_WINDOW_BYTES, max_pktsize=_PACKET_BYTES
        )
    except (asyncssh.Error, OSError) as error:
        raise ConnectionLost(f"no {name} from the agent: {error}") from error
    try:
        yield Subsystem(writer, reader)
    finally:
        writer.channel.abort()
