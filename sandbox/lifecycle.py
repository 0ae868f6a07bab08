"""up, down and status: one sandbox's life, seen from the host.

The first process is `unshare`: all of the node is below it, in a process
namespace that the kernel ends with it. So `kill -9` of that one process leaves
no process, mount, address or rule, however far it had come; only the empty
cgroup folders stay, and go with the next `up` or `down`.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builds
import cgroups
import components
import machine
import node
import places
from apiserver import Api
from archive import GO_ARCHITECTURES
from places import Sandbox
from problem import Problem
from processes import Process
from progress import Progress

_LOCK_TIMEOUT_S = 180.0
_END_TIMEOUT_S = 20.0
_RECOVERY_TIMEOUT_S = 15.0
_NAMESPACES = ("net", "mount", "uts", "ipc", "pid")


@dataclass(frozen=True, slots=True)
class Status:
    """What `status` tells; `state` is stopped, starting, running or failed."""

    name: str
    state: str
    kubeconfig: str | None = None
    context: str | None = None
    server: str | None = None
    kubernetes: str | None = None
    kubectl: str | None = None
    pid: int | None = None
    ready_after_s: float | None = None
    started_at: str | None = None
    log: str | None = None


def status(sandbox: Sandbox) -> Status:
    """What the sandbox is now. Blocks for 5 s where the API server does not answer."""
    first = Process.load(sandbox.first_process)
    if first is None:
        return Status(name=sandbox.name, state="stopped")
    if not first.alive():
        return Status(name=sandbox.name, state="failed", log=str(sandbox.log))
    facts = _ready_facts(sandbox)
    if facts is None:
        return Status(name=sandbox.name, state="starting", pid=first.pid, log=str(sandbox.log))
    return Status(
        name=sandbox.name,
        state="running" if _answers(sandbox, facts["port"]) else "failed",
        kubeconfig=str(sandbox.kubeconfig),
        context=sandbox.context,
        server=f"https://127.0.0.1:{facts['port']}",
        kubernetes=builds.KUBERNETES,
        kubectl=str(sandbox.state / "bin" / "kubectl"),
        pid=first.pid,
        ready_after_s=facts["ready_after_s"],
        started_at=facts["started_at"],
        log=str(sandbox.log),
    )


def up(sandbox: Sandbox, progress: Progress) -> Status:
    """Bring the sandbox up; one that runs is left alone, one that is dead is cleared first."""
    now = status(sandbox)
    if now.state == "running":
        return now
    machine.require_root_on_linux()
    machine.require_packages()
    programs = builds.programs(progress)
    with _locked(sandbox, progress):
        now = _settled(sandbox)
        if now.state == "running":
            return now
        if sandbox.state.exists():
            progress.say(f"clearing what is left of a sandbox that is {now.state}")
            _clear(sandbox)
        try:
            _start(sandbox, programs, progress)
        except BaseException:
            _end_processes(sandbox)
            cgroups.remove(sandbox.cgroup)
            raise
    return status(sandbox)


def down(sandbox: Sandbox, progress: Progress) -> bool:
    """End the sandbox and remove every trace; False where there was none."""
    machine.require_root_on_linux()
    with _locked(sandbox, progress):
        existed = sandbox.state.exists()
        _clear(sandbox)
    sandbox.lock.unlink(missing_ok=True)
    return existed


def running(sandbox: Sandbox) -> Status:
    """The status of a sandbox that runs, or a problem that says what to do."""
    now = status(sandbox)
    if now.state != "running":
        flag = "" if sandbox.name == places.DEFAULT_NAME else f" --name {sandbox.name}"
        raise Problem(f"sandbox '{sandbox.name}' is {now.state}; start it with: sandbox up{flag}")
    return now


def inside(sandbox: Sandbox, command: list[str]) -> list[str]:
    """The command line that runs a command in the node's namespaces, as root."""
    machine.require_root_on_linux()
    first = Process.load(sandbox.first_process)
    children = first.children() if first is not None and first.alive() else []
    if not children:
        running(sandbox)
        raise Problem(f"sandbox '{sandbox.name}' has no processes")
    flags = [f"--{namespace}" for namespace in _NAMESPACES]
    return ["nsenter", f"--target={children[0].pid}", *flags, "--", *command]


def _settled(sandbox: Sandbox) -> Status:
    """The status, once an API server that is being restarted has had time to come back."""
    deadline = time.monotonic() + _RECOVERY_TIMEOUT_S
    while True:
        now = status(sandbox)
        if now.state != "failed" or now.pid is None or time.monotonic() > deadline:
            return now
        time.sleep(0.1)


def _answers(sandbox: Sandbox, port: int) -> bool:
    api = Api("127.0.0.1", port, sandbox.tls_name, sandbox.state / "pki")
    answer = api.get("/readyz")
    return answer is not None and answer.get("text") == "ok"


def _ready_facts(sandbox: Sandbox) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(sandbox.ready.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return facts


@contextmanager
def _locked(sandbox: Sandbox, progress: Progress) -> Iterator[None]:
    sandbox.lock.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        with sandbox.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Problem(f"another up or down holds {sandbox.lock}") from None
                progress.update("another up or down of this sandbox is under way")
                time.sleep(0.1)
                continue
            # `down` removes the file: a lock on a removed one locks nobody out.
            if _is_file_at(file.fileno(), sandbox.lock):
                yield
                return


def _is_file_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _clear(sandbox: Sandbox) -> None:
    _end_processes(sandbox)
    cgroups.remove(sandbox.cgroup)
    if sandbox.state.exists():
        shutil.rmtree(sandbox.state)


def _end_processes(sandbox: Sandbox) -> None:
    first = Process.load(sandbox.first_process)
    if first is None or not first.alive():
        return
    # The kernel ends the namespace's process 1 with the first, and with that one
    # all others, before it is gone itself: so its end is the end of all.
    everyone = [first, *first.children()]
    for process in everyone:
        process.kill()
    for process in everyone:
        if not process.wait_gone(timeout_s=_END_TIMEOUT_S):
            raise Problem(f"process {process.pid} outlived SIGKILL by {_END_TIMEOUT_S:.0f} s")


def _start(sandbox: Sandbox, programs: builds.Programs, progress: Progress) -> None:
    sandbox.state.mkdir(parents=True, mode=0o700)
    for folder in (sandbox.log, sandbox.state / "pki", sandbox.state / "bin"):
        folder.mkdir()
    (sandbox.state / "bin" / "kubectl").symlink_to(programs.kube)
    cgroups.make(sandbox.cgroup)
    _make_certificates(sandbox, programs)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        first, lines = _spawn(sandbox, programs, listener.fileno())
    first_process = Process.running(first.pid)
    if first_process is None:
        raise Problem(f"unshare ended at once: {(sandbox.log / 'node.log').read_text()}")
    first_process.save(sandbox.first_process)
    with lines:
        _follow(lines, sandbox, progress)
    _write_kubeconfig(sandbox, port)
    facts = {
        "port": port,
        "ready_after_s": round(progress.elapsed_s(), 1),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    sandbox.ready.write_text(json.dumps(facts))


def _node_settings(
    sandbox: Sandbox, programs: builds.Programs, listener_fd: int, progress_fd: int
) -> node.Settings:
    def in_node(program: Path) -> str:
        return str(places.NODE_BINARIES / program.relative_to(places.binaries()))

    return node.Settings(
        name=f"{sandbox.name}-node",
        tls_name=sandbox.tls_name,
        cgroup=sandbox.cgroup,
        state=str(sandbox.state),
        binaries=str(places.binaries()),
        plugins=machine.network_plugins() or "",
        architecture=GO_ARCHITECTURES.get(platform.machine(), platform.machine()),
        node=in_node(programs.node),
        etcd=in_node(programs.etcd),
        coredns=in_node(programs.coredns),
        kube=in_node(programs.kube),
        listener_fd=listener_fd,
        progress_fd=progress_fd,
    )


def _component_node(settings: node.Settings) -> components.Node:
    return components.Node(
        name=settings.name,
        tls_name=settings.tls_name,
        cgroup=settings.cgroup,
        snapshotter="",
        plugins=settings.plugins,
        etcd=settings.etcd,
        kube=settings.kube,
    )


def _make_certificates(sandbox: Sandbox, programs: builds.Programs) -> None:
    wanted = components.certificates(_component_node(_node_settings(sandbox, programs, 0, 0)))
    done = subprocess.run(
        [programs.node, "certificates", sandbox.state / "pki"],
        input=json.dumps(wanted),
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        raise Problem(f"no certificates: {done.stderr.strip()}")


def _spawn(
    sandbox: Sandbox, programs: builds.Programs, listener_fd: int
) -> tuple[subprocess.Popen[bytes], Any]:
    """Start the first process, detached; returns it and the node's progress lines."""
    reading, writing = os.pipe()
    settings = _node_settings(sandbox, programs, listener_fd, writing)
    flags = [f"--{namespace}" for namespace in _NAMESPACES]
    unshare = ["unshare", *flags, "--fork", "--mount-proc", "--kill-child=SIGKILL", "--"]
    program = [sys.executable, "-I", str(builds.SOURCES), "_node", settings.argument()]
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    with (sandbox.log / "node.log").open("ab") as log:
        first = subprocess.Popen(
            [*unshare, *program],
            cwd="/",
            # Nothing of the caller's: a proxy variable would reach the components.
            env={"PATH": path, "HOME": str(Path.home()), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(listener_fd, writing),
            start_new_session=True,
            preexec_fn=_default_signals,
        )
    os.close(writing)
    return first, os.fdopen(reading)


def _default_signals() -> None:
    # Ignored signals are inherited, down to the processes in pods.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _follow(lines: Any, sandbox: Sandbox, progress: Progress) -> None:
    last = ""
    for line in lines:
        last = line.strip()
        if last == node.READY:
            return
        progress.say(last)
    raise Problem(f"the node ended: {last or 'without a word'}; its logs: {sandbox.log}")


def _write_kubeconfig(sandbox: Sandbox, port: int) -> None:
    text = components.kubeconfig(
        user="admin",
        server=f"https://127.0.0.1:{port}",
        context=sandbox.context,
        pki=sandbox.state / "pki",
        tls_name=sandbox.tls_name,
    )
    unfinished = sandbox.kubeconfig.with_suffix(".unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text + "\n")
    unfinished.replace(sandbox.kubeconfig)
