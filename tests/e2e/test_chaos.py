"""Faults under load. With TOWLINE_CHAOS=FILE, all of them, and the table goes into FILE."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fakes.badserver import BadServer

from . import chaos
from .conftest import Node, Towline
from .test_guard import guard_runs
from .ways import Loop, Network, through_server

INTO = os.environ.get("TOWLINE_CHAOS")
# Of the laptop: longer than `giveBackAfter`.
SLEEP_S = float(os.environ.get("TOWLINE_CHAOS_SLEEP_S", "300"))
TIMES = int(os.environ.get("TOWLINE_CHAOS_TIMES", "3"))
LENGTHS_S = [float(each) for each in os.environ.get("TOWLINE_CHAOS_S", "1,5,20,60").split(",")]
pytestmark = [pytest.mark.usefixtures("unchanged"), pytest.mark.timeout(4 * 3600 if INTO else 400)]


def nothing_lost(rows: list[chaos.Row]) -> None:
    for row in rows:
        assert not row.unhealed, f"{row.unhealed}\n{chaos.table(rows)}"
        assert row.restarted == 0, chaos.table(rows)
        if not row.fault.breaks:
            assert (row.lost.bytes, row.lost.connections) == (0, 0), (
                row.lost.note + "\n" + chaos.table(rows)
            )


@pytest.mark.skipif(INTO is not None, reason="the long form has it all")
def test_a_short_form_of_it_loses_nothing(node: Node, namespace: str, network: Network) -> None:
    faults = chaos.network_faults(network, 4.0) + chaos.other_faults(network, 4.0)
    loads = [chaos.Requests(), chaos.Transfers(20, over_s=40.0), chaos.Typing()]
    with chaos.session_of(network.person, node) as setup:
        nothing_lost(chaos.run(setup, faults, loads))


@pytest.mark.skipif(INTO is not None, reason="the long form has it all")
def test_an_api_server_and_a_pod_that_fail_under_load_restart_nothing(
    node: Node, namespace: str, towline: Towline, token: str, loop: Loop
) -> None:
    with (
        through_server(BadServer, towline, token=token, loop=loop) as (server, person),
        chaos.session_of(person, node) as setup,
    ):
        loads = [chaos.Requests(), chaos.Transfers(20, over_s=30.0), chaos.Typing()]
        nothing_lost(chaos.run(setup, chaos.api_faults(server, loop, 4.0), loads))
        rows = chaos.run(setup, chaos.pod_faults(), [chaos.Requests()])
        nothing_lost(rows)
        assert all(row.healed_s for row in rows), chaos.table(rows)


@pytest.mark.skipif(INTO is not None, reason="the long form has a longer one")
def test_a_sleep_in_which_the_original_answers_leaves_open_connections_intact(
    node: Node, namespace: str, network: Network
) -> None:
    """Everything of the laptop's stopped, its network frozen, and its connections dead after."""
    loads = [chaos.Requests(2), chaos.Requests(2, through_forward=True)]
    with chaos.session_of(network.person, node, giveBackAfter="6s") as setup:
        guard_runs(node, namespace, setup.session.id)
        nothing_lost(chaos.run(setup, [chaos.long_sleep(network, 30.0)], loads))
        assert not setup.count("pod-replaced"), "the same line"


@pytest.mark.skipif(INTO is None, reason="make chaos")
def test_all_of_the_network(node: Node, namespace: str, network: Network) -> None:
    faults = chaos.network_faults(network, *LENGTHS_S) + chaos.other_faults(network, 5.0)
    faults.append(chaos.long_sleep(network, SLEEP_S))
    under_all_loads("chaos", network.person, node, faults)


@pytest.mark.skipif(INTO is None, reason="make chaos")
def test_all_beside_the_network(
    node: Node, namespace: str, towline: Towline, token: str, loop: Loop
) -> None:
    with through_server(BadServer, towline, token=token, loop=loop) as (server, person):
        faults = chaos.api_faults(server, loop, 5.0) + chaos.pod_faults()
        under_all_loads("chaos beside the network", person, node, faults)


def under_all_loads(name: str, person: Towline, node: Node, faults: list[chaos.Fault]) -> None:
    """Each fault as often as wanted under each load, but a pod's end under a transfer."""
    assert INTO is not None
    began, before = time.time(), chaos.machine()
    # What is in between takes time, too: the answers that show a heal, components that restart.
    over_s = sum(chaos.times(fault, TIMES) * (fault.lasts_s + 4) for fault in faults)
    rows: list[chaos.Row] = []

    def under(load: chaos.Load, faults: list[chaos.Fault]) -> list[chaos.Row]:
        """In one session; a fault that is not healed ends it, and the next one has another."""
        found: list[chaos.Row] = []
        while left := faults[len(found) :]:
            with chaos.session_of(person, node) as setup:
                ran = chaos.run(setup, left, [load], repeated=TIMES)
            found += [row for row in ran if row.times]
        return found

    for load in (chaos.Idle(), chaos.Requests(), chaos.Transfers(200, over_s=over_s),
                 chaos.Typing()):  # fmt: skip
        rows += under(load, [fault for fault in faults if not fault.breaks])
        if not isinstance(load, chaos.Transfers):
            # Each by itself: what it takes along is not another's loss.
            for fault in faults:
                rows += under(load, [fault]) if fault.breaks else []
        # After each load: what is known is not lost with a later one.
        told, seconds = chaos.table(rows), time.time() - began
        chaos.write(Path(INTO), name, told, seconds=seconds, before=before)
    nothing_lost(rows)
