"""A bad network between a client and a server: `python netfault.py PORT HOST:PORT`.

In tests `FaultyNetwork` is used directly. As a program it listens on 127.0.0.1:PORT and
takes commands on its standard input: `freeze`, `thaw`, `cut`, `reset`, `half-open`, `restore`,
`delay SECONDS`, `slow BYTES` (a second; 0 for no limit).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_CHUNK_BYTES = 64 * 1024
# What waits in a frozen direction; then the sender's own buffer fills, as in real life.
_QUEUE_CHUNKS = 32
# What a slowed direction takes at once.
_SLOW_PIECE_BYTES = 4 * 1024
_LIMITS_EVERY_S = 0.2


@dataclass(slots=True)
class _Used:
    """When something came last, by the loop's clock."""

    at: float


class FaultyNetwork:
    """A TCP relay whose network can be cut, frozen and slowed.

    Attributes:
        connections: how many came, refused ones not counted.
        carried_bytes: what went through, both directions together.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._refusing = False
        self._delay_s = 0.0
        self._bytes_s = 0.0
        self._idle_s = self._lives_s = float("inf")
        self._far_of: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._deaf: set[asyncio.StreamWriter] = set()
        self._cut_after: int | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        self.carried_bytes = 0

    async def open(self, port: int = 0) -> None:
        """Listen on a port of 127.0.0.1, a free one by default."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Reset everything, and listen no more."""
        self.cut()
        self._flows.set()
        if self._server is not None:
            self._server.close()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def freeze(self) -> None:
        """Carry nothing, but break nothing either: a laptop that left the Wi-Fi."""
        self._flows.clear()

    def thaw(self) -> None:
        """Carry what waited, and go on."""
        self._flows.set()

    def cut(self) -> None:
        """Reset what is open and refuse what comes: an API server that is restarted."""
        self._refusing = True
        self._reset_all()

    def reset(self) -> None:
        """Reset what is open; new connections get through."""
        self._reset_all()

    def half_open(self) -> None:
        """Nobody is at the other end of what is open any more, and no packet says so."""
        for near, far in self._far_of.items():
            self._deaf |= {near, far}
            far.transport.abort()

    def cut_after(self, carried_bytes: int) -> None:
        """Cut when so many bytes more were carried: in the middle of something."""
        self._cut_after = self.carried_bytes + carried_bytes

    def restore(self) -> None:
        """Let connections through again."""
        self._refusing = False

    def delay(self, seconds: float) -> None:
        """Carry each byte later by so much, in each direction."""
        self._delay_s = seconds

    def slow(self, bytes_s: float) -> None:
        """Let each direction of each connection have so much, as a slow reader does; 0: all."""
        self._bytes_s = bytes_s

    def limit(self, *, idle_s: float = float("inf"), lives_s: float = float("inf")) -> None:
        """Reset a connection that is idle for so long, or as old, as load balancers do."""
        self._idle_s, self._lives_s = idle_s, lives_s

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._jobs.add(task)
        try:
            await self._flows.wait()
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass  # a connection that broke, on whichever side
        finally:
            self._jobs.discard(task)
            self._writers.discard(writer)
            _reset(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._writers.add(there_writer)
        self._far_of[writer] = there_writer
        try:
            if not self._refusing:
                async with asyncio.TaskGroup() as group:
                    used = _Used(asyncio.get_running_loop().time())
                    group.create_task(self._carry(reader, there_writer, used))
                    group.create_task(self._carry(there_reader, writer, used))
                    group.create_task(self._keep_limits(used))
        finally:
            del self._far_of[writer]
            self._deaf -= {writer, there_writer}
            self._writers.discard(there_writer)
            _reset(there_writer)

    async def _keep_limits(self, used: _Used) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            now = loop.time()
            if now - used.at >= self._idle_s or now - began >= self._lives_s:
                raise ConnectionResetError("a load balancer's limit")
            await asyncio.sleep(_LIMITS_EVERY_S)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, used: _Used
    ) -> None:
        """Carry one direction; a queue in between, so that a delay does not slow it."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE_CHUNKS)
        loop = asyncio.get_running_loop()

        async def fill() -> None:
            while data := await reader.read(_CHUNK_BYTES):
                used.at = loop.time()
                await queue.put((loop.time() + self._delay_s, data))
            await queue.put((loop.time() + self._delay_s, b""))

        async def empty() -> None:
            while True:
                due, data = await queue.get()
                if (wait_s := due - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                await self._flows.wait()
                if writer in self._deaf:
                    if not data and writer not in self._far_of:
                        raise ConnectionResetError("the client has left")
                    continue
                if not data:
                    writer.write_eof()
                    return
                await self._write(writer, data)
                self._count(len(data))

        async with asyncio.TaskGroup() as group:
            group.create_task(fill())
            group.create_task(empty())

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        while self._bytes_s and data:
            piece, data = data[:_SLOW_PIECE_BYTES], data[_SLOW_PIECE_BYTES:]
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(len(piece) / self._bytes_s)
        writer.write(data)
        await writer.drain()

    def _count(self, carried_bytes: int) -> None:
        self.carried_bytes += carried_bytes
        if self._cut_after is not None and self.carried_bytes >= self._cut_after:
            self._cut_after = None
            self.cut()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def faulty_network(port: int, *, host: str = "127.0.0.1") -> AsyncIterator[FaultyNetwork]:
    """A network to a port of this machine that can be made bad."""
    network = FaultyNetwork(host, port)
    await network.open()
    try:
        yield network
    finally:
        await network.close()


async def _program(port: int, target: str) -> None:
    host, _, number = target.rpartition(":")
    network = FaultyNetwork(host, int(number))
    await network.open(port)
    print(f"listening on 127.0.0.1:{network.port}", flush=True)
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command, *words = line.split() or [""]
            if command in ("delay", "slow"):
                getattr(network, command)(float(words[0]))
            elif command in ("freeze", "thaw", "cut", "reset", "half-open", "restore"):
                getattr(network, command.replace("-", "_"))()
            elif command:
                print(f"no such command: {command}", flush=True)
                continue
            print("ok", flush=True)
    finally:
        await network.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(_program(int(sys.argv[1]), sys.argv[2]))
