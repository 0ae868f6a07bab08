"""How a synced folder stands, told to other commands [pure]."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from towline._kit.objects import JsonObject
from towline.sync.events import Counted, Differed, Event, InStep, NotSynced, Stopped
from towline.sync.reconcile import Halt

# As many as somebody would read; their number is told in full.
_LISTED_AT_MOST = 100


class Stage(StrEnum):
    """What is going on."""

    CONNECTING = "connecting"
    SYNCING = "syncing"
    IN_STEP = "in step"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderStatus:
    """One pair of folders.

    Attributes:
        halts: why it stopped; `towline sync resume` goes on.
        differed: what both sides had another version of, since the session began.
        counted: as the last pass left it; None before the first.
    """

    local: str
    remote: str
    stage: Stage = Stage.CONNECTING
    halts: tuple[Halt, ...] = ()
    differed: tuple[Differed, ...] = ()
    differed_before: int = 0
    counted: Counted | None = None

    def after(self, event: Event) -> FolderStatus:
        """The status once that was told."""
        match event:
            case InStep():
                return replace(self, stage=Stage.IN_STEP, halts=())
            case Stopped():
                return replace(self, stage=Stage.STOPPED, halts=event.halts)
            case Differed():
                kept = (*self.differed, event)[-_LISTED_AT_MOST:]
                gone = len(self.differed) + 1 - len(kept)
                return replace(self, differed=kept, differed_before=self.differed_before + gone)
            case Counted():
                return replace(self, counted=event)
        return self

    def at(self, stage: Stage) -> FolderStatus:
        """The same in another stage, with no reason to stop."""
        return replace(self, stage=stage, halts=())

    def __str__(self) -> str:
        why = ": " + "; ".join(halt.text for halt in self.halts) if self.halts else ""
        return f"{self.local} ↔ {self.remote}, {self.stage}{why}"

    def to_json(self) -> JsonObject:
        """As `towline sync -o json` prints it."""
        away: tuple[NotSynced, ...] = self.counted.not_synced if self.counted else ()
        return {
            "local": self.local,
            "remote": self.remote,
            "stage": self.stage.value,
            "halts": [
                {"reason": halt.reason.value, "side": halt.side, "text": halt.text}
                for halt in self.halts
            ],
            "paths": self.counted.paths if self.counted else None,
            "foreign": self.counted.foreign if self.counted else None,
            "conflicts": self.differed_before + len(self.differed),
            "last_conflicts": [{"path": each.path, "kept": each.kept} for each in self.differed],
            "not_synced": len(away),
            "first_not_synced": [
                {"path": each.path, "side": each.side, "reason": each.reason}
                for each in away[:_LISTED_AT_MOST]
            ],
        }
