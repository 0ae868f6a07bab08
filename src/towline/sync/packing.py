"""Frames packed for a slow network; docs/protocol.md.

Deflate at its fastest packs about 100 MB/s of source text to a third. A port-forward on one
machine is as fast as that and only loses by it; one over a network is mostly slower.
"""

from __future__ import annotations

import zlib

from towline.errors import TowlineError

# A connection that carries more gains nothing.
_FAST_BYTES_PER_S = 40e6
# Before anything was sent: an answer that takes so long came over a network.
_FAR_S = 0.005
# So much is measured before it counts, and then half of it is forgotten.
_MEASURED_BYTES = 1 << 20
_LEVEL = 1
_WORTH = 0.9
_SKIPS_AT_MOST = 64
PACKED_BYTES_AT_MOST = 4 << 20


class Packing:
    """Whether packing pays on a connection.

    Attributes:
        is_on: what was said of it before it was measured, or what the measurements say.
    """

    def __init__(self, wanted: bool | None = None) -> None:
        self._is_fixed = wanted is not None
        self.is_on = bool(wanted)
        self._bytes = 0
        self._seconds = 0.0
        self._skips = self._skipped = 0

    def first_answer(self, seconds: float) -> None:
        """Note how long a first question and its answer took."""
        if not self._is_fixed:
            self.is_on = seconds > _FAR_S

    def sent(self, size: int, seconds: float) -> None:
        """Note how long it took until so many bytes were taken."""
        self._bytes += size
        self._seconds += seconds
        if self._is_fixed or self._bytes < _MEASURED_BYTES:
            return
        self.is_on = self._bytes > 0 and self._seconds * _FAST_BYTES_PER_S > self._bytes
        self._bytes //= 2
        self._seconds /= 2

    def packed(self, frames: bytes) -> bytes | None:
        """The frames, smaller, or None where that is not worth it; blocking."""
        if not self.is_on or len(frames) > PACKED_BYTES_AT_MOST:
            return None
        if self._skipped < self._skips:
            self._skipped += 1
            return None
        content = zlib.compress(frames, _LEVEL)
        if len(content) > len(frames) * _WORTH:
            # What is packed already comes in long runs.
            self._skips, self._skipped = min(2 * self._skips + 1, _SKIPS_AT_MOST), 0
            return None
        self._skips = self._skipped = 0
        return content


def unpacked(content: bytes) -> bytes:
    """The frames of a packed one.

    Raises:
        TowlineError: it is none, or larger than it may be.
    """
    stream = zlib.decompressobj()
    try:
        frames = stream.decompress(content, PACKED_BYTES_AT_MOST)
    except zlib.error as error:
        raise TowlineError(f"the agent sent what cannot be unpacked: {error}") from error
    if not stream.eof:
        raise TowlineError("the agent sent a packed frame that is too large")
    return frames
