"""The two directions of a line, as numbers and queues. Does no I/O."""

from __future__ import annotations

from collections import deque

from . import frames

#: Unacknowledged bytes in each direction; above it the writer waits.
MAX_UNACKNOWLEDGED_BYTES = 8 << 20
#: Bytes in one DATA frame: its cost vanishes, and a PONG behind it is not late.
MAX_FRAME_BYTES = 256 << 10
#: An ACK is due after so many bytes handed up, else after a time.
ACK_EVERY_BYTES = 256 << 10


class OutOfStep(Exception):
    """What the other side says cannot be: the line cannot go on."""


class Gap(Exception):
    """Bytes are missing on this carrier; a new one will bring them again."""


class Outgoing:
    """What was written, until it is acknowledged.

    Chunks stay the objects that they were written as: sending copies each byte
    once, into its frame, and a resend needs no second copy.
    """

    def __init__(self) -> None:
        self._unsent: deque[bytes | memoryview] = deque()
        self._unacknowledged: deque[bytes | memoryview] = deque()
        self.acknowledged = 0
        self.sent = 0
        self.written = 0

    def write(self, data: bytes) -> None:
        """Queue bytes; they are kept, not copied."""
        self._unsent.append(data)
        self.written += len(data)

    def next_frame(self) -> bytes | None:
        """The next DATA frame, or None when there is nothing that may be sent now."""
        room = min(
            MAX_FRAME_BYTES,
            self.written - self.sent,
            MAX_UNACKNOWLEDGED_BYTES - (self.sent - self.acknowledged),
        )
        if room <= 0:
            return None
        parts: list[bytes | memoryview] = [frames.data_header(self.sent, room)]
        left = room
        while left:
            chunk = self._unsent.popleft()
            if len(chunk) > left:
                view = memoryview(chunk)
                self._unsent.appendleft(view[left:])
                chunk = view[:left]
            left -= len(chunk)
            parts.append(chunk)
            self._unacknowledged.append(chunk)
        self.sent += room
        return b"".join(parts)

    def acknowledge(self, received: int) -> None:
        """The other side has so many bytes.

        Raises:
            OutOfStep: it cannot have them, or had more before.
        """
        if not self.acknowledged <= received <= self.sent:
            raise OutOfStep(f"received {received} of {self.acknowledged} to {self.sent}")
        drop = received - self.acknowledged
        self.acknowledged = received
        while drop:
            chunk = self._unacknowledged.popleft()
            if len(chunk) > drop:
                self._unacknowledged.appendleft(memoryview(chunk)[drop:])
                break
            drop -= len(chunk)

    def resume(self, received: int) -> None:
        """A new carrier: the other side has so many bytes, the rest is sent again."""
        self.acknowledge(received)
        self._unsent.extendleft(reversed(self._unacknowledged))
        self._unacknowledged.clear()
        self.sent = received

    @property
    def size(self) -> int:
        """Bytes that are kept, in all."""
        return self.written - self.acknowledged


class Incoming:
    """What was received and handed up."""

    def __init__(self) -> None:
        self.received = 0
        self.told = 0

    def deliver(self, offset: int, payload: bytes) -> bytes:
        """The part of the bytes that is new.

        Raises:
            Gap: bytes before these are missing.
        """
        if offset > self.received:
            raise Gap(f"DATA at {offset}, but only {self.received} was received")
        new = payload[self.received - offset :] if offset < self.received else payload
        self.received += len(new)
        return new

    @property
    def untold(self) -> int:
        """Bytes handed up that no ACK has told yet."""
        return self.received - self.told
