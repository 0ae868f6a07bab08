"""SPDY's frames: what we open, what comes back, cut anywhere, and any bytes at all."""

from __future__ import annotations

import itertools
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists, sampled_from, tuples

from towline.line.spdy import (
    DATA_STREAM,
    DICTIONARY,
    ERROR_STREAM,
    PortForwardStreams,
    SpdyError,
)


def data(stream: int, content: bytes, *, fin: bool = False) -> bytes:
    return struct.pack(">II", stream, (fin << 24) | len(content)) + content


def control(kind: int, body: bytes) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, len(body)) + body


def in_pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({min(c, len(whole)) for c in cuts}), len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(edges)]


def test_the_dictionary_is_the_drafts() -> None:
    # SPDY/3's header blocks begin with 78 BB and this checksum, in every implementation.
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
    assert len(DICTIONARY) == 1423


def test_opening_names_both_streams_and_the_port() -> None:
    opening = PortForwardStreams().opening(port=48222)
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    found = []
    while opening:
        version_and_kind, flags_and_length = struct.unpack_from(">II", opening)
        length = flags_and_length & 0xFFFFFF
        body, opening = opening[8 : 8 + length], opening[8 + length :]
        assert version_and_kind == 0x80030001
        stream = struct.unpack_from(">I", body)[0]
        block = inflate.decompress(body[10:])
        words = []
        at = 4
        while at < len(block):
            size = struct.unpack_from(">I", block, at)[0]
            words.append(block[at + 4 : at + 4 + size].decode())
            at += 4 + size
        found.append(
            (stream, flags_and_length >> 24, dict(zip(words[::2], words[1::2], strict=True)))
        )
    assert found == [
        (ERROR_STREAM, 1, {"streamtype": "error", "port": "48222", "requestid": "0"}),
        (DATA_STREAM, 0, {"streamtype": "data", "port": "48222", "requestid": "0"}),
    ]


@given(lists(binary(max_size=60), max_size=6), lists(integers(0, 400), max_size=8))
def test_frames_may_be_cut_anywhere(contents: list[bytes], cuts: list[int]) -> None:
    ping = control(6, b"\0\0\0\7")
    whole = b"".join(data(DATA_STREAM, each) + ping for each in contents)
    streams = PortForwardStreams()
    got = [each for piece in in_pieces(whole, cuts) for each in streams.receive(piece)]
    assert b"".join(c for kind, c in got if kind == "data") == b"".join(contents)
    assert [c for kind, c in got if kind == "send"] == [ping] * len(contents)


@given(lists(binary(max_size=200), max_size=8))
def test_any_bytes_are_data_or_an_spdy_error(pieces: list[bytes]) -> None:
    streams = PortForwardStreams()
    try:
        for piece in pieces:
            list(streams.receive(piece))
    except SpdyError:
        pass


_KINDS = sampled_from([1, 2, 3, 6, 7, 8, 9, 0xFFFF])


@given(lists(tuples(_KINDS, binary(max_size=20)), max_size=5))
def test_control_frames_of_any_kind_and_length(frames: list[tuple[int, bytes]]) -> None:
    streams = PortForwardStreams()
    try:
        for kind, body in frames:
            list(streams.receive(control(kind, body)))
    except SpdyError:
        pass


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (data(DATA_STREAM, b"", fin=True), "the pod's end closed the stream"),
        (control(7, b"\0" * 8), "the server says it goes away"),
        (control(3, b"\0" * 8), "the server reset the stream"),
        (data(ERROR_STREAM, b"no such port", fin=True), "no such port"),
        (data(ERROR_STREAM, b"lost it") + data(DATA_STREAM, b"", fin=True), "lost it"),
    ],
)
def test_an_end_has_the_servers_words(ending: bytes, words: str) -> None:
    with pytest.raises(SpdyError, match=words):
        list(PortForwardStreams().receive(ending))


def test_the_error_streams_end_without_words_is_no_error() -> None:
    assert list(PortForwardStreams().receive(data(ERROR_STREAM, b"", fin=True))) == []
