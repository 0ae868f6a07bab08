from __future__ import annotations

import os
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from towline.sync import hashes
from towline.sync.ignore import Ignore
from towline.sync.place import Identity, Place
from towline.sync.scan import LaptopTree

NUMBERS = st.integers(0, 1 << 62)
IDENTITIES = st.builds(Identity, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 0xFFFF))
ROWS = st.dictionaries(
    st.binary(min_size=1), st.tuples(IDENTITIES, st.binary(min_size=32, max_size=32))
)


@given(ROWS)
def test_what_is_kept_is_read_again(rows: hashes.Hashes) -> None:
    content = hashes.packed((path, at, digest) for path, (at, digest) in rows.items())
    assert hashes.unpacked(content) == rows


@given(ROWS, st.integers(0), st.integers(1, 255))
def test_one_changed_byte_makes_it_none(rows: hashes.Hashes, at: int, change: int) -> None:
    content = bytearray(hashes.packed((path, *row) for path, row in rows.items()))
    content[at % len(content)] ^= change
    assert hashes.unpacked(bytes(content)) == {}


@given(st.binary())
def test_anything_else_is_none(content: bytes) -> None:
    assert hashes.unpacked(content) == {}


def scanned(root: Path, cached: hashes.Hashes) -> LaptopTree:
    place = Place(root)
    try:
        tree = LaptopTree(place, Ignore())
        tree.cached = cached
        tree.scan()
        return tree
    finally:
        place.close()


def test_only_what_has_changed_is_read_and_what_is_young_is_read_again(tmp_path: Path) -> None:
    old = time.time() - 100
    for number in range(5):
        (tmp_path / f"f{number}").write_text(str(number))
    time.sleep(2.1)  # only then is a ctime old, which nobody can set
    (tmp_path / "young").write_text("y")
    first = scanned(tmp_path, {})
    assert first.hashed == 6
    kept = hashes.unpacked(first.hashes())
    assert set(kept) == {b"f%d" % number for number in range(5)}
    (tmp_path / "f1").write_text("z")
    os.utime(tmp_path / "f1", (old, old))
    again = scanned(tmp_path, kept)
    assert again.hashed == 2
    assert again.entries[b"f1"].digest != first.entries[b"f1"].digest
    assert again.entries[b"f2"] == first.entries[b"f2"]
