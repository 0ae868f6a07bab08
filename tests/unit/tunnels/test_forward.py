"""A forward's connections while one dev pod is gone and the next one is not there yet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing

import pytest

from towline._kit.tasks import Tasks
from towline.errors import ConnectionLost
from towline.transport.channel import TunnelChannel
from towline.tunnels.forward import Forward, Target, bound
from towline.tunnels.proxy import Proxy
from towline.tunnels.spares import SPARES, Spares

from .wire import FarSide, Peer

TARGET = Target(host="db", port=5432)
FAR_TOO_LONG_S = 60.0


class DevPod:
    """Opens channels until it goes; then each of them is over."""

    def __init__(self) -> None:
        self.opened: list[FarSide] = []
        self.is_gone = False

    async def open_channel(self) -> TunnelChannel:
        if self.is_gone:
            raise ConnectionLost("no channel to the agent")
        self.opened.append(FarSide())
        return self.opened[-1].tunnel

    def goes(self) -> None:
        self.is_gone = True
        for each in self.opened:
            each.closes()

    async def asked_for(self, sent: bytes) -> FarSide:
        """The channel that these bytes came to."""
        async with asyncio.timeout(5):
            while True:
                for each in self.opened:
                    if each.data == sent:
                        return each
                await asyncio.sleep(0.002)


@asynccontextmanager
async def dialled(port: int) -> AsyncIterator[Peer]:
    with closing(socket.socket()) as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        yield Peer(sock)


@asynccontextmanager
async def forwarding(spares: Spares, *, tasks: Tasks) -> AsyncIterator[int]:
    """A forward that accepts; its port."""
    forward = Forward(0, TARGET, spares=spares, tasks=tasks)
    forward.sockets = bound(0, interface="127.0.0.1")
    await forward.begin()
    with closing(forward):
        yield forward.sockets[0].getsockname()[1]


async def test_a_connection_made_while_the_pod_is_gone_waits_for_the_next_one() -> None:
    async with Tasks() as tasks:
        spares = Spares(hold_for_s=FAR_TOO_LONG_S, tasks=tasks)
        first, second = DevPod(), DevPod()
        async with forwarding(spares, tasks=tasks) as port:
            spares.use(first.open_channel)
            spares.fill()
            await asyncio.sleep(0)
            assert len(first.opened) == SPARES
            first.goes()
            async with dialled(port) as peer:
                await peer.send(b"PING")
                with pytest.raises(TimeoutError):  # neither answered nor refused
                    async with asyncio.timeout(0.05):
                        await asyncio.get_running_loop().sock_recv(peer.sock, 1)
                spares.use(second.open_channel)
                far = await second.asked_for(TARGET.header() + b"PING")
                far.sends(b"PONG")
                assert await peer.read(4) == b"PONG"
                second.goes()
                assert await peer.end() == "reset"


async def test_one_made_before_there_is_any_pod_waits_for_it() -> None:
    async with Tasks() as tasks:
        spares = Spares(hold_for_s=FAR_TOO_LONG_S, tasks=tasks)
        pod = DevPod()
        async with forwarding(spares, tasks=tasks) as port, dialled(port) as peer:
            await peer.send(b"PING")
            spares.use(pod.open_channel)
            await pod.asked_for(TARGET.header() + b"PING")
            pod.goes()
            assert await peer.end() == "reset"


async def test_it_is_refused_once_it_has_waited_for_so_long() -> None:
    async with Tasks() as tasks:
        spares = Spares(hold_for_s=0.05, tasks=tasks)
        pod = DevPod()
        pod.goes()
        spares.use(pod.open_channel)
        async with forwarding(spares, tasks=tasks) as port, dialled(port) as peer:
            assert await peer.end() == "reset"
            # The next one has the whole time again, and finds the pod that came meanwhile.
            spares.use((back := DevPod()).open_channel)
            async with dialled(port) as later:
                await later.send(b"PING")
                await back.asked_for(TARGET.header() + b"PING")
                back.goes()
                assert await later.end() == "reset"


async def test_who_still_waits_at_the_sessions_end_is_refused() -> None:
    async with AsyncExitStack() as peers:
        async with Tasks() as tasks:
            spares = Spares(hold_for_s=FAR_TOO_LONG_S, tasks=tasks)
            asked = asyncio.Event()

            async def none_to_open() -> TunnelChannel:
                asked.set()
                raise ConnectionLost("no channel to the agent")

            spares.use(none_to_open)
            async with forwarding(spares, tasks=tasks) as port:
                peer = await peers.enter_async_context(dialled(port))
                await asked.wait()
        assert await peer.end() == "reset"


async def test_the_proxys_connections_wait_as_well() -> None:
    async with Tasks() as tasks:
        spares = Spares(hold_for_s=FAR_TOO_LONG_S, tasks=tasks)
        proxy = Proxy(spares=spares, tasks=tasks)
        await proxy.listen()
        gone, pod = DevPod(), DevPod()
        gone.goes()
        spares.use(gone.open_channel)
        with closing(proxy):
            async with dialled(proxy.port) as peer:
                await peer.send(b"CONNECT db:5432 HTTP/1.1\r\n\r\nPING")
                assert (await peer.read(12)).endswith(b" 200")
                spares.use(pod.open_channel)
                await pod.asked_for(TARGET.header() + b"PING")
                pod.goes()
                assert await peer.end() == "reset"
