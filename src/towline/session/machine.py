"""What this machine lets the local process have of the cluster."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from towline._kit.objects import JsonObject
from towline.cluster.api import Api
from towline.cluster.checks import Finding
from towline.environ.names import files_first, low_ports
from towline.errors import ClusterError
from towline.process.view import Bind, probe
from towline.session.names import NEEDS_RIGHTS
from towline.session.private import private_folder

_NSSWITCH, _NSCD = Path("/etc/nsswitch.conf"), Path("/var/run/nscd/socket")
_TOLD_AT_MOST = 5
_DOCS = "docs/names-and-files.md says what is changed then, and what else can be done"


def lookup_binds(folder: Path) -> tuple[Bind, ...]:
    """What must be shown to a process for it to look names up in its hosts file, first of all.

    Args:
        folder: a private one, for what is shown.
    """
    binds = []
    try:
        changed = files_first(_NSSWITCH.read_text())
    except OSError:
        changed = None
    if changed is not None:
        source = folder / _NSSWITCH.name
        source.write_text(changed)
        source.chmod(0o644)
        binds.append(Bind(source=str(source), target=str(_NSSWITCH), how="rw"))
    if _NSCD.exists():
        # It would answer from the laptop's own hosts file. An empty file refuses connections.
        source = folder / "nscd"
        source.touch(mode=0o600)
        binds.append(Bind(source=str(source), target=str(_NSCD), how="rw"))
    return tuple(binds)


async def namespaces_refused() -> str:
    """What keeps a process from a hosts file and paths of its own here, or ""."""
    with private_folder(f"probe-{secrets.token_hex(4)}") as folder:
        scratch = folder / "scratch"
        scratch.mkdir(mode=0o700)
        return await probe(scratch, lookup_binds(folder))


async def check_machine() -> list[Finding]:
    """Whether a process may have a hosts file and paths of its own here, and why not."""
    refused = await namespaces_refused()
    how = "mount namespaces" if _is_root() else "user and mount namespaces"
    if not refused:
        names, files = "in a hosts file of the process's own", "at their own paths"
        return [
            Finding(check="names", ok=True, text=f"{names} ({how})"),
            Finding(check="files", ok=True, text=f"{files} ({how})"),
        ]
    why = f"the process gets no namespaces here: {refused}"
    return [
        Finding(check="names", ok=True, text=f"by changed values of variables: {why}", hint=_DOCS),
        Finding(check="files", ok=True, text=f"below TOWLINE_ROOT: {why}", hint=_DOCS),
    ]


async def check_low_ports(api: Api) -> list[Finding]:
    """Which of a namespace's Services have ports that may not be listened on here."""
    try:
        services = (await api.list_("services")).get("items") or []
    except ClusterError:
        return []  # said by the rights already
    concerned = _refused_ports(services)
    if not concerned:
        return []
    text, _, command = moved_text(NEEDS_RIGHTS, concerned).partition(" To allow it: ")
    return [Finding(check="low ports", ok=True, text=text.rstrip("."), hint=command)]


def moved_text(why: str, ports: list[str]) -> str:
    """What is said of ports that could not be listened on under their own number."""
    shown = ", ".join(ports[:_TOLD_AT_MOST]) + (" …" if ports[_TOLD_AT_MOST:] else "")
    changed = "variables that name them are changed (`towline env --explain`)"
    if why == NEEDS_RIGHTS:
        lowest = min(int(text.rpartition(" ")[2]) for text in ports)
        return (
            f"{shown}: you may not listen on such low ports; {changed}. To allow it: "
            f"sudo sysctl -w net.ipv4.ip_unprivileged_port_start={lowest}"
        )
    return f"{shown}: the port {why}, the name does not lead there; {changed}"


def _refused_ports(services: Iterable[JsonObject]) -> list[str]:
    refused: dict[int, bool] = {}
    concerned = []
    for name, port in low_ports(services):
        if port not in refused:
            refused[port] = is_refused(port)
        if refused[port]:
            concerned.append(f"{name} {port}")
    return concerned


def is_refused(port: int) -> bool:
    """Whether this user may not listen on a port.

    Found out by trying: a setting, a capability or another system may allow it.
    """
    address = "127.127.255.254" if sys.platform == "linux" else "127.0.0.1"
    with socket.socket() as tried:
        try:
            tried.bind((address, port))
        except OSError as error:
            return error.errno == errno.EACCES
    return False


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
