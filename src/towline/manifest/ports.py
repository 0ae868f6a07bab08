"""Which ports of an entry cannot be had together."""

from __future__ import annotations

from dataclasses import dataclass

from towline.manifest.model import Entry, Forward, Port
from towline.manifest.places import Place
from towline.manifest.records import Values
from towline.manifest.shapes import At


def with_global(own: tuple[Forward, ...], shared: tuple[Forward, ...]) -> tuple[Forward, ...]:
    """The entry's forwards and those at the top level; what is in both counts once."""
    same = {(f.local, f.host, f.remote, str(f)) for f in own}
    return own + tuple(f for f in shared if (f.local, f.host, f.remote, str(f)) not in same)


@dataclass(frozen=True, slots=True)
class _Use:
    """Somebody who needs a port for itself."""

    port: Port
    field: str
    text: str
    place: Place


def check(entry: Entry, at: At, values: Values) -> None:
    """Note each port that two fields want, at the later of the two.

    On the laptop Towline listens on the local ports of `forward` and on
    `remote`, and the process itself on the local ports of `reverse` (several of
    those may be the same: one process port may serve many remote ones). In the
    dev pod the agent listens on the remote ports of `reverse` and on `sshServerPort`.
    """
    forwards = [_Use(f.local, "forward", str(f), f.place) for f in entry.forward]
    listens = [_Use(r.local, "reverse", str(r), r.place) for r in entry.reverse]
    remotes = [_Use(r.remote, "reverse", str(r), r.place) for r in entry.reverse]
    ssh = _single(entry.remote, "remote", values)
    agent = _single(entry.ssh_server_port, "sshServerPort", values)
    _report(_clashes([*forwards, *ssh]), at, where="on the laptop")
    _report(_between([*forwards, *ssh], listens), at, where="on the laptop")
    _report(_clashes([*remotes, *agent]), at, where="in the dev pod")


def _single(port: Port | None, field: str, values: Values) -> list[_Use]:
    if port is None:
        return []
    return [_Use(port, field, str(port), values.place(field))]


def _clashes(uses: list[_Use]) -> list[tuple[_Use, _Use]]:
    first: dict[Port, _Use] = {}
    clashes = []
    for use in uses:
        other = first.setdefault(use.port, use)
        if other is not use:
            clashes.append((other, use))
    return clashes


def _between(some: list[_Use], others: list[_Use]) -> list[tuple[_Use, _Use]]:
    by_port = {use.port: use for use in some}
    return [(by_port[use.port], use) for use in others if use.port in by_port]


def _report(clashes: list[tuple[_Use, _Use]], at: At, *, where: str) -> None:
    for pair in clashes:
        earlier, later = sorted(pair, key=lambda use: use.place)
        at.findings.error(
            later.place,
            f"{at.name}.{later.field}: '{later.text}' needs port {later.port} {where}, which "
            f"'{earlier.text}' in {earlier.field} has (line {earlier.place.line})",
        )
