"""SSH in the line: whose host key it is, and the algorithms that are spoken."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import asyncssh
import pytest
from asyncssh.packet import SSHPacket

from towline.errors import ConnectionLost
from towline.line.line import Line, resumable_line
from towline.transport.keys import Keys
from towline.transport.ssh import ssh_session

from .conftest import Agent, connected, dial_to, ssh_over


def keys_of(agent: Agent) -> Keys:
    """What the laptop has of the session's keys."""
    return Keys(
        client_private=agent.client_key.export_private_key().decode(),
        host_public=agent.host_key.export_public_key().decode(),
        line_key=agent.line_key,
    )


async def hello(line: Line, keys: Keys) -> str:
    async with ssh_session(line, keys=keys) as ssh:
        return (await ssh.control.hello()).session


async def test_the_sessions_own_host_key_is_taken(agent: Agent) -> None:
    async with resumable_line(dial=dial_to(agent.line_port), key=agent.line_key) as line:
        assert await hello(line, keys_of(agent)) == agent.config["session"]


async def test_another_host_key_is_not(agent: Agent) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    async with resumable_line(dial=dial_to(agent.line_port), key=agent.line_key) as line:
        with pytest.raises(ConnectionLost, match="Host key is not trusted"):
            await hello(line, replace(keys_of(agent), host_public=other))


@pytest.mark.parametrize(
    "options",
    [
        {"kex_algs": ["curve25519-sha256"]},
        {"encryption_algs": ["aes128-gcm@openssh.com"]},
        {"encryption_algs": ["chacha20-poly1305@openssh.com"]},
        {"server_host_key_algs": ["ssh-ed25519"]},
    ],
    ids=str,
)
async def test_todays_algorithms_are_spoken(agent: Agent, options: dict[str, Any]) -> None:
    async with connected(agent, **options) as it:
        assert (await it.ssh.run("echo there")).stdout == "there\n"


@pytest.mark.parametrize(
    "options",
    [
        {"kex_algs": ["diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1"]},
        {"kex_algs": ["diffie-hellman-group-exchange-sha256", "diffie-hellman-group16-sha512"]},
        {"kex_algs": ["ecdh-sha2-nistp256", "ecdh-sha2-nistp521"]},
        {"encryption_algs": ["aes128-cbc", "3des-cbc", "arcfour"]},
        {"encryption_algs": ["aes128-ctr", "aes256-ctr"]},
        {"encryption_algs": ["aes256-gcm@openssh.com"]},
        {"server_host_key_algs": ["ssh-rsa", "rsa-sha2-512"]},
        {"server_host_key_algs": ["ecdsa-sha2-nistp256"]},
    ],
    ids=str,
)
async def test_no_others_are(agent: Agent, options: dict[str, Any]) -> None:
    async with resumable_line(dial=dial_to(agent.line_port), key=agent.line_key) as line:
        # The client finds none in common, too: whoever is first ends it.
        with pytest.raises((asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost)):
            await ssh_over(line, agent, **options)


async def test_a_client_key_of_another_kind_is_not_taken(agent: Agent) -> None:
    agent.client_key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    async with resumable_line(dial=dial_to(agent.line_port), key=agent.line_key) as line:
        with pytest.raises(asyncssh.PermissionDenied):
            await ssh_over(line, agent)


class _Greeted(asyncio.Protocol):
    """Says that it speaks SSH, and reads what the other side says first."""

    def __init__(self) -> None:
        self.data = b""
        self.news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(b"SSH-2.0-test\r\n")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.news.set()

    async def until_size(self, size: int) -> None:
        async with asyncio.timeout(10):
            while len(self.data) < size:
                self.news.clear()
                await self.news.wait()


async def offered(line: Line) -> list[list[bytes]]:
    """The lists of the agent's SSH_MSG_KEXINIT (RFC 4253 §7.1), in its order."""
    _, greeted = await line.create_connection(_Greeted, "", 0)
    while b"\r\n" not in greeted.data:
        await greeted.until_size(len(greeted.data) + 1)
    begin = greeted.data.index(b"\r\n") + 2
    await greeted.until_size(begin + 4)
    length = int.from_bytes(greeted.data[begin : begin + 4], "big")
    await greeted.until_size(begin + 4 + length)
    packet = SSHPacket(greeted.data[begin + 5 : begin + 4 + length])
    assert packet.get_byte() == 20
    packet.get_bytes(16)
    return [packet.get_namelist() for _ in range(10)]


async def test_what_the_agent_offers_is_what_is_written_down(agent: Agent) -> None:
    """MACs, too, which no cipher of these uses: a client cannot try them."""
    async with resumable_line(dial=dial_to(agent.line_port), key=agent.line_key) as line:
        exchanges, host_keys, *others = await offered(line)
    # Beside the method: what tells that an extension is understood.
    assert {each.partition(b"@")[0] for each in exchanges} == {
        b"curve25519-sha256", b"kex-strict-s-v00",
    }  # fmt: skip
    assert host_keys == [b"ssh-ed25519"]
    ciphers = [b"aes128-gcm@openssh.com", b"chacha20-poly1305@openssh.com"]
    macs = [b"hmac-sha2-256-etm@openssh.com"]
    assert others == [ciphers, ciphers, macs, macs, [b"none"], [b"none"], [], []]
