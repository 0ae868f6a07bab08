"""A process told apart from a later one with the same number."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process by its number and the clock tick (since boot) of its start."""

    pid: int
    started: int
    boot: str

    @classmethod
    def running(cls, pid: int) -> Process | None:
        """The process with that number, or None if there is none (or only its zombie)."""
        stat = _stat(pid)
        if stat is None or stat[0] in "ZX":
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(pid=pid, started=int(stat[19]), boot=boot)

    @classmethod
    def load(cls, path: Path) -> Process | None:
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    def alive(self) -> bool:
        return Process.running(self.pid) == self

    def children(self) -> list[Process]:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        mine = [pid for pid in pids if (stat := _stat(pid)) and int(stat[1]) == self.pid]
        return [process for pid in mine if (process := Process.running(pid))]

    def kill(self) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait_gone(self, *, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent, …; 19 is the start time."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()
