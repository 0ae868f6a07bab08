"""`towline sync` and `towline sync resume`, typed as a user types them."""

from __future__ import annotations

import json

import pytest

from .conftest import Towline, wait_until

pytestmark = pytest.mark.usefixtures("unchanged")

MANIFEST = """
dev:
  api:
    sync:
    - ./notes:/notes
    command: ["sleep", "86400"]
"""
FILES = 60


def test_many_deletions_stop_the_sync_until_somebody_says_how_to_go_on(towline: Towline) -> None:
    towline.manifest(MANIFEST)
    notes = towline.folder / "notes"
    for number in range(FILES):
        folder = notes / ("old" if number < 40 else "new")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_text(f"note {number}\n")
    session = towline.up("api", "--mode", "sync")
    session.event("stage-done", stage="sync")

    def sync(*words: str) -> str:
        done = towline.run("sync", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def in_container() -> int:
        counting = "import pathlib; print(len(list(pathlib.Path('/notes').glob('*/*'))))"
        return int(towline.run("exec", "api", "--", "python3", "-c", counting).stdout)

    wait_until("the first sync", lambda: "in step" in sync())
    shown = sync("api").splitlines()
    assert shown[0] == f"api · {notes} ↔ /notes"
    assert shown[1] == f"  in step, {FILES + 2} paths"

    # Deleted on the laptop, as by an accident: it stops, says so, and the container has all.
    # At once: deletions that come in portions, on a busy machine, are not that many each.
    kept = towline.folder / "kept"
    (notes / "old").rename(kept)

    def warnings() -> list[str]:
        return [each["text"] for each in list(session.events) if each["event"] == "warned"]

    stopped = "40 of 60 files were deleted on the laptop"
    warned = wait_until("the stop", lambda: next((w for w in warnings() if stopped in w), None))
    assert "`towline sync resume [--accept-deletions]`" in warned
    assert f"  stopped     many-deletions, laptop: {stopped}" in sync().splitlines()
    assert in_container() == FILES

    # Without another word, and with the files still gone, it stops again.
    assert sync("resume") == f"{notes} is looked at again; `towline sync` shows what came of it\n"
    wait_until("the second stop", lambda: "stopped" in sync())
    assert in_container() == FILES
    # Put right, it goes on, and nothing was lost.
    kept.rename(notes / "old")
    sync("resume", "api")
    wait_until("all in step", lambda: "in step" in sync() and "stopped" not in sync())
    assert in_container() == FILES

    # Meant as it is: gone on the other side, too.
    (notes / "old").rename(kept)
    wait_until("the third stop", lambda: "many-deletions" in sync("-o", "json"))
    halts = json.loads(sync("-o", "json"))["folders"][0]["halts"]
    assert [(each["reason"], each["side"]) for each in halts] == [("many-deletions", "laptop")]
    sync("resume", "api", "--accept-deletions")
    wait_until("the deletions", lambda: in_container() == FILES - 40)
    wait_until("all in step", lambda: "in step" in sync())
    assert session.end() == 130
