"""Plain `ssh` into the dev container: a Host entry, its files, and what carries the bytes.

The agent's SSH server runs in a line, so each connection of an ordinary client gets a
line of its own: it outlives a lost network as the session does.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from towline._kit.paths import folders, private, written
from towline._kit.tasks import Tasks
from towline.errors import PortInUse, TowlineError
from towline.manifest.model import Entry
from towline.session.local import LocalSession
from towline.tunnels.forward import addresses_of

if TYPE_CHECKING:
    from towline.cluster.api import Api
    from towline.session.link import Link
    from towline.transport.keys import Keys

_KEY, _KNOWN_HOSTS = "key", "known_hosts"
# Of the agent's (docs/protocol.md). OpenSSH's own defaults change with its versions.
_KEX, _HOST_KEY = "curve25519-sha256,curve25519-sha256@libssh.org", "ssh-ed25519"
_CIPHERS = "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com"


def host_name(session: LocalSession) -> str:
    """The Host that `ssh` is told: the same in each session of an entry."""
    return f"{session.entry.replace('/', '-')}.{session.namespace}.towline"


def ssh_folder(session: LocalSession) -> Path:
    """Where the key and the host key of an entry's sessions are, whichever runs."""
    parts = (session.context, session.namespace, session.entry)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    return private(folders(os.environ).state) / "ssh" / f"{session.entry.replace('/', '-')}-{key}"


def write_identity(session: LocalSession, keys: Keys) -> Path:
    """Write the session's key and the agent's host key, for this user alone.

    Raises:
        TowlineError: they cannot be written.
    """
    folder = ssh_folder(session)
    with written(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / _KEY, keys.client_private)
        _write(folder / _KNOWN_HOSTS, f"{host_name(session)} {keys.host_public.strip()}\n")
    return folder


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    partial.replace(path)


@contextmanager
def identity(session: LocalSession, keys: Keys, *, wanted: bool) -> Iterator[None]:
    """Keep the files that a Host entry names right while a session runs; gone with it.

    Args:
        wanted: write them also if no Host entry was ever asked for.
    """
    if wanted or ssh_folder(session).exists():
        write_identity(session, keys)
    try:
        yield
    finally:
        folder = ssh_folder(session)
        for name in (_KEY, _KNOWN_HOSTS):
            with suppress(OSError):
                (folder / name).unlink()
        if wanted:
            shutil.rmtree(folder, ignore_errors=True)


def host_entry(session: LocalSession, *, remote: int | None, interface: str) -> str:
    """The Host entry for `ssh_config`; with `remote` by that local port.

    Once made it holds for later sessions of the entry, too.
    """
    folder, name = ssh_folder(session), host_name(session)
    if remote is None:
        # Where the session's folder of this moment is not the default one, nor is ssh's.
        proxy = [sys.executable, "-m", "towline.cli.main", "ssh-config", "--proxy"]
        words = shlex.join([*proxy, "--namespace", session.namespace, session.entry])
        way = [("ProxyCommand", words.replace("%", "%%"))]
    else:
        way = [("HostName", interface), ("Port", str(remote))]
    rows = [
        ("User", "towline"),
        *way,
        ("IdentityFile", _quoted(folder / _KEY)),
        ("IdentitiesOnly", "yes"),
        ("IdentityAgent", "none"),
        ("HostKeyAlias", name),
        ("UserKnownHostsFile", _quoted(folder / _KNOWN_HOSTS)),
        ("GlobalKnownHostsFile", "none"),
        ("StrictHostKeyChecking", "yes"),
        ("KexAlgorithms", _KEX),
        ("HostKeyAlgorithms", _HOST_KEY),
        ("Ciphers", _CIPHERS),
        ("MACs", "hmac-sha2-256-etm@openssh.com"),
    ]
    return "".join([f"Host {name}\n", *(f"  {key} {value}\n" for key, value in rows)])


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("%", "%%").replace('"', '\\"') + '"'


class _End(asyncio.Protocol):
    """One end of a carried connection: what comes in here goes out at the other."""

    def __init__(self) -> None:
        self._other: asyncio.WriteTransport | None = None
        # A pipe may have been read before it could be told to wait.
        self._early: list[bytes] = []
        self.reading: asyncio.ReadTransport | None = None
        self.peer: _End | None = None
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not looked at: uvloop's transports are no subclasses of asyncio's.
        self.reading = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
        else:
            self._other.write(data)

    def join(self, other: asyncio.WriteTransport, peer: _End) -> None:
        """Pass on to `other` from here on; `peer` is who reads for it."""
        self._other, self.peer = other, peer
        for data in self._early:
            other.write(data)
        self._early.clear()

    def eof_received(self) -> bool:
        # SSH has its own end in it: half a connection is of no use to it.
        self.over.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.reading is not None:
            self.peer.reading.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.reading is not None:
            self.peer.reading.resume_reading()


async def _carry(
    ours: _End, out: asyncio.WriteTransport, *, api: Api, session: LocalSession
) -> None:
    """Carry what comes to `ours` to the agent's SSH, and its answers to `out`."""
    from towline.line.carrier import CarrierDialler
    from towline.line.line import resumable_line

    assert session.pod is not None
    dialler = CarrierDialler(api, pod=session.pod, port=session.line_port)
    async with resumable_line(dial=dialler.dial, key=session.keys().line_key) as line:
        theirs = _End()
        theirs.join(out, ours)
        ours.join(line, theirs)
        await line.create_connection(lambda: theirs, "", 0)
        assert ours.reading is not None
        ours.reading.resume_reading()
        async with Tasks() as tasks:
            ends = [tasks.start(end.over.wait(), name="ssh") for end in (ours, theirs)]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)


async def carry_stdio(session: LocalSession, *, api: Api) -> None:
    """One connection over stdin and stdout, as OpenSSH's ProxyCommand has them.

    Raises:
        ClusterError, ConnectionLost: the agent is not reached.
    """
    loop = asyncio.get_running_loop()
    ours, closed = _End(), _End()
    reading, _ = await loop.connect_read_pipe(lambda: ours, os.fdopen(os.dup(0), "rb"))
    reading.pause_reading()
    ours.reading = reading
    # Who writes is told of its full pipe, and who reads is to wait then: one end.
    closed.pause_writing = ours.pause_writing  # type: ignore[method-assign]
    closed.resume_writing = ours.resume_writing  # type: ignore[method-assign]
    out, _ = await loop.connect_write_pipe(lambda: closed, os.fdopen(os.dup(1), "wb"))
    await _carry(ours, out, api=api, session=session)


class SshPort:
    """The laptop's port for plain SSH. Connections wait until there is a dev pod."""

    def __init__(self, *, api: Api, tasks: Tasks) -> None:
        self._api = api
        self._tasks = tasks
        self._link: Link | None = None
        self._session: Callable[[], LocalSession] | None = None
        self._is_used = asyncio.Event()

    def use(self, link: Link, session: Callable[[], LocalSession]) -> None:
        """Lead connections to a session's pod of the moment."""
        self._link, self._session = link, session
        self._is_used.set()

    def accept(self) -> _Accepted:
        """asyncio's protocol factory."""
        return _Accepted(self)

    def begin(self, accepted: _Accepted, transport: asyncio.Transport) -> None:
        self._tasks.start(self._serve(accepted, transport), name="plain ssh")

    async def _serve(self, accepted: _Accepted, transport: asyncio.Transport) -> None:
        try:
            await self._is_used.wait()
            assert self._link is not None and self._session is not None
            await self._link.get()
            await _carry(accepted, transport, api=self._api, session=self._session())
        except TowlineError:
            pass  # the client sees the connection's end
        finally:
            transport.close()


class _Accepted(_End):
    def __init__(self, port: SshPort) -> None:
        super().__init__()
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        socket = cast("asyncio.Transport", transport)
        socket.pause_reading()
        self._port.begin(self, socket)


@asynccontextmanager
async def ssh_port(entry: Entry, *, api: Api, tasks: Tasks) -> AsyncIterator[SshPort]:
    """Listen on the entry's `remote` port, if it has one, while the block runs.

    Raises:
        PortInUse: somebody else listens there.
    """
    port = SshPort(api=api, tasks=tasks)
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []
    addresses = addresses_of(entry.interface) if entry.remote is not None else []
    try:
        for address in addresses:
            try:
                servers.append(await loop.create_server(port.accept, address, entry.remote))
            except OSError as error:
                if servers:
                    continue  # a laptop without IPv6
                raise PortInUse(
                    f"{entry.interface}:{entry.remote} cannot be listened on for ssh: "
                    f"{error.strerror}",
                    hint="choose another port: `remote:`",
                ) from error
        yield port
    finally:
        for server in servers:
            server.close()
