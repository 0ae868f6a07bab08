"""Names completed in real shells, by a TAB in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_S = 30.0
MANIFEST = """
dev:
  frontend:
    mode: hybrid
  files:
    mode: hybrid
  api:
    mode: hybrid
"""
# Without what the user of this machine has set up; the prompt says that it is done.
SHELLS = {
    "bash": (["bash", "--noprofile", "--norc", "-i"], "source <(towline completion bash)"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit && compinit -u -d zcompdump && source <(towline completion zsh)",
    ),
    "fish": (["fish", "--no-config", "-i"], "towline completion fish | source"),
}


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.seen = b""
        words, complete = SHELLS[name]
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environ = {
            "PATH": path, "HOME": str(folder), "XDG_STATE_HOME": str(folder), "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        self._process = subprocess.Popen(
            words, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        # What is typed is shown, too: what is waited for is in no line that is typed.
        self.type(f"{complete} && echo is-{{re}}ady | tr -d {{}}\r")
        self.until("is-ready")

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def until(self, *words: str) -> None:
        """Read until it has shown all of these, and forget what was before."""
        deadline = time.monotonic() + LIMIT_S
        while not all(word.encode() in self.seen for word in words):
            left = deadline - time.monotonic()
            assert left > 0, f"no {words} in {self.seen.decode(errors='replace')!r}"
            if select.select([self._ours], [], [], left)[0]:
                self.seen += os.read(self._ours, 4096)
        self.seen = b""

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param} here")
    (tmp_path / "towline.yml").write_text(MANIFEST)
    made = Shell(request.param, tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_service_of_the_manifest_is_completed(shell: Shell) -> None:
    shell.type("towline up fr\t")
    shell.until("frontend")


def test_all_that_it_could_be_is_shown(shell: Shell) -> None:
    # fish has a pager for them, which a terminal of lines does not get to see.
    is_fish = shell.name == "fish"
    shell.type("complete -C 'towline up api f'\r" if is_fish else "towline up api f\t\t")
    shell.until("frontend", "files")


def test_what_is_on_the_line_already_is_not_offered(shell: Shell) -> None:
    shell.type("towline up frontend api f\t")
    shell.until("towline up frontend api files")
