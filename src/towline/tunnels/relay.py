"""One connection: a local TCP socket on one side, a tunnel channel on the other."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from towline.transport.channel import TunnelChannel


# asyncio's 64 KiB pauses a bulk stream at every other packet.
_LOCAL_BUFFER_BYTES = 256 * 1024
_LINGER_0 = struct.pack("ii", 1, 0)


class Relay(asyncio.Protocol):
    """Pumps both ways with half-close and reset kept, and nothing unbounded in between.

    It is the local socket's asyncio protocol and, once joined, the channel's endpoint.
    Until it is joined at most one read of the local side waits here.

    Attributes:
        on_end: called once, when both sides are over.
    """

    def __init__(self, *, on_end: Callable[[Relay], None] | None = None) -> None:
        self._local: asyncio.Transport | None = None
        self._channel: TunnelChannel | None = None
        self._local_done = False
        self._channel_eof = False
        self._local_eof = False
        self._local_full = False
        self._channel_full = False
        self._early: list[bytes] = []
        self._owed = 0
        self._ended = False
        self._on_end = on_end
        self.bytes_up = 0
        self.bytes_down = 0

    def join(self, channel: TunnelChannel) -> None:
        """Connect the two sides; bytes flow from here on."""
        self._channel = channel
        if self._local_done:
            channel.reset("the local connection is gone")
            return
        channel.attach(self)
        for data in self._early:
            channel.write(data)
        self._early.clear()
        if self._local_eof:
            channel.write_eof()
        elif self._local is not None and not self._channel_full:
            self._local.resume_reading()

    def refuse(self) -> None:
        """Reset the local side: there is nothing to connect it to."""
        self._reset_local()

    # The local side: asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports do not derive from asyncio's.
        self._local = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=_LOCAL_BUFFER_BYTES)
        if (raw := transport.get_extra_info("socket")) is not None:
            with suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._channel is None:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.bytes_up += len(data)
        if self._channel is not None:
            self._channel.write(data)
        else:
            # uvloop begins to read after `connection_made`, whatever was asked in it.
            self._early.append(data)
            if self._local is not None:
                self._local.pause_reading()

    def eof_received(self) -> bool:
        self._local_eof = True
        if self._channel is not None:
            self._channel.write_eof()
            self._close_when_done()
        return True

    def pause_writing(self) -> None:
        self._local_full = True

    def resume_writing(self) -> None:
        self._local_full = False
        self._pay()

    def connection_lost(self, exc: Exception | None) -> None:
        self._local_done = True
        if self._channel is not None:
            if exc is None and self._channel_eof and self._local_eof:
                self._channel.close()
            else:
                self._channel.reset("" if exc is None else str(exc))
        self._end()

    # The cluster's side: the channel's calls

    def received(self, data: bytes) -> None:
        self.bytes_down += len(data)
        if self._local is None or self._local.is_closing():
            return
        self._local.write(data)
        self._owed += len(data)
        if not self._local_full:
            self._pay()

    def _pay(self) -> None:
        owed, self._owed = self._owed, 0
        if owed and self._channel is not None:
            self._channel.consumed(owed)

    def pause(self, paused: bool) -> None:
        self._channel_full = paused
        if self._local is None or self._local.is_closing() or self._local_eof:
            return
        if paused:
            self._local.pause_reading()
        else:
            self._local.resume_reading()

    def channel_eof(self) -> None:
        self._channel_eof = True
        if self._local is not None and not self._local.is_closing():
            with suppress(OSError):
                self._local.write_eof()
        self._close_when_done()

    def ended(self, reset: str | None) -> None:
        if reset is not None:
            self._reset_local()
        elif self._local is not None:
            self._local.close()

    def _close_when_done(self) -> None:
        if self._local_eof and self._channel_eof and self._local is not None:
            self._local.close()

    def _reset_local(self) -> None:
        """Close the socket so that its peer sees ECONNRESET, never a clean end."""
        if self._local is None:
            return
        if (raw := self._local.get_extra_info("socket")) is not None:
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._local.abort()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if self._on_end is not None:
                self._on_end(self)
