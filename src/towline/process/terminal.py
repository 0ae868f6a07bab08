"""The terminal: lent to the command's process group, and taken back on every exit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]


class Terminal:
    """The controlling terminal of this process, which is in its foreground now.

    Job control as in glibc's manual, "Implementing a Shell": modes are saved for
    each side, and SIGTTOU is blocked while the terminal is taken from the background.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own_group = os.getpgrp()
        self._own_modes = termios.tcgetattr(fd)
        self._command_modes: list[Any] | None = None
        self._handler: Any = None

    @classmethod
    def of_this_process(cls) -> Terminal | None:
        """None where there is none, or where a shell runs us in the background."""
        if termios is None:
            return None
        try:
            fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return None
        if os.tcgetpgrp(fd) != os.getpgrp():
            os.close(fd)
            return None
        return cls(fd)

    @property
    def modes(self) -> list[Any]:
        return self._own_modes

    @property
    def group(self) -> int:
        return self._own_group

    def ignore_stop(self) -> None:
        """Towline never stops itself: a Ctrl-Z between two commands does nothing."""
        with suppress(ValueError):  # not the main thread, which alone has handlers
            self._handler = signal.signal(signal.SIGTSTP, signal.SIG_IGN)

    def take_back(self) -> None:
        """Into the foreground again, with the modes that were found at the start.

        Not from the shell that runs us: it has it only if we are its background
        job by now (`kill -STOP`, then `bg`), and then it is its own.
        """
        with _sigttou_blocked(), suppress(OSError, termios.error):
            foreground = os.tcgetpgrp(self._fd)
            if foreground != self._own_group:
                if foreground in (os.getsid(0), os.getpgid(os.getppid())):
                    return
                self._command_modes = termios.tcgetattr(self._fd)
                os.tcsetpgrp(self._fd, self._own_group)
            # TCSANOW, not TCSADRAIN: output held by a Ctrl-S would hold us too.
            termios.tcsetattr(self._fd, termios.TCSANOW, self._own_modes)

    def lend(self, group: int) -> None:
        """To a command that goes on, with the modes that it had when it was stopped."""
        with _sigttou_blocked(), suppress(OSError, termios.error):
            if self._command_modes is not None:
                termios.tcsetattr(self._fd, termios.TCSANOW, self._command_modes)
            os.tcsetpgrp(self._fd, group)

    def close(self) -> None:
        self.take_back()
        if self._handler is not None:
            with suppress(ValueError):
                signal.signal(signal.SIGTSTP, self._handler)
        os.close(self._fd)


@contextmanager
def _sigttou_blocked() -> Iterator[None]:
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
