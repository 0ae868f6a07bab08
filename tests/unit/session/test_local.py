"""What the laptop keeps of a session: private, found by others, swept when its client died."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from towline.errors import UsageError
from towline.session import local
from towline.session.attach import pick_session
from towline.session.local import LocalSession, kept, process_started, sessions
from towline.transport.keys import make_keys


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def session(name: str = "0a0a0a0a", *, entry: str = "web", pid: int | None = None) -> LocalSession:
    pid = os.getpid() if pid is None else pid
    return LocalSession(
        session=name,
        pid=pid,
        started=process_started(pid) or "then",
        since="2026-01-02T03:04:05Z",
        context="c",
        namespace="n",
        kubeconfig="",
        manifest="towline.yml",
        entry=entry,
        mode="hybrid",
        workload=entry,
        container="main",
        line_port=48222,
    )


def test_a_session_is_found_while_it_runs_and_gone_afterwards() -> None:
    keys, _ = make_keys()
    made = session()
    with kept(made, keys):
        assert sessions() == [made]
        assert made.keys() == keys
    assert sessions() == []
    assert not made.folder.exists()


def test_keys_are_the_users_alone(home: Path) -> None:
    keys, _ = make_keys()
    with kept(session(), keys):
        # What is between is behind the first of them, which nobody else may enter.
        for path in (home / "towline", session().folder, *session().folder.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_what_a_killed_client_left_is_swept_away() -> None:
    keys, _ = make_keys()
    dead = session(pid=2**22 + 1)  # above the kernel's largest
    with kept(dead, keys):
        assert sessions() == []
        assert not dead.folder.exists()


def test_another_process_with_the_same_number_does_not_pass_for_the_client() -> None:
    keys, _ = make_keys()
    from dataclasses import replace

    with kept(replace(session(), started="earlier"), keys):
        assert sessions() == []


def test_half_written_files_are_passed_over() -> None:
    keys, _ = make_keys()
    made = session()
    with kept(made, keys):
        (made.folder / local._SESSION).write_text('{"session": ')
        assert sessions() == []
        assert made.folder.exists(), "its owner may be writing it"


def test_picking_one() -> None:
    keys, _ = make_keys()
    with pytest.raises(UsageError, match="no session on this machine"):
        pick_session(None)
    one, two = session("0a0a0a0a"), session("0b0b0b0b", entry="api")
    with kept(one, keys):
        assert pick_session(None) == pick_session("web") == pick_session("0a0a0a0a") == one
        with pytest.raises(UsageError, match=r"no session 'nope'.*there: web \(n, 0a0a0a0a\)"):
            pick_session("nope")
        with kept(two, keys):
            assert pick_session("api") == two
            with pytest.raises(UsageError, match="there are 2 sessions"):
                pick_session(None)


def test_a_client_that_ended_and_was_not_waited_for_is_gone() -> None:
    """`down` waited 150 s for a client whose parent had not asked for its exit code."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert process_started(pid) == ""
    finally:
        os.waitpid(pid, 0)
