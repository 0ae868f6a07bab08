"""Run the local command under a helper that outlives us (helper.py says why)."""

from __future__ import annotations

import asyncio
import marshal
import os
import socket
import subprocess
import sys
from asyncio.subprocess import Process as HelperProcess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

from towline._kit.tasks import Tasks
from towline.errors import CommandError
from towline.manifest.model import Command
from towline.process.ending import DEFAULT_LADDER, Ending, Rung
from towline.process.failure import command_failure
from towline.process.terminal import Terminal
from towline.process.view import View, keep_view

_HELPER = Path(__file__).with_name("helper.py")
# Beyond its ladder: for the helper to answer at all, and to go once its end of
# the socket is closed. It does both in milliseconds.
_HELPER_SLACK_S = 3.0


@asynccontextmanager
async def supervised(
    *,
    command: Command,
    env: Mapping[bytes, bytes],
    cwd: Path,
    terminal: bool,
    ladder: Sequence[Rung] = DEFAULT_LADDER,
    output: Path | tuple[int, int] | None = None,
    view: View | None = None,
    open_files: int | None = None,
    on_stopped: Callable[[], None] | None = None,
    on_unseen: Callable[[str], None] | None = None,
) -> AsyncIterator[Process]:
    """Run a command; when the block is left, on whatever way, nothing of it is left.

    The command has a process group of its own. With `terminal` it is the
    terminal's foreground group: Ctrl-C and Ctrl-Z go to it and not to us.

    Args:
        command: an argv is executed as it is, a text is run by `/bin/sh`.
        env: the whole environment, its PATH being where the command is looked for.
        cwd: the folder it starts in.
        terminal: lend it the terminal, if there is one and it is ours to lend.
        ladder: how it is stopped.
        output: append stdout and stderr to this file, or write each to one of these
            descriptors, with nothing on stdin; None passes on ours.
        view: files of its own, at the paths where it looks for them (Linux).
        open_files: its soft limit of open files, where ours was raised.
        on_unseen: called with each path of the view that could not be shown, and why.
        on_stopped: called when the command was stopped (Ctrl-Z), with the
            terminal back in our hands; `Process.resume` goes on.

    Raises:
        CommandError: it cannot be started; the message names what stands in the way.
    """
    if sys.platform == "win32":
        raise CommandError(
            "running a local command is not supported on Windows yet",
            hint="run Towline in WSL, or start the process yourself and leave 'command' out",
        )
    tty = Terminal.of_this_process() if terminal else None
    try:
        ours, theirs = socket.socketpair()
        helper = await _start_helper(theirs, output=output, terminal=tty is not None)
        process = Process(
            tty,
            helper_pid=helper.pid,
            spec=_spec(command, env, cwd, ladder, tty)
            | {"view": view.order() if view else None, "open_files": open_files},
            on_stopped=on_stopped,
            on_unseen=on_unseen,
        )
        if tty is not None:
            tty.ignore_stop()
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: _Ear(process), sock=ours)
            await process.start()
            async with Tasks() as tasks:
                if view is not None:
                    tasks.start(keep_view(view, renew=process.renew_view), name="view")
                yield process
        finally:
            await _wind_up(process, helper)
    finally:
        if tty is not None:
            tty.close()


def argv_of(command: Command) -> list[bytes]:
    """What is executed.

    A text is for `/bin/sh`, not for $SHELL: the manifest is the team's, and one
    fish or zsh among them would read it differently. It is what runs a text in
    the container, too.
    """
    if command.shell is not None:
        return [b"/bin/sh", b"-c", os.fsencode(command.shell)]
    return [os.fsencode(word) for word in command.argv]


def _spec(
    command: Command,
    env: Mapping[bytes, bytes],
    cwd: Path,
    ladder: Sequence[Rung],
    tty: Terminal | None,
) -> dict[str, object]:
    """What the helper is told of the command, in values that marshal takes."""
    return {
        "argv": argv_of(command),
        "env": dict(env),
        "cwd": os.fsencode(cwd),
        "rungs": [(int(rung.number), float(rung.wait_s)) for rung in ladder],
        "terminal": tty is not None,
        "home_group": tty.group if tty else 0,
        "modes": tty.modes if tty else None,
    }


async def _start_helper(
    theirs: socket.socket, *, output: Path | tuple[int, int] | None, terminal: bool
) -> HelperProcess:
    """Start it with our stdin, stdout and stderr, which it passes on to the command."""
    log: int | None = None
    outputs: tuple[int | None, int | None] = (None, None)
    if isinstance(output, Path):
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        outputs = (log, log)
    elif output is not None:
        outputs = output
    # A command in the background that reads from the terminal is stopped for it.
    is_stdin_closed = output is not None or (not terminal and _is_tty(0))
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_HELPER), str(theirs.fileno()),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL if is_stdin_closed else None,
            stdout=outputs[0],
            stderr=outputs[1],
        )  # fmt: skip
    finally:
        theirs.close()
        if log is not None:
            os.close(log)


def _is_tty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


async def _wind_up(process: Process, helper: HelperProcess) -> None:
    """Stop the command, let the helper go, and see it gone.

    Cancelled in the middle, closing the socket is enough: the helper climbs the
    ladder by itself.
    """
    try:
        with suppress(TimeoutError):
            await process.stop()
    finally:
        process.hang_up()
        process.take_terminal_back()
        try:
            async with asyncio.timeout(process.ladder_s + _HELPER_SLACK_S):
                await helper.wait()
        except TimeoutError:
            helper.kill()
            await helper.wait()


class Process:
    """The command under supervision. Made by `supervised`.

    Attributes:
        pid: of the command, also its process group; None before it is started.
        helper_pid: of the command's parent: all that the command started is below it.
        left: processes that outlived the last stop ladder, by their id.
    """

    def __init__(
        self,
        terminal: Terminal | None,
        *,
        helper_pid: int,
        spec: dict[str, object],
        on_stopped: Callable[[], None] | None,
        on_unseen: Callable[[str], None] | None = None,
    ) -> None:
        self.pid: int | None = None
        self.helper_pid = helper_pid
        self.left: tuple[int, ...] = ()
        self._terminal = terminal
        self._spec = spec
        self._on_stopped = on_stopped
        self._on_unseen = on_unseen
        self._transport: asyncio.WriteTransport | None = None
        self._started: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._stopped: asyncio.Future[None] | None = None
        self._is_lost = False

    @property
    def is_running(self) -> bool:
        return self.pid is not None and not self._ended.done()

    @property
    def ladder_s(self) -> float:
        rungs: Any = self._spec["rungs"]
        return float(sum(wait_s for _, wait_s in rungs))

    async def start(self) -> None:
        """Start the command; `supervised` has done so already.

        Raises:
            CommandError: there is no such command or folder, or it may not be run.
        """
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._started = loop.create_future()
        self._order("start", self._spec)
        await self._started

    async def ended(self) -> Ending:
        """Wait for the command itself to end; what it left behind may run on."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> Ending | None:
        """Climb the stop ladder until command, group and descendants are gone.

        Returns at once where nothing runs. None if it was never started, or if
        the kernel would not let it go (`left` has what is left then).
        """
        if self._is_lost or self._transport is None:
            return self._ended.result() if self._ended.done() else None
        if self._stopped is None or self._stopped.done():
            self._stopped = asyncio.get_running_loop().create_future()
            self._order("stop", self._spec["rungs"])
        async with asyncio.timeout(self.ladder_s + _HELPER_SLACK_S):
            await asyncio.shield(self._stopped)
        return self._ended.result() if self._ended.done() else None

    async def restart(self, *, env: Mapping[bytes, bytes] | None = None) -> None:
        """Stop what runs, what it left behind too, and start the command anew.

        Args:
            env: another environment; None: the same.

        Raises:
            CommandError: as `start`.
        """
        await self.stop()
        if env is not None:
            self._spec["env"] = dict(env)
        await self.start()

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group; nothing if it has ended."""
        if self.is_running:
            self._order("signal", int(number))

    def resume(self) -> None:
        """Let a command that was stopped (Ctrl-Z) go on, with the terminal."""
        import signal

        if not self.is_running or self.pid is None:
            return
        if self._terminal is not None:
            self._terminal.lend(self.pid)
        self.signal(signal.SIGCONT)

    def renew_view(self) -> None:
        """Look whether the view's files are still where they were shown, and show them again."""
        if not self._is_lost and self._transport is not None:
            self._order("renew", None)

    def take_terminal_back(self) -> None:
        if self._terminal is not None:
            self._terminal.take_back()

    def hang_up(self) -> None:
        """Close the socket: the helper stops whatever is left, and goes."""
        self._is_lost = True
        if self._transport is not None:
            self._transport.close()

    def _order(self, order: str, argument: Any) -> None:
        if self._transport is None or self._is_lost:
            raise CommandError(
                "the command's helper process is gone", hint="start the session anew"
            )
        message = marshal.dumps((order, argument))
        self._transport.write(len(message).to_bytes(4, "big") + message)

    # What the helper tells.

    def connected(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport

    def told(self, event: str, *values: Any) -> None:
        if event == "started":
            self.pid = values[0]
            _resolve(self._started, None)
        elif event == "failed":
            if self._started is not None and not self._started.done():
                self._started.set_exception(self._failure(*values))
        elif event == "ended":
            self.take_terminal_back()
            _resolve(self._ended, Ending(code=values[0], signal=values[1]))
        elif event == "stopped":
            self.left = tuple(values[0])
            _resolve(self._stopped, None)
        elif event == "unseen" and self._on_unseen is not None:
            for path, reason in values[0]:
                self._on_unseen(f"{path or 'the container files and names'}: {reason}")
        elif event == "paused":
            self.take_terminal_back()
            if self._on_stopped is not None:
                self._on_stopped()

    def lost(self) -> None:
        """The helper is gone: by our own hang-up, or because somebody killed it."""
        was_wanted = not self._is_lost
        self._is_lost = True
        if was_wanted and self.is_running and self.pid is not None:
            # On Linux the command was killed with it; its group is killed here.
            with suppress(OSError):
                os.killpg(self.pid, 9)
            self.take_terminal_back()
            _resolve(self._ended, Ending(signal=9))
        if self._started is not None and not self._started.done():
            self._started.set_exception(CommandError("the command's helper process ended at once"))
        _resolve(self._stopped, None)

    def _failure(self, stage: str, number: int) -> CommandError:
        argv: Any = self._spec["argv"]
        name = os.fsdecode(argv[0])
        cwd = os.fsdecode(self._spec["cwd"])  # type: ignore[arg-type]
        return command_failure(stage, number, name=name, cwd=cwd)


def _resolve(future: asyncio.Future[Any] | None, value: object) -> None:
    if future is not None and not future.done():
        future.set_result(value)


class _Ear(asyncio.Protocol):
    """Turns the helper's bytes into calls of `Process.told`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._inbox = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports do not derive from asyncio's.
        self._process.connected(cast(asyncio.WriteTransport, transport))

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        while len(self._inbox) >= 4:
            end = 4 + int.from_bytes(self._inbox[:4], "big")
            if len(self._inbox) < end:
                return
            message, self._inbox = self._inbox[4:end], self._inbox[end:]
            self._process.told(*marshal.loads(message))

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.lost()
