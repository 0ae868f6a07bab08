from __future__ import annotations

import asyncio

import pytest

from towline._kit.tasks import settled


async def test_what_was_done_while_cancelled_is_undone() -> None:
    """A record whose write was cancelled stayed in the cluster until the next `down`."""
    answers = asyncio.Event()
    undone: list[str] = []

    async def write() -> str:
        await answers.wait()
        return "written"

    async def undo(made: str) -> None:
        undone.append(made)

    task = asyncio.get_running_loop().create_task(settled(write(), undo=undo))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "it waits for the answer"
    answers.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == ["written"]


async def test_nothing_is_undone_where_nothing_was_done() -> None:
    async def fail() -> str:
        raise ValueError("refused")

    async def undo(made: str) -> None:
        raise AssertionError(made)

    with pytest.raises(ValueError, match="refused"):
        await settled(fail(), undo=undo)
