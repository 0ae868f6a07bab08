"""An environment as text that other programs read. [pure]

Every format has values it cannot hold; those are left out and named, never bent. What
each reader does is its own code's rule, tried in tests/unit/environ/test_formats.py:

- `sh`: POSIX shells, single-quoted; bytes as they are.
- `dotenv`: one spelling that python-dotenv, Node.js (`--env-file`, npm's dotenv) and
  Towline's own `envFiles` read alike, where there is one; else python-dotenv's, noted.
- `docker`: `docker run --env-file`, a line each and no quoting at all.
- `ps1`: PowerShell, in ASCII, for Windows PowerShell takes a file without a byte order
  mark for the machine's code page.
- `json`: name → value. Bytes that are not UTF-8 are lone surrogates, as Python has
  them (`surrogateescape`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Format(StrEnum):
    DOTENV = "dotenv"
    JSON = "json"
    SH = "sh"
    PS1 = "ps1"
    DOCKER = "docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The text, and what of the environment it does not hold.

    Attributes:
        left_out: by name, why a variable is not in the text.
        notes: by name, why some reader gets another value.
    """

    content: bytes
    left_out: Mapping[bytes, str]
    notes: Mapping[bytes, str]


class _Impossible(Exception):
    """The format cannot hold this variable; the words say why."""


@dataclass(frozen=True, slots=True)
class _Line:
    content: bytes
    note: str | None = None


def rendered(values: Mapping[bytes, bytes], form: Format) -> Rendered:
    """Write an environment in a format, sorted by name.

    In a dotenv file, what is written for one reader comes last, and before it what one of
    them expands: Node.js, which misses a closing quote in the former, then misses no other.
    """
    if form is Format.JSON:
        texts = {_escaped(name): _escaped(value) for name, value in sorted(values.items())}
        return Rendered(content=json.dumps(texts, indent=1).encode() + b"\n", left_out={}, notes={})
    lines: list[tuple[int, bytes]] = []
    left_out: dict[bytes, str] = {}
    notes: dict[bytes, str] = {}
    for name, value in sorted(values.items()):
        try:
            line = _WRITERS[form](name, value)
        except _Impossible as error:
            left_out[name] = str(error)
            continue
        rank = _DOTENV_RANKS.get(line.note or "", 0) if form is Format.DOTENV else 0
        lines.append((rank, line.content + b"\n"))
        if line.note is not None:
            notes[name] = line.note
    content = b"".join(text for _, text in sorted(lines, key=lambda line: line[0]))
    return Rendered(content=content, left_out=left_out, notes=notes)


def _escaped(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _Impossible("it is not UTF-8") from None


_SHELL_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
# Assigning to one of these ends a script of bash (or of zsh).
_SHELLS_OWN = frozenset(
    b"BASHOPTS BASH_VERSINFO EUID GID EGID PPID SHELLOPTS UID USERNAME status".split()
)


def _sh(name: bytes, value: bytes) -> _Line:
    if not _SHELL_NAME.fullmatch(name):
        raise _Impossible("a shell has no such names")
    if name in _SHELLS_OWN:
        raise _Impossible("shells have it as a constant of their own")
    return _Line(b"export " + name + b"='" + value.replace(b"'", rb"'\''") + b"'")


_EXPANDED = "python-dotenv expands ${…} in it, unless told interpolate=False"
_FOR_ONE_READER = "written for python-dotenv: other readers of dotenv keep its backslashes"
_DOTENV_RANKS = {_EXPANDED: 1, _FOR_ONE_READER: 2}
_DOTENV_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# Read alike without quotes, by all.
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=&?~^-]+")
_EXPANDS = re.compile(r"\$(?:[A-Za-z_{]|\$)")


def _dotenv(name: bytes, value: bytes) -> _Line:
    key, text = _text(name), _text(value)
    if not _DOTENV_NAME.fullmatch(key):
        raise _Impossible("dotenv files have no such names")
    return _Line(*_dotenv_value(key, text, _EXPANDED if "${" in text else None))


def _dotenv_value(key: str, text: str, note: str | None) -> tuple[bytes, str | None]:
    """The line, and the note.

    In single quotes python-dotenv undoes a doubled backslash and one before a quote, the
    others undo nothing; all keep a dollar. In double quotes Node.js turns `\\n` into a
    newline and keeps all other backslashes. A carriage return Node.js drops anywhere.
    """
    if _PLAIN.fullmatch(text):
        return f"{key}={text}".encode(), note
    is_literal = "\\\\" not in text and not text.endswith("\\") and "\r" not in text
    if "'" not in text and is_literal:
        return f"{key}='{text}'".encode(), note
    if not any(c in text for c in '"\\\r') and not _EXPANDS.search(text):
        return f'{key}="{text}"'.encode(), note
    # What remains has quotes of both kinds, or backslashes where they would be undone.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r")
    return f'{key}="{escaped}"'.encode(), _FOR_ONE_READER


# bufio.Scanner's limit, in bytes, with the newline.
_DOCKER_LINE_BYTES = 64 * 1024 - 1


def _docker(name: bytes, value: bytes) -> _Line:
    if re.search(r"\s", _text(name)) or name.startswith(b"#"):
        raise _Impossible("docker refuses such names")
    _text(value)
    if b"\n" in value:
        raise _Impossible("docker's env-files have one line for each variable")
    if value.endswith(b"\r"):
        raise _Impossible("docker drops a carriage return at a line's end")
    line = name + b"=" + value
    if len(line) > _DOCKER_LINE_BYTES:
        raise _Impossible("docker refuses lines of 64 KiB")
    return _Line(line)


# In PowerShell any of these is a single quote.
_NOT_LITERAL = re.compile("[^ -&(-~]+")


def _ps1(name: bytes, value: bytes) -> _Line:
    text = _text(value)
    key = _ps1_text(_text(name))
    note = None if text else "PowerShell before 7.5 takes an empty value for none"
    # As .NET has it: `$env:` and Set-Item would read wildcards and drives in the name.
    line = f"[Environment]::SetEnvironmentVariable({key}, {_ps1_text(text)}, 'Process')"
    return _Line(line.encode(), note)


def _ps1_text(text: str) -> str:
    """A string literal, with what is not printable ASCII (or a quote) as numbers."""
    if not text:
        return "''"
    parts: list[str] = []
    at = 0
    for match in _NOT_LITERAL.finditer(text):
        if match.start() > at:
            parts.append(f"'{text[at : match.start()]}'")
        units = match.group().encode("utf-16-le")
        numbers = [int.from_bytes(units[n : n + 2], "little") for n in range(0, len(units), 2)]
        parts.append(f"[string]::new([char[]]({','.join(map(str, numbers))}))")
        at = match.end()
    if at < len(text):
        parts.append(f"'{text[at:]}'")
    return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"


_WRITERS: Mapping[Format, Callable[[bytes, bytes], _Line]] = {
    Format.SH: _sh,
    Format.DOTENV: _dotenv,
    Format.DOCKER: _docker,
    Format.PS1: _ps1,
}
