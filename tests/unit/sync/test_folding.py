"""A laptop's disk that does not tell README from readme, nor é from é."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from towline.sync.folding import Folding
from towline.sync.ignore import Ignore
from towline.sync.model import FOLDER, Entry, same
from towline.sync.place import Place
from towline.sync.reconcile import reconcile
from towline.sync.scan import LaptopTree

from .sides import do, file, tree

MAC = Folding(case=True, unicode=True)
COMPOSED, DECOMPOSED = "é".encode(), "e\u0301".encode()


def test_the_key_is_the_same_for_what_the_disk_takes_for_one() -> None:
    assert MAC.key(b"Src/README") == MAC.key(b"src/readme")
    assert MAC.key(COMPOSED) == MAC.key(DECOMPOSED) == MAC.key("É".encode())
    assert Folding(case=True).key(COMPOSED) != Folding(case=True).key(DECOMPOSED)
    assert MAC.key(b"not \xff utf-8") == b"not \xff utf-8"


@given(st.binary())
def test_a_key_is_its_own_key(path: bytes) -> None:
    assert MAC.key(MAC.key(path)) == MAC.key(path)


def test_of_two_names_of_the_container_one_comes_and_the_other_is_told() -> None:
    both = tree(README="upper", readme="lower", other="o")
    merge = reconcile({}, {}, both, is_first=False, folding=MAC)
    assert [change.path for change in merge.laptop] == [b"README", b"other"]
    assert merge.clashes == {b"readme": b"README"}
    assert not merge.container and not merge.asides


def test_what_the_laptop_has_stays_and_the_containers_other_spelling_waits() -> None:
    laptop = {b"readme": file("mine")}
    container = {**laptop, b"README": file("theirs")}
    merge = reconcile(laptop, laptop, container, is_first=False, folding=MAC)
    assert merge.clashes == {b"README": b"readme"} and merge.is_quiet
    # Also with all that is below it.
    container = {**laptop, b"README": FOLDER, b"README/x": file("theirs")}
    merge = reconcile(laptop, laptop, container, is_first=False, folding=MAC)
    assert merge.is_quiet
    # The one goes, the other comes.
    merge = reconcile(laptop, {}, container, is_first=False, folding=MAC)
    assert not merge.clashes
    assert [change.path for change in merge.laptop] == [b"README", b"README/x"]


def test_a_rename_in_letters_only_goes_over_both_ways() -> None:
    old, new = {b"readme": file("x")}, {b"README": file("x")}
    for laptop, container in ((new, old), (old, new)):
        merge = reconcile(old, laptop, container, is_first=False, folding=MAC)
        assert not merge.clashes and not merge.halts
        side = dict(old)
        for change in (*merge.container, *merge.laptop):
            # The old name goes first: on a folding disk there is no room for both.
            assert not any(MAC.key(p) == MAC.key(change.path) for p in side if change.new)
            assert do(side, change)
        assert side == new


NAMES = st.sampled_from([b"a", b"A", b"b", b"B", COMPOSED, DECOMPOSED, b"a/x", b"A/x", b"A/X"])
TREES = st.dictionaries(NAMES, st.sampled_from([file("1"), file("2"), FOLDER]))


def is_a_tree(side: dict[bytes, Entry]) -> bool:
    return all(b"/" not in p or same(side.get(p.split(b"/")[0]), FOLDER) for p in side)


def has_room(side: dict[bytes, Entry]) -> bool:
    return len({MAC.key(path) for path in side}) == len(side)


@example({b"A": FOLDER}, {}, {b"a": file("1"), b"A": FOLDER, b"A/x": file("1")}, False)
@given(TREES, TREES, TREES, st.booleans())
def test_no_merge_asks_the_laptop_for_two_names_that_it_takes_for_one(
    ancestor: dict[bytes, Entry],
    laptop: dict[bytes, Entry],
    container: dict[bytes, Entry],
    is_first: bool,
) -> None:
    if not (is_a_tree(laptop) and is_a_tree(container) and has_room(laptop)):
        return
    merge = reconcile(
        ancestor, laptop, container, is_first=is_first, folding=MAC, accept_deletions=True
    )
    side = dict(laptop)
    for change in merge.laptop:
        do(side, change)
    assert has_room(side)


def test_this_disk_is_probed_and_nothing_of_that_stays(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "probe").touch()
    again = Place(tmp_path)
    assert place.folding == again.folding
    assert place.folding.case == (tmp_path / "PROBE").exists()
    for each in (place, again):
        each.close()


def test_on_a_folding_disk_a_name_counts_as_it_is_listed(tmp_path: Path) -> None:
    (tmp_path / "Dir").mkdir()
    (tmp_path / "Dir/File").write_text("x")
    place = Place(tmp_path)
    place.folding = MAC
    (tmp_path / "Dir/Dir").touch()
    assert place.is_spelled(b"Dir/File") and place.is_spelled(b"Dir/Dir")
    assert not place.is_spelled(b"Dir/dir")
    (tmp_path / "Dir/Dir").unlink()
    assert not place.is_spelled(b"Dir/file") and not place.is_spelled(b"dir/File")
    tree = LaptopTree(place, Ignore())
    tree.look(b"Dir")
    assert set(tree.entries) == {b"Dir", b"Dir/File"}
    place.close()
