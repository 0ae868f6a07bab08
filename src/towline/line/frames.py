"""What travels on a carrier: frames, and the proofs in them. Does no I/O.

The grammar is docs/protocol.md. tests/vectors/line-frames.json proves that this
and the agent's `internal/frame` read and write the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

VERSION = 1
MAX_PAYLOAD_BYTES = 1 << 20
KEY_BYTES = 32
NONCE_BYTES = 32
LINE_ID_BYTES = 16
MAC_BYTES = 32

Key = NewType("Key", bytes)
LineId = NewType("LineId", bytes)
Nonce = NewType("Nonce", bytes)
Mac = NewType("Mac", bytes)


class FrameError(Exception):
    """Bytes that are no frame; the carrier they came on is of no more use."""


class TooLong(FrameError):
    """The payload is longer than any frame's may be."""


class UnknownType(FrameError):
    """No frame begins with this byte."""


class WrongLength(FrameError):
    """The payload has not the length that its type has."""


class Reason(IntEnum):
    """Why there is no such line, or not any more."""

    UNKNOWN_LINE = 1
    DENIED = 2
    VERSION = 3
    OUT_OF_RANGE = 4
    TOO_MANY = 5


@dataclass(frozen=True, slots=True)
class Greeting:
    """The agent's first frame, at once on accept."""

    version: int
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class Hello:
    """The client's first frame: which line, and the proof of the key."""

    version: int
    line_id: LineId
    nonce: Nonce
    received: int
    mac: Mac


@dataclass(frozen=True, slots=True)
class Welcome:
    """The agent's answer: the line goes on from what each side has received."""

    received: int
    mac: Mac


@dataclass(frozen=True, slots=True)
class Gone:
    """The agent's answer when the line cannot go on. `reason` may be unknown here."""

    reason: int
    text: str


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of the stream, from `offset` on."""

    offset: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """So many bytes were handed to the reader above."""

    received: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a sign of life."""

    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Gives it."""

    token: int


@dataclass(frozen=True, slots=True)
class Close:
    """The line ends here, in order."""


Frame = Greeting | Hello | Welcome | Gone | Data | Ack | Ping | Pong | Close

_GREETING, _HELLO, _WELCOME, _GONE = 0x01, 0x02, 0x03, 0x04
_DATA, _ACK, _PING, _PONG, _CLOSE = 0x10, 0x11, 0x12, 0x13, 0x14

_HEADER_BYTES = 4
_greeting = struct.Struct(f">B{NONCE_BYTES}s")
_hello = struct.Struct(f">B{LINE_ID_BYTES}s{NONCE_BYTES}sQ{MAC_BYTES}s")
_welcome = struct.Struct(f">Q{MAC_BYTES}s")
_number = struct.Struct(">Q")
_data_header = struct.Struct(">IQ")
_header = struct.Struct(">I")

#: type → (shortest payload, longest payload)
_LENGTHS = {
    _GREETING: (_greeting.size, _greeting.size),
    _HELLO: (_hello.size, _hello.size),
    _WELCOME: (_welcome.size, _welcome.size),
    _GONE: (1, MAX_PAYLOAD_BYTES),
    _DATA: (_number.size + 1, MAX_PAYLOAD_BYTES),
    _ACK: (_number.size, _number.size),
    _PING: (_number.size, _number.size),
    _PONG: (_number.size, _number.size),
    _CLOSE: (0, 0),
}


def data_header(offset: int, length: int) -> bytes:
    """What stands before a DATA frame's bytes, for callers that have them in pieces."""
    return _data_header.pack(_DATA << 24 | length + _number.size, offset)


def serialise(frame: Frame) -> bytes:
    """The frame as it travels."""
    match frame:
        case Data(offset, payload):
            return data_header(offset, len(payload)) + payload
        case Ack(received):
            return _frame(_ACK, _number.pack(received))
        case Ping(token):
            return _frame(_PING, _number.pack(token))
        case Pong(token):
            return _frame(_PONG, _number.pack(token))
        case Greeting(version, nonce):
            return _frame(_GREETING, _greeting.pack(version, nonce))
        case Hello(version, line_id, nonce, received, mac):
            return _frame(_HELLO, _hello.pack(version, line_id, nonce, received, mac))
        case Welcome(received, mac):
            return _frame(_WELCOME, _welcome.pack(received, mac))
        case Gone(reason, text):
            return _frame(_GONE, bytes([reason]) + text.encode())
        case Close():
            return _frame(_CLOSE, b"")


def _frame(kind: int, payload: bytes) -> bytes:
    return _header.pack(kind << 24 | len(payload)) + payload


class Parser:
    """Takes frames off a carrier's bytes, however these are cut."""

    def __init__(self) -> None:
        # The beginning of a frame, in the pieces it came in: joining them only
        # once it is whole copies each byte once, however many pieces there are.
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = _HEADER_BYTES

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
            FrameError: the bytes are no frame; the parser is of no more use.
        """
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        frames: list[Frame] = []
        at, end = 0, len(data)
        self._need = _HEADER_BYTES
        while end - at >= _HEADER_BYTES:
            length = int.from_bytes(data[at + 1 : at + 4], "big")
            kind = data[at]
            _check(kind, length)
            self._need = _HEADER_BYTES + length
            if end - at < self._need:
                break
            at += _HEADER_BYTES
            frames.append(_parse(kind, data, at, at + length))
            at += length
            self._need = _HEADER_BYTES
        if at < end:
            self._pieces.append(data[at:] if at else data)
            self._have = end - at
        return frames


def _check(kind: int, length: int) -> None:
    if length > MAX_PAYLOAD_BYTES:
        raise TooLong(f"{length} bytes in a frame of type 0x{kind:02x}")
    lengths = _LENGTHS.get(kind)
    if lengths is None:
        raise UnknownType(f"0x{kind:02x}")
    if not lengths[0] <= length <= lengths[1]:
        raise WrongLength(f"{length} bytes in a frame of type 0x{kind:02x}")


def _parse(kind: int, data: bytes, at: int, end: int) -> Frame:
    if kind == _DATA:
        return Data(_number.unpack_from(data, at)[0], data[at + _number.size : end])
    if kind == _ACK:
        return Ack(_number.unpack_from(data, at)[0])
    if kind == _PING:
        return Ping(_number.unpack_from(data, at)[0])
    if kind == _PONG:
        return Pong(_number.unpack_from(data, at)[0])
    if kind == _CLOSE:
        return Close()
    if kind == _GREETING:
        return Greeting(*_greeting.unpack_from(data, at))
    if kind == _HELLO:
        return Hello(*_hello.unpack_from(data, at))
    if kind == _WELCOME:
        return Welcome(*_welcome.unpack_from(data, at))
    return Gone(data[at], data[at + 1 : end].decode("utf-8", "replace"))


def hello_mac(
    key: Key, *, agent: Nonce, client: Nonce, version: int, line_id: LineId, received: int
) -> Mac:
    """The client's proof that it has the key."""
    parts = (agent, client, bytes([version]), line_id, _number.pack(received))
    return _sign(key, b"towline hello", *parts)


def welcome_mac(key: Key, *, client: Nonce, agent: Nonce, received: int) -> Mac:
    """The agent's."""
    return _sign(key, b"towline welcome", client, agent, _number.pack(received))


def _sign(key: Key, purpose: bytes, *parts: bytes) -> Mac:
    return Mac(hmac.digest(key, b"".join((purpose, *parts)), hashlib.sha256))
