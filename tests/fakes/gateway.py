"""A way to an API server that does not let every upgrade through, as some load balancers do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_REFUSAL = b"upgrades of this kind do not pass here"


class Gateway:
    """Ends the client's HTTP, which is plain, and speaks TLS to the API server.

    Attributes:
        refused: the upgrades that do not pass, in lower case: `websocket`, `spdy/3.1`.
        upgrades: those that were asked for, in order.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext, tls_name: str) -> None:
        self._onward = (host, port)
        self._tls, self._tls_name = tls, tls_name
        self._writers: set[asyncio.StreamWriter] = set()
        self.refused: set[str] = set()
        self.upgrades: list[str] = []
        self.port = 0

    def cut(self) -> None:
        """Reset what is open; what comes is served."""
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ExceptionGroup):
            await self._pass_on(reader, writer)
        self._writers.discard(writer)
        writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().decode("latin-1").split("\r\n"):
            if line.startswith("upgrade:"):
                kind = line.partition(":")[2].strip()
                self.upgrades.append(kind)
                if kind in self.refused:
                    size = str(len(_REFUSAL)).encode()
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: " + size)
                    writer.write(b"\r\nConnection: close\r\n\r\n" + _REFUSAL)
                    await writer.drain()
                    writer.write_eof()
                    await reader.read()
                    return
        onward_reader, onward = await asyncio.open_connection(
            *self._onward, ssl=self._tls, server_hostname=self._tls_name
        )
        try:
            onward.write(head)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, onward))
                group.create_task(_pump(onward_reader, writer))
        finally:
            onward.transport.abort()


async def _pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        to.write(data)
        await to.drain()
    raise ConnectionResetError  # one side ended: so does the other
