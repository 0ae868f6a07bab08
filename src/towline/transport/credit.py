"""Credit on tunnel channels: how much the other side may send ahead of the reader. [pure]

SSH's own windows are per channel and constant in the agent's library, so a thousand
channels could hold a thousand windows of memory. A grant from one budget bounds their
sum, and still lets the one busy channel have a large window. The agent does the same.
"""

from __future__ import annotations

# What each side may send before the first grant; docs/protocol.md.
CLIENT_INITIAL_BYTES = 16 * 1024
AGENT_INITIAL_BYTES = 64 * 1024
# Enough for 120 MB/s at 50 ms. On one machine, too, 2 MiB left the chain of sockets half
# empty: 20 % more CPU time in all of it per byte, for wake-ups.
WINDOW_MAX_BYTES = 6 * 1024 * 1024
BUDGET_BYTES = 64 * 1024 * 1024


class Budget:
    """What all channels together may have granted beyond their first window."""

    def __init__(self, total_bytes: int = BUDGET_BYTES) -> None:
        self.free_bytes = total_bytes

    def take(self, wanted_bytes: int) -> int:
        """Take up to `wanted_bytes`; returns what was there."""
        taken = min(wanted_bytes, self.free_bytes)
        self.free_bytes -= taken
        return taken

    def give_back(self, taken_bytes: int) -> None:
        self.free_bytes += taken_bytes


class Grants:
    """The receiving side of one channel: what to grant as its bytes are consumed."""

    def __init__(self, budget: Budget, *, initial_bytes: int = AGENT_INITIAL_BYTES) -> None:
        self._budget = budget
        self._window = initial_bytes
        self._taken = 0
        self._consumed = 0
        self._since_growth = 0
        self._over = False

    def consumed(self, count: int) -> int:
        """Count bytes that the reader took; returns the grant to send now, 0 for none yet."""
        self._consumed += count
        self._since_growth += count
        # A quarter of the window keeps the sender going without a grant per packet.
        if self._consumed < self._window // 4:
            return 0
        grant, self._consumed = self._consumed, 0
        # A whole window has gone through: a larger one may be what it waits for.
        # After the end nothing would give back what is taken.
        grows = self._window < WINDOW_MAX_BYTES and not self._over
        if self._since_growth >= self._window and grows:
            self._since_growth = 0
            growth = self._budget.take(min(self._window, WINDOW_MAX_BYTES - self._window))
            self._taken += growth
            self._window += growth
            grant += growth
        return grant

    def end(self) -> None:
        """The channel is over: its share of the budget is free again."""
        self._over = True
        self._budget.give_back(self._taken)
        self._taken = 0
