"""Sandboxes come and go, also by force, and leave nothing; two of them do not meet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import traces
from .conftest import CHECKOUT, PROGRAM, Host, Sandbox, eventually


@pytest.fixture
def second(host: Host) -> Iterator[Sandbox]:
    name = f"second-{os.getpid()}"
    with host.down_afterwards(name):
        yield host.up(name)


def test_killed_first_process_leaves_nothing_and_up_starts_anew(
    host: Host, sandbox: Sandbox, second: Sandbox
) -> None:
    # Side by side: each has its own API server, and knows nothing of the other.
    assert second.facts["server"] != sandbox.facts["server"]
    second.kubectl("create", "configmap", "only-here")
    assert "only-here" not in sandbox.kubectl("get", "configmaps", "-o", "name")

    first = second.facts["pid"]
    namespace = traces.process_namespace(first)
    assert len(traces.processes(namespace)) > 8
    os.kill(first, signal.SIGKILL)
    eventually(lambda: traces.processes(namespace), lambda left: not left, within_s=10.0)
    assert traces.mounts(second.state) == []
    assert traces.addresses() == []
    assert traces.rules() == []
    status = host.run("status", "--name", second.name, "-o", "json", check=False)
    assert json.loads(status.stdout)["state"] == "failed"
    assert host.run("kubeconfig", "--name", second.name, check=False).returncode == 1

    again = host.up(second.name)
    assert "clearing" in again.said
    assert "only-here" not in again.kubectl("get", "configmaps", "-o", "name")

    namespace = traces.process_namespace(again.facts["pid"])
    assert traces.cgroups(second.name)
    host.run("down", "--name", second.name)
    # The last zombie is the machine's process 1's to reap.
    eventually(lambda: traces.processes(namespace), lambda left: not left, within_s=5.0)
    assert traces.mounts(second.state) == []
    assert traces.cgroups(second.name) == []
    assert not second.state.exists()
    # The other has not noticed.
    assert "Ready" in sandbox.kubectl("get", "nodes")


def test_down_clears_up_after_a_kill_in_mid_start(host: Host) -> None:
    name = f"half-{os.getpid()}"
    starting = subprocess.Popen(
        [sys.executable, str(PROGRAM), "up", "--name", name],
        env=host.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert starting.stderr is not None
        for line in starting.stderr:
            if "API server is ready" in line:
                break
        starting.kill()
        starting.wait(timeout=10)
        starting.stderr.close()
    finally:
        host.run("down", "--name", name)
    assert traces.cgroups(name) == []
    assert traces.mounts(host.state_home / "towline" / "sandbox" / name) == []
    status = host.run("status", "--name", name, "-o", "json", check=False)
    assert json.loads(status.stdout)["state"] == "stopped"


def test_down_of_none_is_no_error(host: Host) -> None:
    assert "was not there" in host.run("down", "--name", "never-was").stderr.decode()


def test_a_bad_name_is_refused(host: Host) -> None:
    done = host.run("up", "--name", "../elsewhere", check=False)
    assert done.returncode == 2
    assert "../elsewhere" in done.stderr.decode()


@pytest.mark.parametrize(
    ("pretend", "says"),
    [
        ("import os; os.geteuid = lambda: 1000", "needs root"),
        ("import sys; sys.platform = 'darwin'", "needs Linux"),
    ],
)
def test_elsewhere_it_names_the_alternatives(tmp_path: Path, pretend: str, says: str) -> None:
    program = f"{pretend}; import runpy, sys; sys.argv = ['sandbox', 'up']; " + (
        f"sys.path.insert(0, {str(PROGRAM)!r}); "
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert "KUBECONFIG" in done.stderr


def test_the_client_passes_arguments_and_exit_code_through(tmp_path: Path) -> None:
    program = "from towline.cli.sandbox import sandbox; sandbox()"
    done = subprocess.run(
        [sys.executable, "-c", program, "status", "--name", "x", "-o", "json"],
        env={
            **os.environ,
            "XDG_STATE_HOME": str(tmp_path),
            "PYTHONPATH": str(CHECKOUT / "src"),
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["state"] == "stopped"
