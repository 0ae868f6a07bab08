"""More bad luck: rights, watches, checkouts, installs, two sessions on one folder, clocks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.sync.events import Counted, InStep, Noted, NotSynced

from .conftest import Agent, running_agent
from .syncing import Pair, held, pair_in, syncing, write

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LARGE = pytest.mark.skipif(
    not os.environ.get("TOWLINE_TEST_LARGE"), reason="TOWLINE_TEST_LARGE=1: minutes and gigabytes"
)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return pair_in(tmp_path)


def run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def wrapped(binary: Path, folder: Path, script: str) -> Path:
    """The agent, started by a shell script that ends in `exec "$@"`."""
    wrapper = folder / "agent"
    wrapper.write_text(f'#!/bin/sh\nset -- {binary} "$@"\n{script}\n')
    wrapper.chmod(0o755)
    return wrapper


@pytest.fixture
def nobodys_agent(agent_binary: Path, tmp_path: Path) -> Iterator[Agent]:
    """An agent with an ordinary user's rights, as in most images."""
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_uid == os.getuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o011)
    for each in (agent_binary, *list(agent_binary.parents)[:2]):
        each.chmod(each.stat().st_mode | 0o055)
    session = tmp_path / "session"
    user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    script = f'chmod -R a+rX "$(dirname "$0")/session"\nexec {user} "$@"'
    with running_agent(wrapped(agent_binary, tmp_path, script), session) as agent:
        yield agent


@is_root
async def test_what_the_containers_user_may_not_do_is_told_and_the_rest_goes_on(
    nobodys_agent: Agent, pair: Pair
) -> None:
    os.chown(pair.container, 65534, 65534)
    theirs = pair.container / "roots"
    theirs.mkdir()
    secret = write(pair.container, "secret", "root's alone")
    secret.chmod(0o600)
    for name in ("a", "roots/new", "secret"):
        write(pair.laptop, name, "laptop's")
    async with syncing(nobodys_agent, pair):
        assert (pair.container / "a").read_text() == "laptop's"
        told = {each.path: each.reason for each in pair.told.of(NotSynced)}
        assert "permission denied" in told["roots/new"].lower()
        assert "permission denied" in told["secret"].lower()
        assert secret.read_text() == "root's alone"
        # A file that may not be written to is replaced all the same: the folder is theirs.
        (pair.container / "a").chmod(0o444)
        write(pair.laptop, "a", "saved")
        await pair.until(lambda: (pair.container / "a").read_text() == "saved")
        # Rights come back without a word.
        os.chown(theirs, 65534, 65534)
        await pair.until(lambda: (theirs / "new").exists(), within_s=30)


@is_root
async def test_what_is_below_a_folder_that_cannot_be_made_stays_away_with_it(
    nobodys_agent: Agent, pair: Pair
) -> None:
    os.chown(pair.container, 65534, 65534)
    theirs = pair.container / "roots"
    theirs.mkdir()
    names = [f"roots/new/d{number % 3}/f{number}" for number in range(30)]
    for name in ("a", *names):
        write(pair.laptop, name, "laptop's")
    async with syncing(nobodys_agent, pair):
        [in_step] = pair.told.of(InStep)
        # The folder, three in it, and the files.
        assert in_step.not_synced == 1 + 3 + 30
        assert [each.path for each in pair.told.of(NotSynced)] == ["roots/new"]
        # The same holds for what comes later, and is told once.
        write(pair.laptop, "roots/later/f", "laptop's")
        await pair.until(lambda: len(pair.told.of(NotSynced)) == 2)
        write(pair.laptop, "a", "saved")
        await pair.until(lambda: (pair.container / "a").read_text() == "saved")
        assert [each.path for each in pair.told.of(NotSynced)] == ["roots/new", "roots/later"]
        os.chown(theirs, 65534, 65534)
        await pair.alike(within_s=30)
        await pair.until(lambda: not pair.told.of(Counted)[-1].not_synced)


@is_root
async def test_a_file_that_cannot_be_replaced_stays_and_is_told(agent: Agent, pair: Pair) -> None:
    write(pair.laptop, "locked", "old")
    write(pair.laptop, "other", "old")
    try:
        await asyncio.to_thread(run, "chattr", "+i", pair.laptop / "locked")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no immutable files here: {error.stderr}")
    try:
        async with syncing(agent, pair):
            write(pair.container, "locked", "from the container")
            write(pair.container, "other", "from the container")
            await pair.until(lambda: (pair.laptop / "other").read_text() != "old")
            told = await pair.told.seen(NotSynced)
            assert (told.path, told.side) == ("locked", "laptop")
            assert (pair.container / "locked").read_text() == "from the container"
            await asyncio.to_thread(run, "chattr", "-i", pair.laptop / "locked")
            await pair.alike(within_s=30)
            await pair.until(lambda: not pair.told.of(Counted)[-1].not_synced)
    finally:
        await asyncio.to_thread(run, "chattr", "-i", pair.laptop / "locked")


@is_root
async def test_a_node_without_watches_is_looked_at_and_that_is_told(
    agent_binary: Path, pair: Pair, tmp_path: Path
) -> None:
    for number in range(20):
        write(pair.laptop, f"d{number}/f", "x")
    script = (
        'exec unshare -Ur sh -c \'echo 5 > /proc/sys/user/max_inotify_watches; exec "$@"\' - "$@"'
    )
    binary = wrapped(agent_binary, tmp_path, script)
    with running_agent(binary, tmp_path / "session") as agent:
        async with syncing(agent, pair):
            await pair.until(lambda: bool(pair.told.of(Noted)), within_s=20)
            assert "max_user_watches" in pair.told.of(Noted)[0].text
            write(pair.container, "d19/f", "changed there")
            await pair.until(
                lambda: (pair.laptop / "d19/f").read_text() == "changed there", within_s=20
            )


def git(root: Path, *words: str) -> str:
    quiet = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "gc.auto=0",
        "-c",
        "core.fsync=none",
    ]
    return run("git", "-C", root, *quiet, *words)


@pytest.mark.timeout(240)
async def test_branches_that_are_switched_all_the_time_end_alike(agent: Agent, pair: Pair) -> None:
    """Each switch changes 3,000 files while the one before is on its way."""
    git(pair.laptop, "init", "-b", "one")
    for branch in ("one", "two"):
        for number in range(3_000):
            write(pair.laptop, f"d{number % 50}/f{number}", f"{branch} {number}\n" * 20)
        write(pair.laptop, f"only-{branch}/f", branch)
        git(pair.laptop, "add", "-A")
        git(pair.laptop, "commit", "-m", branch)
        if branch == "one":
            git(pair.laptop, "checkout", "-b", "two")
            git(pair.laptop, "rm", "-r", "only-one")
    async with syncing(agent, pair, waits=False):
        for branch in ("one", "two", "one"):
            await asyncio.to_thread(git, pair.laptop, "checkout", branch)
        await pair.until(lambda: without_git(pair.laptop) == held(pair.container), within_s=90)
    assert held(pair.container)["d1/f1"] == (b"one 1\n" * 20, False)
    assert await asyncio.to_thread(git, pair.laptop, "status", "--porcelain") == ""


def without_git(root: Path) -> dict[str, object]:
    return {name: what for name, what in held(root).items() if name.split("/")[0] != ".git"}


INSTALL = """
import os, sys
root = sys.argv[1]
for number in range(300):
    # As npm does: under another name first, then renamed; programs as links.
    half = f"{root}/node_modules/.p{number}-x7"
    os.makedirs(half + "/lib")
    for each in range(8):
        with open(f"{half}/lib/{each}.js", "w") as file:
            file.write(f"module.exports = {number * each}\\n" * 20)
    os.rename(half, f"{root}/node_modules/p{number}")
    os.makedirs(f"{root}/node_modules/.bin", exist_ok=True)
    os.symlink(f"../p{number}/lib/1.js", f"{root}/node_modules/.bin/p{number}")
with open(f"{root}/package-lock.json", "w") as file:
    file.write("{}")
"""


@pytest.mark.parametrize("is_ignored", [True, False])
async def test_what_is_installed_in_the_container_comes_unless_git_ignores_it(
    agent: Agent, pair: Pair, is_ignored: bool
) -> None:
    write(pair.laptop, "package.json", "{}")
    if is_ignored:
        write(pair.laptop, ".gitignore", "node_modules/\n")
    async with syncing(agent, pair):
        words = [sys.executable, "-c", INSTALL, str(pair.container)]
        process = await asyncio.create_subprocess_exec(*words)
        assert await process.wait() == 0
        await pair.until(lambda: (pair.laptop / "package-lock.json").exists(), within_s=30)
        if is_ignored:
            assert not (pair.laptop / "node_modules").exists()
            assert len(list((pair.container / "node_modules").iterdir())) == 301
        else:
            await pair.alike(within_s=60)


async def test_two_sessions_on_one_folder_pass_changes_on(
    agent: Agent, pair: Pair, tmp_path: Path
) -> None:
    second = pair_in(tmp_path / "second")
    second.laptop = pair.laptop
    write(pair.laptop, "a", "1")
    async with syncing(agent, pair), syncing(agent, second):
        write(pair.container, "a", "by the first container")
        write(second.container, "b", "by the second container")
        await pair.until(lambda: (second.container / "a").read_text().startswith("by the first"))
        await pair.until(lambda: (pair.container / "b").exists())
        for number in range(200):
            write(pair.laptop, f"d{number % 5}/f{number}", f"{number}")
        await pair.alike(within_s=30)
        await second.alike(within_s=30)
    assert not list(pair.laptop.rglob("*from-container*"))


@pytest.mark.parametrize("side", ["laptop", "container"])
async def test_a_clock_that_is_wrong_by_a_day_decides_nothing(
    agent: Agent, pair: Pair, side: str
) -> None:
    root: Path = getattr(pair, side)
    write(pair.laptop, "a", "first")
    write(pair.laptop, "b", "first")
    async with syncing(agent, pair):
        await pair.alike()
        now = time.time()
        for name, shift in (("a", -86_400), ("b", 86_400)):
            write(root, name, f"changed {shift}")
            os.utime(root / name, (now + shift, now + shift))
        await pair.alike()
        assert (pair.container / "a").read_text() == "changed -86400"
        # And again, in the same size and with the same time.
        write(root, "b", "changed 86_00")
        os.utime(root / "b", (now + 86_400, now + 86_400))
        await pair.alike()


@LARGE
async def test_a_hundred_thousand_files(agent: Agent, pair: Pair) -> None:
    for number in range(100_000):
        write(pair.laptop, f"d{number % 300}/s{number % 7}/f{number}", f"{number}")
    async with syncing(agent, pair, waits=False):
        # Looked at once it is over: to read them all holds up the engine in this same loop.
        await pair.told.seen(InStep, within_s=280)
        await pair.alike(within_s=60)
        write(pair.laptop, "d1/s1/f1", "saved")
        await pair.until(lambda: (pair.container / "d1/s1/f1").read_text() == "saved")


@LARGE
async def test_files_of_more_than_four_gigabytes(agent: Agent, pair: Pair) -> None:
    with (pair.laptop / "sparse").open("wb") as file:
        file.truncate((4 << 30) + 12_345)
        file.seek(4 << 30)
        file.write(b"the end")
    async with syncing(agent, pair, waits=False, compression=True):
        there = pair.container / "sparse"
        await pair.until(there.exists, within_s=400)
        assert there.stat().st_size == (4 << 30) + 12_345
        with (pair.laptop / "sparse").open("r+b") as file:
            file.seek(3 << 30)
            file.write(b"one change")

        def has_it() -> bool:
            with there.open("rb") as file:
                file.seek(3 << 30)
                return file.read(10) == b"one change"

        await pair.until(has_it, within_s=400)


def peak_kib(pid: int) -> int:
    """The most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = int(status.partition("VmHWM:")[2].split()[0])
    print(f"process {pid}: {found / 1024:.0f} MiB at most")
    return found


@LARGE
@pytest.mark.timeout(1800)
async def test_a_tree_of_ten_gigabytes(agent: Agent, pair: Pair) -> None:
    """2,000 files of 5 MiB, more than is ever staged at once; the agent stays small."""
    count, size = 2000, 5 << 20
    for number in range(count):
        path = write(pair.laptop, f"d{number % 40}/f{number}", f"{number}")
        os.truncate(path, size)
    async with syncing(agent, pair, waits=False, compression=False):
        await pair.told.seen(InStep, within_s=1500)
        for number in range(count):
            path = pair.container / f"d{number % 40}/f{number}"
            assert path.stat().st_size == size
            with path.open("rb") as file:
                assert file.read(16).rstrip(b"\0") == f"{number}".encode()
        assert peak_kib(agent.process.pid) < 100 * 1024
