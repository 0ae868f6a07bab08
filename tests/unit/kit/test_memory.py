"""What a start left behind goes back to the system."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

# In a process of its own: the freeze and the trim are for the whole process.
_PROGRAM = """
from pathlib import Path
from towline._kit.memory import settle
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
pieces = [bytes(1000) for _ in range(40_000)]
kept = pieces[-1]   # at the heap's end, which keeps the rest from going back by itself
ring = []; ring.append(ring); ring.append(bytes(8 << 20))
del pieces, ring
before = resident()
settle()
print(before - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc_trim")
def test_free_memory_goes_back_and_rings_are_broken() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert int(told) > 30 << 20
    assert gc.get_freeze_count() == 0, "of this process"
