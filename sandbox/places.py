"""Where things are: the cache on the host, a sandbox's state, and both inside its node.

Inside the node the state folder is always at the same short path, whatever the
host calls it: a socket's path may have 108 bytes at most, and the host's path
may lie under a folder that the node has one of its own for (/tmp, /run, …).
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from problem import Problem

DEFAULT_NAME = "dev"

# Inside the node.
NODE_STATE = Path("/run/towline")
NODE_BINARIES = Path("/run/towline-bin")
CONTAINERD_SOCKET = NODE_STATE / "containerd.sock"


def _base(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "towline" / "sandbox"


def cache() -> Path:
    return _base("XDG_CACHE_HOME", ".cache")


def binaries() -> Path:
    return cache() / "bin"


def state_root() -> Path:
    return _base("XDG_STATE_HOME", ".local/state")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox: its name and the folders and files that belong to it."""

    name: str
    state: Path

    @classmethod
    def named(cls, name: str) -> Sandbox:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", name):
            raise Problem(
                f"'{name}' cannot name a sandbox: use 1 to 40 of a-z, 0-9 and '-', "
                "with a letter or digit at both ends",
                exit_code=2,
            )
        return cls(name=name, state=state_root() / name)

    @property
    def lock(self) -> Path:
        """Beside the state folder, which comes and goes."""
        return self.state.with_name(f".{self.name}.lock")

    @property
    def first_process(self) -> Path:
        return self.state / "first-process.json"

    @property
    def ready(self) -> Path:
        """Exists from the moment the node was ready and DNS answered."""
        return self.state / "ready.json"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def cgroup(self) -> str:
        """Also told apart by the state folder: two users may choose one name."""
        digest = hashlib.sha256(str(self.state).encode()).hexdigest()[:8]
        return f"towline-sandbox-{self.name}-{digest}"

    @property
    def context(self) -> str:
        return f"sandbox-{self.name}"

    @property
    def tls_name(self) -> str:
        """The API server's name for clients on the host (see `components.certificates`)."""
        return f"{self.context}.towline.internal"
