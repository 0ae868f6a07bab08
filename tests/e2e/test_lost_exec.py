"""`towline exec` whose network goes: waited out for `keepFor`, and Ctrl-C ends it at once."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.netfault import FaultyNetwork

from .conftest import TOWLINE, Node, Towline, wait_until
from .ways import Network, kubeconfig, through

pytestmark = pytest.mark.usefixtures("unchanged")
KEEP_S = 15
# Far more than it takes, far less than `keepFor` in the tests that have it at its default.
AT_ONCE_S = 20.0


@dataclass
class Away:
    """A session on its straight way, and a network that only other commands go through."""

    person: Towline
    network: Network

    def begin(self, *, keep_for_s: int) -> None:
        text = (self.person.folder / "towline.yml").read_text()
        self.person.manifest(f"keepFor: {keep_for_s}s\ngiveBackAfter: 5s\n{text}")
        path = Path(self.person.kubeconfig)
        self.person.up("frontend").serving()
        path.write_text(json.dumps(self.network.kubeconfig))


@pytest.fixture
def away(towline: Towline, network: Network) -> Away:
    return Away(through(towline, kubeconfig(towline)), network)


class Exec:
    """`towline exec`, by pipes or in a terminal; what it says is read as it comes."""

    def __init__(self, person: Towline, *command: str, terminal: bool = False) -> None:
        self.said = b""
        words = [TOWLINE, "exec", "frontend", "--", *command]
        if terminal:
            self._ours, theirs = pty.openpty()
            streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        else:
            self._ours, theirs = os.pipe()
            streams = {"stdin": subprocess.DEVNULL, "stdout": theirs, "stderr": theirs}
        # A shell's background job, as the tests may be one, ignores SIGINT, and so do its children.
        words = ["env", "--default-signal=INT", *words]
        self.process = subprocess.Popen(
            words, cwd=person.folder, env=person.environ(), start_new_session=True, **streams
        )
        os.close(theirs)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 4096):
                self.said += data
        except OSError:  # a terminal whose last user is gone
            pass

    def until(self, text: str) -> None:
        def found() -> bool:
            assert self.process.poll() is None or text.encode() in self.said, self.said
            return text.encode() in self.said

        wait_until(text, found, within_s=60)

    def type(self, data: bytes) -> None:
        os.write(self._ours, data)

    def end(self, *, within_s: float) -> int:
        try:
            return self.process.wait(timeout=within_s)
        finally:
            self.process.kill()
            self.process.wait()
            self._thread.join(5)
            os.close(self._ours)


def test_a_network_that_does_not_come_back_ends_it_after_keep_for(away: Away) -> None:
    """It waited until it was killed."""
    away.begin(keep_for_s=KEEP_S)
    running = Exec(away.person, "sh", "-c", "echo on; sleep 600")
    running.until("on\n")
    away.network.do(FaultyNetwork.cut)
    running.until(f"! connection lost: the command runs on, and is waited for {KEEP_S} s")
    assert running.end(within_s=KEEP_S + AT_ONCE_S) == 9
    said = running.said.decode()
    assert f"it was not reached for {KEEP_S} s, and keeps none for longer" in said
    assert "cannot be reached" in said, "and why"


def test_one_that_is_not_reached_from_the_start_says_so(away: Away) -> None:
    away.begin(keep_for_s=600)
    away.network.do(FaultyNetwork.cut)
    for words in (["exec", "frontend", "--", "true"], ["env", "frontend"]):
        done = away.person.run(*words)
        if words[0] == "env":
            assert done.returncode == 0, "the session is asked, which has its own way"
            continue
        assert done.returncode == 9
        assert "does not answer after 20 s" in done.stderr and "VPN" in done.stderr


def test_one_whose_pod_is_gone_ends_too(node: Node, namespace: str, away: Away) -> None:
    away.begin(keep_for_s=600)
    running = Exec(away.person, "sh", "-c", "echo on; sleep 600")
    running.until("on\n")
    pods = ["-n", namespace, "pod", "-l", "towline.dev/session", "--force", "--grace-period=0"]
    node.kubectl("delete", *pods)
    assert running.end(within_s=60) == 9, running.said


@pytest.mark.parametrize("how", ["cut", "frozen"])
@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
def test_ctrl_c_ends_it_at_once(away: Away, how: str, terminal: bool) -> None:
    away.begin(keep_for_s=600)
    running = Exec(away.person, "sh", "-c", "echo on; sleep 600", terminal=terminal)
    running.until("on")
    away.network.do(FaultyNetwork.cut) if how == "cut" else away.network.do(FaultyNetwork.freeze)
    running.until("! connection lost")
    if terminal:
        running.type(b"\x03")
    else:
        running.process.send_signal(signal.SIGINT)
    assert running.end(within_s=AT_ONCE_S) == 130


def test_one_that_comes_back_is_where_it_was(away: Away) -> None:
    away.begin(keep_for_s=600)
    running = Exec(away.person, "sh", "-c", "echo on; read line; echo got $line", terminal=True)
    running.until("on")
    away.network.do(FaultyNetwork.cut)
    running.until("! connection lost")
    running.type(b"typed meanwhile\r")
    away.network.do(FaultyNetwork.restore)
    running.until("got typed meanwhile")
    assert running.end(within_s=AT_ONCE_S) == 0
    assert b"connection back after" in running.said
