"""The hot way through asyncssh and asyncssh's own, in turns, against the real agent."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import asyncssh
import pytest

from towline.transport.credit import Budget
from towline.transport.packets import PacketConnection

from .conftest import Agent, connected
from .test_tunnels import echo, server, spare

# No two packets are alike, so that one lost, doubled or out of place is seen.
SIZE_BYTES = 6 << 20
CONTENT = random.Random(7).randbytes(SIZE_BYTES)


class Counting(PacketConnection):
    """Counts what goes asyncssh's way."""

    exchanges = 0

    def _send_kexinit(self) -> None:
        self.exchanges += 1
        super()._send_kexinit()


@pytest.mark.parametrize(
    ("options", "exchanges"),
    [
        pytest.param({}, 1, id="hot"),
        # A key exchange in the middle of the bulk: packets change over and back.
        pytest.param({"rekey_bytes": 1 << 20}, 4, id="new keys"),
        pytest.param({"encryption_algs": ["chacha20-poly1305@openssh.com"]}, 1, id="chacha20"),
    ],
)
async def test_bulk_comes_back_whole(
    agent: Agent, options: dict[str, Any], exchanges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.transport.packets.PacketConnection", Counting)
    async with connected(agent, **options) as it, server(echo) as port:
        end = await spare(it, Budget(), "127.0.0.1", port)
        for at in range(0, SIZE_BYTES, 200_000):
            end.channel.write(CONTENT[at : at + 200_000])
        await end.until_size(SIZE_BYTES)
        assert hashlib.sha256(end.data).digest() == hashlib.sha256(CONTENT).digest()
        assert isinstance(it.ssh, Counting)
        assert it.ssh.exchanges >= exchanges


async def test_a_packet_that_was_tampered_with_ends_the_connection(agent: Agent) -> None:
    async with connected(agent) as it, server(echo) as port:
        end = await spare(it, Budget(), "127.0.0.1", port)
        end.channel.write(b"before")
        await end.until_size(6)
        whole = it.ssh.data_received

        def tampered(data: bytes, datatype: Any = None) -> None:
            whole(data[:-1] + bytes([data[-1] ^ 1]))

        it.ssh.data_received = tampered  # type: ignore[method-assign]
        end.channel.write(b"after")
        await end.until(over=True)
        assert bytes(end.data) == b"before"
        assert end.reset is not None and "MAC" in end.reset
        async with asyncio.timeout(5):
            await it.ssh.wait_closed()


@pytest.mark.parametrize("size", [1, 3, 17, 1000, 70_000])
async def test_packets_may_be_cut_anywhere(agent: Agent, size: int) -> None:
    content = CONTENT[: min(SIZE_BYTES, size * 3000)]
    async with connected(agent) as it, server(echo) as port:
        whole = it.ssh.data_received

        def cut(data: bytes, datatype: Any = None) -> None:
            for at in range(0, len(data), size):
                whole(data[at : at + size])

        it.ssh.data_received = cut  # type: ignore[method-assign]
        end = await spare(it, Budget(), "127.0.0.1", port)
        end.channel.write(content)
        await end.until_size(len(content))
        assert bytes(end.data) == content


async def test_an_open_that_is_refused_between_data(agent: Agent) -> None:
    async with connected(agent) as it, server(echo) as port:
        end = await spare(it, Budget(), "127.0.0.1", port)
        end.channel.write(b"one")
        with pytest.raises(asyncssh.ChannelOpenError):
            await it.ssh.create_connection(asyncssh.SSHTCPSession, "127.0.0.1", 1)
        end.channel.write(b"two")
        await end.until_size(6)
        assert bytes(end.data) == b"onetwo"
