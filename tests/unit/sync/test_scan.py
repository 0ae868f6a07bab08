from __future__ import annotations

from pathlib import Path

import pytest

from towline.sync.ignore import Ignore
from towline.sync.model import Kind
from towline.sync.place import Place
from towline.sync.scan import LaptopTree


@pytest.fixture
def tree(tmp_path: Path) -> LaptopTree:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/a/b/c").write_text("c")
    tree = LaptopTree(Place(tmp_path / "root"), Ignore())
    tree.scan()
    return tree


def test_a_file_in_a_folders_place_takes_all_below_it_with_it(
    tree: LaptopTree, tmp_path: Path
) -> None:
    """Seen in one look, what had been in the folder stayed in the tree."""
    (tmp_path / "root/a").rename(tmp_path / "elsewhere")
    (tmp_path / "root/a").write_text("a file")
    tree.look(b"a")
    assert {path: entry.kind for path, entry in tree.entries.items()} == {b"a": Kind.FILE}
    (tmp_path / "root/a").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "root/a")
    tree.look(b"a")
    assert set(tree.entries) == {b"a", b"a/b", b"a/b/c"}
    (tmp_path / "root/a/b/c").unlink()
    tree.look(b"a/b/c")
    assert set(tree.entries) == {b"a", b"a/b"}
