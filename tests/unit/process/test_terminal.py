"""The command in a real terminal: what a person at the keyboard sees."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from .terminals import eventually, is_alive, terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

REPL = (sys.executable, "-i", "-q", "-S", "-E")


def test_ctrl_c_belongs_to_the_command() -> None:
    with terminal(*REPL) as screen:
        screen.until("PID")
        screen.until(">>> ")
        screen.press("import time; time.sleep(60)\n")
        screen.until("sleep.*\r\n")
        screen.press("\x03")
        screen.until("KeyboardInterrupt")
        screen.press("print(6 * 7)\n")
        screen.until("\r\n42\r\n")
        screen.press("raise SystemExit(5)\n")
        screen.until("ENDED 5")
        screen.until("JOB 5")


def test_the_command_has_the_terminal() -> None:
    look = (
        "import os, sys; "
        "print('TTY', [os.isatty(fd) for fd in (0, 1, 2)], os.tcgetpgrp(0) == os.getpgrp(), "
        "os.getpid() == os.getpgrp())"
    )
    with terminal(sys.executable, "-c", look) as screen:
        screen.until(r"TTY \[True, True, True\] True True")
        screen.until("ENDED 0")


@pytest.mark.parametrize("ends", ["exit 0", "kill -9 $$", "exit 3"])
def test_modes_and_foreground_are_put_back(ends: str) -> None:
    with terminal("-c", f"stty raw -echo; {ends}") as screen:
        screen.until("ENDED")
        screen.until("JOB")
        os.kill(screen.program.pid, signal.SIGUSR1)
        screen.until("FOREGROUND job")
        screen.until("MODES same")


def test_ctrl_z_gives_the_terminal_back_and_resume_goes_on() -> None:
    with terminal("-c", "echo ready; read word; echo got $word; exit 4") as screen:
        pid = int(screen.until(r"PID (\d+)")[1])
        screen.until("ready")
        screen.press("\x1a")
        screen.until("PAUSED")
        assert is_alive(pid)
        screen.press("anything\n")
        screen.press("hello\n")
        screen.until("got hello")
        screen.until("ENDED 4")


def test_ctrl_z_with_modes_of_its_own_gets_them_back() -> None:
    script = "stty -echo; echo ready; kill -STOP $$; stty -a; read word; exit 0"
    with terminal("-c", script) as screen:
        screen.until("PAUSED")
        screen.press("go\n")
        screen.until("-echo ")
        screen.press("x\n")
        screen.until("ENDED 0")


def test_kill_9_of_the_client_leaves_no_process_and_a_sane_terminal() -> None:
    script = (
        "trap '' INT TERM; stty raw -echo; sleep 987 & child=$!; (setsid sleep 988 &); "
        "echo CHILD $child; while :; do sleep 1; done"
    )
    with terminal("-c", script) as screen:
        pid = int(screen.until(r"PID (\d+)")[1])
        child = int(screen.until(r"CHILD (\d+)")[1])
        client = _parent(_parent(pid))
        descendants = _below(_parent(pid))
        assert {pid, child} <= descendants and len(descendants) >= 3
        os.kill(client, signal.SIGKILL)
        screen.until("JOB -9")
        assert eventually(lambda: not any(map(is_alive, descendants)))
        helper_is_gone = lambda: not _below_shell(screen.program.pid)  # noqa: E731
        assert eventually(helper_is_gone)
        os.kill(screen.program.pid, signal.SIGUSR1)
        screen.until("MODES same")


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _below(root: int) -> set[int]:
    from towline.process.listening import tree

    return set(tree(root)) - {root}


def _below_shell(shell: int) -> set[int]:
    """What is in the shell's session, beside itself."""
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and int(name) != shell:
            try:
                fields = _stat(int(name))
            except OSError:
                continue
            if int(fields[3]) == shell and fields[0] != "Z":
                found.add(int(name))
    return found
