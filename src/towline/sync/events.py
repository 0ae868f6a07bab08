"""What a synced folder tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from towline.sync.reconcile import Halt


@dataclass(frozen=True, slots=True, kw_only=True)
class InStep:
    """Both sides are alike, but for what cannot be; so many paths were changed for that."""

    in_container: int
    on_laptop: int
    seconds: float
    not_synced: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Differed:
    """Both sides had a version of a path: the laptop's stays, the other is at `kept`."""

    path: str
    kept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSynced:
    """A path that cannot be made the same on a side, and why."""

    path: str
    side: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Nothing is synced until somebody says so."""

    halts: tuple[Halt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something to know."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Went:
    """A path was made on a side what the other has, or deleted there; where it is asked for."""

    path: str
    side: str
    is_gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How things stand after a pass.

    Attributes:
        paths: in step on both sides.
        foreign: topmost paths that are the container's alone.
        not_synced: all that stay as they are on one side, and why.
    """

    paths: int
    foreign: int
    not_synced: tuple[NotSynced, ...]


Event = InStep | Differed | NotSynced | Stopped | Noted | Went | Counted
Told = Callable[[Event], None]


def shown(path: bytes) -> str:
    """A path for people: what is not UTF-8 as escapes."""
    return path.decode(errors="backslashreplace")
