"""Both watchers: Linux's own, and the one for other systems, which works here, too."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest

from towline._kit.tasks import Tasks
from towline.sync.ignore import Ignore, git_rules
from towline.sync.inotify import Inotify
from towline.sync.place import Place
from towline.sync.scan import LaptopTree
from towline.sync.watch import watch, watches_text, watching


class Dirty:
    def __init__(self) -> None:
        self.paths: set[bytes] = set()
        self._news = asyncio.Event()

    def __call__(self, paths: set[bytes]) -> None:
        self.paths |= paths
        self._news.set()

    async def has(self, path: bytes) -> None:
        async with asyncio.timeout(10):
            while path not in self.paths:
                self._news.clear()
                await self._news.wait()


def nothing_told(text: str) -> None:
    raise AssertionError(text)


async def test_inotify_tells_of_a_save_when_its_writer_is_done(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "ignored").mkdir()
    place = Place(tmp_path)
    tree = LaptopTree(place, Ignore(last=git_rules("ignored/")))
    dirty = Dirty()
    async with watching(tree, dirty=dirty, told=nothing_told):
        tree.scan()
        fd = os.open(tmp_path / "d/a", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"half")
        os.close(os.open(tmp_path / "d/b", os.O_CREAT | os.O_WRONLY))
        os.close(os.open(tmp_path / "ignored/c", os.O_CREAT | os.O_WRONLY))
        await dirty.has(b"d/b")
        assert dirty.paths == {b"d/b"}
        # A writer that never ends is looked at all the same.
        await dirty.has(b"d/a")
        os.close(fd)
        (tmp_path / "d").rename(tmp_path / "e")
        await dirty.has(b"e")
        tree.look(b"e")
        (tmp_path / "e/b").unlink()
        await dirty.has(b"e/b")
        assert not any(path.startswith(b"ignored") for path in dirty.paths)
    place.close()


async def test_without_watches_the_folder_is_looked_at_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.sync.watch.POLL_EVERY_S", 0.01)
    place = Place(tmp_path)
    tree, dirty, told = LaptopTree(place, Ignore()), Dirty(), []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        opened = watching(tree, dirty=dirty, told=told.append)
        await opened.__aenter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await dirty.has(b"")
    assert len(told) == 1 and "no more file watches" in told[0]
    await opened.__aexit__(None, None, None)
    place.close()


async def test_a_folder_that_cannot_be_watched_is_told(tmp_path: Path) -> None:
    inotify = Inotify(Dirty())
    try:
        inotify.watch(b"x", b"\xff" * 5000)  # ENAMETOOLONG, as good an error as ENOSPC
        async with asyncio.timeout(5):
            assert (await inotify.failed).errno
    finally:
        inotify.close()


async def test_watchfiles_tells_the_same_and_outlives_odd_names(tmp_path: Path) -> None:
    dirty = Dirty()
    async with Tasks() as tasks:
        job = watch(tmp_path, ignore=Ignore(), dirty=dirty, told=nothing_told)
        tasks.start(job, name="watch")
        await asyncio.sleep(0)
        os.close(os.open(tmp_path / "a", os.O_CREAT | os.O_WRONLY))
        await dirty.has(b"a")
        os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT | os.O_WRONLY))
        await dirty.has(b"")
        os.close(os.open(tmp_path / "b", os.O_CREAT | os.O_WRONLY))
        await dirty.has(b"b")


def test_a_folder_that_takes_most_of_the_watches_is_told() -> None:
    assert watches_text(100, 8192) is None
    assert watches_text(100_000, None) is None
    text = watches_text(5_000, 8_192)
    assert text is not None and "5000 of the 8192" in text
