"""A way to an API server that answers some requests itself, slowly, or not at all.

The client's side is plain HTTP, the server's TLS: each request is seen, and decided on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_CHANGE_NOTHING = ("dryRun", "selfsubject", "/portforward", "/exec")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; `write` counts those that change something, from 1; 0 for others."""

    method: str
    path: str
    write: int


@dataclass(frozen=True, slots=True)
class Says:
    """The request does not arrive: this is answered in the server's place."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slow:
    """It arrives so much later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Breaks:
    """The connection breaks: before the request arrives, or before its answer does."""

    answered: bool
    then: Callable[[], None] = lambda: None


Fault = Says | Slow | Breaks | None


class BadServer:
    """Passes requests on as `decide` says of each; what was upgraded is left untouched.

    Attributes:
        writes: how many requests came that change something.
    """

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext, tls_name: str) -> None:
        self._onward = (host, port)
        self._tls, self._tls_name = tls, tls_name
        self._writers: set[asyncio.StreamWriter] = set()
        self.decide: Callable[[Asked], Fault] = lambda asked: None
        self.writes = 0
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BadServer]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """Reset what is open; what comes is served."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ExceptionGroup):
            onward_reader, onward = await asyncio.open_connection(
                *self._onward, ssl=self._tls, server_hostname=self._tls_name
            )
            answers = _Answers(onward_reader, writer)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(answers.pump())
                    group.create_task(self._requests(reader, writer, onward, answers))
            finally:
                onward.transport.abort()
        self._writers.discard(writer)
        writer.transport.abort()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        onward: asyncio.StreamWriter,
        answers: _Answers,
    ) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            match self.decide(self._seen(first)):
                case Says(status, headers):
                    writer.write(_refusal(status, headers))
                    continue
                case Slow(seconds):
                    await asyncio.sleep(seconds)
                case Breaks(answered, then):
                    if answered:
                        answers.swallow = True
                        onward.write(head + body)
                        await answers.swallowed.wait()
                    then()
                    raise ConnectionResetError
            onward.write(head + body)
            await onward.drain()
            if "upgrade" in fields:
                await _pass_on(reader, onward)

    def _seen(self, first: str) -> Asked:
        method, path, _ = first.split(" ")
        changes = method in _WRITES and not any(each in path for each in _CHANGE_NOTHING)
        self.writes += changes
        return Asked(method, path, self.writes if changes else 0)


class _Answers:
    """What the server says, on its way back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.swallow = False
        self.swallowed = asyncio.Event()

    async def pump(self) -> None:
        while data := await self._reader.read(1 << 16):
            if self.swallow:
                self.swallowed.set()
                continue
            self._writer.write(data)
            await self._writer.drain()
        raise ConnectionResetError


async def _pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await source.read(1 << 16):
        to.write(data)
        await to.drain()
    raise ConnectionResetError


def _refusal(status: int, headers: dict[str, str]) -> bytes:
    body = json.dumps({"kind": "Status", "status": "Failure", "message": "said by the test",
                       "reason": "Test", "code": status}).encode()  # fmt: skip
    lines = [f"HTTP/1.1 {status} Test", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
