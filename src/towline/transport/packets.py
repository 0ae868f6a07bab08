"""The hot way through asyncssh: packets of channel data, with few copies.

asyncssh copies each byte of a bulk stream some ten times on its way in and six on its
way out, and sends an IGNORE before every packet, which is of use to CBC ciphers alone.
Here a packet of channel data is decrypted out of the line's bytes, or encrypted for
it, in one step. All else (key exchange, requests, opening and closing, any cipher but
AES-GCM) goes asyncssh's way: the two share its keys, counters and windows, so each
packet may go either.

This knows asyncssh's private names, and the version is pinned for it in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import os
import struct
from typing import Any

import asyncssh
from asyncssh.connection import _connect
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST, MSG_IGNORE
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_LENGTH_BYTES, _TAG_BYTES = 4, 16
# RFC 4253 §6 and RFC 4254 §5.2: padding length, message number, channel, and the length
# of the data or, in a WINDOW_ADJUST, how much larger the window is.
_DATA_HEADER = struct.Struct(">BBII")


class DataChannel(asyncssh.SSHTCPChannel[bytes]):
    """A channel whose data goes the hot way: its session is given memoryviews."""

    _conn: PacketConnection | None  # asyncssh's, of our kind

    def write(self, data: Any, datatype: Any = None) -> None:
        """Send bytes, as far as the other side's window goes; asyncssh keeps the rest."""
        view, at = memoryview(data), 0
        if self._conn is not None and self._send_state == "open" and not self._send_buf:
            while at < len(view):
                size = min(len(view) - at, self._send_window, self._send_pktsize)
                if not size or not self._conn.send_data(self._send_chan, view[at : at + size]):
                    break
                self._send_window -= size
                at += size
        if at < len(view):
            super().write(bytes(view[at:]), datatype)

    @property
    def is_receiving(self) -> bool:
        """Whether data is in order now; if not, asyncssh says what is wrong with it."""
        return self._recv_state == "open"

    @property
    def receive_window(self) -> int:
        """How much may still be sent to this channel."""
        return self._recv_window

    def take_data(self, data: memoryview) -> None:
        """Take data that was sent to this channel."""
        self._accept_data(data)  # type: ignore[arg-type]

    def take_window(self, size: int) -> None:
        """So much more may be sent."""
        self._send_window += size
        if self._send_buf:
            self._flush_send_buf()


class PacketConnection(asyncssh.SSHClientConnection):
    """asyncssh's connection with a short cut for channel data."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The beginning of a packet, in the pieces it came in.
        self._pieces: list[bytes] = []
        self._have = self._need = 0

    # Out

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype == MSG_IGNORE and isinstance(self._send_encryption, GCMEncryption):
            return
        super().send_packet(pkttype, *args, handler=handler)

    def send_data(self, channel: int | None, data: memoryview) -> bool:
        """Send one packet of data; False when it has to go asyncssh's way (a key exchange)."""
        encryption = self._send_encryption
        if (
            not isinstance(encryption, GCMEncryption)
            or not self._kex_complete
            or not self._auth_complete
            or self._rekey_bytes_sent >= self._rekey_bytes
            or self._transport is None
        ):
            return False
        size = _DATA_HEADER.size + len(data)
        # RFC 5647 §7.2: without the length a multiple of the block, at least four.
        padding = 16 - size % 16
        if padding < 4:
            padding += 16
        length = (size + padding).to_bytes(_LENGTH_BYTES, "big")
        header = _DATA_HEADER.pack(padding, MSG_CHANNEL_DATA, channel, len(data))
        cipher = encryption._cipher
        sealed = AESGCM(cipher._key).encrypt(
            cipher._iv, b"".join((header, data, os.urandom(padding))), length
        )
        cipher._update_iv()
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += size + padding
        self._transport.writelines((length, sealed))
        return True

    # In

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        elif self._inpbuf and self._at_packet():
            data, self._inpbuf = self._inpbuf + data, b""
        try:
            self._take_packets(memoryview(data))
        except Exception:
            # As asyncssh does with what its own handlers raise.
            self.internal_error()

    def _at_packet(self) -> bool:
        """Whether the next bytes begin a packet that may be data."""
        return (
            isinstance(self._recv_encryption, GCMEncryption)
            and self._recv_handler == self._recv_pkthdr
            and self._transport is not None
        )

    def _take_packets(self, view: memoryview) -> None:
        at, end = 0, len(view)
        while at < end:
            if self._inpbuf or not self._at_packet():
                # In the middle of something: asyncssh takes all that is there.
                super().data_received(bytes(view[at:]))
                return
            self._need = _LENGTH_BYTES
            if end - at >= _LENGTH_BYTES:
                length = int.from_bytes(view[at : at + _LENGTH_BYTES], "big")
                if length <= self._max_recv_pktlen:
                    self._need = _LENGTH_BYTES + length + _TAG_BYTES
            if end - at < self._need:
                self._pieces.append(bytes(view[at:]))
                self._have = end - at
                return
            if self._need == _LENGTH_BYTES:
                # Longer than may be: asyncssh ends the connection for it.
                super().data_received(bytes(view[at:]))
                return
            packet = view[at : at + self._need]
            if not self._take_packet(packet):
                # No byte of the next packet goes with it, so that the next may be data.
                super().data_received(bytes(packet))
            at += len(packet)

    def _take_packet(self, packet: memoryview) -> bool:
        """Take data for one of our channels, or window for it; else nothing has changed."""
        cipher = self._recv_encryption._cipher  # type: ignore[union-attr]
        length, sealed = packet[:_LENGTH_BYTES], packet[_LENGTH_BYTES:]
        try:
            plain = AESGCM(cipher._key).decrypt(cipher._iv, sealed, length)
        except InvalidTag:
            return False
        if len(plain) < _DATA_HEADER.size:
            return False
        padding, kind, number, size = _DATA_HEADER.unpack_from(plain)
        channel = self._channels.get(number)
        if not isinstance(channel, DataChannel) or not channel.is_receiving:
            return False
        end = len(plain) - padding
        if kind == MSG_CHANNEL_DATA:
            if _DATA_HEADER.size + size != end or size > channel.receive_window:
                return False
            self._taken(cipher)
            channel.take_data(memoryview(plain)[_DATA_HEADER.size : end])
            return True
        if kind == MSG_CHANNEL_WINDOW_ADJUST and end == _DATA_HEADER.size:
            # The agent's library sends one for every 96 KiB that it has read.
            self._taken(cipher)
            channel.take_window(size)
            return True
        return False

    def _taken(self, cipher: Any) -> None:
        cipher._update_iv()
        self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF


async def connect(host: str, port: int, *, tunnel: Any, **options: Any) -> PacketConnection:
    """As `asyncssh.connect` through a tunnel, with a connection of our kind.

    Raises:
        asyncssh.Error, OSError: it does not come about.
    """
    loop = asyncio.get_running_loop()
    made = await asyncssh.SSHClientConnectionOptions.construct(
        None, host=host, port=port, tunnel=tunnel, **options
    )
    return await _connect(
        made,
        None,
        loop,
        0,
        None,
        lambda: PacketConnection(loop, made, wait="auth"),
        "Opening SSH connection to",
    )
