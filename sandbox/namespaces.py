"""The node's own view of the machine: mounts, address, kernel settings.

Runs as the node's first steps, in namespaces that `unshare` has just made.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import subprocess
from pathlib import Path

import components
from places import NODE_BINARIES, NODE_STATE
from problem import Problem

_MS_BIND = 4096
_MS_MOVE = 8192
_MAX_OPEN_FILES = 1 << 20

# Folders that programs write to under fixed names: the node gets its own.
_OWN_FOLDERS = {"/tmp": 0o1777, "/var/lib": 0o755, "/var/log": 0o755}

# The kubelet insists on these values, and they are the whole machine's. It is
# shown that they are already so, instead of changing them for everybody.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


def enter(*, state: Path, binaries: Path, hostname: str) -> None:
    """Make the mounts, the network and the limits that everything in the node starts with."""
    _mounts(state, binaries)
    socket.sethostname(hostname)
    _network()
    _limits()


def _mount(source: Path | str, target: Path | str, *, kind: str = "", flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [os.fsencode(source), os.fsencode(target), kind.encode() or None]
    if libc.mount(*arguments, ctypes.c_ulong(flags), None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), os.fspath(target))


def _mounts(state: Path, binaries: Path) -> None:
    # The new /run is put together aside and moved into place last: the state
    # folder itself may lie below /run, /tmp or /var/lib of the host.
    aside = state / "run"
    aside.mkdir(exist_ok=True)
    _mount("tmpfs", aside, kind="tmpfs")
    for inside, outside in ((NODE_STATE, state), (NODE_BINARIES, binaries)):
        place = aside / inside.relative_to("/run")
        place.mkdir()
        _mount(outside, place, flags=_MS_BIND)
    _mount(aside, "/run", flags=_MS_MOVE)
    (Path("/run") / "lock").mkdir()
    for folder, mode in _OWN_FOLDERS.items():
        own = NODE_STATE / "own" / folder.strip("/").replace("/", "-")
        own.mkdir(parents=True)
        own.chmod(mode)
        _mount(own, folder, flags=_MS_BIND)
    _kernel_settings()


def _kernel_settings() -> None:
    shown = NODE_STATE / "kernel-settings"
    shown.mkdir()
    for name, value in _KERNEL_SETTINGS.items():
        real = Path("/proc/sys") / name
        if real.exists():
            file = shown / name.replace("/", "-")
            file.write_text(f"{value}\n")
            _mount(file, real, flags=_MS_BIND)


def resolve_cluster_names(resolv_conf: Path) -> None:
    """Let programs run in the node (`sandbox exec`) resolve the cluster's names."""
    real = Path(os.path.realpath("/etc/resolv.conf"))
    if not real.exists():  # a link to somewhere below the host's /run
        real.parent.mkdir(parents=True, exist_ok=True)
        real.touch()
    _mount(resolv_conf, real, flags=_MS_BIND)


def snapshotter() -> str:
    """`overlayfs`, or `native` where the state's file system cannot be under an overlay."""
    place = NODE_STATE / "overlay"
    for folder in ("lower", "upper", "work", "merged"):
        (place / folder).mkdir(parents=True)
    options = ",".join(f"{n}dir={place / n}" for n in ("lower", "upper", "work"))
    tried = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, place / "merged"],
        capture_output=True,
        timeout=10,
        check=False,
    )
    if tried.returncode != 0:
        return "native"
    subprocess.run(["umount", place / "merged"], timeout=10, check=True)
    return "overlayfs"


def _network() -> None:
    # The route lets the node itself dial Service addresses. There is no default route: what
    # is outside is unreachable at once, instead of after a time-out.
    # A bridge with nothing attached: every kernel here has it, not every one `dummy`.
    steps = (
        "link set lo up\n"
        "link add node0 type bridge\n"
        f"address add {components.NODE_IP}/32 dev node0\n"
        "link set node0 up\n"
        f"route add {components.SERVICES} dev node0\n"
    )
    done = subprocess.run(
        ["ip", "-batch", "-"],
        input=steps,
        text=True,
        capture_output=True,
        timeout=10,
        check=False,
    )
    if done.returncode != 0:
        raise Problem(f"the node's network could not be made: {done.stderr.strip()}")
    # While kube-proxy writes its rules, a packet to a Service now and then passes them as it
    # is (3 connections of 4,000 at 200/s, seen with iptables on nf_tables). Dropped here,
    # behind kube-proxy's own rules, the connection is tried again by its sender, and then
    # translated; let through, it would be remembered so, and lost.
    for chain in ("OUTPUT", "FORWARD"):
        words = ["iptables", "-w", "-A", chain, "-d", components.SERVICES, "-j", "DROP"]
        subprocess.run(words, timeout=10, check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _limits() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most > _MAX_OPEN_FILES:
        most = _MAX_OPEN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
