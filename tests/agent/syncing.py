"""A folder kept in step with the real agent, on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from towline._kit.tasks import Tasks
from towline.line.line import Line
from towline.sync.events import Event, InStep
from towline.sync.loop import Resume, SyncedFolder, keep_in_step
from towline.transport.subsystem import open_subsystem

from .conftest import Agent, connected


@dataclass
class Told:
    """What a folder told, and a way to wait for it."""

    events: list[Event] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.news.set()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def seen(self, kind: type[Any], *, count: int = 1, within_s: float = 20.0) -> Any:
        async with asyncio.timeout(within_s):
            while len(self.of(kind)) < count:
                self.news.clear()
                await self.news.wait()
        return self.of(kind)[count - 1]


@dataclass
class Pair:
    """Both folders, and what was told of them."""

    laptop: Path
    container: Path
    state: Path
    told: Told
    resume: Resume
    job: asyncio.Task[None] | None = None
    line: Line | None = None

    @property
    def carried_bytes(self) -> int:
        """What went over the line so far, both ways."""
        assert self.line is not None
        now = self.line.statistics()
        return now.bytes_in + now.bytes_out

    async def until(self, is_so: Callable[[], bool], *, within_s: float = 10.0) -> None:
        """Wait until the disk says so."""
        async with asyncio.timeout(within_s):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def alike(self, *, within_s: float = 10.0) -> None:
        await self.until(lambda: held(self.laptop) == held(self.container), within_s=within_s)


def held(root: Path) -> dict[str, object]:
    """All that is in a folder, but what is ours."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.name.startswith(".towline-"):
            continue
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = "folder"
        elif not path.is_file():
            found[name] = "neither"
        else:
            try:
                found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
            except OSError as error:
                found[name] = str(error)
    return found


def write(root: Path, path: str, text: str | bytes, *, executable: bool = False) -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text if isinstance(text, bytes) else text.encode())
    if executable:
        target.chmod(0o755)
    return target


def pair_in(folder: Path) -> Pair:
    for name in ("laptop", "container"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Pair(folder / "laptop", folder / "container", folder / "state", Told(), Resume())


@asynccontextmanager
async def syncing(
    agent: Agent,
    pair: Pair,
    *,
    port: int | None = None,
    is_claim: bool = False,
    waits: bool = True,
    compression: bool | None = None,
    **settings: Any,
) -> AsyncIterator[Pair]:
    """Keep a pair in step while the block runs; its first sync is over, unless told otherwise."""
    pair.told = Told()
    async with connected(agent, port=port) as it, Tasks() as tasks:
        pair.line = it.line
        folder = SyncedFolder(
            local=pair.laptop,
            remote=str(pair.container),
            state=pair.state,
            is_claim=is_claim,
            compression=compression,
            **settings,
        )
        pair.job = tasks.start(
            keep_in_step(
                folder,
                open_stream=lambda: open_subsystem(it.ssh, "towline-sync"),
                told=pair.told,
                resume=pair.resume,
            ),
            name="sync",
        )
        if waits:
            await pair.told.seen(InStep)
        yield pair
