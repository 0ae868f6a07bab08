"""What the process finds around it, as a value that other commands read."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from towline.environ.policy import Policy, local_environment
from towline.environ.rewrite import End
from towline.process.view import Bind
from towline.session.private import private_folder, secrets_folder, sweep
from towline.session.surroundings import Surroundings

FULL = Surroundings(
    binds=(Bind(source="/r/hosts", target="/etc/hosts", how="rw"),),
    scratch="/r/scratch",
    ends=(
        End(
            spellings=frozenset({"db", "10.96.0.2"}),
            address="127.70.0.1",
            ports={5432: 5432, 80: 8080},
            is_found=True,
        ),
    ),
    keep=("LEGACY_*",),
    root="/r/mirror",
    paths=("/etc/app",),
    no_proxy=("redis.infra",),
)
WITH_PROXY = replace(FULL, proxy_port=4711)


def test_other_commands_read_what_was_saved(tmp_path: Path) -> None:
    assert Surroundings.of_session(tmp_path) == Surroundings()
    for made in (FULL, WITH_PROXY):
        made.save(tmp_path)
        assert Surroundings.of_session(tmp_path) == made
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_laptops_own_variables_are_left_alone_and_a_proxy_is_kept_away() -> None:
    made = local_environment(
        container={
            b"DB": b"tcp://10.96.0.2:5432",
            b"CONFIG": b"/etc/app/x",
            b"LEGACY_DB": b"db:80",
        },
        manifest={b"WEB": b"http://db/"},
        laptop={b"MINE": b"http://db/", b"HTTP_PROXY": b"http://proxy:1", b"PATH": b"/etc/app"},
        policy=Policy(no_proxy=("db",)),
    )
    values, changed = FULL.environment(made)
    assert {each.name for each in changed} == {b"DB", b"WEB", b"CONFIG"}
    assert values[b"DB"] == b"tcp://127.70.0.1:5432"
    assert values[b"WEB"] == b"http://db:8080/"
    assert values[b"CONFIG"] == b"/r/mirror/etc/app/x", "it is not shown at its own path"
    assert (values[b"MINE"], values[b"PATH"]) == (b"http://db/", b"/etc/app")
    assert values[b"TOWLINE_ROOT"] == b"/r/mirror"
    assert values[b"NO_PROXY"] == values[b"no_proxy"] == b"db,127.70.0.1,redis.infra"
    values, _ = WITH_PROXY.environment(made)
    assert values[b"HTTP_PROXY"] == values[b"https_proxy"] == b"http://127.0.0.1:4711"
    assert values[b"ALL_PROXY"] == b"socks5h://127.0.0.1:4711"
    assert b"db" not in values[b"NO_PROXY"].split(b",")


def test_a_private_folder_is_gone_at_the_end_and_those_of_the_dead_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    parent = secrets_folder(os.environ)
    assert parent == tmp_path / "towline" and stat.S_IMODE(parent.stat().st_mode) == 0o700
    dead = parent / "dead"
    dead.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    (dead / "owner.json").write_text(json.dumps({"pid": ended.pid, "started": "1"}))
    (parent / "being-made").mkdir()
    with private_folder("4be1c07a") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert sorted(each.name for each in parent.iterdir()) == ["4be1c07a", "being-made"]
        sweep(parent)
        assert folder.is_dir(), "ours is alive"
    assert [each.name for each in parent.iterdir()] == ["being-made"]
    os.utime(parent / "being-made", (1, 1))
    sweep(parent)
    assert list(parent.iterdir()) == []


def test_another_users_folder_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "towline").write_text("in the way")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    assert tmp_path / "towline" not in secrets_folder(environ).parents
