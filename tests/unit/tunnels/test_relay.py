"""One connection through a relay: every order of ends and resets, and what it may hold."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.unit.tunnels.wire import FarSide, Peer

from towline.transport.credit import CLIENT_INITIAL_BYTES
from towline.tunnels.relay import Relay


class Ended:
    def __init__(self) -> None:
        self.count = 0
        self.event = asyncio.Event()

    def __call__(self, relay: Relay) -> None:
        self.count += 1
        self.event.set()

    async def wait(self) -> None:
        async with asyncio.timeout(5):
            await self.event.wait()


@asynccontextmanager
async def connected(*, join: bool = True) -> AsyncIterator[tuple[Peer, FarSide, Relay, Ended]]:
    """A relay between a local TCP connection and a channel."""
    loop = asyncio.get_running_loop()
    ended = Ended()
    relay = Relay(on_end=ended)
    accepted = loop.create_future()

    def accept() -> Relay:
        accepted.set_result(None)
        return relay

    server = await loop.create_server(accept, "127.0.0.1", 0)
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, server.sockets[0].getsockname())
    await accepted
    far, peer = FarSide(), Peer(sock)
    await until(lambda: relay._local is not None)
    if join:
        relay.join(far.tunnel)
    try:
        yield peer, far, relay, ended
    finally:
        sock.close()
        if relay._local is not None:
            relay._local.abort()
        server.close()
        await server.wait_closed()


async def until(seen: Callable[[], bool]) -> None:
    """Let the loop run until something is seen: sockets tell nobody of their buffers."""
    async with asyncio.timeout(5):
        while True:
            if seen():
                return
            await asyncio.sleep(0.002)


async def test_bytes_both_ways() -> None:
    async with connected() as (peer, far, _, _):
        await peer.send(b"question")
        await until(lambda: far.data == b"question")
        far.sends(b"answer")
        assert await peer.read(6) == b"answer"


async def test_the_local_side_ends_first_and_still_reads() -> None:
    async with connected() as (peer, far, _, ended):
        await peer.send(b"request")
        peer.shutdown()
        await until(lambda: far.seen == ["eof"])
        assert far.data == b"request"
        far.sends(b"long answer")
        far.ends()
        assert await peer.read(100) == b"long answer"
        await ended.wait()
        assert far.seen == ["eof", "close"], "no reset where both ends were in order"


async def test_the_far_side_ends_first_and_still_reads() -> None:
    async with connected() as (peer, far, _, ended):
        far.sends(b"hello")
        far.ends()
        assert await peer.read(100) == b"hello"
        await peer.send(b"afterwards")
        await until(lambda: far.data == b"afterwards")
        peer.shutdown()
        await ended.wait()
        assert far.seen == ["eof", "close"]
        assert ended.count == 1


@pytest.mark.parametrize("before", ["nothing", "local-eof", "far-eof"])
async def test_a_far_reset_is_a_reset_whatever_was_before(before: str) -> None:
    async with connected() as (peer, far, _, ended):
        if before == "local-eof":
            peer.shutdown()
            await until(lambda: "eof" in far.seen)
        if before == "far-eof":
            far.ends()
            assert await peer.read(1) == b""
        far.resets("connection reset by peer")
        if before == "far-eof":
            # The end was read already: the next write tells.
            await ended.wait()
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                for _ in range(50):
                    await peer.send(b"x")
                    await asyncio.sleep(0.002)
        else:
            assert await peer.end() == "reset"
        await ended.wait()
        assert "reset@towline" not in far.seen, "a reset is not answered with one"
        assert ended.count == 1


@pytest.mark.parametrize("before", ["nothing", "local-data", "far-eof"])
async def test_a_local_reset_is_a_reset_whatever_was_before(before: str) -> None:
    async with connected() as (peer, far, _, ended):
        if before == "local-data":
            await peer.send(b"half a requ")
            await until(lambda: far.data != b"")
        if before == "far-eof":
            far.ends()
            assert await peer.read(1) == b""
        peer.reset()
        await ended.wait()
        assert far.seen[-2:] == ["reset@towline", "abort"]


async def test_closed_without_an_end_is_a_reset() -> None:
    async with connected() as (peer, far, _, ended):
        far.sends(b"half an ans")
        assert await peer.read(11) == b"half an ans"
        far.closes()
        assert await peer.end() == "reset"
        await ended.wait()


async def test_a_local_connection_that_is_gone_before_it_is_joined_resets_the_channel() -> None:
    async with connected(join=False) as (peer, far, relay, ended):
        relay.refuse()
        assert await peer.end() == "reset"
        await ended.wait()
        relay.join(far.tunnel)
        assert far.seen == ["reset@towline", "abort"]


async def test_a_channel_that_is_over_before_it_is_joined_resets_the_local_side() -> None:
    async with connected(join=False) as (peer, far, relay, _):
        far.resets("no such host")
        relay.join(far.tunnel)
        assert await peer.end() == "reset"


async def test_early_bytes_are_sent_once_it_is_joined() -> None:
    async with connected(join=False) as (peer, far, relay, _):
        await peer.send(b"early")
        await asyncio.sleep(0)
        relay.join(far.tunnel)
        await until(lambda: far.data == b"early")


@pytest.mark.parametrize("early", [False, True])
async def test_a_reader_that_has_stopped_stops_the_writer(early: bool) -> None:
    """Found in review: joined with more early bytes than credit, it read on without bound."""
    async with connected(join=not early) as (peer, far, relay, _):
        if early:
            await peer.send(b"x" * 4 * CLIENT_INITIAL_BYTES)
            relay.data_received(b"y" * 2 * CLIENT_INITIAL_BYTES)  # as uvloop may
            relay.join(far.tunnel)
        sending = asyncio.create_task(peer.send(b"z" * 64 * 1024 * 1024))
        before = -1
        while relay.bytes_up != before:
            before = relay.bytes_up
            await asyncio.sleep(0.1)
        assert len(far.data) == CLIENT_INITIAL_BYTES, "exactly what it may send unasked"
        assert relay.bytes_up < 2 * 1024 * 1024
        far.grants(64 * 1024 * 1024)
        await until(lambda: len(far.data) > 16 * 1024 * 1024)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_nothing_is_granted_for_what_the_local_side_does_not_read() -> None:
    async with connected() as (peer, far, relay, _):
        sent = 0
        for _ in range(400):
            far.sends(b"d" * 64 * 1024)
            sent += 64 * 1024
            await asyncio.sleep(0)
        assert far.granted < sent / 2
        assert await peer.read(sent) == b"d" * sent
        await until(lambda: far.granted > sent / 2)
        assert relay.bytes_down == sent
