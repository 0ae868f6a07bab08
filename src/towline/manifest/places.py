"""Where something stands in a file, and what was found wrong there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from towline.errors import ManifestError


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file; line and column count from 1, in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Dialect(StrEnum):
    """Whose file it is: that decides what an unknown field means.

    An okteto.yml may hold fields that a later Okteto adds, so they stop nobody;
    a towline.yml is ours, and an unknown field there is a mistake.
    """

    TOWLINE = "towline"
    OKTETO = "okteto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that is read: its name in messages, and what its paths are relative to."""

    name: str
    folder: Path
    dialect: Dialect


@dataclass(slots=True)
class Findings:
    """All that is wrong, and all that is worth saying, in the order of places.

    A set, because a node behind an alias is read once for each use of it and
    would otherwise be reported as often.
    """

    errors: set[tuple[Place, str]] = field(default_factory=set)
    notices: set[tuple[Place, str]] = field(default_factory=set)

    def error(self, place: Place, message: str) -> None:
        self.errors.add((place, message))

    def notice(self, place: Place, message: str) -> None:
        self.notices.add((place, message))

    def raise_errors(self) -> None:
        """Raise ManifestError with one line a problem, if there is one."""
        if self.errors:
            self.fail()

    def fail(self) -> NoReturn:
        """Raise ManifestError with the errors there are."""
        raise ManifestError("\n".join(as_lines(self.errors)))


def as_lines(found: Iterable[tuple[Place, str]]) -> tuple[str, ...]:
    """One `FILE:LINE:COLUMN: message` for each, sorted by place."""
    # A message comes partly from the file: a newline in it would make two lines
    # of one problem, and a control character could repaint the terminal.
    return tuple(f"{place}: {printable(message)}" for place, message in sorted(found))


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
