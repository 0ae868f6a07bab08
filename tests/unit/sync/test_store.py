"""The ancestor on disk, whole or not used."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from towline.sync.model import FOLDER, Entry, Kind
from towline.sync.store import Ancestor, Store
from towline.sync.wire import WireError, pack_entries, unpack_entries

from .sides import file

ENTRIES: dict[bytes, Entry] = {
    b"a": file("x"),
    b"d": FOLDER,
    b"d/not \xff": file("y", executable=True),
    b"l": Entry(Kind.LINK, mtime_ns=-5, target=b"a"),
    b"s": Entry(Kind.OTHER),
}


def test_what_was_written_is_read_with_all_that_came_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.begin(Ancestor("boot-1", dict(ENTRIES), frozenset({b"m"})))
    store.append({b"a": None, b"new": file("n")}, None)
    store.append({}, frozenset())
    store.close()
    found, why = Store(tmp_path / "state").load("boot-1")
    assert why is None and found is not None
    wanted = {**ENTRIES, b"new": file("n")}
    del wanted[b"a"]
    assert found.entries == wanted and found.foreign == frozenset()
    assert Store(tmp_path / "state").load("boot-2") == (None, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_found(tmp_path: Path, data: st.DataObject) -> None:
    store = Store(tmp_path / "state")
    store.begin(Ancestor("boot", dict(ENTRIES)))
    store.append({b"more": file("m")}, None)
    store.close()
    path = tmp_path / "state" / "ancestor"
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found, why = store.load("boot")
    assert found is None and why is not None and "damaged" in why


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_entries(content: bytes) -> None:
    try:
        entries = list(unpack_entries(content))
    except WireError:
        return
    assert list(unpack_entries(pack_entries(entries))) == entries
