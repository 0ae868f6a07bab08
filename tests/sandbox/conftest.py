"""Sandboxes of the tests' own: state in a folder that is gone with them, names nobody else has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.afterwards import afterwards

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = CHECKOUT / "sandbox"
COMMAND_TIMEOUT_S = 150.0

T = TypeVar("T")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # A whole cluster is started in a fixture, whose time counts.
            item.add_marker(pytest.mark.timeout(180))


@dataclass(frozen=True, slots=True)
class Host:
    """Runs the sandbox program as a user would, with a state folder of the tests' own."""

    state_home: Path

    def run(
        self, *arguments: str, input: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), *arguments],
            env=self.environ,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(arguments)} ended with {done.returncode}:\n"
                f"{done.stdout.decode()}\n{done.stderr.decode()}"
            )
        return done

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.state_home)}

    def down_afterwards(self, name: str) -> AbstractContextManager[None]:
        words = [sys.executable, str(PROGRAM), "down", "--name", name]
        return afterwards(*words, env=self.environ)

    def up(self, name: str) -> Sandbox:
        said = self.run("up", "--name", name, "-o", "json")
        facts = json.loads(said.stdout)
        return Sandbox(host=self, name=name, facts=facts, said=said.stderr.decode())


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One that is up."""

    host: Host
    name: str
    facts: dict[str, Any]
    said: str

    @property
    def state(self) -> Path:
        return self.host.state_home / "towline" / "sandbox" / self.name

    def kubectl(self, *arguments: str, input: bytes | None = None) -> str:
        line = ["kubectl", "--name", self.name, "--", *arguments]
        return self.host.run(*line, input=input).stdout.decode()

    def apply(self, *objects: dict[str, Any]) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", input=json.dumps(whole).encode())

    def inside(self, *command: str, check: bool = True) -> str:
        line = ["exec", "--name", self.name, "--", *command]
        return self.host.run(*line, check=check).stdout.decode()


def eventually(found: Callable[[], T], holds: Callable[[T], bool], *, within_s: float) -> T:
    """Ask until the answer holds; the last answer is in the failure."""
    deadline = time.monotonic() + within_s
    while not holds(answer := found()):
        assert time.monotonic() < deadline, f"after {within_s:.0f} s still: {answer}"
        time.sleep(0.1)
    return answer


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("the sandbox needs Linux and root")
    # Below /tmp, of which the node has one of its own: the harder case.
    made = Host(state_home=tmp_path_factory.mktemp("state"))
    made.run("build")
    yield made


@pytest.fixture(scope="session")
def sandbox(host: Host) -> Iterator[Sandbox]:
    name = f"test-{os.getpid()}"
    with host.down_afterwards(name):
        yield host.up(name)
