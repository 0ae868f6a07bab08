"""The container's folder, as the agent tells of it and changes it; docs/protocol.md.

The agent is not trusted with the laptop: a path that leaves the root ends the sync, and
what is never synced is not taken from it.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from towline._kit.tasks import Tasks
from towline.errors import ConnectionLost, TowlineError
from towline.sync import wire
from towline.sync.delta import Base, Copied, lacking
from towline.sync.ignore import Ignore
from towline.sync.model import Change, Entry, Kind, points_inside, stays_inside
from towline.sync.packing import Packing, unpacked
from towline.sync.reconcile import Aside, Halt, Reason
from towline.sync.store import update
from towline.sync.wire import Frame, frame, pack_entry, short
from towline.transport.subsystem import Stream

# A part of a file: bytes, or a block of the version that the laptop has; None is its end.
Piece = bytes | Copied | None

_LEADS_OUT = Entry(Kind.OTHER, target=b"a link that leads out of the folder")


class SyncHalted(TowlineError):
    """A root is not what it was; nothing was changed."""

    def __init__(self, halt: Halt) -> None:
        super().__init__(
            f"sync stopped ({halt.reason}): {halt.text}", hint="nothing more is deleted; look there"
        )
        self.halt = halt


class Remote:
    """The container's side.

    Attributes:
        entries: what is there, as last told.
        changed: paths that were told since somebody last took them.
        incarnation: of the root; another one is another folder.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        ignore: Ignore,
        told: Callable[[str], None],
        news: asyncio.Event,
        packing: Packing,
    ) -> None:
        self._stream, self._ignore, self._told = stream, ignore, told
        self._coming: dict[bytes, Entry | None] = {}
        self._settled = asyncio.Event()
        self._answers: asyncio.Queue[tuple[Frame, bytes]] = asyncio.Queue(8)
        self.entries: dict[bytes, Entry] = {}
        self.changed: set[bytes] = set()
        self._news = news
        self._packing = packing
        self._asked_at = 0.0
        self.incarnation = ""

    async def open(self, root: str, *, is_claim: bool) -> None:
        """Say which folder it is; `read` must run to get on."""
        rules = self._ignore.to_wire()
        payload = bytes([wire.VERSION, is_claim]) + short(root.encode())
        payload += struct.pack(">I", len(rules)) + rules
        self._asked_at = time.monotonic()
        await self._stream.write(frame(Frame.OPEN, payload))

    async def first_look(self) -> None:
        """Wait until all of it was told."""
        await self._settled.wait()

    async def read(self) -> None:
        """Take what the agent sends, for as long as the channel lasts.

        Raises:
            ConnectionLost: the channel ended.
            SyncHalted: the root is gone, or another one.
            TowlineError: the agent refused, or does not keep to the protocol.
        """
        while True:
            size, number = wire.head(await self._stream.read_exactly(wire.HEAD_BYTES))
            payload = await self._stream.read_exactly(size) if size else b""
            if number == Frame.PACKED:
                frames = await asyncio.to_thread(unpacked, payload)
                for inner, content in wire.frames_in(frames):
                    await self._take(inner, content)
            else:
                await self._take(number, payload)

    async def _take(self, number: int, payload: bytes) -> None:
        try:
            kind = Frame(number)
        except ValueError as error:
            raise wire.WireError(f"the agent sent a frame {number:#x}") from error
        if kind is Frame.ENTRIES:
            for path, entry in wire.unpack_entries(payload):
                self._entry(path, entry)
        elif kind is Frame.SETTLED:
            # What could not be done is told again as it was: that is no news.
            news = {p for p, entry in self._coming.items() if self.entries.get(p) != entry}
            update(self.entries, self._coming.items())
            self.changed |= news
            self._coming.clear()
            self._settled.set()
            if self.changed:
                self._news.set()
        elif kind is Frame.NOTE:
            self._told(_text(payload))
        elif kind is Frame.REFUSED:
            raise _refusal(_text(payload))
        elif kind is Frame.OPENED:
            self._packing.first_answer(time.monotonic() - self._asked_at)
            self.incarnation = _text(payload)
        else:
            await self._answers.put((kind, payload))

    def _entry(self, path: bytes, entry: Entry | None) -> None:
        if not stays_inside(path):
            raise wire.WireError(f"the agent names a path outside of the folder: {path!r}")
        is_folder = entry is not None and entry.kind is Kind.FOLDER
        if self._ignore.hides(path, is_folder=is_folder) and not (
            # A folder that is walked all the same has entries of its own in it.
            is_folder and self._ignore.enters_ignored(path)
        ):
            return
        if entry is not None and entry.kind is Kind.LINK and not points_inside(path, entry.target):
            entry = _LEADS_OUT
        self._coming[path] = entry

    async def _answer(self, *kinds: Frame) -> tuple[Frame, bytes]:
        kind, payload = await self._answers.get()
        if kind not in kinds:
            raise wire.WireError(f"the agent answered with {kind.name}")
        return kind, payload

    async def room_bytes(self) -> int:
        """How much can be staged there now."""
        await self._stream.write(frame(Frame.ROOM))
        _, payload = await self._answer(Frame.HAS_ROOM)
        return int.from_bytes(payload)

    async def send(self, frames: bytes) -> None:
        """Send FILE, CONTENT and ABANDON frames, as they are or packed."""
        began = time.monotonic()
        await self._stream.write(frames)
        self._packing.sent(len(frames), time.monotonic() - began)

    def packed(self, frames: bytes) -> bytes:
        """Frames as they are best sent; blocking."""
        content = self._packing.packed(frames)
        return frames if content is None else frame(Frame.UNPACK, content)

    async def delta(self, path: bytes, entry: Entry, base: Base) -> list[tuple[int, int]]:
        """Begin a file that is made of what is there: the runs of blocks that must be sent."""
        payload = pack_entry(path, entry) + struct.pack(">I", base.block_bytes) + base.sums
        await self._stream.write(frame(Frame.DELTA, payload))
        _, answer = await self._answer(Frame.LACKING)
        try:
            return list(lacking(answer))
        except ValueError as error:
            raise wire.WireError(str(error)) from error

    async def commit(
        self, asides: Sequence[Aside], changes: Sequence[Change]
    ) -> list[tuple[int, str]]:
        """Do it: a status and a text for each aside, then for each change."""
        operations = [
            b"\1" + pack_entry(each.path, each.entry) + short(each.beside) + bytes([each.stays])
            for each in asides
        ]
        operations += [
            b"\2" + pack_entry(each.path, each.old) + pack_entry(each.path, each.new)
            for each in changes
        ]
        payload = struct.pack(">I", len(operations)) + b"".join(operations)
        await self._stream.write(frame(Frame.COMMIT, payload))
        _, answer = await self._answer(Frame.DONE)
        results = wire.unpack_results(answer)
        if len(results) != len(operations):
            raise wire.WireError("the agent did not answer for each operation")
        return results

    async def fetch(
        self,
        wanted: Sequence[tuple[bytes, Entry]],
        bases: Mapping[bytes, Base] | None = None,
    ) -> AsyncIterator[tuple[int, Piece]]:
        """Files, in order: pieces of each (the number, a piece), then (the number, None).

        One that is not there any more has no pieces.

        Args:
            bases: the laptop's versions of some: what is in these comes as `Copied`.
        """
        payload = struct.pack(">BI", self._packing.is_on, len(wanted))
        for path, entry in wanted:
            payload += pack_entry(path, entry)
            base = (bases or {}).get(path)
            if base is None:
                payload += struct.pack(">I", 0)
            else:
                payload += struct.pack(">II", base.block_bytes, len(base.sums)) + base.sums
        await self._stream.write(frame(Frame.FETCH, payload))
        for number in range(len(wanted)):
            _, answer = await self._answer(Frame.FETCHED)
            is_there = answer[:1] == b"\0"
            while is_there:
                kind, piece = await self._answer(
                    Frame.FETCH_CONTENT, Frame.FETCH_COPY, Frame.FETCH_END
                )
                if kind is Frame.FETCH_END:
                    break
                is_copy = kind is Frame.FETCH_COPY
                yield number, Copied(int.from_bytes(piece)) if is_copy else piece
            yield number, None

    def made(self, changes: Iterable[Change]) -> None:
        """Note what the agent did for us, of which it tells nothing more."""
        update(self.entries, ((change.path, change.new) for change in changes))

    async def rescan(self) -> None:
        """Ask for a look at everything, and wait for it."""
        self._settled.clear()
        await self._stream.write(frame(Frame.RESCAN))
        await self._settled.wait()


def _text(payload: bytes) -> str:
    return payload[2:].decode(errors="replace")


def _refusal(text: str) -> TowlineError:
    reason, _, rest = text.partition(": ")
    if reason in {each.value for each in Reason}:
        return SyncHalted(Halt(Reason(reason), "container", rest))
    return TowlineError(f"the container's folder cannot be synced: {text}")


@asynccontextmanager
async def remote_folder(
    stream: Stream,
    *,
    root: str,
    ignore: Ignore,
    told: Callable[[str], None],
    news: asyncio.Event,
    is_claim: bool = False,
    packing: Packing,
) -> AsyncIterator[Remote]:
    """The container's folder, looked at, for as long as the block lasts.

    Args:
        told: gets what the user should know.
        news: set when the container changed.
        packing: whether contents are packed.

    Raises:
        ConnectionLost, SyncHalted, TowlineError: as `Remote.read`, at any time.
    """
    remote = Remote(stream, ignore=ignore, told=told, news=news, packing=packing)
    async with Tasks() as tasks:
        tasks.start(remote.read(), name="sync: agent")
        await remote.open(root, is_claim=is_claim)
        await remote.first_look()
        if not remote.incarnation:
            raise ConnectionLost("the agent did not say which folder it has")
        yield remote
