"""What no watch tells is found by looking at everything now and then; `sync.verbose`."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from towline.sync.events import InStep, Went

from .conftest import Agent
from .syncing import Pair, pair_in, syncing, write


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return pair_in(tmp_path)


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file in memory: what is written there makes no event (inotify(7))."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        yield memory


async def test_a_write_that_no_watch_tells_of_goes_over_at_the_next_rescan(
    agent: Agent, pair: Pair
) -> None:
    ours = write(pair.laptop, "ours", "as it was")
    write(pair.laptop, "theirs", "as it was")
    with mapped(ours) as here:
        async with syncing(agent, pair, rescan_s=1.5):
            here[:9] = b"mapped it"
            await pair.until(lambda: (pair.container / "ours").read_text() == "mapped it")
            with mapped(pair.container / "theirs") as there:
                there[:9] = b"mapped, 2"
                await pair.until(lambda: (pair.laptop / "theirs").read_text() == "mapped, 2")


async def test_each_path_that_goes_over_is_told_where_it_is_asked_for(
    agent: Agent, pair: Pair
) -> None:
    write(pair.laptop, "a/b", "laptop's")
    async with syncing(agent, pair, tells_each=True):
        assert pair.told.of(Went) == [
            Went(path="a", side="container", is_gone=False),
            Went(path="a/b", side="container", is_gone=False),
        ]
        write(pair.container, "made", "container's")
        made = await pair.told.seen(Went, count=3)
        assert made == Went(path="made", side="laptop", is_gone=False)
        (pair.laptop / "a/b").unlink()
        gone = await pair.told.seen(Went, count=4)
        assert gone == Went(path="a/b", side="container", is_gone=True)
        await pair.told.seen(InStep, count=3)
