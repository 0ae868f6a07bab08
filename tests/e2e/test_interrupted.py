"""The client is killed at each of its writes; the next command gives back: a `down` from
elsewhere, or an `up` here."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fakes.badserver import Asked, BadServer, Breaks, Fault

from .conftest import Node, Session, Towline, dump, free_port, page_server, wait_until
from .ways import Loop, through_server

pytestmark = pytest.mark.timeout(900)
# More than there are: the last run is not interrupted at all.
WRITES_AT_MOST = 60
# One in three, every other of these before it arrives, takes a minute; all take four.
EVERY = 1 if os.environ.get("TOWLINE_TEST_FULL") else 3


class KilledAt:
    """Kills the client at its write number `number`: before it arrives, or before its answer."""

    def __init__(self, number: int) -> None:
        self.session: Session | None = None
        self.did = ""
        self._number = number
        self._seen = 0

    def __call__(self, asked: Asked) -> Fault:
        if not asked.write or (asked.method == "PATCH" and "/leases/" in asked.path):
            return None  # renewals come when they come
        self._seen += 1
        if self._seen < self._number or self.did:
            return None
        self.did = f"{asked.method} {asked.path.partition('?')[0]}"
        return Breaks(answered=self._number % 2 == 0, then=self._kill)

    def _kill(self) -> None:
        assert self.session is not None
        os.kill(self.session.process.pid, signal.SIGKILL)


def as_before(node: Node, namespace: str, before: dict[str, Any], did: str) -> None:
    wait_until(f"after {did}", lambda: dump(node, namespace).keys() == before.keys())
    assert dump(node, namespace) == before, did


@pytest.mark.parametrize("original", ["replace", "keep"])
def test_killed_at_any_write_the_next_command_leads_back(
    node: Node, namespace: str, towline: Towline, token: str, loop: Loop, tmp_path: Path,
    original: str,
) -> None:  # fmt: skip
    before = dump(node, namespace)
    with through_server(BadServer, towline, token=token, loop=loop) as (bad, person):
        elsewhere = Towline(tmp_path / "elsewhere", tmp_path, towline.kubeconfig, namespace)
        interrupted = []
        for number in range(1, WRITES_AT_MOST, EVERY):
            did = killed_once(person, bad, KilledAt(number), original)
            if not did:
                break
            interrupted.append(did)
            if len(interrupted) % 2:
                # On this laptop or another, in no folder with a manifest.
                done = elsewhere.run("down", "frontend", "-n", namespace)
                assert done.returncode == 0 or "there is no session" in done.stderr, done.stderr
            else:
                bad.decide = lambda asked: None
                assert begun(person, original).serving().end() == 130, did
            as_before(node, namespace, before, did)
        else:
            raise AssertionError("it never went through")
        assert len(interrupted) > 12 // EVERY, interrupted
        as_before(node, namespace, before, "a whole session")


def begun(person: Towline, original: str) -> Session:
    port = free_port()
    command = page_server(port)
    person.manifest(
        f"original: {original}\ndev:\n  frontend:\n    mode: hybrid\n    reverse: 3000:{port}\n"
    )
    return person.up("frontend", "--", *command)


def killed_once(person: Towline, bad: BadServer, kill: KilledAt, original: str) -> str:
    """A session that is killed at one write, on its way in or back; "" where there is none."""
    bad.decide = kill
    kill.session = session = begun(person, original)
    try:
        session.serving()
    except AssertionError:
        assert kill.did, session.errors
    session.end()
    return kill.did
