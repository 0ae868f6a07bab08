"""How the folders of a sync session stand, and the way on after a halt: `towline sync`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towline._kit.objects import JsonObject
from towline.errors import UsageError
from towline.manifest.model import SyncFolder
from towline.session.control_socket import Answer
from towline.sync.events import Event
from towline.sync.status import FolderStatus, Stage

if TYPE_CHECKING:
    from towline.sync.loop import Resume


@dataclass(slots=True)
class Folder:
    """One synced folder of the session, over all its connections."""

    status: FolderStatus
    resume: Resume
    was_in_step: bool = False

    def tell(self, event: Event) -> None:
        """Take what the engine tells."""
        self.status = self.status.after(event)
        self.was_in_step |= self.status.stage is Stage.IN_STEP


class SyncState:
    """All of them, by their number in the manifest."""

    def __init__(self, folders: Sequence[SyncFolder]) -> None:
        from towline.sync.loop import Resume

        self.folders = [
            Folder(FolderStatus(local=str(each.local), remote=str(each.remote)), Resume())
            for each in folders
        ]

    def connecting(self) -> None:
        """The connection is gone, and with it what stopped."""
        for each in self.folders:
            each.status = each.status.at(Stage.CONNECTING)

    def methods(self) -> dict[str, Answer]:
        """What other commands may ask."""
        return {"sync": self._report, "sync-resume": self._resume}

    async def _report(self, _: JsonObject) -> JsonObject:
        return {"folders": [each.status.to_json() for each in self.folders]}

    async def _resume(self, params: JsonObject) -> JsonObject:
        stopped = [each for each in self.folders if each.status.stage is Stage.STOPPED]
        if not stopped:
            raise UsageError("no folder has stopped: there is nothing to resume")
        for each in stopped:
            each.status = each.status.at(Stage.SYNCING)
            each.resume.resume(accept_deletions=bool(params.get("accept_deletions")))
        return {"resumed": [each.status.local for each in stopped]}
