"""How a process ended, and the ladder by which it is made to end."""

from __future__ import annotations

import signal
from dataclasses import dataclass

# SIGHUP, SIGINT, SIGTERM; by number, for Windows has no names for all of them.
_FROM_OUTSIDE = (1, 2, 15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A process's end: an exit code, or the number of the signal that ended it."""

    code: int | None = None
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """As a shell tells it: the code, or 128 and the signal's number."""
        if self.signal is not None:
            return 128 + self.signal
        return self.code if self.code is not None else 1

    @property
    def is_failure(self) -> bool:
        """Whether it went wrong by itself: what a signal ended was ended by somebody.

        Shells, and programs that clean up first, tell of Ctrl-C and its kin by their code.
        """
        by_somebody = (0, *(128 + number for number in _FROM_OUTSIDE))
        return self.signal is None and self.code not in by_somebody

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        try:
            return f"signal {signal.Signals(self.signal).name}"
        except ValueError:
            return f"signal {self.signal}"


@dataclass(frozen=True, slots=True)
class Rung:
    """A signal, and how long everything has to be gone after it."""

    number: int
    wait_s: float


# 5 s is what a development server that closes its connections and a database
# need; Kubernetes gives 30, but there nobody sits and waits for the prompt. After
# SIGKILL only the kernel is waited for (a process in a system call on a dead
# network disk does not go).
DEFAULT_LADDER = (
    Rung(signal.SIGINT, 5.0),
    Rung(signal.SIGTERM, 5.0),
    # Windows has no such name, and no command is run there yet.
    Rung(getattr(signal, "SIGKILL", 9), 5.0),
)
