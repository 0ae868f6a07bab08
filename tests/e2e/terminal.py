"""A session in a terminal, with somebody who types."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time

from .conftest import TOWLINE, Towline


class Terminal:
    """`towline up` in a terminal of its own."""

    def __init__(self, towline: Towline, *words: str, rows: int = 31, columns: int = 91) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (rows, columns))
        self.seen = b""
        self.process = subprocess.Popen(
            [*towline.prefix, TOWLINE, "up", *words],
            cwd=towline.folder,
            env=towline.environ(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self._ours, text)

    def read_until(self, text: bytes, *, within_s: float = 60.0) -> None:
        """Read what is shown until a text is among it."""
        deadline = time.monotonic() + within_s
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen.decode()
            self._read()

    def takes_single_keys(self) -> bool:
        """Whether a key is read without Enter behind it."""
        return not termios.tcgetattr(self._ours)[3] & termios.ICANON

    def end(self, *, within_s: float = 60.0) -> int:
        """Read until the process has ended; returns its exit code."""
        deadline = time.monotonic() + within_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen.decode()
            self._read()
        return self.process.returncode

    def _read(self) -> None:
        if select.select([self._ours], [], [], 0.1)[0]:
            try:
                self.seen += os.read(self._ours, 4096)
            except OSError:  # the other side is closed: its process has ended, or ends now
                self.process.wait(60)

    def close(self) -> None:
        """End it, if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
            self.end()
        os.close(self._ours)
