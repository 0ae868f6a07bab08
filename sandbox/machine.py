"""What the machine must have: Linux, root, a few Debian packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from problem import Problem
from progress import Progress

# program or file → the Debian package that has it
_PROGRAMS = {
    "apt-get": "apt",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ctr": "containerd",
    "dpkg-deb": "dpkg",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "runc": "runc",
    "unshare": "util-linux",
}
_PLUGINS = ("/usr/lib/cni", "/opt/cni/bin")
_PLUGINS_PACKAGE = "containernetworking-plugins"

_ALTERNATIVES = (
    "any Kubernetes does instead: point KUBECONFIG or --context at kind, minikube, "
    "k3d, Docker Desktop or a remote cluster"
)


def require_root_on_linux() -> None:
    if sys.platform != "linux":
        raise Problem(f"the sandbox needs Linux, and this is {sys.platform}; {_ALTERNATIVES}")
    if os.geteuid() != 0:
        raise Problem(
            f"the sandbox needs root (it makes namespaces, mounts and cgroups), and this is "
            f"user {os.geteuid()}; use sudo, or {_ALTERNATIVES}"
        )


def network_plugins() -> str | None:
    """The folder with the container network plugins, or None."""
    return next((d for d in _PLUGINS if (Path(d) / "ptp").exists()), None)


def missing_packages() -> list[str]:
    missing = {package for program, package in _PROGRAMS.items() if not _which(program)}
    if network_plugins() is None:
        missing.add(_PLUGINS_PACKAGE)
    return sorted(missing)


def require_packages() -> None:
    if missing := missing_packages():
        raise Problem(
            f"these Debian packages are missing: {' '.join(missing)}; install them with\n"
            f"    apt-get update && apt-get install --no-install-recommends {' '.join(missing)}\n"
            "or with: sandbox setup"
        )


def install_packages(progress: Progress) -> None:
    """Install what is missing, as root on a machine with apt-get; else name the command."""
    missing = missing_packages()
    if not missing:
        progress.say("every Debian package is there")
        return
    if os.geteuid() != 0 or not _which("apt-get"):
        require_packages()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["install", "--yes", "--no-install-recommends", *missing]
    for arguments in (["update"], install):
        progress.say(f"apt-get {' '.join(arguments)}")
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            timeout=900,
            check=False,
        )
        if done.returncode != 0:
            raise Problem(f"apt-get {' '.join(arguments)} ended with {done.returncode}")
    require_packages()


def _which(program: str) -> str | None:
    # A user's PATH may lack the folders of system programs.
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
