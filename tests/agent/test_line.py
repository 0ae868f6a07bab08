"""The line, between the real client and the real agent, on networks that fail."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from fakes.netfault import faulty_network
from towline.line import frames
from towline.line.line import Gone, Healed, LineGone, Lost, resumable_line
from towline.line.redial import Redial

from .conftest import Agent, connected, dial_to, ssh_over
from .test_packets import Counting

BIG = os.urandom(4 << 20)


async def test_a_command_runs(agent: Agent) -> None:
    async with connected(agent) as it:
        done = await it.ssh.run("echo there; exit 3")
        assert (done.stdout, done.exit_status) == ("there\n", 3)
        figures = it.line.statistics()
        assert figures.carriers_dialled == 1 and figures.round_trip_s is not None


@pytest.mark.parametrize("cut_after", [1, 100_000, 3_000_000])
async def test_a_cut_in_the_middle_of_a_download_loses_nothing(
    agent: Agent, tmp_path: Path, cut_after: int
) -> None:
    (tmp_path / "big").write_bytes(BIG)
    async with (
        faulty_network(agent.line_port) as network,
        connected(agent, port=network.port) as it,
    ):
        network.cut_after(cut_after)
        running = asyncio.ensure_future(it.ssh.run(f"cat {tmp_path}/big", encoding=None))
        await it.told.seen(Lost)
        network.restore()
        assert (await running).stdout == BIG
        assert it.told.of(Healed)


@pytest.mark.parametrize("cut_after", [1, 50_000, 2_000_000])
async def test_a_cut_in_the_middle_of_an_upload_loses_nothing(agent: Agent, cut_after: int) -> None:
    async with (
        faulty_network(agent.line_port) as network,
        connected(agent, port=network.port) as it,
    ):
        network.cut_after(cut_after)
        running = asyncio.ensure_future(it.ssh.run("sha256sum", input=BIG, encoding=None))
        await it.told.seen(Lost)
        network.restore()
        done = await running
        assert isinstance(done.stdout, bytes)
        assert done.stdout.split()[0].decode() == hashlib.sha256(BIG).hexdigest()


@pytest.mark.parametrize(
    ("options", "exchanges"),
    [
        pytest.param({}, 1, id="one key"),
        pytest.param({"rekey_bytes": 200_000}, 8, id="new keys meanwhile"),
    ],
)
async def test_many_cuts_while_both_directions_are_busy(
    agent: Agent, options: dict[str, Any], exchanges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.transport.packets.PacketConnection", Counting)
    cuts = 8
    async with (
        faulty_network(agent.line_port) as network,
        connected(agent, port=network.port, **options) as it,
    ):
        network.cut_after(100_000)
        running = asyncio.ensure_future(it.ssh.run("cat", input=BIG, encoding=None))
        for number in range(cuts):
            await it.told.seen(Lost, count=number + 1)
            network.restore()
            await it.told.seen(Healed, count=number + 1)
            if number < cuts - 1:
                network.cut_after(300_000)
        assert (await running).stdout == BIG
        assert isinstance(it.ssh, Counting)
        assert it.ssh.exchanges >= exchanges


async def test_a_frozen_network_is_dialled_beside_after_2_s(agent: Agent) -> None:
    async with (
        faulty_network(agent.line_port) as network,
        connected(agent, port=network.port) as it,
    ):
        network.freeze()
        running = asyncio.ensure_future(it.ssh.run("echo through"))
        await it.told.seen(Lost)
        network.thaw()
        assert (await running).stdout == "through\n"
        await it.told.seen(Healed)


async def test_a_new_carrier_takes_over_from_one_that_only_seemed_well(agent: Agent) -> None:
    async with connected(agent) as it:
        it.line.network_changed()
        for number in range(20):
            assert (await it.ssh.run(f"echo {number}")).stdout == f"{number}\n"
        assert it.line.statistics().carriers_dialled >= 2
        assert not it.told.of(Lost)


async def test_a_restarted_agent_has_no_such_line(agent: Agent) -> None:
    async with connected(agent) as it:
        agent.restart()
        await it.ssh.wait_closed()
        (gone,) = it.told.of(Gone)
        assert gone.error.reason == frames.Reason.UNKNOWN_LINE


async def test_another_key_is_denied(agent: Agent) -> None:
    with pytest.raises(LineGone) as caught:
        async with resumable_line(dial=dial_to(agent.line_port), key=bytes(32)):
            pass
    assert caught.value.reason == frames.Reason.DENIED


async def test_an_agent_that_does_not_know_the_key_is_not_believed(agent: Agent) -> None:
    """Somebody else on the port answers WELCOME without the key."""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonce = frames.Nonce(bytes(32))
        writer.write(frames.serialise(frames.Greeting(1, nonce)))
        await reader.readexactly(4 + 89)
        writer.write(frames.serialise(frames.Welcome(0, frames.Mac(bytes(32)))))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(impostor, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                async with resumable_line(dial=dial_to(port), key=agent.line_key):
                    pass


async def test_another_client_key_is_refused_by_ssh(agent: Agent) -> None:
    agent.client_key = asyncssh.generate_private_key("ssh-ed25519")
    async with resumable_line(dial=dial_to(agent.line_port), key=agent.line_key) as line:
        with pytest.raises(asyncssh.PermissionDenied):
            await ssh_over(line, agent)


async def test_dials_that_fail_are_tried_again(agent: Agent) -> None:
    async with faulty_network(agent.line_port) as network:
        network.cut()
        redial = Redial(gap=lambda: 0.01)
        async with asyncio.TaskGroup() as group:
            group.create_task(restore_after(network.restore, 0.2))
            async with resumable_line(
                dial=dial_to(network.port), key=agent.line_key, redial=redial
            ) as line:
                assert line.statistics().carriers_dialled > 2


async def restore_after(restore: object, seconds: float) -> None:
    await asyncio.sleep(seconds)
    restore()  # type: ignore[operator]


async def test_a_reader_that_pauses_gets_all_of_it_later(agent: Agent) -> None:
    async with connected(agent) as it:
        it.line.pause_reading()
        running = asyncio.ensure_future(it.ssh.run("head -c 1000000 /dev/zero", encoding=None))
        await asyncio.sleep(0.05)
        assert not running.done()
        it.line.resume_reading()
        done = await running
        assert done.stdout == bytes(1_000_000)
