"""The client's side of the line, for asyncio: carriers come and go, the stream stays.

The rules are in frames, resume and redial; this module joins them to callbacks and
timers. There is no reader task: bytes go from the carrier's callback to the
protocol above in one call, since each wake-up is paid for by every request.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from towline._kit.tasks import Tasks
from towline.errors import ConnectionLost, Forbidden, NotFound, Unauthorized

from . import frames
from .frames import Key, LineId, Nonce
from .redial import (
    AGENT_GIVES_UP_AFTER_S,
    DIAL_WITHIN_S,
    PING_AFTER_S,
    SILENT_AFTER_S,
    SLEPT_S,
    Redial,
)
from .resume import (
    ACK_EVERY_BYTES,
    MAX_UNACKNOWLEDGED_BYTES,
    Gap,
    Incoming,
    Outgoing,
    OutOfStep,
)

#: An ACK follows the first unacknowledged byte within this time.
ACK_WITHIN_S = 0.2
#: How often the carrier is looked at; a laptop that wakes up notices within it.
LOOK_EVERY_S = 0.5
#: Writing goes on below this.
_RESUME_BELOW_BYTES = MAX_UNACKNOWLEDGED_BYTES // 2

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)


class CarrierConnection(Protocol):
    """One connection that bytes of a line travel on.

    All calls come from the event loop, and none blocks. `lost` is called once, also
    after `abort`; nothing is called after it.
    """

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; what cannot be sent yet is buffered."""

    def attach(
        self, receive: Callable[[bytes], None], lost: Callable[[Exception | None], None]
    ) -> None:
        """Hand what arrived, and arrives, to `receive`."""

    def on_pause(self, callback: Callable[[bool], None]) -> None:
        """Call back with True when its buffer is full, with False when it is not."""

    def abort(self) -> None:
        """End it now; what was not sent yet is dropped."""

    async def aclose(self) -> None:
        """End it in order."""


Dial = Callable[[], Awaitable[CarrierConnection]]


class Clock(Protocol):
    """Two clocks, of which one stands still while the laptop sleeps."""

    def monotonic(self) -> float:
        """Seconds that the system ran."""
        ...

    def boot(self) -> float:
        """Seconds since the system's start, sleep included."""
        ...


class SystemClock:
    """The clocks of this system; where it has no second one they never differ."""

    def monotonic(self) -> float:
        """Seconds that the system ran."""
        if sys.platform == "darwin":
            return time.clock_gettime(time.CLOCK_UPTIME_RAW)
        return time.monotonic()

    def boot(self) -> float:
        """Seconds since the system's start, sleep included."""
        if sys.platform == "linux":
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        if sys.platform == "darwin":
            return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Lost:
    """No carrier answers (since then, on the loop's clock); one is being looked for."""

    since: float


@dataclass(frozen=True, slots=True)
class Healed:
    """A new carrier goes on where the old one ended."""

    after_s: float


@dataclass(frozen=True, slots=True)
class DialFailed:
    """One attempt at a carrier failed; the next follows."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Gone:
    """The agent has no such line (any more); there will be none again."""

    error: LineGone


Event = Lost | Healed | DialFailed | Gone


class LineGone(ConnectionLost):
    """The agent does not go on with this line: restarted, replaced, or another key.

    Attributes:
        reason: the agent's, or None where this side found out.
    """

    def __init__(self, text: str, *, reason: frames.Reason | None) -> None:
        super().__init__(f"the agent does not go on with this connection: {text}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of a line, for `towline status`; `connected_since` is on the loop's clock."""

    bytes_in: int
    bytes_out: int
    carriers_dialled: int
    connected_since: float | None
    round_trip_s: float | None


@asynccontextmanager
async def resumable_line(
    *,
    dial: Dial,
    key: bytes,
    line_id: bytes | None = None,
    clock: Clock | None = None,
    events: Callable[[Event], None] = lambda event: None,
    redial: Redial | None = None,
    give_up_after_s: float | None = None,
) -> AsyncIterator[Line]:
    """A line to the agent, for as long as the block lasts; it begins with a carrier.

    Args:
        give_up_after_s: the line is gone when no carrier has answered for so long, or when
            there is no such pod any more; with None somebody else has to know.

    Raises:
        LineGone: the agent refuses the line at once.
        Forbidden, NotFound, Unauthorized: from the first dials. Other failures, and
            these later, are retried for as long as the block lasts.
    """
    async with Tasks() as tasks:
        line = Line(
            dial=dial,
            key=Key(key),
            line_id=LineId(line_id or secrets.token_bytes(frames.LINE_ID_BYTES)),
            clock=clock or SystemClock(),
            events=events,
            redial=redial or Redial(),
            give_up_after_s=give_up_after_s,
            tasks=tasks,
        )
        tasks.start(line._keep_dialling(), name="line: dial")
        try:
            await line.connected()
            yield line
        finally:
            await line._aclose()


class _Attempt:
    """One carrier, from its dial until WELCOME makes it the line's."""

    def __init__(self, line: Line, carrier: CarrierConnection) -> None:
        self._line = line
        self.carrier = carrier
        self.parser = frames.Parser()
        self.agent_nonce: Nonce | None = None
        self.client_nonce = Nonce(secrets.token_bytes(frames.NONCE_BYTES))
        self.greeted_at = 0.0
        self.paused = False
        self.over = False
        self.ended = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        self.carrier.on_pause(self._on_pause)
        self.carrier.attach(self._on_bytes, self._on_lost)

    def _on_pause(self, paused: bool) -> None:
        self.paused = paused
        if not paused:
            self._line._writable(self)

    def _on_bytes(self, data: bytes) -> None:
        if self.over:
            return
        try:
            arrived = self.parser.feed(data)
        except frames.FrameError as error:
            self.end(error)
            return
        self._line._heard(self)
        for frame in arrived:
            if self.over:
                return
            try:
                self._line._frame(self, frame)
            except Gap as error:
                self.end(error)
            except OutOfStep as error:
                self._line._gone(LineGone(str(error), reason=None))

    def _on_lost(self, error: Exception | None) -> None:
        self.end(error)

    def end(self, error: Exception | None) -> None:
        """The carrier is of no more use."""
        if self.over:
            return
        self.over = True
        self.carrier.abort()
        if not self.ended.done():
            self.ended.set_result(None)
        self._line._carrier_ended(self, error)

    def welcomed(self) -> None:
        """It is the line's: nobody waits for it any more."""
        if not self.ended.done():
            self.ended.set_result(None)


class Line(asyncio.Transport):
    """One line. To SSH it is a transport; only GONE and its own close end it.

    `asyncssh.connect(…, tunnel=line)` takes it as it is.

    Attributes:
        last_error: why the last dial or carrier failed.
    """

    def __init__(
        self,
        *,
        dial: Dial,
        key: Key,
        line_id: LineId,
        clock: Clock,
        events: Callable[[Event], None],
        redial: Redial,
        give_up_after_s: float | None,
        tasks: Tasks,
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._dial = dial
        self._key = key
        self._line_id = line_id
        self._clock = clock
        self._events = events
        self._redial = redial
        self._give_up_after_s = give_up_after_s
        self._tasks = tasks

        self._out = Outgoing()
        self._in = Incoming()
        self._held_back: deque[frames.Data] = deque()
        # Nobody reads before a protocol is put on: what the agent says first (SSH's
        # version line, right behind WELCOME) waits until then.
        self._reading_paused = True
        self._protocol: asyncio.Protocol | None = None
        self._writing_paused = False
        self._high_bytes = MAX_UNACKNOWLEDGED_BYTES
        self._low_bytes = _RESUME_BELOW_BYTES

        self._current: _Attempt | None = None
        self._attempts: set[_Attempt] = set()
        self._dial_now = asyncio.Event()
        self._welcomed = asyncio.Event()
        self._closing = False
        self._ended = False
        self._peer_closed = False
        self._error: Exception | None = None

        self._flush_at: asyncio.Handle | None = None
        self._ack_at: asyncio.TimerHandle | None = None
        self._look_at: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._pinged_at: float | None = None
        self._lost_since: float | None = None
        self._slept_s = clock.boot() - clock.monotonic()

        self._bytes_in = self._bytes_out = self._dialled = 0
        self._connected_since: float | None = None
        self._round_trip_s: float | None = None
        self.last_error: Exception | None = None
        self._want_carrier()
        self._look_at = self._loop.call_later(LOOK_EVERY_S, self._look)

    # What the session uses

    async def connected(self) -> None:
        """Wait for the first carrier.

        Raises:
            LineGone, Forbidden, NotFound, Unauthorized: see `resumable_line`.
        """
        await self._welcomed.wait()
        if self._error is not None:
            raise self._error

    def network_changed(self) -> None:
        """Dial a new carrier at once: the laptop has another address, or woke up."""
        if not self._ended:
            self._redial.want(self._loop.time())
            self._redial.hurry(self._loop.time())
            self._dial_now.set()

    @property
    def is_lost(self) -> bool:
        """Whether no carrier answers just now."""
        return self._lost_since is not None

    def statistics(self) -> Statistics:
        """The line's figures as they are now."""
        return Statistics(
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            carriers_dialled=self._dialled,
            connected_since=self._connected_since,
            round_trip_s=self._round_trip_s,
        )

    # What asyncssh uses

    async def create_connection(
        self, factory: Callable[[], _Protocol], host: str, port: int
    ) -> tuple[Line, _Protocol]:
        """Put a protocol on the line, as loop.create_connection does on a socket."""
        protocol = factory()
        self._protocol = protocol  # type: ignore[assignment]
        protocol.connection_made(self)
        self._loop.call_soon(self.resume_reading)
        if self._ended:
            self._loop.call_soon(protocol.connection_lost, self._error)
        return self, protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing: a line has no socket and no address."""
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand bytes to another protocol from now on."""
        self._protocol = protocol  # type: ignore[assignment]

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who gets the bytes."""
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        """Whether it was closed, or is gone."""
        return self._closing or self._ended

    def is_reading(self) -> bool:
        """Whether bytes are handed up as they come."""
        return not self._reading_paused

    def pause_reading(self) -> None:
        """Hand nothing up for now; at most 8 MiB wait here."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Hand up what waited, and go on."""
        self._reading_paused = False
        while self._held_back and not self._reading_paused:
            self._deliver(self._held_back.popleft())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; never blocks. All that one turn of the loop writes is one frame."""
        if self._ended or self._closing or not data:
            return
        self._out.write(data if isinstance(data, bytes) else bytes(data))
        if self._flush_at is None:
            self._flush_at = self._loop.call_soon(self._flush)
        if self._out.size > self._high_bytes and not self._writing_paused:
            self._writing_paused = True
            if self._protocol is not None:
                self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Send several pieces."""
        for data in list_of_data:
            self.write(data)

    def can_write_eof(self) -> bool:
        """A line has no half-close."""
        return False

    def get_write_buffer_size(self) -> int:
        """Bytes that the agent has not acknowledged."""
        return self._out.size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Where writing is resumed and paused, in bytes."""
        return self._low_bytes, self._high_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set where `pause_writing` and `resume_writing` are called."""
        self._high_bytes = MAX_UNACKNOWLEDGED_BYTES if high is None else high
        self._low_bytes = self._high_bytes // 2 if low is None else low

    def close(self) -> None:
        """End the line in order: what was written is sent, then CLOSE."""
        if self._closing or self._ended:
            return
        self._closing = True
        self._flush()
        if self._current is not None:
            self._current.carrier.write(frames.serialise(frames.Close()))
        self._end(None)

    def abort(self) -> None:
        """As `close`: CLOSE spares the agent the wait for a carrier that never comes."""
        self.close()

    async def _aclose(self) -> None:
        """Leave nothing behind."""
        self.close()
        current, self._current = self._current, None
        for attempt in list(self._attempts):
            attempt.end(None)
        if current is not None and not current.over:
            await current.carrier.aclose()
            current.over = True

    # Sending

    def _flush(self) -> None:
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        current = self._current
        if current is None:
            return
        while not current.paused and not current.over:
            frame = self._out.next_frame()
            if frame is None:
                return
            self._bytes_out += len(frame)
            current.carrier.write(frame)

    def _writable(self, attempt: _Attempt) -> None:
        if attempt is self._current:
            self._flush()

    def _send(self, frame: frames.Frame) -> None:
        if self._current is not None:
            self._current.carrier.write(frames.serialise(frame))

    def _acknowledge(self) -> None:
        if self._ack_at is not None:
            self._ack_at.cancel()
            self._ack_at = None
        if self._in.untold and self._current is not None:
            self._in.told = self._in.received
            self._send(frames.Ack(self._in.received))

    # Receiving

    def _frame(self, attempt: _Attempt, frame: frames.Frame) -> None:
        """Take one frame.

        Raises:
            Gap, OutOfStep: see there.
        """
        match frame:
            case frames.Greeting(version, nonce) if attempt.agent_nonce is None:
                self._greeted(attempt, version, nonce)
            case frames.Welcome() if attempt is not self._current and attempt.greeted_at:
                self._welcome(attempt, frame)
            case frames.Gone(number, text):
                known = number in frames.Reason._value2member_map_
                reason = frames.Reason(number) if known else None
                self._gone(LineGone(text, reason=reason))
            case _ if attempt is not self._current:
                attempt.end(frames.UnknownType(f"{type(frame).__name__} before WELCOME"))
            case frames.Data():
                if self._reading_paused or self._held_back:
                    self._held_back.append(frame)
                else:
                    self._deliver(frame)
            case frames.Ack(received):
                self._acknowledged(received)
            case frames.Ping(token):
                self._send(frames.Pong(token))
            case frames.Pong():
                if self._pinged_at is not None:
                    self._round_trip_s = self._loop.time() - self._pinged_at
                    self._pinged_at = None
            case frames.Close():
                self._peer_closed = True
                self._end(None)
            case _:
                attempt.end(frames.UnknownType(f"{type(frame).__name__} after WELCOME"))

    def _deliver(self, data: frames.Data) -> None:
        new = self._in.deliver(data.offset, data.payload)
        if not new:
            return
        self._bytes_in += len(new)
        if self._in.untold >= ACK_EVERY_BYTES:
            self._acknowledge()
        elif self._ack_at is None:
            self._ack_at = self._loop.call_later(ACK_WITHIN_S, self._acknowledge)
        if self._protocol is not None:
            self._protocol.data_received(new)

    def _acknowledged(self, received: int) -> None:
        self._out.acknowledge(max(received, self._out.acknowledged))
        if self._writing_paused and self._out.size <= self._low_bytes:
            self._writing_paused = False
            if self._protocol is not None:
                self._protocol.resume_writing()
        if self._out.written > self._out.sent:
            self._flush()

    # Carriers come

    def _greeted(self, attempt: _Attempt, version: int, nonce: Nonce) -> None:
        if version != frames.VERSION:
            text = f"it speaks version {version}, this client {frames.VERSION}"
            self._gone(LineGone(text, reason=frames.Reason.VERSION))
            return
        attempt.agent_nonce = nonce
        attempt.greeted_at = self._loop.time()
        mac = frames.hello_mac(
            self._key,
            agent=nonce,
            client=attempt.client_nonce,
            version=version,
            line_id=self._line_id,
            received=self._in.received,
        )
        hello = frames.Hello(version, self._line_id, attempt.client_nonce, self._in.received, mac)
        attempt.carrier.write(frames.serialise(hello))

    def _welcome(self, attempt: _Attempt, welcome: frames.Welcome) -> None:
        """The line goes on, on this carrier.

        When two were greeted at once the agent ends the first for the second, so
        each WELCOME is followed; dials that said nothing yet are dropped.
        """
        assert attempt.agent_nonce is not None
        mac = frames.welcome_mac(
            self._key,
            client=attempt.client_nonce,
            agent=attempt.agent_nonce,
            received=welcome.received,
        )
        if not hmac.compare_digest(mac, welcome.mac):
            attempt.end(frames.FrameError("WELCOME does not prove the key"))
            return
        self._out.resume(welcome.received)
        old, self._current = self._current, attempt
        self._in.told = self._in.received
        self._held_back.clear()
        now = self._loop.time()
        self._round_trip_s = now - attempt.greeted_at
        self._connected_since = now
        self._heard_at = now
        self._pinged_at = None
        self._redial.settle()
        attempt.welcomed()
        if old is not None:
            old.end(None)
        for other in list(self._attempts):
            if other is not attempt and not other.greeted_at:
                other.end(None)
        if self._lost_since is not None:
            self._events(Healed(now - self._lost_since))
            self._lost_since = None
        self._welcomed.set()
        self._flush()

    # Carriers go

    def _heard(self, attempt: _Attempt) -> None:
        if attempt is not self._current:
            return
        quiet_s = self._loop.time() - self._heard_at
        if self._lost_since is not None and quiet_s > AGENT_GIVES_UP_AFTER_S:
            return
        self._heard_at = self._loop.time()
        if self._lost_since is not None and self._redial.wanted:
            # It was only slow. Dials that have told the agent of themselves go on:
            # it may have ended this carrier for one of them already.
            self._redial.settle()
            self._events(Healed(self._heard_at - self._lost_since))
            self._lost_since = None
            for other in list(self._attempts):
                if other is not attempt and not other.greeted_at:
                    other.end(None)

    def _carrier_ended(self, attempt: _Attempt, error: Exception | None) -> None:
        self._attempts.discard(attempt)
        if error is not None:
            self.last_error = error
        if attempt is self._current:
            self._current = None
            self._connected_since = None
        elif self._current is not None or self._lost_since is not None:
            return
        # The agent ends the old carrier of a line just before it welcomes the new one:
        # nothing is lost while such a one is on its way.
        is_replaced = any(other.greeted_at for other in self._attempts)
        if self._welcomed.is_set() and not self._ended and not is_replaced:
            self._carrier_missing()

    def _carrier_missing(self) -> None:
        now = self._loop.time()
        if self._lost_since is None:
            self._lost_since = now
            self._events(Lost(now))
        self._want_carrier()

    def _want_carrier(self) -> None:
        self._redial.want(self._loop.time())
        self._dial_now.set()

    def _look(self) -> None:
        """Look at the carrier: ask it for a sign of life, or dial beside it."""
        self._look_at = self._loop.call_later(self._look_within_s(), self._look)
        slept_s = self._clock.boot() - self._clock.monotonic()
        if slept_s - self._slept_s > SLEPT_S:
            self.network_changed()
        self._slept_s = slept_s
        if self._is_hopeless():
            self._give_up()
            return
        if not self._welcomed.is_set():
            return
        quiet_s = self._loop.time() - self._heard_at
        if quiet_s >= SILENT_AFTER_S:
            # Also where there is none: the one that was to replace it may say no more.
            self._carrier_missing()
        elif self._current is not None and quiet_s >= PING_AFTER_S and self._pinged_at is None:
            self._pinged_at = self._loop.time()
            self._send(frames.Ping(int(self._pinged_at * 1e6)))

    def _is_hopeless(self) -> bool:
        if self._give_up_after_s is None or self._lost_since is None:
            return False
        return self._loop.time() - self._lost_since >= self._give_up_after_s

    def _give_up(self) -> None:
        text = f"it was not reached for {self._give_up_after_s:g} s, and keeps none for longer"
        if self.last_error is not None:
            text += f" (the last try: {self.last_error})"
        self._gone(LineGone(text, reason=None))

    def _look_within_s(self) -> float:
        """When silence means something next, and no later than a sleep is to be seen."""
        quiet_s = self._loop.time() - self._heard_at
        due_s = [each - quiet_s for each in (PING_AFTER_S, SILENT_AFTER_S) if each > quiet_s]
        return min([LOOK_EVERY_S, *due_s])

    async def _keep_dialling(self) -> None:
        while not self._ended:
            wait_s = self._redial.wait_s(self._loop.time())
            if wait_s == 0.0:
                self._redial.dialled(self._loop.time())
                self._tasks.start(self._dial_once(), name="line: carrier")
                continue
            self._dial_now.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._dial_now.wait()
            except TimeoutError:
                continue

    async def _dial_once(self) -> None:
        attempt: _Attempt | None = None
        self._dialled += 1
        try:
            async with asyncio.timeout(DIAL_WITHIN_S):
                carrier = await self._dial()
                if self._ended or not self._redial.wanted:
                    carrier.abort()
                    return
                attempt = _Attempt(self, carrier)
                self._attempts.add(attempt)
                attempt.begin()
                await attempt.ended
        except Exception as error:
            if attempt is not None:
                attempt.end(error)
            self._dial_failed(error)
        finally:
            self._redial.ended()
            self._dial_now.set()

    def _dial_failed(self, error: Exception) -> None:
        self.last_error = error
        self._events(DialFailed(error))
        first = not self._welcomed.is_set()
        if first and isinstance(error, (Forbidden, NotFound, Unauthorized)):
            self._end(error)
        elif isinstance(error, NotFound) and self._give_up_after_s is not None:
            self._gone(LineGone(str(error), reason=None))  # no pod has a name a second time

    # The end

    def _gone(self, error: LineGone) -> None:
        if not self._ended:
            self._events(Gone(error))
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._redial.settle()
        for timer in (self._flush_at, self._ack_at, self._look_at):
            if timer is not None:
                timer.cancel()
        for attempt in list(self._attempts):
            if attempt is not self._current or error is not None or self._peer_closed:
                attempt.end(None)
        self._welcomed.set()
        self._dial_now.set()
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)
