"""The payload's pieces: cut and joined, named by what they hold, refused when they do not."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers

from towline.errors import TowlineError
from towline.payload.pieces import PIECE_BYTES, Built, config_map, pieces, split, verify, volume

OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "record", "uid": "u"}


@given(binary(max_size=2000), integers(1, 300))
def test_pieces_join_to_what_was_split(data: bytes, limit_bytes: int) -> None:
    parts = list(split(data, limit_bytes=limit_bytes))
    assert b"".join(parts) == data
    assert all(0 < len(part) <= limit_bytes for part in parts)


def test_a_config_map_of_a_piece_fits_and_is_that_piece() -> None:
    for piece in pieces(agent_gz=bytes(range(256)) * 10_000, starter=b"starter"):
        made = config_map(piece, owner=OWNER)
        verify(made, piece)
        held = made["binaryData"]
        # The API server counts keys and decoded values, 1 MiB in all.
        assert sum(len(k) + len(base64.b64decode(v)) for k, v in held.items()) < 1024 * 1024
        assert len(made["metadata"]["name"]) <= 63
    assert PIECE_BYTES < 1024 * 1024


def test_the_name_is_the_contents() -> None:
    one, same, other = (pieces(agent_gz=b, starter=b"s")[0] for b in (b"a", b"a", b"b"))
    assert one.name == same.name != other.name


@pytest.mark.parametrize(
    "change",
    [
        {"binaryData": {"agent.0": base64.b64encode(b"other").decode()}},
        {"binaryData": {}},
        {"binaryData": None},
        {"binaryData": {"agent.0": base64.b64encode(b"agent").decode(), "more": "AAAA"}},
        {"data": {"agent.1": "text"}},
        {"immutable": False},
        {"immutable": None},
    ],
)
def test_anything_else_under_its_name_is_refused(change: dict[str, object]) -> None:
    piece = pieces(agent_gz=b"agent", starter=b"s")[0]
    with pytest.raises(TowlineError, match=piece.name):
        verify({**config_map(piece, owner=OWNER), **change}, piece)


def test_one_folder_shows_all_files_executable_and_read_only() -> None:
    parts = pieces(agent_gz=b"a" * (PIECE_BYTES + 1), starter=b"s")
    made = volume(parts, name="boot")["projected"]
    assert made["defaultMode"] == 0o555
    paths = [i["path"] for source in made["sources"] for i in source["configMap"]["items"]]
    assert paths == ["agent.0", "agent.1", "starter"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TowlineError, match="node is riscv64; the agent exists for amd64 and arm64"):
        Built(tmp_path).pieces("riscv64")
    with pytest.raises(TowlineError, match="not in this installation"):
        Built(tmp_path).pieces("amd64")
