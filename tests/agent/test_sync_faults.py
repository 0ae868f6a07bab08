"""Bad luck while a folder is synced: kills, cuts, damage, an agent that lies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fakes.netfault import faulty_network
from towline.errors import ConnectionLost, TowlineError
from towline.sync import wire
from towline.sync.events import Counted, InStep, Noted, NotSynced, Stopped
from towline.sync.loop import Resume, SyncedFolder, keep_in_step
from towline.sync.model import DIGEST_BYTES, FOLDER, Entry, Kind
from towline.sync.reconcile import Reason
from towline.sync.wire import Frame, frame, pack_entry, short

from .conftest import Agent
from .syncing import Pair, Told, held, pair_in, syncing, write


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return pair_in(tmp_path)


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob(".towline-tmp-*"))


async def test_a_network_cut_in_the_middle_changes_nothing_in_the_end(
    agent: Agent, pair: Pair
) -> None:
    content = os.urandom(6_000_000)
    write(pair.laptop, "large", content)
    for number in range(300):
        write(pair.laptop, f"d{number % 7}/f{number}", os.urandom(2_000))
    async with faulty_network(agent.line_port) as network:
        network.cut_after(3_000_000)
        async with syncing(agent, pair, port=network.port, waits=False):
            await pair.until(lambda: network._refusing)
            assert not (pair.container / "large").exists()
            network.restore()
            await pair.told.seen(InStep)
            await pair.alike()
            write(pair.container, "back", os.urandom(4_000_000))
            network.cut_after(1_000_000)
            await pair.until(lambda: network._refusing)
            network.restore()
            await pair.alike()
    assert network.connections > 2
    assert not leftovers(pair.container) and not leftovers(pair.laptop)


async def test_an_agent_killed_in_the_middle_leaves_no_half_file(agent: Agent, pair: Pair) -> None:
    for number in range(40):
        write(pair.laptop, f"f{number}", b"old %d" % number)
    async with syncing(agent, pair):
        await pair.alike()
        wanted = {}
        for number in range(40):
            wanted[f"f{number}"] = os.urandom(500_000)
            write(pair.laptop, f"f{number}", wanted[f"f{number}"])
        # In the middle: some are staged, none or some are renamed.
        await pair.until(lambda: bool(leftovers(pair.container)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(agent.process.pid, signal.SIGKILL)
        for name, content in wanted.items():
            found = (pair.container / name).read_bytes()
            assert found == content or found.startswith(b"old "), name
        assert pair.job is not None
        pair.job.cancel()
    agent.restart()
    # What the killed one left is swept when nobody can be writing to it any more.
    for each in leftovers(pair.container):
        each.unlink()
    async with syncing(agent, pair):
        await pair.alike()
        assert {name: what[0] for name, what in held(pair.laptop).items()} == wanted  # type: ignore[index]


CLIENT = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from tests.agent.conftest import Agent
from tests.agent.syncing import Pair, Told, syncing
from towline.sync.loop import Resume
import asyncssh, json

async def main():
    folder, laptop, container, state = map(Path, sys.argv[1:])
    agent = Agent(
        binary=Path(), folder=folder, config=json.loads((folder / "config.json").read_text()),
        host_key=asyncssh.read_private_key(folder / "host_key"),
        client_key=asyncssh.read_private_key(folder / "client_private"),
        line_key=(folder / "line_key").read_bytes(), process=None,
    )
    pair = Pair(laptop, container, state, Told(), Resume())
    async with syncing(agent, pair):
        print("in step", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_client_killed_at_any_moment_loses_nothing(
    agent: Agent, pair: Pair, tmp_path: Path
) -> None:
    agent.client_key.write_private_key(agent.folder / "client_private")
    root = Path(__file__).parents[2]
    program = tmp_path / "client.py"
    program.write_text(textwrap.dedent(CLIENT.format(paths=[str(root), str(root / "tests")])))
    chance = random.Random(7)
    command = [sys.executable, program, agent.folder, pair.laptop, pair.container, pair.state]
    laptops: dict[str, bytes] = {}
    for number in range(30):
        laptops[f"l{number}"] = b"0"
        write(pair.laptop, f"l{number}", b"0")
    for turn in range(4):
        client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert client.stdout is not None
        assert await client.stdout.readline() == b"in step\n"
        # Large enough that the kill comes before the end of it.
        for number in range(30):
            laptops[f"l{number}"] = b"%d " % turn + os.urandom(100_000)
            write(pair.laptop, f"l{number}", laptops[f"l{number}"])
            write(pair.container, f"c{turn}-{number}", b"%d " % turn + os.urandom(50_000))
        await asyncio.sleep(chance.uniform(0.0, 0.12))  # the moment of the kill
        client.kill()
        await client.wait()
    containers = {
        path.name: path.read_bytes()
        for path in pair.container.iterdir()
        if path.name.startswith("c")
    }
    async with syncing(agent, pair):
        await pair.alike()
    found = {name: what[0] for name, what in held(pair.laptop).items()}  # type: ignore[index]
    for name, content in {**laptops, **containers}.items():
        assert found[name] == content, name


async def test_a_damaged_ancestor_is_told_and_deletes_nothing(agent: Agent, pair: Pair) -> None:
    for number in range(5):
        write(pair.laptop, f"f{number}", "x")
    async with syncing(agent, pair):
        await pair.alike()
    ancestor = pair.state / "ancestor"
    content = bytearray(ancestor.read_bytes())
    content[len(content) // 2] ^= 1
    ancestor.write_bytes(content)
    (pair.container / "f1").unlink()
    async with syncing(agent, pair):
        assert "damaged" in pair.told.of(Noted)[0].text
        await pair.alike()
        assert len(held(pair.laptop)) == 5


def put_another_in_place(root: Path, elsewhere: Path) -> None:
    root.rename(elsewhere)
    write(root, "c", "another folder")


@pytest.mark.parametrize("side", ["laptop", "container"])
async def test_a_root_that_is_gone_stops_the_sync_and_deletes_nothing(
    agent: Agent, pair: Pair, side: str, tmp_path: Path
) -> None:
    write(pair.laptop, "a", "1")
    write(pair.laptop, "b", "1")
    root: Path = getattr(pair, side)
    other = pair.container if side == "laptop" else pair.laptop
    async with syncing(agent, pair):
        await pair.alike()
        put_another_in_place(root, tmp_path / "elsewhere")
        stopped = await pair.told.seen(Stopped)
        assert [halt.side for halt in stopped.halts] == [side]
        assert set(held(other)) == {"a", "b"}
        # Another folder has no ancestor: all that follows is a first sync.
        pair.resume.resume()
        await pair.told.seen(InStep, count=2)
        assert {"a", "b"} <= set(held(other))
        assert set(held(pair.laptop)) == ({"c"} if side == "laptop" else {"a", "b"})
        assert set(held(pair.container)) == {"a", "b", "c"}


async def test_a_laptops_folder_that_is_gone_stops_until_it_is_back(
    agent: Agent, pair: Pair, tmp_path: Path
) -> None:
    write(pair.laptop, "a", "1")
    async with syncing(agent, pair):
        await pair.alike()
        pair.laptop.rename(tmp_path / "elsewhere")
        stopped = await pair.told.seen(Stopped)
        assert stopped.halts[0].reason is Reason.ROOT_GONE
        pair.resume.resume()
        await pair.told.seen(Stopped, count=2)
        (tmp_path / "elsewhere").rename(pair.laptop)
        pair.resume.resume()
        await pair.told.seen(InStep, count=2)
        write(pair.laptop, "a", "2")
        await pair.alike()


async def test_after_many_deletions_it_asks_and_goes_on_when_told(agent: Agent, pair: Pair) -> None:
    for number in range(60):
        write(pair.laptop, f"f{number}", "x")
    async with syncing(agent, pair):
        await pair.alike()
        for number in range(50):
            (pair.laptop / f"f{number}").unlink()
            # As a slow disk does it: the first that go must not go over alone.
            await asyncio.sleep(0.002)
        stopped = await pair.told.seen(Stopped)
        assert stopped.halts[0].reason is Reason.MANY_DELETIONS
        assert len(held(pair.container)) > 60 - 2 * 5
        pair.resume.resume()
        await pair.told.seen(Stopped, count=2)
        pair.resume.resume(accept_deletions=True)
        await pair.alike()


async def test_one_file_that_cannot_be_written_keeps_nothing_else_waiting(
    agent: Agent, pair: Pair
) -> None:
    """The first sync never ended, and `up` with it, where one path failed."""
    write(pair.laptop, "x", "1")
    (pair.container / "x").mkdir()
    write(pair.container, "x/y", "the container's own")
    os.mkfifo(pair.laptop / "pipe")
    with small_disk(pair.container / "x", "ro"):
        async with syncing(agent, pair):
            write(pair.laptop, "z", "1")
            await pair.until(lambda: (pair.container / "z").exists())
            away = {each.path: each.reason for each in pair.told.of(Counted)[-1].not_synced}
            assert away["pipe"] == "a FIFO" and "x" in away


async def test_a_manifest_that_maps_the_root_is_refused(agent: Agent, pair: Pair) -> None:
    pair.container = Path("/")
    with pytest.raises(TowlineError, match="/ cannot be synced"):
        async with syncing(agent, pair):
            pass


async def test_the_longest_names_go_over(agent: Agent, pair: Pair) -> None:
    """With a temporary's name made of them they would be too long."""
    deep = "/".join(["d" * 255] * 14) + "/" + "n" * 255
    write(pair.laptop, "n" * 255, "longest name")
    fd = os.open(pair.laptop, os.O_RDONLY)
    for name in deep.split("/")[:-1]:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    async with syncing(agent, pair):
        await pair.until(lambda: len(held(pair.container)) == 15)
    assert not pair.told.of(NotSynced)


@contextlib.contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(("size=2m", *options)), "tmpfs", folder]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.parametrize("side", ["laptop", "container"])
async def test_a_full_disk_is_told_and_the_rest_goes_on(
    agent: Agent, pair: Pair, side: str
) -> None:
    root: Path = getattr(pair, side)
    other = pair.container if side == "laptop" else pair.laptop
    with small_disk(root):
        async with syncing(agent, pair):
            write(other, "large", os.urandom(6_000_000))
            for number in range(30):
                write(other, f"f{number}", os.urandom(2_000))
            await pair.until(lambda: all((root / f"f{n}").exists() for n in range(30)))
            told = await pair.told.seen(NotSynced)
            assert told.path == "large" and told.side == side
            write(other, "f1", "saved")
            await pair.until(lambda: (root / "f1").read_bytes() == b"saved")
            assert not (root / "large").exists() and not leftovers(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk that cannot be written to")
async def test_a_folder_that_cannot_be_written_to_is_told(agent: Agent, pair: Pair) -> None:
    (pair.container / "ro").mkdir()
    write(pair.laptop, "ro/x", "1")
    write(pair.laptop, "y", "1")
    with small_disk(pair.container / "ro", "ro"):
        async with syncing(agent, pair, waits=False):
            await pair.until(lambda: (pair.container / "y").exists())
            told = await pair.told.seen(NotSynced)
            assert told.path == "ro/x" and "read-only" in told.reason.lower()
            assert (pair.laptop / "ro/x").exists()


async def test_a_file_that_grows_all_the_time_does_not_stop_the_others(
    agent: Agent, pair: Pair
) -> None:
    async def grow(path: Path) -> None:
        with path.open("ab") as file:
            while True:
                file.write(b"line\n" * 100)
                file.flush()
                await asyncio.sleep(0)

    async with syncing(agent, pair):
        growing = asyncio.ensure_future(grow(pair.laptop / "growing.log"))
        try:
            for number in range(5):
                write(pair.laptop, f"f{number}", "x")
                await pair.until(lambda n=number: (pair.container / f"f{n}").exists())
        finally:
            growing.cancel()
        await pair.alike(within_s=20)


# An agent that lies


class Liar:
    """A stream that says what an agent might, were it somebody else's."""

    def __init__(self, *entries: tuple[bytes, Entry], files: dict[bytes, bytes]) -> None:
        self._said = bytearray()
        self._news = asyncio.Event()
        self._files = files
        self._say(frame(Frame.OPENED, short(b"boot")))
        self._say(frame(Frame.ENTRIES, b"".join(pack_entry(*each) for each in entries)))
        self._say(frame(Frame.SETTLED))

    def _say(self, content: bytes) -> None:
        self._said += content
        self._news.set()

    async def read_exactly(self, size: int) -> bytes:
        while len(self._said) < size:
            self._news.clear()
            await self._news.wait()
        taken = bytes(self._said[:size])
        del self._said[:size]
        return taken

    async def write(self, content: bytes) -> None:
        while content:
            size, kind = wire.head(content[: wire.HEAD_BYTES])
            payload = content[wire.HEAD_BYTES : wire.HEAD_BYTES + size]
            content = content[wire.HEAD_BYTES + size :]
            if kind == Frame.COMMIT:
                count = int.from_bytes(payload[:4])
                self._say(frame(Frame.DONE, payload[:4] + b"\0\0\0" * count))
            elif kind == Frame.FETCH:
                for path in wanted_paths(payload):
                    self._say(frame(Frame.FETCHED, b"\0\0\0"))
                    self._say(frame(Frame.FETCH_CONTENT, self._files.get(path, b"?")))
                    self._say(frame(Frame.FETCH_END))


def wanted_paths(payload: bytes) -> Iterator[bytes]:
    """The paths in a FETCH of files without bases."""
    at = 5
    while at < len(payload):
        size = int.from_bytes(payload[at : at + 2])
        yield payload[at + 2 : at + 2 + size]
        at += 2 + size + 18 + DIGEST_BYTES + 4


async def synced_with_liar(pair: Pair, liar: Liar) -> None:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Liar]:
        yield liar

    folder = SyncedFolder(local=pair.laptop, remote="/app", state=pair.state)
    told = Told()
    job = asyncio.ensure_future(
        keep_in_step(folder, open_stream=opened, told=told, resume=Resume())
    )
    seen = asyncio.ensure_future(told.seen(InStep, within_s=3))
    try:
        await asyncio.wait([job, seen], return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            await job
    finally:
        seen.cancel()
        job.cancel()
        await asyncio.gather(job, seen, return_exceptions=True)


def file_entry(content: bytes) -> Entry:
    import hashlib

    digest = hashlib.sha256(content).digest()
    return Entry(Kind.FILE, size=len(content), digest=digest)


@pytest.mark.parametrize("path", [b"../evil", b"/etc/evil", b"a/../../evil", b"a//b", b"", b"."])
async def test_an_agent_that_names_what_is_outside_is_refused(pair: Pair, path: bytes) -> None:
    liar = Liar((path, file_entry(b"evil")), files={path: b"evil"})
    with pytest.raises(TowlineError, match="outside of the folder"):
        await synced_with_liar(pair, liar)
    assert held(pair.laptop) == {}


async def test_an_agent_cannot_write_through_a_link_or_into_version_control(
    pair: Pair, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    # In step before, so that what the agent tells now is news that comes to the laptop.
    write(pair.laptop, "a", "x")
    (pair.laptop / ".git").mkdir()
    first = Liar((b"a", file_entry(b"x")), files={})
    await synced_with_liar(pair, first)
    evil = file_entry(b"evil")
    liar = Liar(
        (b"a", file_entry(b"x")),
        (b"link", Entry(Kind.LINK, target=bytes(outside))),
        (b"link/evil", evil),
        (b"up", Entry(Kind.LINK, target=b"../outside")),
        (b".git", FOLDER),
        (b".git/hooks/post-checkout", evil),
        (b".GIT/config", evil),
        (b"good", evil),
        (b"bad", file_entry(b"what it says")),
        files={
            b"link/evil": b"evil",
            b".git/hooks/post-checkout": b"evil",
            b".GIT/config": b"evil",
            b"good": b"evil",
            b"bad": b"and what it is",
        },
    )
    with contextlib.suppress(ConnectionLost):
        await synced_with_liar(pair, liar)
    assert list(outside.iterdir()) == []
    assert set(held(pair.laptop)) == {"a", ".git", "good"}
