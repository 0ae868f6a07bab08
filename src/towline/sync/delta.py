"""A large file as what is not in the version that the other side has.

The client only sums up its own version block by block, which the standard library does at
the disk's speed; the agent looks for these blocks at every offset of its own
(agent/internal/sync/delta.go), whichever way the file goes. So an insertion costs a block,
in both directions, with no code of ours that goes through bytes in Python.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

# Below that a file goes whole: the sums would cost a round trip.
FILE_BYTES_AT_LEAST = 1 << 20
_BLOCK_BYTES_AT_LEAST = 16 << 10
_BLOCK_BYTES_AT_MOST = 4 << 20
_BLOCKS_WANTED = 16_384
_DIGEST_BYTES = 8


class Copied(NamedTuple):
    """A block of the laptop's version, where the container's has the same."""

    block: int


class Base(NamedTuple):
    """The laptop's version, summed up for the agent."""

    block_bytes: int
    sums: bytes


def block_bytes(size: int) -> int:
    """How large the blocks of a file are: one changed byte costs one, and the sums of all."""
    block = _BLOCK_BYTES_AT_LEAST
    while block < _BLOCK_BYTES_AT_MOST and block * _BLOCKS_WANTED < size:
        block *= 2
    return block


def sums(fd: int, block: int, *, size: int) -> bytes:
    """A sum of each whole block; blocking.

    Raises:
        OSError: it cannot be read.
    """
    found = bytearray()
    for at in range(0, size - block + 1, block):
        content = os.pread(fd, block, at)
        if len(content) < block:
            break
        found += zlib.adler32(content).to_bytes(4)
        found += hashlib.sha256(content).digest()[:_DIGEST_BYTES]
    return bytes(found)


def lacking(answer: bytes) -> Iterator[tuple[int, int]]:
    """The runs of blocks that the agent has not: the first, and how many.

    Raises:
        ValueError: that is no such answer.
    """
    count = int.from_bytes(answer[:4])
    if len(answer) != 4 + 8 * count:
        raise ValueError("the agent's answer to a delta is shorter than it says")
    for at in range(4, len(answer), 8):
        yield int.from_bytes(answer[at : at + 4]), int.from_bytes(answer[at + 4 : at + 8])
