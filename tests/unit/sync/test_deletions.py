"""Deletions that go over in portions, and are one deletion all the same."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline.sync.deletions import PAUSE_S, Deletion
from towline.sync.model import Entry
from towline.sync.reconcile import Halt, Reason, reconcile

from .sides import do, file

SIDES = ["laptop", "container"]


class Pair:
    """Two sides in step, one of which edits; a pass is made at a moment that is given."""

    def __init__(self, side: str, files: int) -> None:
        self.side = side
        self.ancestor = {f"f{n:04}".encode(): file(str(n)) for n in range(files)}
        self.trees = {name: dict(self.ancestor) for name in SIDES}
        self.deletions = {name: Deletion() for name in SIDES}

    @property
    def edited(self) -> dict[bytes, Entry]:
        return self.trees[self.side]

    def delete(self, paths: Iterable[bytes]) -> None:
        for path in list(paths):
            del self.edited[path]

    def pass_(self, at: float, *, accept_deletions: bool = False) -> tuple[Halt, ...]:
        """As the loop does it."""
        merge = reconcile(
            self.ancestor,
            *(dict(self.trees[name]) for name in SIDES),
            is_first=False,
            accept_deletions=accept_deletions,
            laptop_before=self.deletions["laptop"].at(at),
            container_before=self.deletions["container"].at(at),
        )
        for on, changes in (("laptop", merge.laptop), ("container", merge.container)):
            assert all(do(self.trees[on], change) for change in changes)
            by = SIDES[1 - SIDES.index(on)]
            self.deletions[by].deleted(changes, now=at)
            self.deletions[on].made(changes, now=at)
        if not merge.halts:
            self.ancestor = dict(self.trees["laptop"])
        return merge.halts


def portions(paths: Iterable[bytes], size: int) -> list[list[bytes]]:
    them = sorted(paths)
    return [them[at : at + size] for at in range(0, len(them), size)]


@pytest.mark.parametrize("side", SIDES)
def test_a_slow_deletion_stops_once_more_than_half_is_gone(side: str) -> None:
    """5,000 files went on both sides, since no portion had more than 20."""
    pair = Pair(side, 5000)
    at, halts = 100.0, ()
    for portion in portions(pair.edited, 15):
        pair.delete(portion)
        at += PAUSE_S - 0.1
        if halts := pair.pass_(at):
            break
    (halt,) = halts
    assert (halt.reason, halt.side) == (Reason.MANY_DELETIONS, side)
    assert halt.text == (
        f"2505 of 5000 files were deleted on the {side}, 2490 of them so slowly that they are "
        "gone on both by now"
    )
    other = pair.trees[SIDES[1 - SIDES.index(side)]]
    assert len(other) == 5000 - 2490


def test_the_rest_of_a_deletion_stops_again_until_it_is_accepted() -> None:
    pair = Pair("laptop", 60)
    pair.delete(sorted(pair.edited)[:30])
    assert not pair.pass_(100.0)
    pair.delete(sorted(pair.edited)[:1])
    assert pair.pass_(101.0) and pair.pass_(101.0)
    assert not pair.pass_(101.0, accept_deletions=True)
    for deletion in pair.deletions.values():
        deletion.forget()
    pair.delete(sorted(pair.edited)[:3])
    assert not pair.pass_(102.0), "what was accepted does not count any more"


def test_what_is_deleted_after_a_pause_is_another_deletion() -> None:
    pair = Pair("laptop", 60)
    for number, portion in enumerate(portions(pair.edited, 12)):
        pair.delete(portion)
        assert not pair.pass_(100.0 + number * (PAUSE_S + 0.1)) or len(pair.edited) == 0


def test_what_is_made_and_deleted_again_is_not_missing() -> None:
    """A test run with files of its own, in a folder with few others."""
    pair = Pair("container", 30)
    for number in range(100):
        path = f"scratch{number}".encode()
        pair.edited[path] = file(f"scratch {number}")
        assert not pair.pass_(100.0 + number)
        pair.delete([path])
        assert not pair.pass_(100.5 + number)
    assert set(pair.trees["laptop"]) == set(pair.ancestor) and len(pair.ancestor) == 30


def test_what_is_deleted_and_made_anew_is_not_missing() -> None:
    """A build that cleans its folder file by file, and writes the same names again."""
    pair = Pair("laptop", 40)
    names = sorted(pair.edited)[:35]
    for number, name in enumerate(names):
        pair.delete([name])
        assert not pair.pass_(100.0 + number)
        pair.edited[name] = file(f"built anew {number}")
        assert not pair.pass_(100.5 + number)


def test_a_move_in_portions_is_no_deletion() -> None:
    pair = Pair("laptop", 60)
    for number, portion in enumerate(portions(pair.edited, 5)):
        for path in portion:
            pair.edited[b"moved-" + path] = pair.edited[path]
        pair.delete(portion)
        assert not pair.pass_(100.0 + number)
    assert len(pair.trees["container"]) == 60


def test_branches_that_are_switched_back_and_forth_are_no_deletion() -> None:
    """Each switch takes 400 of 1,000 files and makes 400 others."""
    pair = Pair("laptop", 1000)
    there = sorted(pair.edited)[:400]
    kept = {path: pair.edited[path] for path in there}
    others = {b"other-" + path: file(f"other {path!r}") for path in there}
    for number in range(10):
        gone, made = (kept, others) if number % 2 == 0 else (others, kept)
        pair.delete(gone)
        pair.edited.update(made)
        assert not pair.pass_(100.0 + 2 * number)


@settings(deadline=None)
@given(st.data())
def test_no_way_to_cut_a_deletion_into_portions_gets_more_than_half_over(
    data: st.DataObject,
) -> None:
    pair = Pair(data.draw(st.sampled_from(SIDES)), data.draw(st.integers(41, 120)))
    files = len(pair.edited)
    left = data.draw(st.permutations(sorted(pair.edited)))
    at = 0.0
    while left:
        size = data.draw(st.integers(1, len(left)))
        pair.delete(left[:size])
        left = left[size:]
        at += data.draw(st.floats(0, PAUSE_S * 0.99))
        if pair.pass_(at):
            break
    else:
        pytest.fail("all of it went over")
    other = pair.trees[SIDES[1 - SIDES.index(pair.side)]]
    assert len(other) * 2 >= files
