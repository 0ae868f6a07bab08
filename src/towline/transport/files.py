"""The container's files as the agent tells them (docs/protocol.md): a stream of messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import asyncssh

from towline.errors import ConnectionLost
from towline.transport.ssh import SshSession

SUBSYSTEM = "towline-files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A path of the container, and whether its changes are told."""

    path: str
    watch: bool = True


@dataclass(frozen=True, slots=True)
class Begun:
    """A root's files follow; what came of it before without an end is void."""

    root: int
    is_file: bool


@dataclass(frozen=True, slots=True)
class FileTold:
    name: str
    mode: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LinkTold:
    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A root is told, up to an error if there was one."""

    root: int
    error: str | None
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """All roots were told once; changes follow."""


Told = Begun | FileTold | LinkTold | Ended | Settled


async def told_files(
    ssh: SshSession, roots: Iterable[Root], *, limit_bytes: int
) -> AsyncIterator[Told]:
    """Yield what is told of the roots, and of their changes, until it is closed.

    Args:
        limit_bytes: of each root.

    Raises:
        ConnectionLost: the connection is gone.
    """
    ask = {
        "roots": [{"path": each.path, "watch": each.watch} for each in roots],
        "limit_bytes": limit_bytes,
    }
    try:
        writer, reader, _ = await ssh.connection.open_session(subsystem=SUBSYSTEM, encoding=None)
        try:
            writer.write(json.dumps(ask).encode() + b"\n")
            while line := await reader.readline():
                message: dict[str, Any] = json.loads(line)
                data = b""
                if message.get("size"):
                    data = await reader.readexactly(int(message["size"]))
                yield _told(message, data)
        finally:
            writer.close()
    except (asyncssh.Error, OSError, asyncio.IncompleteReadError) as error:
        raise ConnectionLost(f"the container's files cannot be read: {error}") from error
    raise ConnectionLost("the agent tells no more of the container's files")


def _told(message: dict[str, Any], data: bytes) -> Told:
    if "begin" in message:
        return Begun(int(message["begin"]), bool(message.get("file")))
    if "end" in message:
        left_out = tuple(map(str, message.get("left_out") or ()))
        return Ended(int(message["end"]), message.get("error") or None, left_out)
    if "settled" in message:
        return Settled()
    if message.get("link"):
        return LinkTold(str(message["name"]), str(message["link"]))
    return FileTold(str(message["name"]), int(message.get("mode") or 0), data)
