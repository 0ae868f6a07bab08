"""Values of the environment that lead to the cluster, as they must read here. [pure]

Only what cannot be had otherwise is changed: a cluster's own address always; a name where
the process has no hosts file of its own; a port that may not be listened on under its
own number.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

# Names in them are compared by others (OpenID Connect, browsers), not only dialled.
_NEVER = re.compile(r"ISSUER|AUDIENCE|CALLBACK|COOKIE", re.IGNORECASE)
# A certificate is for the name that the value has.
_CERTIFIED = frozenset({"https", "wss", "rediss", "amqps", "ldaps", "mqtts", "smtps", "grpcs"})
_DEFAULT_PORTS = {
    "http": 80, "ws": 80, "ftp": 21, "ldap": 389, "smtp": 25, "redis": 6379, "amqp": 5672,
    "postgres": 5432, "postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mongodb": 27017,
    "nats": 4222, "mqtt": 1883, "memcached": 11211, "sqlserver": 1433, "clickhouse": 9000,
}  # fmt: skip
_HOST = r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?)"
_URL = re.compile(
    r"(?P<before>(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#\s\"']*@)?)"
    rf"(?P<hosts>{_HOST}(?::\d+)?(?:,{_HOST}(?::\d+)?)*)(?=$|[/?#;\s\"',)\]}}])"
)
_HOST_PORT = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>\d+))?")
_LIST = re.compile(rf"{_HOST}(?::\d+)?(?:[,;\s]+{_HOST}(?::\d+)?)*")
# Go's MySQL driver: user:password@tcp(db:3306)/shop
_IN_TCP = re.compile(rf"(?<=tcp\(){_HOST}:\d+(?=\))")
# libpq, Npgsql and their like: host=db port=5432 …, Host=db;Port=5432;…
_KEYED_HOST = re.compile(
    rf"(?i)(?P<before>(?:^|[\s;])(?:host|server)=)(?P<host>{_HOST})(?=$|[\s;])"
)
_KEYED_PORT = re.compile(r"(?i)(?P<before>(?:^|[\s;])port=)(?P<port>\d+)(?=$|[\s;])")
_HOST_NAME = re.compile(r"(?i)(?P<base>.*?)(?P<host>(?:hostname|host|address|addr|server))")
_API = ("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a name of the cluster is reached here.

    Attributes:
        spellings: its names, and the cluster's own addresses of it.
        ports: the cluster's port → the one that is listened on here.
        is_found: whether the process finds its names by itself.
    """

    spellings: frozenset[str]
    address: str
    ports: Mapping[int, int]
    is_found: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A variable whose value was changed, and why."""

    name: bytes
    was: bytes
    now: bytes
    why: str


def rewritten_names(
    values: Mapping[bytes, bytes],
    ends: Iterable[End],
    *,
    keep: Iterable[str] = (),
) -> tuple[Rewritten, ...]:
    """What must change for these variables to lead to the cluster from here.

    Args:
        values: of the container and the manifest, not the laptop's own.
        keep: globs of variables that are left alone.
    """
    known = {spelling: end for end in ends for spelling in end.spellings}
    rules = _Rules(known)
    texts = {_text(name): _text(value) for name, value in values.items()}
    allowed = {
        name: value
        for name, value in texts.items()
        if not _NEVER.search(name) and not any(fnmatchcase(name, glob) for glob in keep)
    }
    changed: dict[str, tuple[str, str]] = {}
    names = sorted(allowed)
    for name, value in allowed.items():
        changed.update(rules.pair(name, value, allowed, names))
    for name, value in allowed.items():
        if name not in changed and (found := rules.value(value)) is not None:
            changed[name] = found
    return tuple(
        Rewritten(name=_bytes(name), was=_bytes(texts[name]), now=_bytes(now), why=why)
        for name, (now, why) in changed.items()
        if now != texts[name]
    )


class _Rules:
    """How a value changes: (the new value, why), or None where it stays."""

    def __init__(self, known: Mapping[str, End]) -> None:
        self._known = known

    def find(self, host: str) -> End | None:
        return self._known.get(host.strip("[]").rstrip(".").lower())

    def is_name(self, host: str) -> bool:
        return not re.fullmatch(r"[\d.]+|.*:.*", host.strip("[]"))

    def moved(self, host: str, port: int) -> tuple[str, int, str] | None:
        end = self.find(host)
        if end is None or port not in end.ports:
            return None
        local = end.ports[port]
        if end.is_found and self.is_name(host):
            if local == port:
                return None
            why = f"port {port} of {host} is {local} here"
            return host, local, why
        what = f"{host}:{port}"
        return end.address, local, f"{what} is {end.address}:{local} here"

    def value(self, value: str) -> tuple[str, str] | None:
        whys: list[str] = []
        made = _URL.sub(lambda m: self._url(m, whys), value)
        if made == value and _LIST.fullmatch(value.strip()):
            made = _HOST_PORT.sub(lambda m: self._host_port(m, None, whys), value)
        if made == value:
            made = _IN_TCP.sub(lambda m: self._plain(m[0], None, whys), value)
        if made == value:
            made = self._keyed(value, whys)
        return (made, "; ".join(dict.fromkeys(whys))) if made != value else None

    def _url(self, match: re.Match[str], whys: list[str]) -> str:
        scheme = match["scheme"].lower()
        if _CERTIFIED & set(scheme.split("+")):
            return match[0]
        default = _DEFAULT_PORTS.get(scheme.split("+")[0])
        hosts = [self._plain(each, default, whys) for each in match["hosts"].split(",")]
        return match["before"] + ",".join(hosts)

    def _plain(self, text: str, default: int | None, whys: list[str]) -> str:
        match = _HOST_PORT.fullmatch(text)
        return text if match is None else self._host_port(match, default, whys)

    def _host_port(self, match: re.Match[str], default: int | None, whys: list[str]) -> str:
        port = int(match["port"]) if match["port"] else default
        moved = self.moved(match["host"], port) if port is not None else None
        if moved is None:
            return match[0]
        host, local, why = moved
        whys.append(why)
        return f"{host}:{local}"

    def _keyed(self, value: str, whys: list[str]) -> str:
        host, port = _KEYED_HOST.search(value), _KEYED_PORT.search(value)
        if host is None or port is None:
            return value
        moved = self.moved(host["host"], int(port["port"]))
        if moved is None:
            return value
        whys.append(moved[2])
        value = _KEYED_PORT.sub(lambda m: f"{m['before']}{moved[1]}", value, count=1)
        return _KEYED_HOST.sub(lambda m: m["before"] + moved[0], value, count=1)

    def pair(
        self, name: str, value: str, values: Mapping[str, str], names: Sequence[str]
    ) -> dict[str, tuple[str, str]]:
        """X_HOST with its X_PORT: they change together or not at all."""
        match = _HOST_NAME.fullmatch(name)
        end = self.find(value)
        if match is None or end is None or not re.fullmatch(_HOST + r"|[0-9A-Fa-f:]+", value):
            return {}
        word = "port" if match["host"].islower() else "Port" if match["host"][1:].islower() \
            else "PORT"  # fmt: skip
        base = match["base"] + word
        ports = {n: int(values[n]) for n in _port_names(base, names) if _is_port(values[n])}
        wanted = {n: self.moved(value, port) for n, port in ports.items()}
        changes = {n: (str(m[1]), m[2]) for n, m in wanted.items() if m is not None}
        if name == _API[0]:
            return {**changes, name: (_API[1], f"{value} is {_API[1]}, as its certificate says")}
        if end.is_found and self.is_name(value):
            return changes
        # Without a port that is told, every port must be its own here.
        if changes or all(local == port for port, local in end.ports.items()):
            changes[name] = (end.address, f"{value} is {end.address} here")
        return changes


def _port_names(base: str, names: Sequence[str]) -> Iterator[str]:
    """X_PORT, and X_PORT_HTTP and the like; of sorted names, for there may be thousands."""
    for at in range(bisect_left(names, base), len(names)):
        name = names[at]
        if not name.startswith(base):
            return
        if name == base or name[len(base)] == "_":
            yield name


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 6


def rewritten_paths(
    values: Mapping[bytes, bytes], paths: Iterable[str], *, root: str
) -> tuple[Rewritten, ...]:
    """Paths of the container's files in values, led below `root`, where they are mirrored."""
    ordered = sorted(paths, key=len, reverse=True)
    if not ordered:
        return ()
    either = "|".join(re.escape(path.rstrip("/")) for path in ordered)
    # Whole path elements only, and not in the middle of another path; `file:` URLs too.
    found = re.compile(rf"(?:(?<=file://)|(?<![\w./~-]))(?:{either})(?=$|[/\s:;,\"'?#)])")
    changed = []
    for name, value in values.items():
        was = _text(value)
        now = found.sub(lambda match: root + match[0], was)
        if now != was:
            why = "the container's files are below TOWLINE_ROOT here"
            changed.append(Rewritten(name=name, was=value, now=_bytes(now), why=why))
    return tuple(changed)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
