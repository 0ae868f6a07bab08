"""The built agent and starter: the same from anywhere, small, and able to start."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from towline.payload.build import (
    TARGETS,
    build,
    build_agent,
    build_starter,
    find_go,
    find_zig,
    pack,
)

from .conftest import ROOT

QEMU = {"arm64": "qemu-aarch64-static", "amd64": ""}


@pytest.fixture(scope="session")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Agent and starter for both architectures."""
    scratch = tmp_path_factory.mktemp("payload")
    for arch, target in TARGETS.items():
        (scratch / f"starter-{arch}").write_bytes(
            build_starter(ROOT, target, zig=find_zig(), scratch=scratch)
        )
        agent = build_agent(ROOT, arch, go=find_go(), scratch=scratch)
        (scratch / f"agent-{arch}.gz").write_bytes(pack(agent))
    return scratch


@pytest.fixture(params=sorted(TARGETS))
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def runner(arch: str) -> list[str]:
    """What runs a program of that architecture here.

    Not a skip where it is missing: CI must run both (make installs qemu-user-static).
    """
    if arch == "amd64":
        return []
    found = shutil.which(QEMU[arch])
    assert found is not None, f"{QEMU[arch]} is missing: apt-get install qemu-user-static"
    return [found]


@pytest.fixture
def boot(payload: Path, arch: str, tmp_path: Path) -> Path:
    """The folders of a dev container, with the agent in two pieces."""
    boot = tmp_path / "boot"
    boot.mkdir()
    (tmp_path / "run").mkdir()
    shutil.copy(payload / f"starter-{arch}", boot / "starter")
    (boot / "starter").chmod(0o555)
    packed = (payload / f"agent-{arch}.gz").read_bytes()
    (boot / "agent.0").write_bytes(packed[:1_000_000])
    (boot / "agent.1").write_bytes(packed[1_000_000:])
    return boot


def run(boot: Path, arch: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*runner(arch), boot / "starter", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


TOLD = "towline agent: read the session: open /no/such/session/config.json"


def become(boot: Path, arch: str) -> str:
    """Start the starter, and give what the agent says then.

    A kernel without binfmt cannot execute the other architecture's agent by itself: the
    starter gets ENOEXEC (errno 8) there, and the agent that it made is run by qemu.
    """
    done = run(boot, arch, "-session", "/no/such/session")
    if arch != "amd64" and "cannot be executed (errno 8)" in done.stderr:
        agent = boot.parent / "run/agent"
        words = [*runner(arch), agent, "-session", "/no/such/session"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    return done.stderr


def test_the_starter_becomes_the_agent(boot: Path, arch: str, payload: Path) -> None:
    # The agent's own words: it was put together, and has its arguments.
    assert TOLD in become(boot, arch)
    assert (boot.parent / "run/agent").read_bytes() == (payload / f"agent-{arch}").read_bytes()


def test_a_container_that_starts_again_finds_its_old_agent(boot: Path, arch: str) -> None:
    for _ in range(2):
        assert TOLD in become(boot, arch)


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (lambda boot: (boot / "agent.0").unlink(), "first piece"),
        (lambda boot: (boot / "agent.1").unlink(), "damaged"),
        (lambda boot: (boot / "agent.1").write_bytes(b"x" * 1000), "damaged"),
        (lambda boot: (boot.parent / "run").rmdir(), "cannot be made"),
    ],
    ids=["no piece", "a piece missing", "a piece damaged", "no folder"],
)
def test_what_is_wrong_is_one_line_and_127(
    boot: Path, arch: str, breaks: object, told: str
) -> None:
    breaks(boot)  # type: ignore[operator]
    done = run(boot, arch)
    assert done.returncode == 127
    assert told in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("arch", ["amd64"], indirect=True)
def test_where_the_folder_is_noexec_the_agent_runs_from_memory(boot: Path) -> None:
    run_folder = boot.parent / "run"
    script = f"mount -t tmpfs -o noexec none {run_folder} && exec {boot}/starter -session /x"
    words = ["unshare", "-m", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert "towline agent: read the session" in done.stderr


def test_they_are_small(payload: Path, arch: str) -> None:
    assert (payload / f"starter-{arch}").stat().st_size < 40_000
    # In an emptyDir of the pod, inflated.
    assert (payload / f"agent-{arch}").stat().st_size < 7_400_000
    # Three pieces, of a million bytes each.
    assert (payload / f"agent-{arch}.gz").stat().st_size < 3_000_000


@pytest.mark.timeout(900)  # with an empty cache, on a machine that may be busy
def test_two_builds_from_different_folders_are_the_same(
    payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "another/place"
    shutil.copytree(ROOT / "agent", elsewhere / "agent")
    monkeypatch.setenv("GOCACHE", str(tmp_path / "cache"))
    again = build_agent(elsewhere, "amd64", go=find_go(), scratch=tmp_path)
    first = (payload / "agent-amd64").read_bytes()
    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(first).hexdigest()


def test_what_is_built_already_is_not_built_again(tmp_path: Path) -> None:
    out = tmp_path / "built"
    out.mkdir()
    # As build() leaves it, with any content.
    script = importlib.util.find_spec("towline.payload.build")
    assert script is not None and script.origin is not None
    from towline.payload.build import inputs_hash

    names = [
        f"{kind}-{arch}{end}"
        for arch in TARGETS
        for kind, end in (("agent", ".gz"), ("starter", ""))
    ]
    for name in names:
        (out / name).write_bytes(name.encode())
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    versions = {"inputs": inputs_hash(ROOT), "sha256": hashes}
    (out / "versions.json").write_text(json.dumps(versions))
    assert build(out) is False
    environ = {"PATH": "/nonexistent", "HOME": str(tmp_path)}
    (out / names[0]).write_bytes(b"damaged")
    done = subprocess.run(
        [sys.executable, "-S", "-E", script.origin, out],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "needed" in done.stderr and "pip install" in done.stderr
