from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists, sampled_from, text

from towline.line import frames
from towline.line.frames import FrameError, Parser, serialise

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/line-frames.json").read_text())
ERRORS = {
    "too long": frames.TooLong,
    "unknown type": frames.UnknownType,
    "wrong length": frames.WrongLength,
}
HEX = {"nonce", "line_id", "mac", "payload"}
WHOLE = {"received", "offset", "token"}


def from_vector(case: dict[str, Any]) -> frames.Frame:
    kind = getattr(frames, case["type"].capitalize())
    values = {name: value for name, value in case.items() if name != "type"}
    for name, value in values.items():
        if name in HEX:
            values[name] = bytes.fromhex(value)
        elif name in WHOLE:
            values[name] = int(value)
    frame: frames.Frame = kind(**values)
    return frame


@pytest.mark.parametrize("case", VECTORS["frames"], ids=lambda case: case["name"])
def test_a_frame_is_read_and_written_as_the_vector_says(case: dict[str, Any]) -> None:
    data, frame = bytes.fromhex(case["bytes"]), from_vector(case["frame"])
    assert serialise(frame) == data
    assert Parser().feed(data) == [frame]


@pytest.mark.parametrize("case", VECTORS["broken"], ids=lambda case: case["name"])
def test_bytes_that_are_no_frame_are_refused_by_name(case: dict[str, Any]) -> None:
    with pytest.raises(ERRORS[case["error"]]):
        Parser().feed(bytes.fromhex(case["bytes"]))


@pytest.mark.parametrize("case", VECTORS["proofs"], ids=lambda case: case["received"])
def test_the_proofs_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    key = frames.Key(bytes.fromhex(case["key"]))
    agent = frames.Nonce(bytes.fromhex(case["agent"]))
    client = frames.Nonce(bytes.fromhex(case["client"]))
    hello = frames.hello_mac(
        key,
        agent=agent,
        client=client,
        version=case["version"],
        line_id=frames.LineId(bytes.fromhex(case["line_id"])),
        received=int(case["received"]),
    )
    welcome = frames.welcome_mac(key, client=client, agent=agent, received=int(case["received"]))
    assert (hello.hex(), welcome.hex()) == (case["hello"], case["welcome"])


STREAM = b"".join(bytes.fromhex(case["bytes"]) for case in VECTORS["frames"])


@given(lists(integers(0, len(STREAM)), max_size=40))
def test_however_a_stream_is_cut_the_frames_are_the_same(cuts: list[int]) -> None:
    at, parser, found = 0, Parser(), []
    for cut in [*sorted(cuts), len(STREAM)]:
        found += parser.feed(STREAM[at:cut])
        at = cut
    assert found == [from_vector(case["frame"]) for case in VECTORS["frames"]]


@given(lists(binary(max_size=64), max_size=8))
def test_no_bytes_do_more_than_be_refused(pieces: list[bytes]) -> None:
    parser = Parser()
    try:
        for piece in pieces:
            parser.feed(piece)
    except FrameError:
        pass


@given(sampled_from(range(256)), integers(0, 2**20), binary(max_size=300))
def test_no_payload_does_more_than_be_refused(kind: int, length: int, payload: bytes) -> None:
    try:
        Parser().feed(bytes([kind]) + length.to_bytes(3, "big") + payload)
        Parser().feed(bytes([kind]) + len(payload).to_bytes(3, "big") + payload)
    except FrameError:
        pass


@given(binary(min_size=1, max_size=2000), integers(0, 2**64 - 1 - 2000))
def test_data_comes_back(payload: bytes, offset: int) -> None:
    assert Parser().feed(serialise(frames.Data(offset, payload))) == [frames.Data(offset, payload)]


@given(text(max_size=200), integers(0, 255))
def test_gone_comes_back(words: str, reason: int) -> None:
    assert Parser().feed(serialise(frames.Gone(reason, words))) == [frames.Gone(reason, words)]


def test_text_that_is_no_utf8_is_shown_and_not_fatal() -> None:
    assert Parser().feed(b"\x04\x00\x00\x03\x01\xff\xfe") == [frames.Gone(1, "��")]
