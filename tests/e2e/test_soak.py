"""A long session under load and faults grows nowhere. With TOWLINE_SOAK=FILE, the long form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from . import chaos, soak
from .conftest import Node
from .ways import Network

INTO = os.environ.get("TOWLINE_SOAK")
MINUTES = float(os.environ.get("TOWLINE_SOAK_MINUTES", "60" if INTO else "7"))
# After 1 GiB in one direction SSH changes its keys.
MEGABYTES = 1100
pytestmark = [pytest.mark.usefixtures("unchanged"), pytest.mark.timeout(MINUTES * 60 + 400)]


def test_nothing_grows_and_nothing_is_lost(node: Node, network: Network) -> None:
    before = chaos.machine()
    with chaos.session_of(network.person, node) as setup:
        result = soak.run(
            setup, network, minutes=MINUTES, megabytes=MEGABYTES, fault_every_s=60 if INTO else 20
        )
    told = soak.table(result)
    if INTO:
        chaos.write(Path(INTO), "soak", told, seconds=result.seconds, before=before)
    assert (result.lost.bytes, result.lost.connections) == (0, 0), f"{result.lost.note}\n{told}"
    assert result.lost.moved == 2 * MEGABYTES << 20
    assert result.restarted == 0, told
    # More than the noise of an allocator, less than a leak for each request or fault.
    for side in ("client", "agent"):
        assert result.of(f"{side}, memory").growth() < 8192, told
        assert result.of(f"{side}, descriptors").growth() <= 3, told
