"""A shell as small as can be: it has the terminal and runs one job in its foreground.

Unlike a real one it does not take the terminal back by itself when the job is
dead, so that the tests see what the job left. Speaks on stdout: `JOB status`,
then waits for a line and says `FOREGROUND mine|job|other` and `MODES same|changed`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios


def main() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    modes = termios.tcgetattr(0)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    _, status = os.waitpid(job, 0)
    print("JOB", os.waitstatus_to_exitcode(status), flush=True)
    # The line must be readable whoever has the terminal: this shell ignores
    # SIGTTIN and is told by a signal instead.
    signal.sigwait({signal.SIGUSR1})
    foreground = os.tcgetpgrp(0)
    who = {os.getpgrp(): "mine", job: "job"}.get(foreground, "other")
    print("FOREGROUND", who, flush=True)
    print("MODES", "same" if termios.tcgetattr(0) == modes else "changed", flush=True)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    main()
