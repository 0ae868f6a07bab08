"""Two tunnel channels joined: a connection that came here and is led back to the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towline.transport.channel import TunnelChannel


class Bridge:
    """One end of two: what its channel brings is written to the other's, and both end together.

    Attributes:
        channel: whose endpoint this is.
    """

    def __init__(self, channel: TunnelChannel, *, on_end: Callable[[], None]) -> None:
        self.channel = channel
        self._other: Bridge | None = None
        self._on_end = on_end
        self._owed = 0
        self._full = False
        self._over = False

    def join(self, other: Bridge) -> None:
        """Lead to and from another end; attach both only then."""
        self._other, other._other = other, self

    def received(self, data: bytes) -> None:
        assert self._other is not None
        self._owed += len(data)
        self._other.channel.write(data)
        if not self._other._full:
            self._pay()

    def channel_eof(self) -> None:
        assert self._other is not None
        # What waits for credit goes first. The agent closes each channel once both of its
        # directions are at their end.
        self._other.channel.write_eof()

    def ended(self, reset: str | None) -> None:
        assert self._other is not None
        self._over = True
        if reset is not None:
            self._other.channel.reset(reset)
        if self._other._over:
            self._on_end()

    def pause(self, paused: bool) -> None:
        """This channel takes no more: the other side is granted nothing until it does."""
        self._full = paused
        if not paused and self._other is not None:
            self._other._pay()

    def _pay(self) -> None:
        owed, self._owed = self._owed, 0
        if owed:
            self.channel.consumed(owed)
