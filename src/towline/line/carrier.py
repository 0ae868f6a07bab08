"""Carriers: one port-forward to the agent's line port, over WebSocket or SPDY.

Kubernetes has spoken SPDY for port-forwards from the start and WebSocket
(`v4.channel.k8s.io`) beside it since 1.5; some proxies let only one of the two
through, and the rights differ (WebSocket is a GET, SPDY a POST: the verbs `get`
and `create` of pods/portforward). Which one is used is found out by trying.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from wsproto.connection import Connection as WebSocketFrames
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.utilities import RemoteProtocolError

from towline.cluster.api import Api, resource_path
from towline.cluster.http import ANSWER_TIMEOUT_S, Answer, ConnectionEnded, HttpConnection
from towline.errors import ClusterError, Forbidden, NotFound, Unauthorized, Unreachable
from towline.line.spdy import DATA_FRAME_BYTES, PortForwardStreams, SpdyError

CarrierKind = Literal["spdy", "websocket"]
# asyncio tells us to pause above this; the line keeps the rest (it is bounded there).
_WRITE_HIGH_BYTES = 1024 * 1024
# As much as the event loops' TLS takes off the socket at once.
_READ_BYTES = 256 * 1024

Receive = Callable[[bytes], None]
Lost = Callable[[Exception | None], None]


class CarrierEnded(Exception):
    """The port-forward ended; the message has the server's words where it gave any."""


@dataclass(slots=True)
class Decoded:
    """What some bytes were: to hand up, to answer with, and the end if it was among them."""

    up: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    ended: CarrierEnded | None = None


class Codec(Protocol):
    """The framing inside an upgraded connection."""

    def opening(self) -> bytes: ...

    def encode(self, data: bytes | bytearray | memoryview) -> bytes:
        """The frames of some bytes, in one piece: each write is a TLS record at least."""
        ...

    def decode(self, data: bytes | memoryview) -> Decoded:
        """Feed bytes; raises nothing: an end comes with what was before it.

        What is fed may be overwritten afterwards.
        """
        ...

    def closing(self) -> bytes: ...


class SpdyCodec:
    """SPDY/3.1 by plain upgrade."""

    def __init__(self, *, port: int) -> None:
        self._port = port
        self._streams = PortForwardStreams()

    def opening(self) -> bytes:
        return self._streams.opening(port=self._port)

    def encode(self, data: bytes | bytearray | memoryview) -> bytes:
        view = memoryview(data)
        parts: list[bytes | memoryview] = []
        for start in range(0, len(view), DATA_FRAME_BYTES):
            piece = view[start : start + DATA_FRAME_BYTES]
            parts += [self._streams.data_header(len(piece)), piece]
        return b"".join(parts)

    def decode(self, data: bytes | memoryview) -> Decoded:
        made = Decoded()
        try:
            for kind, content in self._streams.receive(data):
                (made.up if kind == "data" else made.answers).append(content)
        except SpdyError as error:
            made.ended = CarrierEnded(str(error))
        return made

    def closing(self) -> bytes:
        return b""


class WebSocketCodec:
    """`v4.channel.k8s.io`: a channel byte first; the first message of each names the port."""

    def __init__(self, *, port: int) -> None:
        self._port = port
        self._frames = WebSocketFrames(ConnectionType.CLIENT)
        self._greetings: dict[int, bytes] = {}
        self._at_start = True
        self._channel = 0

    def opening(self) -> bytes:
        return b""

    def encode(self, data: bytes | bytearray | memoryview) -> bytes:
        return self._frames.send(BytesMessage(data=bytearray(b"\0" + bytes(data))))

    def decode(self, data: bytes | memoryview) -> Decoded:
        made = Decoded()
        try:
            self._frames.receive_data(bytes(data))
            for event in self._frames.events():
                if isinstance(event, Message):
                    self._message(event, made.up)
                elif isinstance(event, Ping):
                    made.answers.append(self._frames.send(Pong(payload=event.payload)))
                elif isinstance(event, CloseConnection):
                    raise CarrierEnded(event.reason or "the server closed the port-forward")
        except CarrierEnded as error:
            made.ended = error
        except RemoteProtocolError as error:
            made.ended = CarrierEnded(str(error))
        return made

    def _message(self, event: Message[Any], up: list[bytes]) -> None:
        content = bytes(event.data) if not isinstance(event, TextMessage) else b""
        if self._at_start and content:
            self._channel, content = content[0], content[1:]
            self._at_start = False
        self._at_start = self._at_start or event.message_finished
        content = self._without_greeting(content)
        if not content:
            return
        if self._channel == 0:
            up.append(content)
        else:
            raise CarrierEnded(content.decode(errors="replace").strip())

    def _without_greeting(self, content: bytes) -> bytes:
        """What is left once a channel's first two bytes, the port, are seen to be right."""
        greeting = self._greetings.get(self._channel, b"")
        missing = 2 - len(greeting)
        if not missing or not content:
            return content
        greeting += content[:missing]
        self._greetings[self._channel] = greeting
        if not struct.pack("<H", self._port).startswith(greeting):
            raise CarrierEnded("the server forwards another port than was asked for")
        return content[missing:]

    def closing(self) -> bytes:
        return self._frames.send(CloseConnection(code=1000))


class CarrierConnection(asyncio.BufferedProtocol):
    """One open port-forward: bytes to and from the agent's line port.

    Bytes that arrive before `attach` are kept. `lost` is called once, also after
    `abort`; nothing is called after it.

    A BufferedProtocol: for any other the event loops' TLS allocates a quarter megabyte
    for each record of 16 KiB, which costs more than all else that is done with it.
    """

    def __init__(self, transport: asyncio.Transport, codec: Codec) -> None:
        self._transport = transport
        self._codec = codec
        self._receive: Receive | None = None
        self._lost: Lost | None = None
        self._early: list[bytes] = []
        self._ended: Exception | None = None
        self._over = False
        self._pause: Callable[[bool], None] | None = None
        self._closed = asyncio.get_running_loop().create_future()
        self._buffer = memoryview(bytearray(_READ_BYTES))
        transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)
        transport.write(codec.opening())

    def attach(self, receive: Receive, lost: Lost) -> None:
        """Hand bytes to `receive` from now on, and tell `lost` when it is over."""
        self._receive, self._lost = receive, lost
        early, self._early = self._early, []
        for data in early:
            receive(data)
        if self._over:
            lost(self._ended)

    def on_pause(self, callback: Callable[[bool], None]) -> None:
        """Call back with True when writing should pause, with False when it may go on."""
        self._pause = callback

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; never blocks."""
        if not self._transport.is_closing():
            self._transport.write(self._codec.encode(data))

    def abort(self) -> None:
        """End it now; what was not sent yet is dropped."""
        self._transport.abort()

    async def aclose(self) -> None:
        """End it in order, and wait (a second at most) until it is closed."""
        if not self._transport.is_closing():
            self._transport.write(self._codec.closing())
            self._transport.close()
        try:
            async with asyncio.timeout(1.0):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self._transport.abort()

    # asyncio's side

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._buffer[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        if self._over:
            return
        decoded = self._codec.decode(data)
        if decoded.answers:
            self._transport.writelines(decoded.answers)
        for content in decoded.up:
            if self._over:
                return  # aborted by what it was handed
            if self._receive is not None:
                self._receive(content)
            else:
                self._early.append(content)
        if decoded.ended is not None:
            # After what came before it: the agent's last word may be in the same packet.
            self._end(decoded.ended)
            self._transport.abort()

    def pause_writing(self) -> None:
        if self._pause is not None:
            self._pause(True)

    def resume_writing(self) -> None:
        if self._pause is not None:
            self._pause(False)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        if not self._closed.done():
            self._closed.set_result(None)

    def _end(self, error: Exception | None) -> None:
        if self._over:
            return
        self._over, self._ended = True, error
        if self._lost is not None:
            self._lost(error)


class CarrierDialler:
    """Opens carriers to one port of one pod, by the kind that the way lets through."""

    def __init__(self, api: Api, *, pod: str, port: int) -> None:
        self._api = api
        self._pod = pod
        self._port = port
        self.kind: CarrierKind | None = None
        self._not_before = 0.0

    async def dial(self) -> CarrierConnection:
        """Open a carrier.

        Raises:
            NotFound: the pod is gone.
            Forbidden, Unauthorized: the rights or the credentials do not suffice.
            Unreachable: nobody answers, or neither kind gets through.
        """
        # A server that throttles has said when to come again.
        await asyncio.sleep(self._not_before - asyncio.get_running_loop().time())
        # SPDY first: it costs the cluster less CPU. A way that let one kind through may come to
        # let through the other alone: another VPN, another proxy.
        first: CarrierKind = self.kind or "spdy"
        other: CarrierKind = "websocket" if first == "spdy" else "spdy"
        try:
            carrier = await self._open(first)
            self.kind = first
        except (Forbidden, _UpgradeRefused) as refused:
            if self.kind is not None and isinstance(refused, _Unanswered):
                raise  # the network is away: what refuses a kind would have answered
            try:
                carrier = await self._open(other)
            except _UpgradeRefused as again:
                raise Unreachable(
                    f"no port-forward gets through to the API server: {refused}; {again}",
                    hint="a proxy on the way refuses both SPDY and WebSocket upgrades",
                ) from again
            except Forbidden as again:
                raise (refused if isinstance(refused, Forbidden) else again) from again
            self.kind = other
        return carrier

    async def _open(self, kind: CarrierKind) -> CarrierConnection:
        connection = await self._api.dialler.dial()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._upgrade(connection, kind)
        except (ConnectionEnded, TimeoutError) as error:
            connection.close()
            raise _Unanswered(f"{kind}: {error or 'no answer'}") from error
        except BaseException:
            connection.close()
            raise

    async def _upgrade(self, connection: HttpConnection, kind: CarrierKind) -> CarrierConnection:
        api = self._api
        path = resource_path(
            "pods", namespace=api.namespace, name=self._pod, subresource="portforward"
        )
        headers = [
            ("Host", api.dialler.host_header),
            ("User-Agent", "towline"),
            ("Connection", "Upgrade"),
        ]
        headers += await api.access.headers()
        target = api.dialler.base_path + path
        if kind == "spdy":
            headers += [
                ("Upgrade", "SPDY/3.1"),
                ("X-Stream-Protocol-Version", "portforward.k8s.io"),
            ]
            connection.send("POST", target, headers, b"")
        else:
            key = base64.b64encode(secrets.token_bytes(16)).decode()
            headers += [
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", key),
                ("Sec-WebSocket-Protocol", "v4.channel.k8s.io"),
            ]
            connection.send("GET", f"{target}?ports={self._port}", headers, b"")
        head = await connection.head()
        if head.status_code != 101:
            answer = await connection.rest(head)
            self._not_before = asyncio.get_running_loop().time() + answer.retry_after_s(0.0)
            raise _refusal(answer, pod=self._pod, kind=kind, api=api)
        transport = connection.transport
        assert transport is not None
        codec: Codec = (
            SpdyCodec(port=self._port) if kind == "spdy" else WebSocketCodec(port=self._port)
        )
        carrier = CarrierConnection(transport, codec)
        transport.set_protocol(carrier)
        if trailing := connection.trailing():
            carrier.data_received(trailing)
        return carrier


class _UpgradeRefused(ClusterError):
    """This kind of upgrade did not get through; the other may."""


class _Unanswered(_UpgradeRefused):
    """The connection ended, or nothing came, before an answer."""


def _refusal(answer: Answer, *, pod: str, kind: CarrierKind, api: Api) -> ClusterError:
    status, body = answer.status, answer.body
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = " ".join(body[:200].decode(errors="replace").split()) or f"HTTP {status}"
    if status == 429:
        return Unreachable(f"a port-forward to pod {pod} is throttled: {message}")
    if status == 401:
        return api.access.refused(
            Unauthorized(f"a port-forward to pod {pod} is not accepted: {message}")
        )
    if status == 403 and "forbidden" in message:
        return Forbidden(
            message,
            hint="it needs the verbs get and create on pods/portforward: docs/rights.yaml",
        )
    if status == 404:
        return NotFound(f"pod {pod} is gone: {message}")
    return _UpgradeRefused(f"{kind}: {status} {message}")
