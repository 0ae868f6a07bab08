"""Both codecs from the outside: bytes in, decoded out; and the connection around them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists, sampled_from
from tests.unit.line_carrier.test_spdy import data, in_pieces
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from towline.line.carrier import CarrierConnection, Codec, SpdyCodec, WebSocketCodec
from towline.line.spdy import DATA_STREAM, ERROR_STREAM

PORT = 48222
GREETINGS = [bytes([channel]) + struct.pack("<H", PORT) for channel in (0, 1)]


class Server:
    """The API server's end, as wsproto makes it."""

    def __init__(self) -> None:
        self._frames = Connection(ConnectionType.SERVER)

    def message(self, content: bytes, *, last: bool = True) -> bytes:
        return self._frames.send(BytesMessage(data=content, message_finished=last))

    def greetings(self) -> bytes:
        return b"".join(self.message(each) for each in GREETINGS)

    def closing(self, reason: str) -> bytes:
        return self._frames.send(CloseConnection(code=1000, reason=reason))

    def ping(self) -> bytes:
        return self._frames.send(Ping(payload=b"there?"))


@given(lists(binary(max_size=300), max_size=6), lists(integers(0, 600), max_size=10))
def test_messages_may_be_cut_anywhere(contents: list[bytes], cuts: list[int]) -> None:
    server, codec = Server(), WebSocketCodec(port=PORT)
    whole = server.greetings() + b"".join(server.message(b"\0" + each) for each in contents)
    decoded = [codec.decode(piece) for piece in in_pieces(whole, cuts)]
    assert not any(each.ended for each in decoded)
    assert b"".join(c for each in decoded for c in each.up) == b"".join(contents)


@given(binary(min_size=1, max_size=40), lists(integers(0, 40), max_size=4))
def test_messages_may_come_in_fragments(content: bytes, cuts: list[int]) -> None:
    server, codec = Server(), WebSocketCodec(port=PORT)
    pieces = in_pieces(GREETINGS[0] + content, cuts)
    for n, piece in enumerate(pieces):
        decoded = codec.decode(server.message(piece, last=n == len(pieces) - 1))
        assert decoded.ended is None
        content = content.removeprefix(b"".join(decoded.up))
    assert content == b""


@given(lists(binary(max_size=300), max_size=8))
def test_any_bytes_end_a_websocket_or_are_read(pieces: list[bytes]) -> None:
    codec = WebSocketCodec(port=PORT)
    for piece in pieces:
        if codec.decode(piece).ended is not None:
            break


@given(lists(binary(max_size=300), max_size=8))
def test_any_bytes_end_spdy_or_are_read(pieces: list[bytes]) -> None:
    codec = SpdyCodec(port=PORT)
    for piece in pieces:
        if codec.decode(piece).ended is not None:
            break


@given(binary(max_size=70), sampled_from([WebSocketCodec, SpdyCodec]))
def test_what_is_encoded_is_what_a_server_reads(
    content: bytes, kind: Callable[..., WebSocketCodec | SpdyCodec]
) -> None:
    sent = kind(port=PORT).encode(content)
    if kind is SpdyCodec:
        expected = struct.pack(">II", DATA_STREAM, len(content)) + content if content else b""
        assert sent == expected
        return
    server = Connection(ConnectionType.SERVER)
    server.receive_data(sent)
    [message] = server.events()
    assert isinstance(message, BytesMessage)
    assert bytes(message.data) == b"\0" + content


def test_a_ping_is_answered() -> None:
    server, codec = Server(), WebSocketCodec(port=PORT)
    assert len(codec.decode(server.greetings() + server.ping()).answers) == 1


def test_another_port_ends_it() -> None:
    server, codec = Server(), WebSocketCodec(port=PORT)
    decoded = codec.decode(server.message(b"\0" + struct.pack("<H", PORT + 1)))
    assert "another port" in str(decoded.ended)


def test_the_error_channels_words_are_the_reason() -> None:
    server, codec = Server(), WebSocketCodec(port=PORT)
    decoded = codec.decode(server.greetings() + server.message(b"\1" + b"no listener"))
    assert str(decoded.ended) == "no listener"


def test_text_is_not_data() -> None:
    server = Connection(ConnectionType.SERVER)
    assert WebSocketCodec(port=PORT).decode(server.send(TextMessage(data="hi"))).up == []


def last_words() -> list[tuple[Codec, bytes]]:
    server = Server()
    greeted = server.greetings() + server.message(b"\0GONE") + server.closing("bye")
    spdy = data(DATA_STREAM, b"GONE") + data(DATA_STREAM, b"", fin=True)
    told = data(DATA_STREAM, b"GONE") + data(ERROR_STREAM, b"lost", fin=True)
    return [
        (WebSocketCodec(port=PORT), greeted),
        (SpdyCodec(port=PORT), spdy),
        (SpdyCodec(port=PORT), told),
    ]


class Pipe(asyncio.Transport):
    """asyncio's transport, as far as a carrier uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(("codec", "packet"), last_words())
async def test_the_last_word_before_an_end_in_one_packet_is_heard(
    codec: Codec, packet: bytes
) -> None:
    """Found in review: the agent's GONE was dropped when the end was in the same packet."""
    pipe = Pipe()
    carrier = CarrierConnection(pipe, codec)
    heard: list[bytes] = []
    lost: list[Exception | None] = []
    carrier.attach(heard.append, lost.append)
    carrier.data_received(packet)
    assert heard == [b"GONE"]
    assert len(lost) == 1 and pipe.aborted
    carrier.data_received(packet)
    carrier.connection_lost(None)
    assert (len(heard), len(lost)) == (1, 1), "nothing is called after `lost`"


async def test_what_comes_before_the_line_is_attached_is_kept() -> None:
    carrier = CarrierConnection(Pipe(), SpdyCodec(port=PORT))
    carrier.data_received(data(DATA_STREAM, b"early"))
    carrier.connection_lost(None)
    heard: list[bytes] = []
    lost: list[Exception | None] = []
    carrier.attach(heard.append, lost.append)
    assert (heard, lost) == ([b"early"], [None])
