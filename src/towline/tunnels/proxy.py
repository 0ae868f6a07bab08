"""A local HTTP and SOCKS5 proxy whose names are resolved in the pod. Only where it is asked for.

One port speaks both: SOCKS begins with a byte that no HTTP method has. What the target's
side says of a connection comes as its end, for a tunnel costs one round trip and not two.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from towline._kit.tasks import Tasks
from towline.tunnels.forward import Target, lead
from towline.tunnels.relay import Relay
from towline.tunnels.spares import Spares

_HEAD_BYTES = 64 * 1024
_SOCKS = 5
_NO_AUTHENTICATION = b"\x05\x00"
_CONNECTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:/@\[\]]+))(?::(\d{1,5}))?")
# RFC 9110 §7.6.1: these are between a client and its proxy, and our end of it is once.
_HOP_BY_HOP = (b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive")


@dataclass(frozen=True, slots=True)
class Step:
    """What a client's first bytes come to.

    Attributes:
        reply: to be sent back at once.
        used: so many bytes are dealt with.
        target: where it wants to go; None while that is not known.
        first: what the target gets before the rest.
        is_refused: the client cannot be served; the reply says so.
    """

    reply: bytes = b""
    used: int = 0
    target: Target | None = None
    first: bytes = b""
    is_refused: bool = False


WAIT = Step()


def read_request(data: bytes, *, is_greeted: bool) -> Step:
    """Read a proxy's client as far as it has spoken; `WAIT` where that is not far enough.

    Args:
        is_greeted: SOCKS's first message has been answered.
    """
    if not data:
        return WAIT
    if data[0] != _SOCKS:
        return _http(data)
    return _socks_request(data) if is_greeted else _socks_greeting(data)


def _socks_greeting(data: bytes) -> Step:
    """RFC 1928 §3."""
    if len(data) < 2 or len(data) < 2 + data[1]:
        return WAIT
    used = 2 + data[1]
    if 0 not in data[2:used]:
        return Step(b"\x05\xff", used, is_refused=True)
    return Step(_NO_AUTHENTICATION, used)


def _socks_request(data: bytes) -> Step:
    """RFC 1928 §4: a name (3), IPv4 (1) or IPv6 (4), then the port."""
    if len(data) < 5:
        return WAIT
    begin, length = {1: (4, 4), 3: (5, data[4]), 4: (4, 16)}.get(data[3], (0, 0))
    if not length or data[1] != 1:
        code = b"\x08" if not length else b"\x07"
        return Step(b"\x05" + code + _CONNECTED[2:], len(data), is_refused=True)
    end = begin + length + 2
    if len(data) < end:
        return WAIT
    raw, port = data[begin : end - 2], int.from_bytes(data[end - 2 : end], "big")
    if data[3] == 3:
        host = raw.decode("ascii", "replace")
    elif data[3] == 1:
        host = ".".join(str(byte) for byte in raw)
    else:
        host = ":".join(raw[at : at + 2].hex() for at in range(0, 16, 2))
    return Step(_CONNECTED, end, Target(host=host, port=port))


def _http(data: bytes) -> Step:
    head, found, _ = data.partition(b"\r\n\r\n")
    if not found:
        return _bad(data) if len(data) > _HEAD_BYTES else WAIT
    used = len(head) + 4
    line, *headers = head.split(b"\r\n")
    words = line.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/"):
        return _bad(data)
    method, url, version = words
    if method == b"CONNECT":
        target = _target(url, default=None)
        reply = b"HTTP/1.1 200 Connection established\r\n\r\n"
        return Step(reply, used, target) if target else _bad(data)
    scheme, _, rest = url.partition(b"://")
    authority, _, path = rest.partition(b"/")
    target = _target(authority, default=80)
    if scheme.lower() != b"http" or target is None:
        return _bad(data)
    kept = [h for h in headers if h.partition(b":")[0].strip().lower() not in _HOP_BY_HOP]
    # The next request may be for another host, and needs a connection of its own.
    lines = [b" ".join([method, b"/" + path, version]), *kept, b"Connection: close"]
    return Step(b"", used, target, b"\r\n".join(lines) + b"\r\n\r\n")


def _target(authority: bytes, *, default: int | None) -> Target | None:
    match = _AUTHORITY.fullmatch(authority.decode("ascii", "replace"))
    port = int(match[3]) if match and match[3] else default
    if match is None or port is None or not 0 < port < 65536:
        return None
    return Target(host=match[1] or match[2], port=port)


def _bad(data: bytes) -> Step:
    text = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    return Step(text, len(data), is_refused=True)


class Proxy:
    """The listener, at a free port of 127.0.0.1.

    Attributes:
        port: 0 until it listens.
    """

    def __init__(self, *, spares: Spares, tasks: Tasks) -> None:
        self.port = 0
        self._spares = spares
        self._tasks = tasks
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Asking(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def connect(self, relay: Relay, target: Target) -> None:
        leading = lead(relay, target, spares=self._spares)
        self._tasks.start(leading, name=f"proxy {target.host}")


class _Asking(Relay):
    """A connection whose target is read from its first bytes."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy
        self._asked: bytes | None = b""
        self._is_greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._local is not None
        self._local.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._asked is None:
            super().data_received(data)
            return
        self._asked += data
        while self._asked is not None and (step := self._read(self._asked)) is not WAIT:
            self._take(step)

    def _read(self, data: bytes) -> Step:
        return read_request(data, is_greeted=self._is_greeted)

    def _take(self, step: Step) -> None:
        assert self._local is not None and self._asked is not None
        rest, self._asked = self._asked[step.used :], self._asked[step.used :]
        self._is_greeted = True
        self._local.write(step.reply)
        if step.is_refused:
            self._asked = None
            self._local.close()
        elif step.target is not None:
            self._asked = None
            self._local.pause_reading()
            if step.first or rest:
                super().data_received(step.first + rest)
            self._proxy.connect(self, step.target)

    def eof_received(self) -> bool:
        # Without a target there is nothing to answer.
        return False if self._asked is not None else super().eof_received()
