"""Questions to a running session from other commands of the same user: one socket file.

In the session's private folder; JSON, one question for each connection, a line each way:
`{"method": "environment", "params": {}}` → `{"result": {…}}` or `{"error": "…"}`.
Answered only where the asker's user is our own, by the kernel's word. An answer may have
sockets with it, which the asker gets copies of (SCM_RIGHTS). The asker's side is blocking
and imports nothing heavy, since `towline env` should take no time.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from towline._kit.objects import JsonObject
from towline._kit.tasks import Tasks
from towline.errors import TowlineError


@dataclass(frozen=True, slots=True)
class WithSockets:
    """An answer, and sockets that go with it."""

    result: JsonObject
    sockets: tuple[socket.socket, ...]


Answer = Callable[[JsonObject], Awaitable[JsonObject | WithSockets]]

_NAME = "control.sock"
_QUESTION_BYTES = 1024 * 1024
_QUESTION_S = 5.0
# A forward listens on two addresses.
_SOCKETS_AT_MOST = 8
_PIECE_BYTES = 64 * 1024
# macOS has no SO_PEERCRED: LOCAL_PEERCRED of level 0 gives a struct xucred.
_MACOS_LOCAL_PEERCRED = 1


class NotAnswering(TowlineError):
    """The session has no control socket, or does not answer on it."""


@asynccontextmanager
async def answering(
    folder: Path, methods: Mapping[str, Answer], *, tasks: Tasks
) -> AsyncIterator[None]:
    """Answer questions while the block runs; without Unix sockets nobody can ask.

    Args:
        folder: private to the user (0700).
        methods: by name; what one raises of TowlineError is the asker's answer.
        tasks: where connections are served.
    """
    if sys.platform == "win32":
        yield
        return
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            with _reachable(folder) as path:
                listener.bind(path)
        except OSError:
            # Too long a path where there is no /proc: other commands ask the agent then.
            yield
            return
        (folder / _NAME).chmod(0o600)
        listener.listen(8)
        listener.setblocking(False)

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.start(_serve(reader, writer, methods), name="control socket")

        server = await asyncio.start_unix_server(connected, sock=listener, limit=_QUESTION_BYTES)
        try:
            yield
        finally:
            server.close()
            (folder / _NAME).unlink(missing_ok=True)
    finally:
        listener.close()


async def _serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, methods: Mapping[str, Answer]
) -> None:
    try:
        if _peer_uid(writer.get_extra_info("socket")) != os.getuid():
            return
        async with asyncio.timeout(_QUESTION_S):
            line = await reader.readline()
        answer, sockets = await _answer(line, methods)
        text = json.dumps(answer).encode() + b"\n"
        if sockets:
            _send_with_sockets(writer.get_extra_info("socket").fileno(), text, sockets)
            return
        writer.write(text)
        async with asyncio.timeout(_QUESTION_S):
            await writer.drain()
    except (OSError, TimeoutError, ValueError):
        pass  # an asker that went away, or is none
    finally:
        writer.close()


async def _answer(
    line: bytes, methods: Mapping[str, Answer]
) -> tuple[JsonObject, tuple[socket.socket, ...]]:
    try:
        question = json.loads(line)
        method, params = str(question["method"]), dict(question.get("params") or {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"error": "this is no question"}, ()
    if method not in methods:
        return {"error": f"this session knows no {method!r}"}, ()
    try:
        answer = await methods[method](params)
    except TowlineError as error:
        return {"error": error.message}, ()
    if isinstance(answer, WithSockets):
        return {"result": answer.result}, answer.sockets
    return {"result": answer}, ()


def _send_with_sockets(handle: int, text: bytes, sockets: tuple[socket.socket, ...]) -> None:
    """Send an answer of a few bytes, which a fresh connection has room for."""
    # The loop's transport passes on no descriptors; what it wrapped has nothing else to send.
    with socket.socket(fileno=os.dup(handle)) as answering:
        socket.send_fds(answering, [text], [each.fileno() for each in sockets])


def ask(folder: Path, method: str, *, timeout_s: float = 5.0, **params: Any) -> JsonObject:
    """Ask a running session; blocks.

    Raises:
        NotAnswering: nobody is there, or it refused, with its words.
    """
    result, sockets = ask_for_sockets(folder, method, timeout_s=timeout_s, **params)
    for each in sockets:
        each.close()
    return result


def ask_for_sockets(
    folder: Path, method: str, *, timeout_s: float = 5.0, **params: Any
) -> tuple[JsonObject, tuple[socket.socket, ...]]:
    """As `ask`, with copies of the sockets that came with the answer; they are the caller's.

    Raises:
        NotAnswering: nobody is there, or it refused, with its words.
    """
    if sys.platform == "win32":
        raise NotAnswering("there are no control sockets on Windows")
    question = json.dumps({"method": method, "params": params}).encode() + b"\n"
    sockets: list[socket.socket] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(timeout_s)
            with _reachable(folder) as path:
                asking.connect(path)
            asking.sendall(question)
            answer = json.loads(_read_line(asking, sockets))
        if "error" in answer:
            raise NotAnswering(f"the session: {answer['error']}")
        result: JsonObject = answer["result"]
    except (OSError, ValueError, NotAnswering) as error:
        for each in sockets:
            each.close()
        if isinstance(error, NotAnswering):
            raise
        raise NotAnswering(f"the session does not answer: {error}") from error
    return result, tuple(sockets)


def _read_line(asking: socket.socket, sockets: list[socket.socket]) -> bytes:
    pieces: list[bytes] = []
    while not (pieces and pieces[-1].endswith(b"\n")):
        piece, handles, _, _ = socket.recv_fds(asking, _PIECE_BYTES, _SOCKETS_AT_MOST)
        for handle in handles:
            # Not for the process, which would keep the port after our end.
            os.set_inheritable(handle, False)
            sockets.append(socket.socket(fileno=handle))
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)


@contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """The socket's path in a form short enough for the kernel, which takes 107 bytes."""
    path = str(folder / _NAME)
    if len(os.fsencode(path)) < 100 or not Path("/proc/self/fd").is_dir():
        yield path
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{_NAME}"
    finally:
        os.close(handle)


def _peer_uid(connection: Any) -> int | None:
    with suppress(OSError, AttributeError):
        if sys.platform == "linux":
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("iII", told)[1])
        told = connection.getsockopt(0, _MACOS_LOCAL_PEERCRED, 76)
        return int(struct.unpack("II", told[:8])[1])
    return None
