"""The command without a terminal: starting, ending, stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from towline.errors import CommandError
from towline.manifest.model import Command
from towline.process import Ending, Process, Rung, supervised
from towline.process.listening import tree

from .terminals import eventually, is_alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ENV = dict(os.environb)
LADDER = (Rung(signal.SIGINT, 0.4), Rung(signal.SIGTERM, 0.4), Rung(signal.SIGKILL, 5.0))


async def below(process: Process) -> set[int]:
    return set(await asyncio.to_thread(tree, process.helper_pid)) - {process.helper_pid}


def shell(text: str) -> Command:
    return Command(shell=text)


def run(command: Command, tmp_path: Path, **more: object):  # type: ignore[no-untyped-def]
    arguments = {"env": ENV, "cwd": tmp_path, "terminal": False, "ladder": LADDER, **more}
    return supervised(command=command, **arguments)  # type: ignore[arg-type]


async def output(command: Command, tmp_path: Path, **more: object) -> str:
    log = tmp_path / "log"
    async with run(command, tmp_path, output=log, **more) as process:
        await process.ended()
    return log.read_text()


@pytest.mark.parametrize(
    ("text", "ending", "exit_code"),
    [
        ("exit 0", Ending(code=0), 0),
        ("exit 3", Ending(code=3), 3),
        ("exit 255", Ending(code=255), 255),
        ("kill -9 $$", Ending(signal=9), 137),
        ("kill -2 $$", Ending(signal=2), 130),
        ("no-such-command-here", Ending(code=127), 127),
    ],
)
async def test_the_ending_is_passed_on(
    text: str, ending: Ending, exit_code: int, tmp_path: Path
) -> None:
    async with run(shell(text), tmp_path, output=tmp_path / "log") as process:
        assert await process.ended() == ending
        assert ending.exit_code == exit_code


async def test_an_argv_is_taken_literally(tmp_path: Path) -> None:
    command = Command(argv=("printf", "%s|", "$HOME", "a b", "*", "'"))
    assert await output(command, tmp_path) == "$HOME|a b|*|'|"


async def test_it_gets_the_environment_and_folder_that_are_given_and_no_more(
    tmp_path: Path,
) -> None:
    env = {b"PATH": os.environb[b"PATH"], b"LATIN": b"caf\xe9"}
    log = tmp_path / "log"
    async with run(shell("env; pwd"), tmp_path, env=env, output=log) as process:
        await process.ended()
    lines = log.read_bytes().splitlines()
    assert b"LATIN=caf\xe9" in lines and os.fsencode(tmp_path) in lines
    names = {line.partition(b"=")[0] for line in lines if b"=" in line}
    assert names <= {b"PATH", b"LATIN", b"PWD", b"OLDPWD", b"_", b"SHLVL"}


async def test_the_command_is_looked_for_in_its_own_path(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "my-server"
    program.parent.mkdir()
    program.write_text("echo from my-server\n")  # no `#!`: run by /bin/sh, as shells do
    program.chmod(0o755)
    env = {b"PATH": os.fsencode(program.parent) + b":/usr/bin:/bin"}
    assert await output(Command(argv=("my-server",)), tmp_path, env=env) == "from my-server\n"


async def test_it_has_default_signals_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    look = shell("grep -E 'SigIgn|SigBlk' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '")
    text = await output(look, tmp_path)
    masks = {line.split()[0]: int(line.split()[1], 16) for line in text.splitlines()[:2]}
    # Signals 32 and 33 are the C library's own: nobody can set them, and a test runner's
    # parent may have left them ignored.
    theirs = 1 << 31 | 1 << 32
    # What nohup asked for is passed on.
    hangup = 1 if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else 0
    found = {name: mask & ~theirs for name, mask in masks.items()}
    assert found == {"SigBlk:": 0, "SigIgn:": hangup}
    assert text.split("\n")[-1].split() == ["0", "1", "2", "3"]  # 3 is ls's own


@pytest.mark.parametrize(
    ("command", "cwd", "message"),
    [
        (Command(argv=("nope-nope",)), ".", "there is no command 'nope-nope' on this machine"),
        (Command(argv=("./server",)), ".", "there is no file {cwd}/server to run"),
        (Command(argv=("./plain",)), ".", "'./plain' may not be executed"),
        (Command(argv=("./script",)), ".", "'./script' cannot be run: the interpreter in its first "
                                           "line is not there"),
        (Command(argv=("true",)), "gone", "the command's folder {cwd} cannot be entered: there is "
                                          "no such folder"),
        (Command(argv=("true",)), "plain", "the command's folder {cwd} cannot be entered: Not a "
                                           "directory"),
    ],
)  # fmt: skip
async def test_what_cannot_be_started_is_named(
    command: Command, cwd: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("hello")
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    folder = tmp_path / cwd if cwd != "." else tmp_path
    with pytest.raises(CommandError) as caught:
        async with run(command, folder):
            raise AssertionError("it started")
    assert caught.value.message == message.format(cwd=folder)


async def test_a_group_that_ignores_int_and_term_is_killed_whole(tmp_path: Path) -> None:
    text = (
        "trap '' INT TERM; (trap '' INT TERM; while :; do sleep 0.1; done) & "
        "echo ready; while :; do sleep 0.1; done"
    )
    async with started(text, tmp_path) as process:
        pids = await below(process)
        assert await process.stop() == Ending(signal=9)
        assert process.left == ()
        assert not any(map(is_alive, pids))


async def test_the_ladder_stops_at_the_first_signal_that_is_enough(tmp_path: Path) -> None:
    text = "trap 'echo int; exit 7' INT; echo ready; while :; do sleep 0.05; done"
    async with started(text, tmp_path) as process:
        assert await process.stop() == Ending(code=7)
    assert (tmp_path / "log").read_text() == "ready\nint\n"


async def test_no_rung_is_waited_on_that_everything_left_ignores(tmp_path: Path) -> None:
    text = "trap '' INT; sleep 500 & trap 'exit 9' TERM; echo ready; wait; wait"
    slow = (Rung(signal.SIGINT, 30.0), Rung(signal.SIGTERM, 30.0), Rung(signal.SIGKILL, 5.0))
    async with started(text, tmp_path, ladder=slow) as process, asyncio.timeout(10):
        assert await process.stop() == Ending(code=9)


async def test_a_double_forked_orphan_in_a_session_of_its_own_is_found(tmp_path: Path) -> None:
    text = "(setsid sleep 500 & echo $! > orphan); echo ready; sleep 500"
    async with started(text, tmp_path) as process:
        orphan = int((tmp_path / "orphan").read_text())
        assert is_alive(orphan)
        await process.stop()
        assert not is_alive(orphan)


async def test_what_an_ended_command_left_behind_goes_too(tmp_path: Path) -> None:
    async with run(shell("sleep 500 & echo $! > left; exit 0"), tmp_path) as process:
        assert await process.ended() == Ending(code=0)
        left = int((tmp_path / "left").read_text())
        assert is_alive(left)
    assert not is_alive(left)


async def test_a_stopped_command_can_still_be_ended(tmp_path: Path) -> None:
    paused = asyncio.Event()
    text = "trap 'exit 6' INT; echo ready; kill -STOP $$; while :; do sleep 0.05; done"
    async with run(shell(text), tmp_path, on_stopped=paused.set) as process:
        async with asyncio.timeout(10):
            await paused.wait()
        assert await process.stop() == Ending(code=6)


async def test_restart_runs_it_anew_with_nothing_left_of_the_first(tmp_path: Path) -> None:
    text = "sleep 500 & echo $! >> pids; echo $$ >> pids; echo ready; wait"
    async with started(text, tmp_path) as process:
        first = process.pid
        await process.restart()
        assert process.pid != first and process.is_running
        assert eventually(lambda: len((tmp_path / "pids").read_text().split()) == 4)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert [is_alive(pid) for pid in pids] == [False, False, True, True]
    assert not any(map(is_alive, pids))


async def test_restart_after_a_failure_ends_anew(tmp_path: Path) -> None:
    async with run(shell("echo x >> runs; exit 3"), tmp_path) as process:
        assert await process.ended() == Ending(code=3)
        await process.restart()
        assert await process.ended() == Ending(code=3)
    assert (tmp_path / "runs").read_text() == "x\nx\n"


async def test_cancelling_stops_it(tmp_path: Path) -> None:
    entered = asyncio.Event()
    seen: list[Process] = []

    async def session() -> None:
        async with started("echo ready; sleep 500", tmp_path) as process:
            seen.append(process)
            entered.set()
            await process.ended()

    task = asyncio.ensure_future(session())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen[0].pid is not None and not is_alive(seen[0].pid)


async def test_a_killed_helper_takes_the_command_along(tmp_path: Path) -> None:
    async with started("sleep 500 & echo ready; sleep 500", tmp_path) as process:
        pids = await below(process)
        os.kill(process.helper_pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            assert await process.ended() == Ending(signal=9)
        assert eventually(lambda: not any(map(is_alive, pids)))


async def test_a_hundred_thousand_bytes_of_environment_arrive(tmp_path: Path) -> None:
    env = {**ENV, b"BIG": b"x" * 100_000}
    assert await output(shell("echo ${#BIG}"), tmp_path, env=env) == "100000\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_stdin_is_passed_on(loop: str) -> None:
    # In a process of its own: pytest's own stdin is closed.
    code = (
        f"import os, sys, {loop}; from pathlib import Path\n"
        "from towline.process import supervised; from towline.manifest.model import Command\n"
        "async def main():\n"
        "    async with supervised(command=Command(argv=('cat',)), env=dict(os.environb),\n"
        "                          cwd=Path('/'), terminal=False) as p:\n"
        "        await p.ended()\n"
        f"{loop}.run(main())"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(15):
        out, _ = await child.communicate(b"through\n")
    assert out == b"through\n"


def test_every_module_can_be_imported_without_the_parts_of_unix() -> None:
    code = (
        "import asyncio, subprocess, sys\n"  # which need them themselves on this system
        "for name in ('fcntl', 'termios', 'pty', 'resource', 'grp', 'pwd'):\n"
        "    sys.modules[name] = None\n"
        "import towline.process, towline.process.listening, towline.process.helper\n"
        "import towline.manifest, towline.environ, towline.environ.dotenv, towline._kit.paths\n"
        "from towline.process.terminal import Terminal\n"
        "assert Terminal.of_this_process() is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


class started:
    """The command, entered once it has said `ready` in its log."""

    def __init__(self, text: str, tmp_path: Path, **more: object) -> None:
        self._log = tmp_path / "log"
        self._context = run(shell(text), tmp_path, output=self._log, **more)

    async def __aenter__(self) -> Process:
        process: Process = await self._context.__aenter__()
        assert await asyncio.to_thread(eventually, lambda: "ready" in self._log.read_text())
        return process

    async def __aexit__(self, *error: object) -> None:
        await self._context.__aexit__(*error)
