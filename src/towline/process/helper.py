"""The command's parent: a small program that outlives the client to clean up.

Run by itself (`python -I -S helper.py FD`), never imported by the client. It
starts the command, tells the client how it fares, and stops all of it when the
client says so or is gone: a kill -9 of the client closes its end of the socket,
and that is enough. On Linux it is a child subreaper, so what the command's own
children left behind comes to it instead of to process 1, and is found.

Light on purpose: `signal` brings `enum` (8 ms of start on a slow core), `json`
and `subprocess` more; of the 30 ms that the helper may take, Python has 13.
Messages are marshalled tuples with their length in front; both ends are the same
interpreter, and nobody else has the socket.
"""

# pathlib and contextlib would cost 9 ms of start:
# ruff: noqa: PTH110, PTH120, PTH123, PTH208, SIM105

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]
import marshal
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_IS_LINUX = sys.platform == "linux"
# How often to look when no signal tells: a group whose members are not our
# children (no subreaper: macOS), and children that fork as fast as they are killed.
_LOOK_AGAIN_S = 0.05


def main() -> None:
    control = int(sys.argv[1])
    os.set_inheritable(control, False)
    # A group of its own: `kill -9 %1` in the shell goes to the client's whole group.
    os.setpgid(0, 0)
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    helper = Helper(control)
    helper.catch_signals()
    while helper.is_wanted:
        helper.turn(None)
        helper.obey()
    helper.stop_all(helper.rungs)
    helper.put_terminal_back()


class Helper:
    def __init__(self, control: int) -> None:
        self.is_wanted = True
        self.rungs: list[tuple[int, float]] = []
        self._control = control
        self._inbox = b""
        self._orders: list[tuple[object, ...]] = []
        self._main = 0
        self._group = 0
        self._terminal = -1
        self._terminal_group = 0
        self._home_group = 0
        self._modes: list[object] | None = None
        self._view: Any = None
        self._wake, self._waker = os.pipe()

    def catch_signals(self) -> None:
        os.set_blocking(self._waker, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._leave)
        # Ctrl-C and Ctrl-Z are the command's; a hangup ends the client, and that
        # ends us in order; the terminal may be used from the background.
        for name in ("SIGINT", "SIGQUIT", "SIGTSTP", "SIGTTIN", "SIGTTOU"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        self._hangup_was = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _leave(self, *_: object) -> None:
        self.is_wanted = False

    def turn(self, wait_s: float | None) -> None:
        """Wait for a message or a signal, and deal with it."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self.is_wanted:
            poll.register(self._control, select.POLLIN)
        ready = dict(poll.poll(None if wait_s is None else max(0, int(wait_s * 1000) + 1)))
        if self._wake in ready:
            os.read(self._wake, 4096)
        self.reap()
        if self._control in ready:
            self._receive()

    def _receive(self) -> None:
        try:
            received = os.read(self._control, 1 << 20)
        except OSError:
            received = b""
        if not received:
            self.is_wanted = False
        self._inbox += received
        while len(self._inbox) >= 4:
            end = 4 + int.from_bytes(self._inbox[:4], "big")
            if len(self._inbox) < end:
                break
            message, self._inbox = self._inbox[4:end], self._inbox[end:]
            self._orders.append(marshal.loads(message))

    def obey(self) -> None:
        """Do what was ordered; not from within `turn`, which the stop ladder calls too."""
        while self._orders:
            order, argument = self._orders.pop(0)
            if order == "start":
                self._start(argument)  # type: ignore[arg-type]
            elif order == "stop":
                self.tell("stopped", self.stop_all(argument))  # type: ignore[arg-type]
            elif order == "renew" and self._view is not None:
                self._view.renew()
            elif order == "signal" and self._group:
                send(os.killpg, self._group, argument)

    def tell(self, *event: object) -> None:
        message = marshal.dumps(event)  # type: ignore[arg-type]
        try:
            os.write(self._control, len(message).to_bytes(4, "big") + message)
        except OSError:
            self.is_wanted = False

    def _start(self, spec: dict[str, object]) -> None:
        self.rungs = spec["rungs"]  # type: ignore[assignment]
        if spec["terminal"] and self._terminal < 0:
            self._open_terminal(spec)
        if spec["view"] and self._view is None:
            self._see(*spec["view"])  # type: ignore[misc]
        status, child_status = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(spec, child_status, terminal=self._terminal, hangup=self._hangup_was)
        os.close(child_status)
        # Both sides do it, for either may come first; the loser is refused, rightly.
        send(os.setpgid, pid, pid)
        self._main = self._group = self._terminal_group = pid
        failure = os.read(status, 65536)  # ends with the exec, which closes the other end
        os.close(status)
        if failure:
            os.waitpid(pid, 0)
            self._main = self._group = 0
            self.tell("failed", *marshal.loads(failure))
        else:
            self.tell("started", pid)

    def _see(self, binds: list[tuple[str, str, str]], scratch: str) -> None:
        """Give the command files of its own where it looks for them (namespace.py)."""
        sys.path.insert(0, os.path.dirname(__file__))
        import namespace  # type: ignore[import-not-found]

        self._view = namespace.View(binds, scratch=scratch)
        try:
            self._view.enter()
            failed = self._view.show()
        except OSError as error:
            failed = [("", error.strerror or str(error))]
        if failed:
            self.tell("unseen", failed)

    def _open_terminal(self, spec: dict[str, object]) -> None:
        try:
            self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return
        self._home_group = spec["home_group"]  # type: ignore[assignment]
        self._modes = spec["modes"]  # type: ignore[assignment]

    def reap(self) -> None:
        """Collect the dead and hear of the stopped, ours and those left to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid != self._main:
                continue
            if os.WIFSTOPPED(status):
                self.tell("paused", os.WSTOPSIG(status))
            elif os.WIFSIGNALED(status):
                self._main = 0
                self.tell("ended", None, os.WTERMSIG(status))
            else:
                self._main = 0
                self.tell("ended", os.WEXITSTATUS(status), None)

    def stop_all(self, rungs: Iterable[tuple[int, float]]) -> list[int]:
        """Climb the stop ladder until nothing is left; what outlived it is returned."""
        for number, wait_s in rungs:
            if not self._is_anything_left():
                break
            self._stop_with(number, until=time.monotonic() + wait_s)
        is_left = self._is_anything_left()
        if not is_left:
            self._group = 0
        return sorted(descendants()) if is_left else []

    def _stop_with(self, number: int, *, until: float) -> None:
        told: set[int] = set()
        had_main = self._main != 0
        send(os.killpg, self._group, number)
        if number != signal.SIGKILL:
            # A stopped process gets nothing else until it goes on.
            send(os.killpg, self._group, signal.SIGCONT)
        while True:
            if number == signal.SIGKILL:
                send(os.killpg, self._group, number)
                self._tell_strays(number, set())
            elif not self._main:
                # While the command lives its other groups are its own business:
                # it may end them in an order. Then they are nobody's but ours.
                self._tell_strays(number, told)
            left_s = until - time.monotonic()
            if left_s <= 0 or not self._is_anything_left() or is_ignored_by_all(number):
                return
            pause_s = left_s if _IS_LINUX and had_main and self._main else _LOOK_AGAIN_S
            self.turn(min(left_s, pause_s))

    def _tell_strays(self, number: int, told: set[int]) -> None:
        for pid in descendants():
            if pid not in told:
                told.add(pid)
                if group_of(pid) != self._group or number == signal.SIGKILL:
                    send(os.kill, pid, number)
                    if number != signal.SIGKILL:
                        send(os.kill, pid, signal.SIGCONT)

    def _is_anything_left(self) -> bool:
        self.reap()
        if _IS_LINUX:
            try:
                # No child at all is no descendant at all, for a subreaper.
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            return True
        return bool(self._group) and send(os.killpg, self._group, 0)

    def put_terminal_back(self) -> None:
        """After the client is gone: only if nobody else has taken the terminal since.

        A shell takes it as soon as its job is dead, and has set its own modes then.
        """
        if self._terminal < 0 or self._terminal_group != self._foreground():
            return
        if self._modes is not None:
            import termios

            try:
                termios.tcsetattr(self._terminal, termios.TCSANOW, self._modes)  # type: ignore[arg-type]
            except termios.error:
                pass
        send(os.tcsetpgrp, self._terminal, self._home_group)

    def _foreground(self) -> int:
        try:
            return os.tcgetpgrp(self._terminal)
        except OSError:
            return -1


def child(spec: dict[str, object], status: int, *, terminal: int, hangup: object) -> None:
    """Become the command; what stands in the way goes to `status`. Never returns."""
    stage = "start"
    try:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should the helper itself be killed
        send(os.setpgid, 0, 0)
        if terminal >= 0:
            # Before exec, while SIGTTOU is ignored: a command that reads at once
            # would otherwise be stopped for it.
            send(os.tcsetpgrp, terminal, os.getpid())
        for number in range(1, signal.NSIG):
            if signal.getsignal(number) == signal.SIG_IGN and number != signal.SIGHUP:
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if hangup == signal.SIG_IGN else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if spec["open_files"]:
            # The client needs many, and raised its own; programs that use select() break.
            import resource

            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spec["open_files"], most))  # type: ignore[arg-type]
        stage = "cwd"
        os.chdir(spec["cwd"])  # type: ignore[arg-type]
        stage = "exec"
        execute(spec["argv"], spec["env"])  # type: ignore[arg-type]
    except InterpreterMissing:
        os.write(status, marshal.dumps(("interpreter", 2)))
    except OSError as error:
        os.write(status, marshal.dumps((stage, error.errno or 0)))
    except BaseException as error:
        os.write(status, marshal.dumps((stage + ": " + repr(error), 0)))
    finally:
        os._exit(127)


class InterpreterMissing(Exception):
    """The file is there; what its first line names is not."""


def execute(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """execvpe, but with the PATH of the command's environment, and its errors kept apart.

    Raises:
        PermissionError: it was found, and cannot be executed.
        InterpreterMissing: it was found, the interpreter in its first line was not.
        FileNotFoundError: it was not found.
    """
    name = argv[0]
    if b"/" in name:
        folders = [b""]
    else:
        folders = [d or b"." for d in env.get(b"PATH", os.defpath.encode()).split(b":")]
    refused: Exception | None = None
    for folder in folders:
        path = folder + b"/" + name if folder else name
        try:
            os.execve(path, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.exists(path):
                refused = refused or InterpreterMissing()
        except PermissionError as error:
            refused = error
        except OSError as error:
            if error.errno != 8:  # ENOEXEC: a script without `#!`, which shells run too
                raise
            os.execve(b"/bin/sh", [b"/bin/sh", path, *argv[1:]], env)
    raise refused or FileNotFoundError(2, "not found")


def send(call: Callable[..., object], *arguments: object) -> bool:
    """Do it, unless the process or group it is for is gone or not ours any more."""
    try:
        call(*arguments)
    except OSError:
        return False
    return True


def descendants() -> set[int]:
    """Every process below this one; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return set()
    for pid in pids:
        fields = stat_fields(pid)
        if fields is not None and fields[0] != b"Z":
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), ())
        todo.extend(pid for pid in below if pid not in found)
        found.update(below)
    return found


def is_ignored_by_all(number: int) -> bool:
    """Whether waiting after this signal is in vain, as far as it can be known.

    A shell without job control starts its `&` with SIGINT ignored, so this is
    what is left of `sh -c "server & watcher & wait"` after Ctrl-C.
    """
    left = descendants()
    return bool(left) and all(ignores(pid, number) for pid in left)


def ignores(pid: int, number: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"SigIgn:"):
                    return bool(int(line[7:], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return False


def group_of(pid: int) -> int:
    fields = stat_fields(pid)
    return int(fields[2]) if fields is not None else 0


def stat_fields(pid: int) -> list[bytes] | None:
    """State, parent, group, … of proc(5)'s stat; after the name, which may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def prctl(option: int, value: int) -> None:
    """Linux only, and only as good as it gets: without it the group is still stopped."""
    if not _IS_LINUX:
        return
    try:
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


if __name__ == "__main__":
    main()
