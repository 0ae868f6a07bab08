"""What a synced folder tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from towline.sync.reconcile import Halt


@dataclass(frozen=True, slots=True, kw_only=True)
class InStep:
    """Both sides are alike; so many paths were changed on either for that."""

    in_container: int
    on_laptop: int
    seconds: float


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


Event = InStep | Differed | NotSynced | Stopped | Noted
Told = Callable[[Event], None]


def shown(path: bytes) -> str:
    """A path for people: what is not UTF-8 as escapes."""
    return path.decode(errors="backslashreplace")
