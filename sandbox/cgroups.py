"""The node's own cgroup, in every hierarchy: v1 (one per controller) and v2 (one for all).

They are all of a node that outlives its processes: the kernel keeps an empty
folder until somebody removes it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from problem import Problem

_ROOT = Path("/sys/fs/cgroup")
# What the kubelet accounts for; a v2 cgroup has only what its parent hands down.
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")


def _unified() -> bool:
    return (_ROOT / "cgroup.controllers").exists()


def _hierarchies() -> list[Path]:
    if _unified():
        return [_ROOT]
    # cpu and cpuacct may be links to one hierarchy.
    roots = {path.resolve() for path in _ROOT.iterdir() if (path / "cgroup.procs").exists()}
    if not roots:
        raise Problem(f"no cgroup hierarchy is mounted below {_ROOT}")
    return sorted(roots)


def make(name: str) -> None:
    """Make the cgroup that the kubelet gets as its root."""
    for hierarchy in _hierarchies():
        own = hierarchy / name
        if _unified():
            _hand_down(hierarchy)
            own.mkdir(exist_ok=True)
            _hand_down(own)
            continue
        own.mkdir(exist_ok=True)
        # A new cpuset is empty, and then nothing can be put into it.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (own / file).exists() and not (own / file).read_text().strip():
                (own / file).write_text((hierarchy / file).read_text())


def _hand_down(cgroup: Path) -> None:
    control = cgroup / "cgroup.subtree_control"
    enabled = control.read_text().split()
    offered = (cgroup / "cgroup.controllers").read_text().split()
    for controller in _CONTROLLERS:
        if controller in offered and controller not in enabled:
            try:
                control.write_text(f"+{controller}")
            except OSError:
                # Inside a container its own processes sit in the root of its
                # cgroup namespace, and a cgroup with processes hands nothing down.
                _move_processes(cgroup, cgroup / "towline-init")
                control.write_text(f"+{controller}")


def _move_processes(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for pid in (source / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):  # it ended, or it is the kernel's
            (target / "cgroup.procs").write_text(pid)


def remove(name: str, *, timeout_s: float = 15.0) -> None:
    """Remove the cgroup and all below it, waiting for what was just killed to leave it."""
    deadline = time.monotonic() + timeout_s
    while left := [h / name for h in _hierarchies() if (h / name).exists()]:
        for cgroup in left:
            _remove_tree(cgroup)
        if not any(cgroup.exists() for cgroup in left):
            return
        if time.monotonic() > deadline:
            raise Problem(f"processes are still in {left[0]} {timeout_s:.0f} s after the end")
        time.sleep(0.02)


def _remove_tree(cgroup: Path) -> None:
    # Files of a cgroup cannot be deleted and need not be: only folders are.
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
