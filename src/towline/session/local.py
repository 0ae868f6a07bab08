"""What the laptop keeps of a session while it runs: a private folder, gone at its end.

Other commands (`status`, `exec`, `run`, `env`, `logs`, `down`) find the session here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from towline._kit.paths import folders, private, written

if TYPE_CHECKING:
    from towline.transport.keys import Keys

_SESSION, _KEYS = "session.json", "keys.json"
_VERIFIED, _VERIFIED_AT_MOST = "verified-pieces", 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSession:
    """A session of this laptop.

    Attributes:
        pid, started: the client's process, and when the kernel says it started: a
            number that is given to another process later does not pass for it.
        stage: the last stage that was reached.
        gate_open: None before there is a gate.
        keep_for_s: how long the agent keeps a line without a carrier.
        home: the folder's name, where that is not the session's: it was taken over anew.
        sync: the state of each synced folder, in words.
    """

    session: str
    pid: int
    started: str
    since: str
    context: str
    namespace: str
    kubeconfig: str
    manifest: str
    entry: str
    mode: str
    workload: str
    container: str
    line_port: int
    # The default of a manifest, for a session that an older client began.
    keep_for_s: float = 600.0
    pod: str | None = None
    command_pid: int | None = None
    command: str | None = None
    ports: tuple[str, ...] = ()
    sync: tuple[str, ...] = ()
    stage: str = "cluster"
    gate_open: bool | None = None
    connected_since: str | None = None
    round_trip_s: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    home: str | None = None

    @property
    def folder(self) -> Path:
        return _folder() / (self.home or self.session)

    @property
    def log(self) -> Path:
        """Where the local process's output goes with `--detach`."""
        return self.folder / "process.log"

    @property
    def reverse_ports(self) -> tuple[int, ...]:
        """The local ports that its process listens on."""
        pairs = [port.removeprefix("reverse ") for port in self.ports if "reverse " in port]
        return tuple(int(pair.rpartition(":")[2]) for pair in pairs)

    def keys(self) -> Keys:
        """The session's keys. Raises OSError when the session is over."""
        # Most commands only look for sessions, and cryptography takes its time to import.
        from towline.transport.keys import Keys

        return Keys.from_json((self.folder / _KEYS).read_text())

    @property
    def alive(self) -> bool:
        """Whether the client's process is still there."""
        return process_started(self.pid) == self.started


def process_started(pid: int) -> str:
    """When a process started, by the kernel's own clock; "" when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _exists(pid)
    # Fields 3 and 22, counted behind the name, which may hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    # One that has ended and whose parent has not asked yet how is not there any more.
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> str:
    """Without /proc (macOS): only whether there is such a process."""
    if Path("/proc/self").exists():
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "alive"


def _folder() -> Path:
    return private(folders(os.environ).state) / "sessions"


@contextmanager
def kept(session: LocalSession, keys: Keys) -> Iterator[None]:
    """Keep a session's files while the block runs.

    Raises:
        TowlineError: they cannot be written.
    """
    folder = session.folder
    try:
        with written(folder):
            folder.mkdir(mode=0o700, parents=True)
            _write(folder / _KEYS, keys.to_json())
            _write(folder / _SESSION, _text(session))
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save(session: LocalSession) -> None:
    """Write a session's present state; a reader never sees half of it."""
    with suppress(OSError):
        _write(session.folder / _SESSION, _text(session))


def _text(session: LocalSession) -> str:
    return json.dumps(asdict(session))


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    partial.replace(path)


def verified_pieces() -> set[str]:
    """The pieces that were read and hashed before; `cluster.pieces` says how they are named."""
    try:
        return set((private(folders(os.environ).state) / _VERIFIED).read_text().split("\n"))
    except OSError:
        return set()


def keep_verified_pieces(verified: set[str]) -> None:
    """Remember them for the next session; too many are forgotten and read again."""
    kept = verified if len(verified) <= _VERIFIED_AT_MOST else set()
    with suppress(OSError):
        _write(private(folders(os.environ).state) / _VERIFIED, "\n".join(sorted(kept)))


def sessions() -> list[LocalSession]:
    """The sessions of this laptop whose client runs; what dead ones left is swept away."""
    found = []
    folder = _folder()
    if not folder.is_dir():
        return []
    for each in sorted(folder.iterdir()):
        try:
            values = json.loads((each / _SESSION).read_text())
            session = LocalSession(
                **{
                    **values,
                    "ports": tuple(values["ports"]),
                    "sync": tuple(values.get("sync", ())),
                }
            )
        except (OSError, ValueError, TypeError, KeyError):
            continue  # being made, or being removed, at this moment
        if session.alive:
            found.append(session)
        else:
            shutil.rmtree(each, ignore_errors=True)
    return found
