"""A command in the dev container, on this terminal or through pipes."""

from __future__ import annotations

import asyncio
import os
import select
import shlex
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

import asyncssh

from towline._kit.tasks import Tasks
from towline._kit.together import together
from towline.errors import ConnectionLost
from towline.transport.ssh import SshSession

_CHUNK_BYTES = 64 * 1024
_CHUNKS_AHEAD = 16
_CTRL_C = b"\x03"


async def run_in_container(
    ssh: SshSession,
    command: Sequence[str] | str,
    *,
    terminal: bool,
    started: Callable[[], None] = lambda: None,
    outputs: tuple[int, int] = (1, 2),
    has_input: bool = True,
    is_lost: Callable[[], bool] = lambda: False,
    ports: Collection[int] = (),
) -> int:
    """Run a command with our stdin, stdout and stderr; an empty one is a shell.

    Args:
        command: words taken literally, or a line for a shell, which is run without one where
            it is plain words: the image may have none.
        terminal: give it a terminal of its own there, and lend it ours here.
        started: called when it runs.
        has_input: whether our stdin is the command's; else it has none.
        ports: that Services lead to and the command is to listen on: the agent leaves them to
            it, and holds what comes to them from the moment that it has ended.
        outputs: the descriptors that its stdout and stderr are written to.
        is_lost: whether the network is away: a Ctrl-C that cannot reach the command is ours
            then, as it is where there is no terminal.

    Returns:
        Its exit code, 128 and the signal's number when a signal ended it.

    Raises:
        ConnectionLost: the connection ended first.
    """
    size = tuple(os.get_terminal_size(0)) if terminal else None
    try:
        async with Tasks() as tasks:
            process: asyncssh.SSHClientProcess[bytes] = await ssh.connection.create_process(
                (command if isinstance(command, str) else shlex.join(command)) or None,
                term_type=os.environ.get("TERM", "xterm") if terminal else None,
                term_size=size,
                encoding=None,
                env={"TOWLINE_PORTS": " ".join(map(str, sorted(ports)))} if ports else None,
            )
            started()
            with _raw(terminal), _following_size(process, terminal):
                if has_input:
                    is_ours = is_lost if terminal else lambda: False
                    tasks.start(_send_input(process, is_ours), name="stdin")
                else:
                    process.stdin.write_eof()
                await together(_show(process.stdout, outputs[0]), _show(process.stderr, outputs[1]))
                await process.wait_closed()
    except (asyncssh.Error, OSError) as error:
        raise ConnectionLost(f"the command's channel ended: {error}") from error
    if process.exit_signal:
        name = f"SIG{process.exit_signal[0]}"
        return 128 + int(getattr(signal, name, signal.SIGTERM))
    if process.exit_status is None:
        # The agent tells each end of a command: this is the end of the agent, or of the line.
        raise ConnectionLost("the command's channel ended before the command did")
    return process.exit_status


# Our own three streams may be files, pipes, terminals or /dev/null, and are shared with
# whoever started us: an event loop cannot watch the first and makes the others
# non-blocking for everybody. Threads read and write them as they are.


async def _send_input(
    process: asyncssh.SSHClientProcess[bytes], is_ours: Callable[[], bool]
) -> None:
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(_CHUNKS_AHEAD)
    # What is typed after the command's end is for whoever asks then, not for a thread
    # that still waits for it.
    over, end = os.pipe()

    def read() -> None:
        try:
            while True:
                room.acquire()
                ready, _, _ = select.select([0, over], [], [])
                data = b"" if over in ready else _read(0)
                if _CTRL_C in data and is_ours():
                    os.kill(os.getpid(), signal.SIGINT)
                with suppress(RuntimeError):  # the loop is closed: nobody wants it any more
                    loop.call_soon_threadsafe(chunks.put_nowait, data)
                if not data:
                    return
        finally:
            os.close(over)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    try:
        with suppress(OSError, asyncssh.Error):
            while data := await chunks.get():
                process.stdin.write(data)
                await process.stdin.drain()
                room.release()
            process.stdin.write_eof()
    finally:
        os.close(end)
        room.release()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK_BYTES)
    except OSError:
        return b""


async def _show(source: asyncssh.SSHReader[bytes], fd: int) -> None:
    while data := await source.read(_CHUNK_BYTES):
        await asyncio.to_thread(_write_all, fd, data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def _raw(terminal: bool) -> Iterator[None]:
    """Keys go to the container as they are, Ctrl-C too, while the block runs."""
    if not terminal:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0)
    # What Towline itself has to say meanwhile is lines; the command's come with CR LF.
    modes = termios.tcgetattr(0)
    modes[1] |= termios.OPOST
    termios.tcsetattr(0, termios.TCSADRAIN, modes)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _following_size(process: asyncssh.SSHClientProcess[bytes], terminal: bool) -> Iterator[None]:
    if not terminal:
        yield
        return

    def changed() -> None:
        columns, lines = os.get_terminal_size(0)
        process.change_terminal_size(columns, lines)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
