from __future__ import annotations

from towline.sync.events import Counted, Differed, InStep, NotSynced, Stopped
from towline.sync.reconcile import Halt, Reason
from towline.sync.status import FolderStatus, Stage

HALT = Halt(Reason.MANY_DELETIONS, "laptop", "50 of 60 files were deleted on the laptop")


def test_a_halt_is_there_until_the_folder_is_in_step_again() -> None:
    status = FolderStatus(local="/home/me/api", remote="/app").at(Stage.SYNCING)
    status = status.after(Stopped(halts=(HALT,)))
    assert status.stage is Stage.STOPPED
    assert status.to_json()["halts"] == [
        {"reason": "many-deletions", "side": "laptop", "text": HALT.text}
    ]
    status = status.after(InStep(in_container=1, on_laptop=0, seconds=0.1))
    assert status.stage is Stage.IN_STEP and status.to_json()["halts"] == []


def test_conflicts_are_counted_and_the_last_of_them_listed() -> None:
    status = FolderStatus(local="a", remote="/a")
    for number in range(150):
        status = status.after(Differed(path=f"f{number}", kept="there"))
    found = status.to_json()
    assert found["conflicts"] == 150
    assert len(found["last_conflicts"]) == 100 and found["last_conflicts"][-1]["path"] == "f149"


def test_what_is_not_synced_is_counted_and_some_of_it_listed() -> None:
    away = tuple(NotSynced(path=f"s{n}", side="laptop", reason="a socket") for n in range(150))
    status = FolderStatus(local="a", remote="/a")
    assert status.to_json()["paths"] is None
    found = status.after(Counted(paths=7, foreign=2, not_synced=away)).to_json()
    assert (found["paths"], found["foreign"], found["not_synced"]) == (7, 2, 150)
    assert len(found["first_not_synced"]) == 100
