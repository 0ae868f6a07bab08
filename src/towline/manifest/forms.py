"""The short forms that a value can have as one text: `3000:8080`, `5m`, `pvc:/data`.

Each function takes the text and returns the value, or raises ValueError with
what is wrong and what would be right, to be put after the field and the value.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from towline.manifest.model import Port

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# A DNS name as a resolver takes it (RFC 1123 labels; `_` occurs in SRV names), or
# an IPv6 address in brackets.
_HOST = re.compile(
    r"(?!-)[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.%]+\]"
)
# Kubernetes: a DNS-1123 subdomain, and the syntax of label keys and values.
_OBJECT_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = _OBJECT_NAME
_QUANTITY = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
_VARIABLE = re.compile(r"[^\s=\0]+")


def port(text: str) -> Port:
    """A TCP port, 1 to 65535, in decimal."""
    # isascii, because '٣' and '²' are digits to str.isdigit, and int() takes the former.
    if not (text.isascii() and text.isdigit()):
        raise ValueError("is not a port; write a number from 1 to 65535")
    number = int(text[:9])
    if not 1 <= number <= 65535:
        raise ValueError("is no port; ports go from 1 to 65535")
    return Port(number)


def forward(text: str) -> tuple[Port, str | None, Port]:
    """`local:remote` or `local:service:remote`; an IPv6 address stands in brackets."""
    local, first, rest = text.partition(":")
    host, second, remote = rest.rpartition(":")
    if not first:
        raise ValueError("is not a forward; write 'local:remote' or 'local:service:remote'")
    if second and not _HOST.fullmatch(host):
        raise ValueError(f"has no host name in '{host}'; write 'local:service:remote'")
    name = host.strip("[]") if second else None
    return _part(local, "local"), name, _part(remote, "remote")


def reverse(text: str) -> tuple[Port, Port]:
    """`remote:local`: the port in the cluster, then the one on the laptop."""
    parts = text.split(":")
    if len(parts) != 2:
        raise ValueError("is not a port pair; write 'remote:local', such as '3000:8080'")
    return _part(parts[0], "remote"), _part(parts[1], "local")


def _part(text: str, which: str) -> Port:
    try:
        return port(text)
    except ValueError as error:
        raise ValueError(f"has a {which} port '{text}' that {error}") from None


def duration(text: str) -> float:
    """Seconds from `90`, `1.5`, `250ms`, `5m`, `1h30m`."""
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        seconds = float(text)
    else:
        parts = _DURATION.findall(text)
        if not parts or "".join(n + unit for n, unit in parts) != text or not text.isascii():
            raise ValueError("is not a time; write seconds, or a form such as '5m' or '1h30m'")
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > 10 * 365 * 86400:
        raise ValueError("is more than ten years")
    return seconds


def boolean(text: str) -> bool:
    """`true` and `false`, and the words of YAML 1.1 that people still write."""
    word = text.lower()
    if word in ("true", "yes", "on"):
        return True
    if word in ("false", "no", "off"):
        return False
    raise ValueError("is neither true nor false")


def integer(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise ValueError("is not a whole number")
    return int(text)


def octal_mode(text: str) -> int:
    """A file mode in octal, as chmod takes it: `0644`, `600`, `0o400`."""
    digits = text.removeprefix("0o")
    if not re.fullmatch(r"0?[0-7]{3}", digits):
        raise ValueError("is not a file mode; write three octal digits, such as 0644")
    return int(digits, 8)


def quantity(text: str) -> str:
    """A Kubernetes quantity, kept as text: `500m`, `1.5`, `2Gi`."""
    if not _QUANTITY.fullmatch(text):
        raise ValueError("is not a quantity; write one such as '500m', '2' or '1Gi'")
    return text


def object_name(text: str) -> str:
    if not _OBJECT_NAME.fullmatch(text):
        raise ValueError(
            "is no name in Kubernetes; those have lower case letters, digits, '-' and '.'"
        )
    return text


def label_key(text: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if (slash and not _LABEL_PREFIX.fullmatch(prefix)) or not _LABEL_NAME.fullmatch(name):
        raise ValueError("is no label; write one such as 'app' or 'example.com/app'")
    return text


def label_value(text: str) -> str:
    if text and not _LABEL_NAME.fullmatch(text):
        raise ValueError("is no label value; those have up to 63 letters, digits, '-', '_' and '.'")
    return text


def variable_name(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError("is no name of a variable; write 'NAME=value' or 'NAME'")
    return text


def host(text: str) -> str:
    """An address or name to listen on and to dial."""
    bare = text.strip("[]")
    if not (_HOST.fullmatch(text) or re.fullmatch(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", bare)):
        raise ValueError("is no address; write one such as 'localhost' or '0.0.0.0'")
    return bare


def container_path(text: str) -> PurePosixPath:
    """An absolute path in a container, which is always POSIX's."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError("is not an absolute path in the container; it must start with '/'")
    return PurePosixPath(text)


def local_and_remote(text: str) -> tuple[str, PurePosixPath]:
    """`local:remote`; the last colon counts, for the local path may be `C:\\code`."""
    local, colon, remote = text.rpartition(":")
    if not colon or not local or not remote:
        raise ValueError("is not a pair of paths; write 'local:remote', such as '.:/app'")
    return local, container_path(remote)


def secret(text: str) -> tuple[str, PurePosixPath, int]:
    """`local:remote` or `local:remote:mode`."""
    head, colon, last = text.rpartition(":")
    if colon and not last.startswith("/") and "/" in head:
        local, remote = local_and_remote(head)
        try:
            return local, remote, octal_mode(last)
        except ValueError as error:
            raise ValueError(f"has a mode '{last}' that {error}") from None
    local, remote = local_and_remote(text)
    return local, remote, 0o644


def external_volume(text: str) -> tuple[str, str | None, PurePosixPath]:
    """`claim:mount` or `claim:subpath:mount`."""
    parts = text.split(":", 2)
    if len(parts) < 2 or not all(parts):
        raise ValueError("is not a volume; write 'claim:/path' or 'claim:subpath:/path'")
    claim = object_name(parts[0])
    return claim, parts[1] if len(parts) == 3 else None, container_path(parts[-1])
