"""What the agent tells, as the client takes it."""

from __future__ import annotations

import asyncio

from towline.sync.ignore import Ignore
from towline.sync.model import Entry
from towline.sync.packing import Packing
from towline.sync.remote import Remote
from towline.sync.wire import Frame, frame, pack_entries

from .sides import file


class Said:
    """A stream that says what an agent would."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader()

    def entries(self, *entries: tuple[bytes, Entry | None]) -> None:
        self._reader.feed_data(frame(Frame.ENTRIES, pack_entries(entries)))
        self._reader.feed_data(frame(Frame.SETTLED))

    async def read_exactly(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    async def write(self, content: bytes) -> None:
        raise AssertionError(f"nobody asked for {content!r}")


async def test_what_is_told_again_as_it_was_is_no_news() -> None:
    said, news = Said(), asyncio.Event()
    remote = Remote(said, ignore=Ignore(), told=print, news=news, packing=Packing())
    reading = asyncio.ensure_future(remote.read())
    try:
        async with asyncio.timeout(5):
            said.entries((b"a", file("x")), (b"gone", None), (b"b", file("y")))
            await news.wait()
            assert remote.changed == {b"a", b"b"}
            remote.changed.clear()
            news.clear()
            # As after an operation that could not be done.
            said.entries((b"a", file("x")), (b"gone", None))
            said.entries((b"b", None))
            await news.wait()
            assert remote.changed == {b"b"}
    finally:
        reading.cancel()
