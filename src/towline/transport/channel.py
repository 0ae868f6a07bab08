"""One tunnel channel: bytes both ways, half-close, reset, credit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import asyncssh
from asyncssh.packet import SSHPacket, String, UInt32

from towline.transport.credit import CLIENT_INITIAL_BYTES, Budget, Grants
from towline.transport.packets import DataChannel, PacketConnection

# Twice the credit: SSH's own window, which is granted anew by halves, never bounds.
_WINDOW_BYTES = 12 * 1024 * 1024
# The Go side sends packets as large as this; the protocol's usual 32 KiB would be three
# times the packets, each with its own encryption and dispatch.
_PACKET_BYTES = 128 * 1024


class Endpoint(Protocol):
    """What sits at the laptop's end of a channel: all calls come from the event loop."""

    def received(self, data: bytes) -> None: ...

    def channel_eof(self) -> None: ...

    def ended(self, reset: str | None) -> None:
        """The channel is over: in order (None), or by a reset, with the reason if there is one."""

    def pause(self, paused: bool) -> None:
        """Stop, or go on, calling `TunnelChannel.write`."""


class _SshChannel(DataChannel):
    """asyncssh's channel, with Towline's two requests (not public API: see pyproject.toml)."""

    tunnel: TunnelChannel

    def _process_reset_at_towline_request(self, packet: SSHPacket) -> bool:
        self.tunnel.reset_reason = packet.get_string().decode(errors="replace") or "reset"
        return True

    def _process_credit_at_towline_request(self, packet: SSHPacket) -> bool:
        self.tunnel.credited(packet.get_uint32())
        return True

    def send_request(self, name: bytes, payload: bytes) -> None:
        self._send_request(name, payload)


class _Session(asyncssh.SSHTCPSession[bytes]):
    def __init__(self, tunnel: TunnelChannel) -> None:
        self._tunnel = tunnel

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._tunnel.on_data(data)

    def eof_received(self) -> bool:
        self._tunnel.on_eof()
        return True

    def pause_writing(self) -> None:
        self._tunnel.on_pause(True)

    def resume_writing(self) -> None:
        self._tunnel.on_pause(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.on_lost(exc)


class TunnelChannel:
    """A channel that is open; attach an endpoint to use it.

    Attributes:
        reset_reason: what the other side's reset said, once there was one.
    """

    def __init__(self, channel: _SshChannel, *, budget: Budget) -> None:
        self._channel = channel
        self._grants = Grants(budget)
        self._credit = CLIENT_INITIAL_BYTES
        self._waiting: deque[bytes | memoryview] = deque()
        self._eof_waiting = False
        self._eof_received = False
        self._closed_here = False
        self._ssh_paused = False
        self._told_paused = False
        self._endpoint: Endpoint | None = None
        self._over = False
        self.reset_reason: str | None = None
        self.on_first_data: Callable[[bytes], None] | None = None
        self.on_early_end: Callable[[], None] | None = None

    def attach(self, endpoint: Endpoint) -> None:
        """Hand everything to an endpoint from now on."""
        self._endpoint = endpoint
        self.on_first_data = self.on_early_end = None
        if self._over:
            endpoint.ended(self._how_it_ended())

    @property
    def usable(self) -> bool:
        """Whether it is still open in both directions."""
        return not self._over and not self._channel.is_closing()

    def write_header(self, data: bytes) -> None:
        """Send bytes that do not count against the credit: the header with the target."""
        self._channel.write(data)

    def write(self, data: bytes) -> None:
        """Send bytes; what the credit does not cover yet waits here, and the endpoint is paused."""
        if self._channel.is_closing():
            return
        if self._waiting or len(data) > self._credit:
            self._waiting.append(data)
            self._drain()
        else:
            self._credit -= len(data)
            self._channel.write(data)
        self._tell_pause()

    def write_eof(self) -> None:
        """End this direction after what was written; the other goes on."""
        if self._waiting:
            self._eof_waiting = True
        elif not self._channel.is_closing():
            self._channel.write_eof()

    def reset(self, reason: str = "") -> None:
        """End it as a reset: the other side resets its socket too."""
        if not self._over and not self._closed_here:
            self._closed_here = True
            self._waiting.clear()
            # Not `is_closing()`: asyncssh says so from our own EOF on, and a connection
            # that is half closed can still be reset.
            self._channel.send_request(b"reset@towline", String(reason))
            self._channel.abort()

    def close(self) -> None:
        """Close it in order, once both directions are at their end."""
        self._closed_here = True
        self._channel.close()

    def consumed(self, count: int) -> None:
        """Tell that the endpoint took bytes, so that the agent may send more."""
        grant = self._grants.consumed(count)
        # Also after our own EOF, where asyncssh's `is_closing()` is true already: the other
        # direction of a half-closed connection goes on, and needs credit.
        if grant and not self._over and not self._closed_here:
            self._channel.send_request(b"credit@towline", UInt32(grant))

    # From SSH

    def on_data(self, data: bytes) -> None:
        if self.on_first_data is not None:
            self.on_first_data(data)
        elif self._endpoint is not None:
            self._endpoint.received(data)

    def on_eof(self) -> None:
        self._eof_received = True
        if self._endpoint is not None:
            self._endpoint.channel_eof()
        elif self.on_early_end is not None:
            self.on_early_end()

    def on_pause(self, paused: bool) -> None:
        self._ssh_paused = paused
        self._tell_pause()

    def on_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._grants.end()
        if self._endpoint is not None:
            endpoint, self._endpoint = self._endpoint, None
            endpoint.ended(self._how_it_ended(exc))
        elif self.on_early_end is not None:
            self.on_early_end()

    def credited(self, count: int) -> None:
        """The agent lets us send `count` more."""
        self._credit += count
        self._drain()
        self._tell_pause()

    def _how_it_ended(self, exc: Exception | None = None) -> str | None:
        if self.reset_reason is not None:
            return self.reset_reason
        if exc is not None:
            return str(exc)
        # CLOSE without EOF is a reset, unless it is our own close that is answered.
        return None if self._eof_received or self._closed_here else "closed without an end"

    def _drain(self) -> None:
        while self._waiting and self._credit > 0 and not self._channel.is_closing():
            data = self._waiting.popleft()
            if len(data) > self._credit:
                data = memoryview(data)  # the rest is not copied
                self._waiting.appendleft(data[self._credit :])
                data = data[: self._credit]
            self._credit -= len(data)
            self._channel.write(data)
        if self._eof_waiting and not self._waiting and not self._channel.is_closing():
            self._eof_waiting = False
            self._channel.write_eof()

    def _tell_pause(self) -> None:
        paused = bool(self._waiting) or self._ssh_paused
        if paused != self._told_paused and self._endpoint is not None:
            self._told_paused = paused
            self._endpoint.pause(paused)


async def open_channel(
    connection: PacketConnection, host: str, port: int, *, budget: Budget
) -> TunnelChannel:
    """Open a direct-tcpip channel: one round trip."""
    channel = _SshChannel(
        connection, connection._loop, None, "strict", _WINDOW_BYTES, _PACKET_BYTES
    )
    channel.tunnel = TunnelChannel(channel, budget=budget)
    await channel.connect(lambda: _Session(channel.tunnel), host, port, "", 0)
    return channel.tunnel
