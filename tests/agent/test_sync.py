"""A folder in step with the real agent: what goes over, what stays, what is asked about."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from towline.sync.events import Differed, Stopped
from towline.sync.reconcile import Reason

from .conftest import Agent
from .syncing import Pair, held, pair_in, syncing, write


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return pair_in(tmp_path)


async def test_all_kinds_of_things_go_over_and_come_back(agent: Agent, pair: Pair) -> None:
    write(pair.laptop, "src/app.py", "print(1)")
    write(pair.laptop, "run.sh", "#!/bin/sh", executable=True)
    write(pair.laptop, "empty", b"")
    write(pair.laptop, "large", os.urandom(3_000_000))
    (pair.laptop / "empty-folder").mkdir()
    (pair.laptop / "link").symlink_to("src/app.py")
    write(pair.laptop, os.fsdecode(b"not \xff utf-8\n"), b"odd")
    os.utime(pair.laptop / "run.sh", ns=(1, 1_500_000_000_123_456_789))
    async with syncing(agent, pair):
        assert held(pair.container) == held(pair.laptop)
        assert len(held(pair.container)) == 8
        there = (pair.container / "run.sh").stat()
        assert there.st_mtime_ns == 1_500_000_000_123_456_789

        write(pair.laptop, "src/app.py", "print(2)")
        write(pair.container, "src/made.py", "by the container")
        (pair.laptop / "run.sh").chmod(0o644)
        (pair.laptop / "link").unlink()
        (pair.container / "empty-folder").rmdir()
        await pair.alike()
        assert (pair.container / "src/app.py").read_text() == "print(2)"
        assert (pair.laptop / "src/made.py").read_text() == "by the container"
        assert not (pair.container / "run.sh").stat().st_mode & 0o111

        (pair.laptop / "src").rename(pair.laptop / "lib")
        await pair.until(lambda: (pair.container / "lib/app.py").exists())
        await pair.until(lambda: not (pair.container / "src").exists())
        # A file in a folder's place, and back.
        for each in (pair.laptop / "lib").iterdir():
            each.unlink()
        (pair.laptop / "lib").rmdir()
        write(pair.laptop, "lib", "now a file")
        await pair.until(lambda: (pair.container / "lib").is_file())
        (pair.container / "lib").unlink()
        write(pair.container, "lib/again", "a folder")
        await pair.until(lambda: (pair.laptop / "lib/again").is_file())
        await pair.alike()
        assert not pair.told.of(Differed)


async def test_at_a_first_sync_nothing_on_the_laptop_changes(agent: Agent, pair: Pair) -> None:
    write(pair.laptop, "both", "laptop's")
    write(pair.laptop, "mine", "m")
    write(pair.container, "both", "container's")
    write(pair.container, "node_modules/x/index.js", "theirs")
    before = held(pair.laptop)
    async with syncing(agent, pair):
        assert held(pair.laptop) == before
        assert (pair.container / "both").read_text() == "laptop's"
        assert (pair.container / "node_modules/x/index.js").read_text() == "theirs"
        kept = Path(pair.told.of(Differed)[0].kept)
        assert held(kept.parent)["both"] == (b"container's", False) and pair.state in kept.parents
        # What is made in there later is the container's, too.
        write(pair.container, "node_modules/y/index.js", "theirs")
        write(pair.container, "new", "comes")
        await pair.until(lambda: (pair.laptop / "new").exists())
        assert not (pair.laptop / "node_modules").exists()


async def test_another_container_with_older_files_takes_nothing(agent: Agent, pair: Pair) -> None:
    for number in range(40):
        write(pair.laptop, f"f{number}", "new")
    async with syncing(agent, pair):
        await pair.alike()
    agent.restart()
    for number in range(40):
        write(pair.container, f"f{number}", "of the image")
    (pair.container / "f7").unlink()
    async with syncing(agent, pair):
        assert {text for text, _ in held(pair.laptop).values()} == {b"new"}  # type: ignore[misc]
        await pair.alike()


async def test_the_same_container_goes_on_where_it_was(agent: Agent, pair: Pair) -> None:
    write(pair.laptop, "a", "1")
    write(pair.laptop, "b", "1")
    async with syncing(agent, pair):
        await pair.alike()
    # While nobody looked: a deletion on each side, which a first sync would undo.
    (pair.laptop / "a").unlink()
    (pair.container / "b").unlink()
    async with syncing(agent, pair):
        await pair.alike()
        assert held(pair.laptop) == {}


async def test_a_claim_is_known_again_after_a_restart(agent: Agent, pair: Pair) -> None:
    write(pair.laptop, "a", "1")
    write(pair.laptop, "b", "1")
    async with syncing(agent, pair, is_claim=True):
        await pair.alike()
    agent.restart()
    (pair.laptop / "a").unlink()
    async with syncing(agent, pair, is_claim=True):
        await pair.alike()
        assert set(held(pair.container)) == {"b"}


async def test_where_both_changed_both_are_there(agent: Agent, pair: Pair) -> None:
    write(pair.laptop, "x.py", "0")
    async with syncing(agent, pair):
        await pair.alike()
    write(pair.laptop, "x.py", "laptop's")
    write(pair.container, "x.py", "container's")
    async with syncing(agent, pair):
        await pair.until(lambda: (pair.laptop / "x.from-container.py").exists())
        await pair.alike()
        assert (pair.laptop / "x.py").read_text() == "laptop's"
        assert (pair.laptop / "x.from-container.py").read_text() == "container's"
        assert [each.path for each in pair.told.of(Differed)] == ["x.py"]


@pytest.mark.parametrize("side", ["laptop", "container"])
async def test_many_deletions_are_asked_about(agent: Agent, pair: Pair, side: str) -> None:
    for number in range(60):
        write(pair.laptop, f"d/{number}", str(number))
    async with syncing(agent, pair):
        await pair.alike()
    root: Path = getattr(pair, side)
    other = pair.container if side == "laptop" else pair.laptop
    for number in range(50):
        (root / f"d/{number}").unlink()
    async with syncing(agent, pair, waits=False):
        stopped = await pair.told.seen(Stopped)
        assert [(halt.reason, halt.side) for halt in stopped.halts] == [
            (Reason.MANY_DELETIONS, side)
        ]
        assert len(held(other)) == 61
        pair.resume.resume(accept_deletions=True)
        await pair.until(lambda: len(held(other)) == 11)


@pytest.mark.parametrize("side", ["laptop", "container"])
async def test_a_deletion_in_small_portions_is_asked_about(
    agent: Agent, pair: Pair, side: str
) -> None:
    """As `rm -r` on a slow disk does it: all went over, since no portion was over 20."""
    files, portion = 60, 4
    for number in range(files):
        write(pair.laptop, f"f{number}", str(number))
    root: Path = getattr(pair, side)
    other = pair.container if side == "laptop" else pair.laptop
    async with syncing(agent, pair):
        await pair.alike()
        gone = 0
        while not pair.told.of(Stopped):
            for number in range(gone, gone + portion):
                (root / f"f{number}").unlink()
            gone += portion
            await pair.until(
                lambda gone=gone: pair.told.of(Stopped) or len(held(other)) == files - gone
            )
        (halt,) = pair.told.of(Stopped)[0].halts
        assert (halt.reason, halt.side) == (Reason.MANY_DELETIONS, side)
        # A portion may be seen in two parts; more than half never goes over.
        assert gone == files // 2 + 2 and len(held(other)) >= files // 2
        # Put right, it goes on, and so it does when it is meant.
        for number in range(gone):
            write(root, f"f{number}", str(number))
        async with asyncio.timeout(30):
            # It stops again where it is resumed before the agent has told what is there.
            while len(held(other)) < files:
                pair.resume.resume()
                await asyncio.sleep(0.1)
        await pair.alike()
        stops = len(pair.told.of(Stopped))
        for number in range(40):
            (root / f"f{number}").unlink()
        await pair.told.seen(Stopped, count=stops + 1)
        pair.resume.resume(accept_deletions=True)
        await pair.alike()
        (root / "f59").unlink()
        await pair.alike()
        assert len(pair.told.of(Stopped)) == stops + 1, "what was accepted counts no more"


async def test_what_is_ignored_stays_where_it_is(agent: Agent, pair: Pair) -> None:
    write(pair.laptop, ".stignore", "(?d)*.tmp\n/local\n")
    write(pair.laptop, ".towlineignore", "*.log\n!keep.log\n")
    write(pair.laptop, ".gitignore", "dist/\n")
    write(pair.laptop, ".git/config", "ours")
    for name in ("local/x", "a.log", "keep.log", "d/x.tmp", "d/y"):
        write(pair.laptop, name, "laptop's")
    write(pair.container, ".git/config", "theirs")
    async with syncing(agent, pair):
        there = {name for name, what in held(pair.container).items() if what != "folder"}
        assert there == {".gitignore", ".git/config", "keep.log", "d/y"}
        assert (pair.container / ".git/config").read_text() == "theirs"
        # A build there does not come back; everything else does.
        write(pair.container, "dist/bundle.js", "built")
        write(pair.container, "b.log", "there")
        write(pair.container, "d/z.tmp", "there")
        write(pair.container, "result", "comes")
        await pair.until(lambda: (pair.laptop / "result").exists())
        assert not (pair.laptop / "dist").exists() and not (pair.laptop / "b.log").exists()
        # `(?d)`: it may go with its folder.
        (pair.laptop / "d/y").unlink()
        (pair.laptop / "d/x.tmp").unlink()
        (pair.laptop / "d").rmdir()
        await pair.until(lambda: not (pair.container / "d").exists())
        # Rules that change are in force at once.
        write(pair.laptop, ".towlineignore", "keep.log\n")
        await pair.until(lambda: (pair.container / "a.log").exists())


async def test_links_that_lead_out_and_things_that_are_no_files_are_left(
    agent: Agent, pair: Pair
) -> None:
    (pair.laptop / "out").symlink_to("/etc")
    (pair.container / "up").symlink_to("../../x")
    os.mkfifo(pair.container / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(pair.container / "s"))
        write(pair.laptop, "f", "x")
        async with syncing(agent, pair):
            await pair.until(lambda: (pair.container / "f").exists())
            assert set(held(pair.laptop)) == {"out", "f"}
            assert set(held(pair.container)) == {"up", "fifo", "s", "f"}


async def test_a_folder_in_the_way_that_holds_what_is_not_synced_goes_beside(
    agent: Agent, pair: Pair
) -> None:
    write(pair.laptop, "way", "a file")
    write(pair.container, "way/.git/x", "never synced, so never removed")
    async with syncing(agent, pair, waits=False):
        await pair.until(lambda: (pair.container / "way").is_file())
        held_there = held(pair.container)
        assert "way.from-container/.git/x" in held_there


async def test_two_clients_of_one_folder_do_not_harm_each_other(
    agent: Agent, pair: Pair, tmp_path: Path
) -> None:
    other = pair_in(tmp_path / "other")
    other.container = pair.container
    write(pair.laptop, "a", "1")
    async with syncing(agent, pair), syncing(agent, other):
        # What the container had before is the container's for the second one.
        assert held(other.laptop) == {}
        for number in range(20):
            write(pair.laptop, f"p{number}", "one's")
            write(other.laptop, f"o{number}", "the other's")
        await pair.until(lambda: len(held(pair.container)) == 41)
        await pair.alike()
        await other.until(lambda: len(held(other.laptop)) == 40)


async def test_a_towlineignore_below_counts_for_its_folder(agent: Agent, pair: Pair) -> None:
    write(pair.laptop, ".towlineignore", "*.log\n/skipped/\n")
    write(pair.laptop, "a/.towlineignore", "data\n!keep.log\n")
    write(pair.laptop, "skipped/.towlineignore", "!*\n")
    for name in ("a/data", "a/b/data", "data", "a/keep.log", "a/x.log", "keep.log", "skipped/x"):
        write(pair.laptop, name, "x")
    async with syncing(agent, pair):
        assert set(held(pair.container)) == {"a", "a/b", "data", "a/keep.log"}
        # One that comes later counts from then on; from a container none comes.
        write(pair.laptop, "a/b/.towlineignore", "!data\n")
        await pair.until(lambda: (pair.container / "a/b/data").exists())
        write(pair.container, "a/b/.towlineignore", "*\n")
        write(pair.container, "a/b/made", "there")
        await pair.until(lambda: (pair.laptop / "a/b/made").exists())
        assert (pair.laptop / "a/b/.towlineignore").read_text() == "!data\n"
