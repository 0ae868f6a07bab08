"""The client's side of the line against an agent that is a script of frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from towline.errors import NotFound, Unreachable
from towline.line import frames
from towline.line.line import DialFailed, Event, Healed, LineGone, Lost, resumable_line
from towline.line.redial import DIAL_WITHIN_S, Redial

KEY = frames.Key(b"k" * 32)


class Clock:
    """A laptop's two clocks; `sleep_for` is its lid."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    def monotonic(self) -> float:
        return 100.0

    def boot(self) -> float:
        return 100.0 + self.slept_s


class Carrier:
    """A carrier whose other end speaks by script: greets, welcomes, notes what it got."""

    def __init__(self, *, has: int = 0, answers: bool = True) -> None:
        self.has = has
        self.answers = answers
        self.frames: list[frames.Frame] = []
        self.aborted = False
        self._parser = frames.Parser()
        self._receive: Callable[[bytes], None] = lambda data: None
        self._lost: Callable[[Exception | None], None] = lambda error: None

    def attach(
        self, receive: Callable[[bytes], None], lost: Callable[[Exception | None], None]
    ) -> None:
        self._receive, self._lost = receive, lost
        if self.answers:
            self.say(frames.Greeting(1, frames.Nonce(b"n" * 32)))

    def on_pause(self, callback: Callable[[bool], None]) -> None:
        self.pause = callback

    def write(self, data: bytes | bytearray | memoryview) -> None:
        for frame in self._parser.feed(bytes(data)):
            self.frames.append(frame)
            if isinstance(frame, frames.Hello):
                agent = frames.Nonce(b"n" * 32)
                mac = frames.welcome_mac(KEY, client=frame.nonce, agent=agent, received=self.has)
                self.say(frames.Welcome(self.has, mac))

    def say(self, frame: frames.Frame) -> None:
        asyncio.get_running_loop().call_soon(self._receive, frames.serialise(frame))

    def lose(self) -> None:
        self._lost(ConnectionResetError("cut"))

    def abort(self) -> None:
        self.aborted = True

    async def aclose(self) -> None:
        self.aborted = True

    def got(self, kind: type) -> list[frames.Frame]:
        return [frame for frame in self.frames if isinstance(frame, kind)]


class Above(asyncio.Protocol):
    """What runs over the line."""

    def __init__(self) -> None:
        self.data = b""
        self.paused: list[bool] = []
        self.lost: list[Exception | None] = []
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def pause_writing(self) -> None:
        self.paused.append(True)

    def resume_writing(self) -> None:
        self.paused.append(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)
        self.over.set()


async def turn(times: int = 10) -> None:
    """Let callbacks that are due run."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_bytes_go_both_ways_in_few_frames() -> None:
    carrier = Carrier()

    async def dial() -> Carrier:
        return carrier

    async with resumable_line(dial=dial, key=KEY) as line:
        _, above = await line.create_connection(Above, "agent", 22)
        line.write(b"SSH-")
        line.write(b"2.0")
        carrier.say(frames.Data(0, b"hello"))
        await turn()
        assert carrier.got(frames.Data) == [frames.Data(0, b"SSH-2.0")]
        assert above.data == b"hello"
    assert carrier.got(frames.Close) and carrier.aborted
    assert above.lost == [None]


async def test_a_lost_carrier_is_dialled_again_at_once_and_the_rest_resent() -> None:
    carriers = [Carrier(), Carrier(has=3)]
    dialled = iter(carriers)
    told: list[Event] = []

    async def dial() -> Carrier:
        return next(dialled)

    async with resumable_line(dial=dial, key=KEY, events=told.append) as line:
        line.write(b"abcdef")
        await turn()
        carriers[0].lose()
        await turn(20)
        assert carriers[1].got(frames.Data) == [frames.Data(3, b"def")]
        assert [type(event) for event in told] == [Lost, Healed]


@pytest.mark.parametrize(("given_up_after_s", "told_then"), [(60.0, [Lost, Healed]), (1.0, [Lost])])
async def test_what_was_under_way_on_a_carrier_that_the_agent_has_ended_heals_nothing(
    monkeypatch: pytest.MonkeyPatch, given_up_after_s: float, told_then: list[type]
) -> None:
    """After a freeze a line was told as back, lost, and back again."""
    monkeypatch.setattr("towline.line.line.AGENT_GIVES_UP_AFTER_S", given_up_after_s)
    carrier, carriers = Carrier(), asyncio.Queue[Carrier]()
    carriers.put_nowait(carrier)
    told, lost = list[Event](), asyncio.Event()

    def tell(event: Event) -> None:
        told.append(event)
        lost.set()

    async with resumable_line(dial=carriers.get, key=KEY, events=tell):
        async with asyncio.timeout(20):
            await lost.wait()
        carrier.say(frames.Pong(1))
        await turn()
        assert [type(event) for event in told] == told_then
        # The next one heals in any case.
        carriers.put_nowait(Carrier())
        await turn(30)
        assert [type(event) for event in told] == [Lost, Healed]


async def test_a_carrier_that_was_to_replace_another_and_says_no_more_is_noticed() -> None:
    """A freeze in that moment was noticed when the dial was given up, after 10 s."""
    first, mute = Carrier(), Carrier()
    mute.write = mute.frames.append  # type: ignore[method-assign, assignment]
    carriers = asyncio.Queue[Carrier]()
    carriers.put_nowait(first)
    told, news = list[Event](), asyncio.Event()

    def tell(event: Event) -> None:
        told.append(event)
        news.set()

    async with resumable_line(dial=carriers.get, key=KEY, events=tell) as line:
        carriers.put_nowait(mute)
        line.network_changed()
        await turn(20)
        assert mute.frames, "it was greeted"
        first.lose()
        await turn()
        assert not told, "another one is on its way"
        async with asyncio.timeout(DIAL_WITHIN_S / 2):
            await news.wait()
        assert [type(event) for event in told] == [Lost]
        carriers.put_nowait(Carrier())
        await turn(30)
        assert [type(event) for event in told] == [Lost, Healed]


async def test_a_laptop_that_slept_dials_at_once() -> None:
    clock, dials = Clock(), asyncio.Semaphore(0)

    async def dial() -> Carrier:
        dials.release()
        return Carrier()

    async with resumable_line(dial=dial, key=KEY, clock=clock):
        await dials.acquire()
        clock.slept_s = 3600.0
        async with asyncio.timeout(2):
            await dials.acquire()


async def test_a_dial_that_hangs_does_not_hold_back_the_next() -> None:
    count = 0

    async def dial() -> Carrier:
        nonlocal count
        count += 1
        if count == 1:
            await asyncio.Event().wait()
        return Carrier()

    async with asyncio.timeout(2):
        async with resumable_line(dial=dial, key=KEY, redial=Redial(gap=lambda: 0.01)):
            assert count == 2


async def test_a_pod_that_is_not_there_is_told_and_not_waited_for() -> None:
    async def dial() -> Carrier:
        raise NotFound("pod gone")

    with pytest.raises(NotFound):
        async with resumable_line(dial=dial, key=KEY):
            pass


async def test_what_may_pass_is_tried_again() -> None:
    errors: list[Exception] = [Unreachable("no"), OSError("no")]
    told: list[Event] = []

    async def dial() -> Carrier:
        if errors:
            raise errors.pop()
        return Carrier()

    redial = Redial(gap=lambda: 0.001)
    async with resumable_line(dial=dial, key=KEY, events=told.append, redial=redial):
        assert [type(event) for event in told] == [DialFailed, DialFailed]


@pytest.mark.parametrize(
    ("give_up_after_s", "error", "told"),
    [
        (0.3, Unreachable("nobody answers"), r"not reached for 0\.3 s.* nobody answers"),
        (600.0, NotFound("pod web-1 is not there"), "pod web-1 is not there"),
    ],
)
async def test_a_lost_line_is_given_up_where_somebody_asks_for_it(
    give_up_after_s: float, error: Exception, told: str
) -> None:
    """`exec` waited for an API server that was gone for good until it was killed."""
    carrier = Carrier()
    carriers = [carrier]

    async def dial() -> Carrier:
        if carriers:
            return carriers.pop()
        raise error

    async with resumable_line(dial=dial, key=KEY, give_up_after_s=give_up_after_s) as line:
        _, above = await line.create_connection(Above, "agent", 22)
        carrier.lose()
        async with asyncio.timeout(10):
            await above.over.wait()
    with pytest.raises(LineGone, match=told):
        raise above.lost[0] or AssertionError("closed in order")


async def test_a_lost_line_is_kept_where_nobody_does() -> None:
    carrier, tried = Carrier(), asyncio.Semaphore(0)
    carriers = [carrier]

    async def dial() -> Carrier:
        if carriers:
            return carriers.pop()
        tried.release()
        raise NotFound("pod web-1 is not there")

    redial = Redial(gap=lambda: 0.05)
    async with resumable_line(dial=dial, key=KEY, redial=redial) as line:
        _, above = await line.create_connection(Above, "agent", 22)
        carrier.lose()
        async with asyncio.timeout(10):
            for _ in range(20):
                await tried.acquire()
        assert above.lost == [] and line.is_lost


async def test_a_full_carrier_is_not_written_to_until_it_is_not() -> None:
    carrier = Carrier()

    async def dial() -> Carrier:
        return carrier

    async with resumable_line(dial=dial, key=KEY) as line:
        carrier.pause(True)
        line.write(b"later")
        await turn()
        assert not carrier.got(frames.Data)
        carrier.pause(False)
        assert carrier.got(frames.Data) == [frames.Data(0, b"later")]


async def test_8_mib_unacknowledged_pause_the_writer_above() -> None:
    carrier = Carrier()

    async def dial() -> Carrier:
        return carrier

    async with resumable_line(dial=dial, key=KEY) as line:
        _, above = await line.create_connection(Above, "agent", 22)
        line.write(bytes((8 << 20) + 1))
        assert above.paused == [True]
        await turn()
        carrier.say(frames.Ack(8 << 20))
        await turn()
        assert above.paused == [True, False]
