"""Large files go over as what changed in them, and slow connections get them packed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from .conftest import Agent
from .syncing import Pair, pair_in, syncing, write

SIZE = 24_000_000


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return pair_in(tmp_path)


@pytest.mark.parametrize("side", ["laptop", "container"])
async def test_of_a_large_file_only_what_changed_goes_over(
    agent: Agent, pair: Pair, side: str
) -> None:
    content = bytearray(os.urandom(SIZE))
    write(pair.laptop, "large", bytes(content))
    root: Path = getattr(pair, side)
    chance = random.Random(1)
    async with syncing(agent, pair, compression=False):
        await pair.alike()

        async def costs(at_most: int) -> None:
            before = pair.carried_bytes
            write(root, "large", bytes(content))
            await pair.alike(within_s=30)
            assert pair.carried_bytes - before < at_most

        # One byte; one put in; one taken out; the end cut off; something more; at ten places.
        content[SIZE // 2] ^= 1
        await costs(200_000)
        content.insert(1_000_000, 7)
        await costs(200_000)
        del content[5_000_000]
        await costs(200_000)
        del content[-3_000_001:]
        await costs(200_000)
        content += os.urandom(500_000)
        await costs(800_000)
        for _ in range(10):
            content.insert(chance.randrange(len(content)), 9)
        await costs(600_000)
        content[:] = content[SIZE // 3 :] + content[: SIZE // 3]
        await costs(200_000)
        # A file that repeats itself, a byte further each time.
        part = bytes(content[:1_000_000])
        content[:] = b"".join(part[number:] + part[:number] for number in range(24))
        await costs(SIZE + 1_000_000)
        content[SIZE // 3] ^= 1
        await costs(200_000)


async def test_a_large_file_that_is_another_altogether_goes_over_whole(
    agent: Agent, pair: Pair
) -> None:
    write(pair.laptop, "large", os.urandom(3_000_000))
    write(pair.laptop, "zeros", bytes(3_000_000))
    async with syncing(agent, pair):
        await pair.alike()
        write(pair.laptop, "large", os.urandom(3_000_001))
        write(pair.container, "zeros", bytes(2_000_000) + b"1" + bytes(1_000_000))
        await pair.alike()


@pytest.mark.parametrize("side", ["laptop", "container"])
async def test_packed_contents_arrive_as_they_are(agent: Agent, pair: Pair, side: str) -> None:
    text = b"".join(b"line %d of some source text\n" % number for number in range(40_000))
    root: Path = getattr(pair, side)
    async with syncing(agent, pair, compression=True):
        before = pair.carried_bytes
        for number in range(200):
            write(root, f"d{number % 5}/f{number}", text[: 10 * number])
        write(root, "text", text)
        await pair.alike()
        assert pair.carried_bytes - before < len(text) // 2
        noise = os.urandom(2_000_000)
        write(root, "noise", noise)
        await pair.alike()
