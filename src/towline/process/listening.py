"""Which local TCP ports are listened on, by whom, and by the command among them.

From the system's own table, so that nothing is connected to that did not ask for
it: a debug port takes the first connection for its debugger. Only where the
table cannot be read (macOS) is one connection tried.

What is not `async` here reads /proc and blocks: about a millisecond for the
table, some tens for all processes' descriptors.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from towline.manifest.model import Port
from towline.process.sockdiag import listening_sockets

_PROC = Path("/proc")
_LISTEN = "0A"  # TCP_LISTEN in Linux's tcp_states.h
_CONNECT_S = 1.0  # on the loopback it answers at once, unless its backlog is full
# Where a connection to all addresses of a family goes.
_DIALLED = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """One listening socket of the table."""

    port: Port
    address: str
    inode: int

    @property
    def answers_on_loopback(self) -> bool:
        """Whether a connection to localhost, of either family, reaches it."""
        address = ipaddress.ip_address(self.address)
        mapped = getattr(address, "ipv4_mapped", None)
        return address.is_unspecified or str(mapped or address) in _LOOPBACK


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that has a port."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def listeners(
    *, ports: Container[int] | None = None, proc: Path = _PROC
) -> tuple[Listener, ...] | None:
    """Every listening TCP socket of this network namespace; None where that is not told.

    Args:
        ports: where it is cheaper, only these.
    """
    if proc == _PROC and (told := listening_sockets(ports)) is not None:
        return tuple(sorted(Listener(Port(port), text, inode) for port, text, inode in told))
    found: list[Listener] = []
    is_told = False
    for name in ("tcp", "tcp6"):
        with suppress(OSError, ValueError):
            found += parse_table((proc / "net" / name).read_text())
            is_told = True
    return tuple(sorted(found)) if is_told else None


def only_on_loopback(ports: Iterable[int]) -> frozenset[int]:
    """Those of some ports that are listened on at localhost, and not on all addresses."""
    wanted = set(ports)
    table = [each for each in listeners() or () if each.port in wanted]
    everywhere = {e.port for e in table if ipaddress.ip_address(e.address).is_unspecified}
    return frozenset(e.port for e in table if e.answers_on_loopback) - everywhere


def parse_table(text: str) -> list[Listener]:
    """The listening sockets in the text of /proc/net/tcp or tcp6 (proc(5)).

    Raises:
        ValueError: it is not such a table.
    """
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        address, _, port = fields[1].partition(":")
        found.append(Listener(Port(int(port, 16)), _address(address), int(fields[9])))
    return found


def _address(text: str) -> str:
    # Words of 32 bits in the machine's order, and all machines here are little endian.
    raw = bytes.fromhex(text)
    words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
    return str(ipaddress.ip_address(b"".join(words)))


async def listening_among(ports: Iterable[int], *, host: str = "localhost") -> frozenset[int]:
    """Which of some ports something answers at, by one look at the table."""
    ports = frozenset(ports)
    table = listeners(ports=ports)
    if table is None:
        return frozenset([port for port in ports if await answers(Port(port), host=host)])
    if host == "localhost":
        there = {entry.port for entry in table if entry.answers_on_loopback}
    else:
        found_by = (host, _DIALLED.get(host), "0.0.0.0", "::")
        there = {entry.port for entry in table if entry.address in found_by}
    return frozenset(there & ports)


async def is_listening(port: Port, *, host: str = "localhost") -> bool:
    """Whether something answers at the port on this machine, now.

    `localhost` means either family; another host must be listened on as such, or all are.
    """
    return port in await listening_among([port], host=host)


async def answers(port: Port, *, host: str) -> bool:
    """Whether one TCP connection is taken."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def ports_of(root: int, *, proc: Path = Path("/proc")) -> frozenset[Port] | None:
    """The ports that a process and everything below it listen on.

    For a command under supervision `root` is its `helper_pid`: what its children
    left behind is below that, too. None where it is not told.
    """
    table = listeners(proc=proc)
    if table is None:
        return None
    inodes: set[int] = set()
    for pid in tree(root, proc=proc):
        inodes |= _socket_inodes(pid, proc)
    return frozenset(entry.port for entry in table if entry.inode in inodes)


def owner_of(port: Port, *, proc: Path = Path("/proc")) -> Owner | None:
    """Who listens on a port; None where nobody does or it is another user's process."""
    wanted = {entry.inode for entry in listeners(proc=proc) or () if entry.port == port}
    if not wanted:
        return None
    for pid in _pids(proc):
        if wanted & _socket_inodes(pid, proc):
            return Owner(pid, _name(pid, proc))
    return None


def tree(root: int, *, proc: Path = Path("/proc")) -> frozenset[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for pid in _pids(proc):
        with suppress(OSError, ValueError, IndexError):
            # After the name, which stands in parentheses and may hold anything.
            fields = (proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    todo = [root]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return frozenset(found)


def _pids(proc: Path) -> Iterable[int]:
    try:
        return [int(path.name) for path in proc.iterdir() if path.name.isdigit()]
    except OSError:
        return ()


def _socket_inodes(pid: int, proc: Path) -> set[int]:
    found: set[int] = set()
    try:
        fds = list((proc / str(pid) / "fd").iterdir())
    except OSError:
        return found
    for fd in fds:
        with suppress(OSError, ValueError):
            link = str(fd.readlink())
            if link.startswith("socket:["):
                found.add(int(link[8:-1]))
    return found


def _name(pid: int, proc: Path) -> str:
    with suppress(OSError):
        return (proc / str(pid) / "comm").read_text(errors="replace").strip()
    return "a process"
