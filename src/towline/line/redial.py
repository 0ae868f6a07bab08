"""When to dial the next carrier, as a pure rule. Does no I/O and reads no clock."""

from __future__ import annotations

from collections.abc import Callable
from random import uniform

#: At most so many dials are under way at once: one that hangs does not hold back
#: the next, and an API server that is slow is not flooded. The agent greets four.
AT_ONCE = 3
#: Between two dials, at random, so that a hundred clients of an API server that
#: came back do not come in step.
GAP_S = (0.25, 0.5)
#: A dial that has brought no WELCOME by then is given up. TLS and upgrade take
#: 60 ms on a good path; 10 s is two lost SYNs and slack.
DIAL_WITHIN_S = 10.0
#: Silence of the other side: asked for a sign of life, then dialled beside. Noticed within
#: 2 s is what is promised, a busy loop's delay included.
PING_AFTER_S = 1.0
SILENT_AFTER_S = 1.9
#: A carrier that the agent heard nothing of for so long is ended by it: what still comes of
#: such a one was under way, and its end is right behind it.
AGENT_GIVES_UP_AFTER_S = 4.0
#: The boot-time clock running ahead of the monotonic one by more means that the
#: laptop slept, and whatever carrier it had is dead.
SLEPT_S = 1.0


class Redial:
    """Says how long to wait before the next dial."""

    def __init__(self, *, gap: Callable[[], float] | None = None) -> None:
        self._gap = gap or (lambda: uniform(*GAP_S))
        self._next_at: float | None = None
        self.under_way = 0

    @property
    def wanted(self) -> bool:
        """A carrier is missing, or its better is looked for."""
        return self._next_at is not None

    def want(self, now: float) -> None:
        """A carrier is needed; what is under way already goes on."""
        if self._next_at is None:
            self._next_at = now

    def hurry(self, now: float) -> None:
        """The network is another one now: the next dial is due at once."""
        if self._next_at is not None:
            self._next_at = now

    def settle(self) -> None:
        """There is a carrier that answers."""
        self._next_at = None

    def dialled(self, now: float) -> None:
        """A dial began."""
        self.under_way += 1
        if self._next_at is not None:
            self._next_at = now + self._gap()

    def ended(self) -> None:
        """A dial ended, in whichever way."""
        self.under_way -= 1

    def wait_s(self, now: float) -> float | None:
        """Seconds to the next dial; None while none is to be made."""
        if self._next_at is None or self.under_way >= AT_ONCE:
            return None
        return max(0.0, self._next_at - now)
