"""Questions to a running session from other commands of the same user: one socket file.

In the session's private folder; JSON, one question for each connection, a line each way:
`{"method": "environment", "params": {}}` → `{"result": {…}}` or `{"error": "…"}`.
Answered only where the asker's user is our own, by the kernel's word. The asker's side
is blocking and imports nothing heavy, since `towline env` should take no time.
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
from pathlib import Path
from typing import Any

from towline._kit.objects import JsonObject
from towline._kit.tasks import Tasks
from towline.errors import TowlineError

Answer = Callable[[JsonObject], Awaitable[JsonObject]]

_NAME = "control.sock"
_QUESTION_BYTES = 1024 * 1024
_QUESTION_S = 5.0
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
        writer.write(json.dumps(await _answer(line, methods)).encode() + b"\n")
        async with asyncio.timeout(_QUESTION_S):
            await writer.drain()
    except (OSError, TimeoutError, ValueError):
        pass  # an asker that went away, or is none
    finally:
        writer.close()


async def _answer(line: bytes, methods: Mapping[str, Answer]) -> JsonObject:
    try:
        question = json.loads(line)
        method, params = str(question["method"]), dict(question.get("params") or {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"error": "this is no question"}
    if method not in methods:
        return {"error": f"this session knows no {method!r}"}
    try:
        return {"result": await methods[method](params)}
    except TowlineError as error:
        return {"error": error.message}


def ask(folder: Path, method: str, *, timeout_s: float = 5.0, **params: Any) -> JsonObject:
    """Ask a running session; blocks.

    Raises:
        NotAnswering: nobody is there, or it refused, with its words.
    """
    if sys.platform == "win32":
        raise NotAnswering("there are no control sockets on Windows")
    question = json.dumps({"method": method, "params": params}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(timeout_s)
        try:
            with _reachable(folder) as path:
                asking.connect(path)
            asking.sendall(question)
            with asking.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        except (OSError, ValueError) as error:
            raise NotAnswering(f"the session does not answer: {error}") from error
    if "error" in answer:
        raise NotAnswering(f"the session: {answer['error']}")
    result: JsonObject = answer["result"]
    return result


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
