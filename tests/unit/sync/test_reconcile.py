"""The merge, by single rules and by any sequence of edits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from towline.sync.model import FOLDER, Entry, Kind, stays_inside
from towline.sync.reconcile import (
    KEPT_BYTES_AT_MOST,
    Merge,
    Reason,
    reconcile,
    reconcile_paths,
)

from .sides import do, file, put, put_aside, remove, tree

OTHER = Entry(Kind.OTHER)


def merged(a: dict, l: dict, c: dict, *, is_first: bool = False, **more) -> Merge:  # noqa: E741
    return reconcile(a, l, c, is_first=is_first, **more)


def paths(changes) -> list[tuple[bytes, bool]]:
    return [(change.path, change.new is not None) for change in changes]


def test_what_one_side_changed_goes_to_the_other() -> None:
    a = tree(one="1", two="2", three="3")
    merge = merged(a, {**a, b"one": file("new")}, {**a, b"two": file("x", executable=True)})
    assert paths(merge.container) == [(b"one", True)]
    assert paths(merge.laptop) == [(b"two", True)]
    assert not merge.asides and not merge.halts


def test_a_deletion_goes_over_only_for_what_was_in_step() -> None:
    a = tree(d__gone="1", stays="2")
    laptop = {b"stays": a[b"stays"]}
    assert paths(merged(a, laptop, a).container) == [(b"d/gone", False), (b"d", False)]
    changed = {**a, b"d/gone": file("changed meanwhile")}
    merge = merged(a, laptop, changed)
    assert not merge.container
    assert paths(merge.laptop) == [(b"d", True), (b"d/gone", True)]


def test_where_both_changed_the_laptops_stays_and_the_containers_is_beside() -> None:
    merge = merged(tree(**{"x.py": "0"}), tree(**{"x.py": "L"}), tree(**{"x.py": "C"}))
    assert paths(merge.container) == [(b"x.py", True)]
    assert [(a.path, a.beside, a.stays) for a in merge.asides] == [
        (b"x.py", b"x.from-container.py", True)
    ]
    taken = {**tree(**{"x.py": "C"}), b"x.from-container.py": file("?")}
    merge = merged(tree(**{"x.py": "0"}), tree(**{"x.py": "L"}), taken)
    assert merge.asides[0].beside == b"x.from-container-2.py"


def test_a_name_put_beside_has_at_most_255_bytes() -> None:
    name = b"n" * 250 + b".py"
    merge = merged({name: file("0")}, {name: file("L")}, {name: file("C")})
    assert len(merge.asides[0].beside) == 255


def test_at_a_first_sync_the_laptop_wins_and_the_containers_is_kept() -> None:
    laptop, container = tree(both="L", mine="m"), tree(both="C", modules__x="theirs")
    merge = merged({}, laptop, container, is_first=True)
    assert paths(merge.container) == [(b"both", True), (b"mine", True)]
    assert merge.kept == ((b"both", container[b"both"]),)
    assert not merge.laptop
    assert merge.foreign == {b"modules"}


def test_a_file_too_large_to_be_kept_is_put_beside() -> None:
    large = replace(file("C"), size=KEPT_BYTES_AT_MOST + 1)
    merge = merged({}, tree(x="L"), {b"x": large}, is_first=True)
    assert not merge.kept and merge.asides[0].beside == b"x.from-container"


def test_what_is_foreign_stays_so_until_the_laptop_makes_it() -> None:
    foreign = frozenset({b"modules"})
    container = tree(a="1", modules__x="2", modules__new="3")
    merge = merged(tree(a="1"), tree(a="1"), container, foreign=foreign)
    assert merge.is_quiet and merge.foreign == foreign
    # Removed by `npm install`, and made again: still not the laptop's.
    assert merged(tree(a="1"), tree(a="1"), tree(a="1"), foreign=foreign).foreign == foreign
    laptop = tree(a="1", modules__x="mine")
    merge = merged(tree(a="1"), laptop, container, foreign=foreign)
    assert paths(merge.container) == [(b"modules/x", True)]
    assert merge.kept == ((b"modules/x", container[b"modules/x"]),)
    assert merge.foreign == {b"modules/new"}


def test_a_folder_with_foreign_things_stays_when_the_laptop_deletes_it() -> None:
    container = tree(d__mine="1", d__theirs="2")
    merge = merged(tree(d__mine="1"), {}, container, foreign=frozenset({b"d/theirs"}))
    assert paths(merge.container) == [(b"d/mine", False)]
    assert merge.foreign == {b"d"} and merge.agreed == {b"d": None}


def test_a_file_in_place_of_a_folder_with_news_in_it_puts_the_folder_beside() -> None:
    a = tree(d__x="1")
    merge = merged(a, tree(d="file"), {**a, b"d/new": file("n")})
    assert [(s.path, s.beside, s.stays) for s in merge.asides] == [
        (b"d", b"d.from-container", False)
    ]
    assert paths(merge.container) == [(b"d", True)] and not merge.laptop


def test_what_git_ignores_does_not_come_back() -> None:
    a = tree(dist="1", src="1")
    container = {**tree(dist="built", src="2"), b"out": file("3")}
    merge = merged(a, a, container, stays_away=lambda path: path in (b"dist", b"out"))
    assert paths(merge.laptop) == [(b"src", True)]
    assert merge.foreign == {b"out"}


def test_what_cannot_be_read_is_no_deletion() -> None:
    a = tree(d__x="1", f="2", z="3")
    unreadable = {b"d": OTHER, b"f": OTHER, b"z": a[b"z"]}
    assert merged(a, a, unreadable).is_quiet
    assert merged(a, unreadable, a).is_quiet
    assert merged({}, a, unreadable, is_first=True).container == ()


@pytest.mark.parametrize("side", ["laptop", "container"])
def test_an_emptied_root_and_many_deletions_halt(side: str) -> None:
    a = tree(**{f"f{n}": str(n) for n in range(60)})
    few = {path: entry for path, entry in a.items() if path < b"f3"}

    def merge_with(tree_of_side: dict, **more) -> Merge:
        sides = (tree_of_side, a) if side == "laptop" else (a, tree_of_side)
        return merged(a, *sides, **more)

    for left, reason in (({}, Reason.ROOT_EMPTIED), (few, Reason.MANY_DELETIONS)):
        merge = merge_with(left)
        assert [(halt.reason, halt.side) for halt in merge.halts] == [(reason, side)]
        assert not merge.laptop and not merge.container and not merge.agreed
        accepted = merge_with(left, accept_deletions=True)
        assert len(accepted.laptop + accepted.container) == len(a) - len(left)


def test_a_folder_renamed_is_no_deletion() -> None:
    a = tree(**{f"src__f{n}": str(n) for n in range(60)})
    laptop = tree(**{f"lib__f{n}": str(n) for n in range(60)})
    merge = merged(a, laptop, a)
    assert not merge.halts and len(merge.container) == 122


def test_a_saved_file_needs_no_walk_and_merges_as_in_the_whole() -> None:
    a = tree(d__x="1", d__y="2", z="3")
    laptop = {**a, b"d/x": file("saved"), b"d/n": file("new")}
    part = reconcile_paths([b"d/x", b"d/n"], a, laptop, a, foreign=frozenset())
    assert part == reconcile(a, laptop, a, is_first=False)
    laptop = {**a, b"e": FOLDER}
    assert reconcile_paths([b"e"], a, laptop, a, foreign=frozenset()) is None


# Any edits on both sides, between any two steps

NAMES = st.sampled_from([b"a", b"b", b"a/x", b"a/y", b"a/x/p", b"b/x", b"c"])
EDITS = st.tuples(st.booleans(), st.sampled_from(["write", "delete", "mkdir"]), NAMES)


@dataclass
class World:
    """Both sides, the ancestor as it is on disk, and which content must still be somewhere."""

    laptop: dict[bytes, Entry] = field(default_factory=dict)
    container: dict[bytes, Entry] = field(default_factory=dict)
    ancestor: dict[bytes, Entry] = field(default_factory=dict)
    foreign: frozenset[bytes] = frozenset()
    is_first: bool = True
    kept: set[bytes] = field(default_factory=set)
    owed: set[bytes] = field(default_factory=set)
    written: int = 0

    def edit(self, on_laptop: bool, what: str, path: bytes) -> None:
        side = self.laptop if on_laptop else self.container
        if what == "write":
            self.written += 1
            entry = file(f"content {self.written}")
            lost = put(side, path, entry)
            self.owed.add(entry.digest)
        elif what == "mkdir":
            lost = put(side, path, FOLDER)
        else:
            lost = remove(side, path)
        # Its own side gave it up.
        self.owed -= {entry.digest for entry in lost}

    def look(self, entry: Entry | None) -> None:
        """The other side has it now."""
        if entry is not None:
            self.owed.discard(entry.digest)

    def run(self, budget: int, edits: list, *, after: int) -> bool:
        """One pass that is killed after `budget` steps, edits in between; whether it was quiet."""
        laptop, container = dict(self.laptop), dict(self.container)
        merge = reconcile(
            self.ancestor,
            laptop,
            container,
            is_first=self.is_first,
            foreign=self.foreign,
            accept_deletions=True,
        )
        for each in (*merge.laptop, *merge.container, *merge.asides):
            assert stays_inside(each.path)
        results: dict[bytes, Entry | None] = {}
        refused = False
        steps = [("keep", k) for k in merge.kept] + [("aside", a) for a in merge.asides]
        steps += [("there", c) for c in merge.container] + [("here", c) for c in merge.laptop]
        unkept: set[bytes] = set()
        for number, (what, step) in enumerate(steps):
            if number == after:
                for each in edits:
                    self.edit(*each)
            if number == budget:
                return False
            if what == "keep":
                path, entry = step
                if self.container.get(path) == entry:
                    self.kept.add(entry.digest)
                else:
                    unkept.add(path)
            elif what == "aside":
                if not put_aside(self.container, step):
                    unkept.add(step.path)
            elif step.path in unkept:
                refused = True
            else:
                side = self.container if what == "there" else self.laptop
                if do(side, step):
                    self.look(step.new)
                    results[step.path] = step.new
                else:
                    refused = True
        for path, entry in {**merge.agreed, **results}.items():
            if entry is None:
                self.ancestor.pop(path, None)
            else:
                self.look(entry)
                self.ancestor[path] = entry
        self.foreign, self.is_first = merge.foreign, False
        return merge.is_quiet and not refused


ROUNDS = st.lists(
    st.tuples(
        st.lists(EDITS, max_size=4),  # before the pass
        st.lists(EDITS, max_size=3),  # during it
        st.integers(0, 6),  # at which step these come
        st.integers(0, 12),  # after which step it is killed, mostly never
        st.booleans(),  # whether the ancestor is lost then (another container)
    ),
    max_size=5,
)


@settings(max_examples=400)
@given(ROUNDS)
def test_nothing_new_is_ever_lost_and_it_settles(rounds: list) -> None:
    world = World()
    for before, during, after, budget, forgets in rounds:
        for each in before:
            world.edit(*each)
        world.run(budget, during, after=after)
        if forgets:
            event("ancestor lost")
            world.ancestor, world.foreign, world.is_first = {}, frozenset(), True
    # A pass may leave names put beside, which the next one brings over.
    for _ in range(3):
        world.run(1 << 30, [], after=-1)
    assert world.run(1 << 30, [], after=-1), "it does not settle"
    there = {e.digest for side in (world.laptop, world.container) for e in side.values()}
    assert world.owed <= there | world.kept, "content was lost"
    tops = world.foreign
    shared = {
        path: entry
        for path, entry in world.container.items()
        if not any(path == top or path.startswith(top + b"/") for top in tops)
    }
    assert shared == world.laptop, "the sides differ"


@given(st.binary(max_size=40))
def test_no_path_that_leaves_the_root_is_taken(path: bytes) -> None:
    if stays_inside(path):
        assert not path.startswith(b"/")
        assert not {b"..", b".", b""} & set(path.split(b"/"))
