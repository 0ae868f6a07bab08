"""Tunnel channels, with the client's own channels against the real agent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from towline.transport.channel import TunnelChannel, open_channel
from towline.transport.control import SUBSYSTEM, Control
from towline.transport.credit import Budget

from .conftest import Agent, Connected, connected, free_port

SPARE = ("towline-spare", 0)


class End:
    """The laptop's end of a channel: keeps what comes."""

    def __init__(self, channel: TunnelChannel, *, reading: bool = True) -> None:
        self.channel = channel
        self.data = bytearray()
        self.eof = False
        self.over = False
        self.reset: str | None = None
        self.reading = reading
        self._news = asyncio.Event()
        channel.attach(self)

    def received(self, data: bytes) -> None:
        self.data += data
        if self.reading:
            self.channel.consumed(len(data))
        self._news.set()

    def channel_eof(self) -> None:
        self.eof = True
        self._news.set()

    def ended(self, reset: str | None) -> None:
        self.over, self.reset = True, reset
        self._news.set()

    def pause(self, paused: bool) -> None:
        self._news.set()

    async def until(self, *, within_s: float = 15, **wanted: Any) -> None:
        async with asyncio.timeout(within_s):
            while not all(getattr(self, name) == value for name, value in wanted.items()):
                self._news.clear()
                await self._news.wait()

    async def until_size(self, size: int) -> None:
        async with asyncio.timeout(30):
            while len(self.data) < size:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def server(handle: Any, host: str = "127.0.0.1") -> AsyncIterator[int]:
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await handle(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the other end broke, or the test is over
        finally:
            running.discard(task)
            writer.close()

    made = await asyncio.start_server(serve, host, 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def session(agent: Agent) -> AsyncIterator[tuple[Connected, Budget]]:
    async with connected(agent) as it:
        yield it, Budget()


async def spare(it: Connected, budget: Budget, host: str, port: int, **options: Any) -> End:
    channel = await open_channel(it.ssh, *SPARE, budget=budget)
    end = End(channel, **options)
    channel.write_header(struct.pack(">HH", port, len(host)) + host.encode())
    return end


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"!")


async def test_a_spare_forward_echoes_and_keeps_half_close(agent: Agent) -> None:
    async with session(agent) as (it, budget), server(echo) as port:
        end = await spare(it, budget, "localhost", port)
        end.channel.write(b"hello")
        await end.until_size(5)
        assert not end.eof
        end.channel.write_eof()
        await end.until(eof=True)
        assert bytes(end.data) == b"hello!"
        end.channel.close()
        await end.until(over=True)
        assert end.reset is None


async def test_localhost_is_ipv6_too(agent: Agent) -> None:
    async with session(agent) as (it, budget), server(echo, "::1") as port:
        for host in ("localhost", "", "::1"):
            end = await spare(it, budget, host, port)
            end.channel.write(b"six")
            await end.until_size(3)


BLOCK = bytes(range(256)) * 128


async def test_much_both_ways_at_once(agent: Agent) -> None:
    count = 600
    async with session(agent) as (it, budget), server(echo) as port:
        end = await spare(it, budget, "127.0.0.1", port)
        for _ in range(count):
            end.channel.write(BLOCK)
        await end.until_size(count * len(BLOCK))
        assert bytes(end.data) == BLOCK * count


async def test_a_download_goes_on_after_a_half_close(agent: Agent) -> None:
    """asyncssh calls a channel "closing" from write_eof on: grants went missing."""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        for _ in range(200):
            writer.write(BLOCK)
            await writer.drain()

    async with session(agent) as (it, budget), server(answers) as port:
        end = await spare(it, budget, "127.0.0.1", port)
        end.channel.write_eof()
        await end.until(eof=True, within_s=5)
        assert len(end.data) == 200 * len(BLOCK)


async def test_a_target_that_refuses_is_a_reset_that_says_why(agent: Agent) -> None:
    async with session(agent) as (it, budget):
        end = await spare(it, budget, "localhost", free_port())
        await end.until(over=True)
        assert end.reset is not None and "connection refused" in end.reset


async def test_a_reset_in_the_pod_is_a_reset_on_the_laptop(agent: Agent) -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()

    async with session(agent) as (it, budget), server(resets) as port:
        for _ in range(20):
            end = await spare(it, budget, "127.0.0.1", port)
            end.channel.write(b"x")
            end.channel.write(b"y" * 2000)
            await end.until(over=True)
            assert end.reset == "connection reset by peer" or "broken pipe" in str(end.reset)
            assert not end.eof


@pytest.mark.parametrize("how", ["reset", "abort"])
async def test_a_reset_on_the_laptop_is_a_reset_in_the_pod(agent: Agent, how: str) -> None:
    seen: asyncio.Queue[Exception | bytes] = asyncio.Queue()

    async def keeps(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                seen.put_nowait(data)
            seen.put_nowait(b"")
        except OSError as error:
            seen.put_nowait(error)

    async with session(agent) as (it, budget), server(keeps) as port:
        end = await spare(it, budget, "127.0.0.1", port)
        end.channel.write(b"x")
        assert await seen.get() == b"x"
        if how == "reset":
            end.channel.reset("the app crashed")
        else:
            it.line.close()
        async with asyncio.timeout(5):
            assert isinstance(await seen.get(), ConnectionResetError)


async def test_a_reader_that_stops_stops_its_writer_and_nobody_else(agent: Agent) -> None:
    """The download's credit ends at 64 KiB; a second channel goes on."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async with session(agent) as (it, budget), server(endless) as port, server(echo) as other:
        stopped = await spare(it, budget, "127.0.0.1", port, reading=False)
        await stopped.until_size(64 << 10)
        lively = await spare(it, budget, "127.0.0.1", other)
        for _ in range(20):
            lively.channel.write(b"x" * 1000)
        await lively.until_size(20_000)
        assert len(stopped.data) == 64 << 10
        stopped.channel.reset()


# Reverse


async def reverse(it: Connected, budget: Budget, agent: Agent) -> tuple[End, TunnelChannel]:
    channel = await open_channel(it.ssh, "towline-reverse", agent.reverse_port, budget=budget)
    return End(channel), channel


def header(data: bytes) -> tuple[int, str, bytes]:
    waiting, length = struct.unpack_from(">HH", data)
    return waiting, data[4 : 4 + length].decode(), bytes(data[4 + length :])


class Peer:
    """A connection from the cluster to the reverse port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def of(cls, agent: Agent, host: str = "127.0.0.1") -> AsyncIterator[Peer]:
        reader, writer = await asyncio.open_connection(host, agent.reverse_port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_connection_takes_the_channel_that_waits(agent: Agent, host: str) -> None:
    async with session(agent) as (it, budget):
        end, channel = await reverse(it, budget, agent)
        async with Peer.of(agent, host) as peer:
            peer.writer.write(b"GET /")
            await end.until_size(4)
            length = int.from_bytes(end.data[2:4], "big")
            await end.until_size(4 + length + 5)
            waiting, address, data = header(bytes(end.data))
            assert waiting == 0 and data == b"GET /" and host in address
            channel.write(b"200")
            assert await peer.reader.readexactly(3) == b"200"
            channel.write_eof()
            assert await peer.reader.read() == b""
            peer.writer.write_eof()
            await end.until(eof=True)
            channel.close()
            await end.until(over=True)
            assert end.reset is None


async def ask(it: Connected, method: str, **params: Any) -> dict[str, Any]:
    _, control = await it.ssh.create_session(Control, subsystem=SUBSYSTEM, encoding=None)
    assert isinstance(control, Control)
    return await control.request(method, **params)


async def held(it: Connected, count: int) -> None:
    """Wait until so many connections are held."""
    async with asyncio.timeout(5):
        while (await ask(it, "status"))["held"] != count:
            pass


async def test_connections_wait_for_channels_and_say_how_many(agent: Agent) -> None:
    async with session(agent) as (it, budget), AsyncExitStack() as peers:
        for _ in range(3):
            await peers.enter_async_context(Peer.of(agent))
        await held(it, 3)
        waits = []
        for _ in range(3):
            end, _channel = await reverse(it, budget, agent)
            await end.until_size(8)
            waits.append(header(bytes(end.data))[0])
        assert waits == [2, 1, 0]


async def test_nobody_waits_longer_than_was_said(agent: Agent) -> None:
    async with session(agent) as (it, _):
        await ask(it, "route", mode="hold", hold_for_s=0.1)
        async with Peer.of(agent) as peer, asyncio.timeout(3):
            with pytest.raises(ConnectionResetError):
                await peer.reader.read()


async def test_who_waits_is_passed_on_to_the_original(agent: Agent) -> None:
    async with session(agent) as (it, _), server(echo) as original:
        await ask(it, "route", mode="hold", hold_for_s=10)
        async with Peer.of(agent) as early, Peer.of(agent) as late:
            early.writer.write(b"early")
            await held(it, 2)
            to = {str(agent.reverse_port): [f"127.0.0.1:{original}"]}
            assert await ask(it, "route", mode="pass", **{"pass": to}) == {"held": 0}
            assert await early.reader.readexactly(5) == b"early"
            late.writer.write(b"late")
            late.writer.write_eof()
            assert await late.reader.read() == b"late!"
            early.writer.write_eof()
            assert await early.reader.read() == b"!"


async def test_a_channel_that_was_closed_takes_no_connection(agent: Agent) -> None:
    async with session(agent) as (it, budget):
        first, channel = await reverse(it, budget, agent)
        channel.close()
        await first.until(over=True)
        second, _channel = await reverse(it, budget, agent)
        async with Peer.of(agent):
            await second.until_size(8)
        assert not first.data


async def test_plain_forwards_work_for_any_ssh_client(agent: Agent) -> None:
    async with session(agent) as (it, _), server(echo) as port:
        listener = await it.ssh.forward_local_port("127.0.0.1", 0, "localhost", port)
        async with listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
            writer.write(b"plain" * 100_000)
            writer.write_eof()
            assert await reader.read() == b"plain" * 100_000 + b"!"
            writer.close()
            await writer.wait_closed()
