"""A command in the dev container, on this terminal or through pipes."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import asyncssh

from towline.errors import ConnectionLost
from towline.transport.ssh import SshSession


async def run_in_container(ssh: SshSession, argv: Sequence[str], *, terminal: bool) -> int:
    """Run a command with our stdin, stdout and stderr; an empty argv is a shell.

    Args:
        terminal: give it a terminal of its own there, and lend it ours here.

    Returns:
        Its exit code, 128 and the signal's number when a signal ended it.

    Raises:
        ConnectionLost: the connection ended first.
    """
    command = shlex.join(argv) if argv else None
    size = os.get_terminal_size(sys.stdin.fileno()) if terminal else None
    with _blocking_restored(), _raw(terminal):
        try:
            process: asyncssh.SSHClientProcess[bytes] = await ssh.connection.create_process(
                command,
                # Copies: asyncssh closes what it is given when the command ends.
                stdin=os.fdopen(os.dup(0), "rb", buffering=0),
                stdout=os.fdopen(os.dup(1), "wb", buffering=0),
                stderr=os.fdopen(os.dup(2), "wb", buffering=0),
                term_type=os.environ.get("TERM", "xterm") if terminal else None,
                term_size=tuple(size) if size else None,
                encoding=None,
            )
            with _following_size(process, terminal):
                result = await process.wait()
        except (asyncssh.Error, OSError) as error:
            raise ConnectionLost(f"the command's channel ended: {error}") from error
    if result.exit_signal:
        name = f"SIG{result.exit_signal[0]}"
        return 128 + getattr(signal, name, signal.SIGTERM)
    return result.exit_status if result.exit_status is not None else 255


@contextmanager
def _raw(terminal: bool) -> Iterator[None]:
    """Keys go to the container as they are, Ctrl-C too, while the block runs."""
    if not terminal:
        yield
        return
    import termios
    import tty

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setraw(stdin)
    try:
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextmanager
def _blocking_restored() -> Iterator[None]:
    """The event loop makes our stdin and stdout non-blocking; whoever shares them must not be."""
    before = {}
    for fd in (0, 1, 2):
        with suppress(OSError):
            before[fd] = os.get_blocking(fd)
    try:
        yield
    finally:
        for fd, blocking in before.items():
            with suppress(OSError):
                os.set_blocking(fd, blocking)


@contextmanager
def _following_size(
    process: asyncssh.SSHClientProcess[bytes], terminal: bool
) -> Iterator[None]:
    if not terminal:
        yield
        return

    def changed() -> None:
        columns, lines = os.get_terminal_size(sys.stdin.fileno())
        process.change_terminal_size(columns, lines)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
