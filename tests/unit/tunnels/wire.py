"""A tunnel channel whose far side is the test, and a local socket with a peer."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, cast

from asyncssh.packet import UInt32

from towline.transport.channel import TunnelChannel
from towline.transport.credit import Budget


class FarSide:
    """asyncssh's channel as `TunnelChannel` uses it; notes what the agent would see."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.data = b""
        self.granted = 0
        self._closing = False
        self.tunnel = TunnelChannel(cast(Any, self), budget=Budget())

    # What the tunnel calls

    def write(self, data: bytes) -> None:
        self.data += data

    def write_eof(self) -> None:
        self.seen.append("eof")

    def close(self) -> None:
        self._closing = True
        self.seen.append("close")

    def abort(self) -> None:
        self._closing = True
        self.seen.append("abort")

    def is_closing(self) -> bool:
        return self._closing

    def send_request(self, name: bytes, payload: bytes) -> None:
        if name == b"credit@towline":
            self.granted += struct.unpack(">I", payload)[0]
        else:
            self.seen.append(name.decode())

    # What the agent does

    def sends(self, data: bytes) -> None:
        self.tunnel.on_data(data)

    def ends(self) -> None:
        self.tunnel.on_eof()

    def grants(self, count: int) -> None:
        assert UInt32(count)
        self.tunnel.credited(count)

    def resets(self, reason: str = "reset") -> None:
        self.tunnel.reset_reason = reason
        self.closes()

    def closes(self) -> None:
        self._closing = True
        self.tunnel.on_lost(None)


class Peer:
    """The program at the other end of the local socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(5):
            await self._loop.sock_sendall(self.sock, data)

    async def read(self, count: int) -> bytes:
        """Exactly so many bytes, or fewer and then the end."""
        got = b""
        async with asyncio.timeout(5):
            while len(got) < count:
                more = await self._loop.sock_recv(self.sock, count - len(got))
                if not more:
                    break
                got += more
        return got

    async def end(self) -> str:
        """How the stream ends: "eof" or "reset"."""
        async with asyncio.timeout(5):
            try:
                while await self._loop.sock_recv(self.sock, 65536):
                    pass
            except ConnectionResetError:
                return "reset"
        return "eof"

    def shutdown(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
