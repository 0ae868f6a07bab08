from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis.strategies import DataObject, binary, booleans, data, integers, lists, tuples

from towline.line import frames
from towline.line.resume import (
    MAX_FRAME_BYTES,
    MAX_UNACKNOWLEDGED_BYTES,
    Gap,
    Incoming,
    Outgoing,
    OutOfStep,
)


def sent(out: Outgoing) -> list[frames.Data]:
    """Everything that may be sent now, as the other side reads it."""
    found: list[frames.Data] = []
    while (frame := out.next_frame()) is not None:
        (data_frame,) = frames.Parser().feed(frame)
        assert isinstance(data_frame, frames.Data)
        found.append(data_frame)
    return found


def test_writes_of_one_turn_are_one_frame() -> None:
    out = Outgoing()
    for piece in (b"SSH", b"-", b"2.0"):
        out.write(piece)
    assert sent(out) == [frames.Data(0, b"SSH-2.0")]


def test_a_frame_is_at_most_256_kib() -> None:
    out = Outgoing()
    out.write(bytes(MAX_FRAME_BYTES + 1))
    assert [len(frame.payload) for frame in sent(out)] == [MAX_FRAME_BYTES, 1]


def test_above_8_mib_unacknowledged_nothing_is_sent_until_an_ack() -> None:
    out = Outgoing()
    out.write(bytes(MAX_UNACKNOWLEDGED_BYTES + 100))
    sent(out)
    assert out.sent == MAX_UNACKNOWLEDGED_BYTES
    out.acknowledge(60)
    assert [len(frame.payload) for frame in sent(out)] == [60]
    assert out.size == MAX_UNACKNOWLEDGED_BYTES + 40


def test_a_new_carrier_resends_from_what_the_other_side_has() -> None:
    out = Outgoing()
    out.write(b"first half, ")
    out.write(b"second half")
    sent(out)
    out.resume(6)
    assert sent(out) == [frames.Data(6, b"half, second half")]


@pytest.mark.parametrize("received", [2, 13])
def test_what_the_other_side_cannot_have_is_out_of_step(received: int) -> None:
    out = Outgoing()
    out.write(b"twelve bytes")
    sent(out)
    out.acknowledge(3)
    with pytest.raises(OutOfStep):
        out.resume(received)


def test_overlap_is_cut_and_a_gap_is_refused() -> None:
    incoming = Incoming()
    assert incoming.deliver(0, b"towl") == b"towl"
    assert incoming.deliver(2, b"wline") == b"ine"
    assert incoming.deliver(0, b"tow") == b""
    with pytest.raises(Gap):
        incoming.deliver(8, b"!")
    assert incoming.received == incoming.untold == 7


@given(data(), lists(binary(max_size=50), max_size=30))
def test_whatever_is_cut_the_reader_gets_what_was_written(
    choose: DataObject, pieces: list[bytes]
) -> None:
    """Frames are lost with their carrier, acks arrive late or not: nothing is lost."""
    out, incoming = Outgoing(), Incoming()
    received = b""
    for piece in pieces:
        if piece:
            out.write(piece)
        on_the_way = sent(out)
        arrive = choose.draw(integers(0, len(on_the_way)))
        for frame in on_the_way[:arrive]:
            received += incoming.deliver(frame.offset, frame.payload)
        cut, acked = choose.draw(tuples(booleans(), booleans()))
        if cut or arrive < len(on_the_way):
            out.resume(incoming.received)
        elif acked:
            out.acknowledge(incoming.received)
    for frame in sent(out):
        received += incoming.deliver(frame.offset, frame.payload)
    assert received == b"".join(pieces)
