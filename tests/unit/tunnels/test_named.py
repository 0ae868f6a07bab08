"""Listeners of names: a port of their own where it can be had, another one where not."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from collections.abc import Mapping
from contextlib import closing, suppress

import pytest

from towline._kit.tasks import Tasks
from towline.tunnels.named import LocalPort, NamedListeners
from towline.tunnels.spares import Spares

# Another run of these tests on this machine has others.
ADDRESS, OTHER = (f"127.99.{os.getpid() % 250}.{last}" for last in (2, 3))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127/8")


def free_port() -> int:
    with socket.create_server(("", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def two_free_ports() -> int:
    """The first of two next to each other, where no outgoing connection gets one meanwhile."""
    for number in random.sample(range(20_000, 30_000), 1_000):
        with (
            suppress(OSError),
            socket.create_server(("", number)),
            socket.create_server(("", number + 1)),
        ):
            return number
    raise AssertionError("no two free ports")


def named(tasks: Tasks, *, avoid: Mapping[int, str] | None = None) -> NamedListeners:
    return NamedListeners(spares=Spares(hold_for_s=0, tasks=tasks), tasks=tasks, avoid=avoid or {})


async def somebody_listens(address: str, port: int) -> bool:
    """Nobody carries it, so it is reset."""
    reader, writer = await asyncio.open_connection(address, port)
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    return True


async def test_the_port_is_the_clusters_own_and_each_name_has_its_address() -> None:
    port = free_port()
    async with Tasks() as tasks:
        with closing(named(tasks)) as listeners:
            for host, address in (("a", ADDRESS), ("b", OTHER)):
                assert await listeners.open(host, port, address=address) == LocalPort(number=port)
                assert await listeners.open(host, port, address=address) == LocalPort(number=port)
            assert listeners.count == 2
            listeners.stop("a")
            await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(ADDRESS, port)
            assert await somebody_listens(OTHER, port)


async def test_ports_that_are_the_laptops_are_listened_on_elsewhere() -> None:
    port = two_free_ports()
    async with Tasks() as tasks:
        with closing(named(tasks, avoid={port + 1: "is the process's own"})) as listeners:
            with socket.create_server(("", port)):
                taken = await listeners.open("a", port, address=ADDRESS)
                avoided = await listeners.open("a", port + 1, address=ADDRESS)
            assert taken is not None and avoided is not None
            assert (taken.why, avoided.why) == (
                "is in use on all addresses",
                "is the process's own",
            )
            assert not {taken.number, avoided.number} & {port, port + 1}
            with socket.create_server(("", port + 1)):
                pass  # it really is free


async def test_names_that_share_an_address_keep_their_ports_from_run_to_run() -> None:
    found = []
    for _ in range(2):
        async with Tasks() as tasks:
            with closing(named(tasks)) as listeners:
                for host in ("a", "b", "c"):
                    found.append(await listeners.open(host, 80, address=ADDRESS, is_own=False))
    assert found[:3] == found[3:] and len({each.number for each in found if each}) == 3


async def test_no_more_are_opened_than_there_may_be() -> None:
    async with Tasks() as tasks:
        with closing(named(tasks)) as listeners:
            listeners.at_most = 1
            port = free_port()
            assert await listeners.open("a", port, address=ADDRESS) is not None
            assert await listeners.open("b", port, address=OTHER) is None


async def test_listeners_give_way_and_come_back() -> None:
    port = free_port()
    async with Tasks() as tasks:
        with closing(named(tasks)) as listeners:
            await listeners.open("a", port, address=ADDRESS)
            await listeners.give_way({port})
            await asyncio.sleep(0)
            with socket.create_server(("", port)):
                assert await listeners.open("b", port, address=OTHER) == LocalPort(number=port)
                await listeners.give_way(())  # still taken: tried again the next time
            await listeners.give_way(())
            for address in (ADDRESS, OTHER):
                assert await somebody_listens(address, port)
