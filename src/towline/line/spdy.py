"""SPDY/3.1 as far as a Kubernetes port-forward needs it, sans I/O.

Two streams: the error stream (1) and the data stream (3), opened by us as kubelet
expects them. The framing is the SPDY Protocol, Draft 3.1, §2.2 and §2.6; there is no
flow control in the servers' implementation, so what comes must always be read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

ERROR_STREAM = 1
DATA_STREAM = 3
# Frames of this size keep the writer's share of the connection short without
# costing a header per packet; the length field would allow 16 MiB.
DATA_FRAME_BYTES = 128 * 1024

_SYN_STREAM, _RST_STREAM, _PING, _GOAWAY = 1, 3, 6, 7
_FLAG_FIN = 1

# The header compression's dictionary, SPDY Draft 3 §2.6.10.1: length-prefixed words,
# then loose text.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding "
    "accept-language accept-ranges age allow authorization cache-control connection "
    "content-base content-encoding content-language content-length content-location "
    "content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location "
    "max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after "
    "server te trailer transfer-encoding upgrade user-agent vary via warning "
    "www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502"
    "504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad "
    "Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not "
    "Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,"
    "image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public"
    "privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(
        struct.pack(">I", len(word)) + word.replace("_", " ").encode() for word in _WORDS.split()
    )
    + _TEXT.encode()
)


class SpdyError(Exception):
    """What came is not SPDY, or the server refused or ended a stream."""


class PortForwardStreams:
    """The two streams of one port-forward."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._error = bytearray()
        # The frame that is being read: its header, how much of it is still to come, and
        # the body of those that are not handed up as they come.
        self._head = bytearray()
        self._left = self._flags = self._kind = 0
        self._stream: int | None = None
        self._body = bytearray()

    def opening(self, *, port: int) -> bytes:
        """The frames that open both streams to a port of the pod."""
        return self._syn(ERROR_STREAM, "error", port) + self._syn(DATA_STREAM, "data", port)

    def _syn(self, stream: int, kind: str, port: int) -> bytes:
        headers = {"streamtype": kind, "port": str(port), "requestid": "0"}
        block = struct.pack(">I", len(headers)) + b"".join(
            struct.pack(">I", len(text)) + text.encode()
            for pair in headers.items()
            for text in pair
        )
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        body = struct.pack(">IIH", stream, 0, 0) + packed
        # We never write to the error stream: it is half-closed from the start.
        flags = _FLAG_FIN if stream == ERROR_STREAM else 0
        return struct.pack(">HHI", 0x8003, _SYN_STREAM, flags << 24 | len(body)) + body

    def data_header(self, length: int) -> bytes:
        """The header that goes before `length` bytes of the data stream."""
        return struct.pack(">II", DATA_STREAM, length)

    def receive(self, data: bytes | memoryview) -> Iterator[tuple[str, bytes]]:
        """Feed bytes; yields ("data", bytes) to hand up and ("send", bytes) to answer with.

        The data stream is one of bytes: a frame's are handed up as they come, and copied
        once. What is fed may be overwritten afterwards.

        Raises:
            SpdyError: the data stream was ended or refused, with the server's words.
        """
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if len(self._head) < 8:
                at += self._take_head(view[at : at + 8 - len(self._head)])
                if len(self._head) < 8:
                    return
            piece = view[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._stream == DATA_STREAM:
                if piece:
                    yield "data", bytes(piece)
            elif self._stream in (ERROR_STREAM, None):
                self._body += piece
            if self._left == 0:
                self._head.clear()
                yield from self._frame_ended()

    def _take_head(self, piece: memoryview) -> int:
        """Take bytes of a frame's header; what it says is known once there are eight."""
        self._head += piece
        if len(self._head) == 8:
            first, rest = struct.unpack(">II", self._head)
            self._flags, self._left = rest >> 24, rest & 0xFFFFFF
            self._kind = first & 0xFFFF
            self._stream = None if first & 0x80000000 else first
        return len(piece)

    def _frame_ended(self) -> Iterator[tuple[str, bytes]]:
        if self._stream is None:
            body = bytes(self._body)
            self._body.clear()
            yield from self._control(self._kind, body)
        elif self._stream == DATA_STREAM:
            if self._flags & _FLAG_FIN:
                raise SpdyError(self._reason("the pod's end closed the stream"))
        elif self._stream == ERROR_STREAM:
            self._error += self._body
            self._body.clear()
            if self._flags & _FLAG_FIN and self._error:
                raise SpdyError(self._reason(""))

    def _control(self, kind: int, body: bytes) -> Iterator[tuple[str, bytes]]:
        if kind == _PING:
            yield "send", struct.pack(">HHI", 0x8003, _PING, len(body)) + body
        elif kind == _GOAWAY:
            raise SpdyError(self._reason("the server says it goes away"))
        elif kind == _RST_STREAM:
            raise SpdyError(self._reason("the server reset the stream"))

    def _reason(self, otherwise: str) -> str:
        return self._error.decode(errors="replace").strip() or otherwise
