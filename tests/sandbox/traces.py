"""What a sandbox could leave behind on the host, each found by what only that sandbox has."""

from __future__ import annotations

import subprocess
from pathlib import Path


def process_namespace(first_pid: int) -> str:
    """The process namespace of the node below the first process."""
    children = Path(f"/proc/{first_pid}/task/{first_pid}/children").read_text().split()
    return str(Path(f"/proc/{children[0]}/ns/pid").readlink())


def processes(namespace: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str((entry / "ns/pid").readlink()) == namespace:
                found.append((entry / "cmdline").read_text().replace("\0", " ")[:80])
        except OSError:
            continue  # it ended meanwhile, or is nobody's to look at
    return found


def mounts(state: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(state) in line or "/run/towline" in line]


def addresses() -> list[str]:
    listed = subprocess.run(
        ["ip", "-oneline", "address"], capture_output=True, text=True, timeout=10, check=True
    )
    return [line for line in listed.stdout.splitlines() if "198.18." in line or "10.88." in line]


def rules() -> list[str]:
    listed = subprocess.run(
        ["iptables-save"], capture_output=True, text=True, timeout=10, check=True
    )
    return [line for line in listed.stdout.splitlines() if "KUBE" in line or "CNI" in line]


def cgroups(name: str) -> list[str]:
    root = Path("/sys/fs/cgroup")
    pattern = f"towline-sandbox-{name}-*"
    return [str(p) for p in [*root.glob(pattern), *root.glob(f"*/{pattern}")]]
