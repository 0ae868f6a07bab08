"""Listening ports: the table's text, and this very machine."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator

import pytest

from towline.manifest.model import Port
from towline.process import listening
from towline.process.listening import Listener, is_listening, owner_of, parse_table, ports_of

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
QUEUES = "00000000:00000000 00:00000000 00000000  1000        0"
TCP = (
    HEAD
    + f"   0: 0100007F:1F90 00000000:0000 0A {QUEUES} 4711 1\n"
    + f"   1: 00000000:0016 00000000:0000 0A {QUEUES} 12 1\n"
    + f"   2: 0100007F:1F90 0100007F:D431 01 {QUEUES} 99 1\n"
)
NOBODY = "00000000000000000000000000000000:0000"
TCP6 = (
    HEAD
    + f"   0: 00000000000000000000000001000000:0BB8 {NOBODY} 0A {QUEUES} 5 1\n"
    + f"   1: 0000000000000000FFFF00000100007F:0BB9 {NOBODY} 0A {QUEUES} 6 1\n"
    + f"   2: B80D01200000000000000000010000FE:0BBA {NOBODY} 0A {QUEUES} 7 1\n"
)


def test_the_table_of_ipv4() -> None:
    assert parse_table(TCP) == [
        Listener(Port(8080), "127.0.0.1", 4711),
        Listener(Port(22), "0.0.0.0", 12),
    ]


def test_the_table_of_ipv6() -> None:
    found = parse_table(TCP6)
    assert [entry.port for entry in found] == [3000, 3001, 3002]
    # Python 3.13 writes a mapped address with dots.
    mapped = str(ipaddress.ip_address("::ffff:127.0.0.1"))
    assert [entry.address for entry in found] == ["::1", mapped, "2001:db8::fe00:1"]
    assert [entry.answers_on_loopback for entry in found] == [True, True, False]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


async def test_a_port_that_is_listened_on(listener: socket.socket) -> None:
    port = Port(listener.getsockname()[1])
    assert await is_listening(port)
    listener.close()
    assert not await is_listening(port)


async def test_a_connection_to_all_addresses_comes_to_loopback(listener: socket.socket) -> None:
    """With `interface: 0.0.0.0` the gate never opened for a process on 127.0.0.1."""
    port = Port(listener.getsockname()[1])
    _, writer = await asyncio.open_connection("0.0.0.0", port)
    writer.close()
    assert await is_listening(port, host="0.0.0.0")
    assert not await is_listening(port, host="::")
    assert not await is_listening(port, host="192.0.2.1")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_the_ports_that_are_asked_for(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = listening.listeners(ports=frozenset([port]))
        assert found is not None and {entry.port for entry in found} == {port}
        everyone = {entry.port for entry in listening.listeners() or ()}
        assert {port, other.getsockname()[1]} <= everyone


def test_whose_it_is(listener: socket.socket) -> None:
    port = Port(listener.getsockname()[1])
    owner = owner_of(port)
    assert owner is not None and owner.pid == os.getpid()
    ports = ports_of(os.getpid())
    assert ports is not None and port in ports
    assert owner_of(Port(1)) is None


async def test_where_there_is_no_table_one_connection_is_tried(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "listeners", lambda *, ports: None)
    port = Port(listener.getsockname()[1])
    assert await is_listening(port)
    listener.close()
    assert not await is_listening(port)
