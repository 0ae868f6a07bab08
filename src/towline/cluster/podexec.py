"""One command in a running container, by `pods/exec`: its output, when it is over.

Only for what can be asked in no other way before a session: it needs a right that
`up` does not (get of pods/exec), and the program in the image.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Sequence
from urllib.parse import urlencode

from wsproto.connection import Connection as WebSocketFrames
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong
from wsproto.utilities import RemoteProtocolError

from towline.cluster.api import Api, resource_path
from towline.cluster.http import ConnectionEnded, HttpConnection
from towline.errors import Forbidden, Refused, Unreachable

_TIMEOUT_S = 10.0
_STDOUT, _STATUS = 1, 3


async def output_of(api: Api, *, pod: str, container: str, command: Sequence[str]) -> bytes:
    """Run a command in a container; its output.

    Raises:
        Forbidden: there is no right to.
        Refused: the container cannot run it, or it failed.
        Unreachable: the connection does not get through, or takes too long.
    """
    connection = await api.dialler.dial()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            head_and_rest = await _upgraded(connection, api, pod, container, command)
            return await _read(connection, head_and_rest)
    except (ConnectionEnded, TimeoutError, RemoteProtocolError) as error:
        raise Unreachable(f"pods/exec in pod {pod}: {error or 'no answer in time'}") from error
    finally:
        connection.close()


async def _upgraded(
    connection: HttpConnection, api: Api, pod: str, container: str, command: Sequence[str]
) -> bytes:
    query = [("command", word) for word in command]
    query += [("container", container), ("stdout", "true"), ("stderr", "true")]
    path = resource_path("pods", namespace=api.namespace, name=pod, subresource="exec")
    headers = [
        ("Host", api.dialler.host_header),
        ("User-Agent", "towline"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", base64.b64encode(secrets.token_bytes(16)).decode()),
        ("Sec-WebSocket-Protocol", "v4.channel.k8s.io"),
        *await api.access.headers(),
    ]
    target = f"{api.dialler.base_path}{path}?{urlencode(query)}"
    connection.send("GET", target, headers, b"")
    head = await connection.head()
    if head.status_code == 101:
        return connection.trailing()
    body = b"".join([chunk async for chunk in connection.chunks()])
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {head.status_code}"
    if head.status_code in (401, 403):
        raise Forbidden(f"pods/exec: {message}")
    raise Refused(f"pods/exec in pod {pod}: {message}")


async def _read(connection: HttpConnection, early: bytes) -> bytes:
    """The output until the command's status; each message's first byte is its channel."""
    frames = WebSocketFrames(ConnectionType.CLIENT)
    received = _Received()
    output, whole = bytearray(), bytearray()
    transport = connection.transport
    assert transport is not None
    transport.set_protocol(received)
    received.data_received(early)
    while True:
        data = await received.next()
        if data is None:
            raise ConnectionEnded("it ended before the command did")
        frames.receive_data(data)
        for event in frames.events():
            if isinstance(event, Ping):
                transport.write(frames.send(Pong(payload=event.payload)))
            elif isinstance(event, CloseConnection):
                raise ConnectionEnded(event.reason or "closed")
            elif isinstance(event, Message):
                whole += event.data if isinstance(event, BytesMessage) else b""
                if not event.message_finished:
                    continue
                channel, content = whole[:1], bytes(whole[1:])
                whole.clear()
                if channel == bytes([_STDOUT]):
                    output += content
                elif channel == bytes([_STATUS]) and content:
                    _check(content)
                    return bytes(output)


def _check(status: bytes) -> None:
    told = json.loads(status)
    if told.get("status") != "Success":
        raise Refused(f"the container says: {told.get('message') or 'it failed'}")


class _Received(asyncio.Protocol):
    """What has arrived, in order; None at the end."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def data_received(self, data: bytes) -> None:
        if data:
            self._queue.put_nowait(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._queue.put_nowait(None)

    async def next(self) -> bytes | None:
        return await self._queue.get()
