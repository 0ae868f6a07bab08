"""One sdist, one wheel built from it, one installation of that wheel, for all tests here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND_TIMEOUT_S = 150.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # The build is in a fixture, whose time counts: 12 s, and more on a busy machine.
            item.add_marker(pytest.mark.timeout(240))


def run(*words: str | Path, cwd: Path = CHECKOUT, env: dict[str, str] | None = None) -> str:
    """Run a command to its end; its stdout, or a failure with all that it said."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, (
        f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done.stdout


def load_script(path: Path) -> ModuleType:
    """A file of the checkout that is in no package."""
    spec = importlib.util.spec_from_file_location(f"checkout_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of this checkout, unpacked in a folder of its own."""
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", out, ".")
    (archive,) = out.glob("towline-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(out, filter="data")
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the sdist builds, agent and starter built anew for it."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, sdist)
    (made,) = out.glob("towline-*.whl")
    return made


@pytest.fixture(scope="session")
def contents(wheel: Path) -> dict[str, bytes]:
    """The wheel's files."""
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@dataclass(frozen=True, slots=True)
class Installed:
    """Towline as `uv tool install` makes it, where nothing can be built."""

    program: Path
    python: Path
    environ: dict[str, str]

    def run(self, *arguments: str, cwd: Path = CHECKOUT) -> str:
        return run(self.program, *arguments, cwd=cwd, env=self.environ)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("tools")
    nothing = folder / "path"
    nothing.mkdir()
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GO", "PYTHON", "VIRTUAL_ENV", "KUBE"))
    }
    environ |= {
        "PATH": str(nothing),
        "GOPROXY": "off",
        "UV_TOOL_DIR": str(folder / "tools"),
        "UV_TOOL_BIN_DIR": str(folder / "bin"),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    uv = Path(sys.executable).with_name("uv")
    # Its dependencies come as any user gets them: uv's cache, else the package index.
    run(uv, "tool", "install", "--quiet", "--python", sys.executable, wheel, env=environ)
    yield Installed(
        program=folder / "bin/towline",
        python=folder / "tools/towline/bin/python",
        environ=environ,
    )
