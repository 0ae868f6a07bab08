"""Writes line-frames.json beside itself: cases that pytest and go test both run.

By hand from docs/protocol.md and struct, and not from towline.line.frames: a mistake
there must not become the expectation.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path

NONCE = bytes(range(32))
OTHER = bytes(range(32, 64))
LINE_ID = bytes(range(16))
MAC = b"\xaa" * 32
KEY = b"\x0b" * 32
BIG = 2**63 + 5


def frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + len(payload).to_bytes(3, "big") + payload


def header(kind: int, length: int) -> bytes:
    return bytes([kind]) + length.to_bytes(3, "big")


def number(value: int) -> bytes:
    return struct.pack(">Q", value)


FRAMES = [
    ("greeting", frame(0x01, b"\x01" + NONCE), {"type": "GREETING", "version": 1, "nonce": NONCE}),
    (
        "hello",
        frame(0x02, b"\x01" + LINE_ID + NONCE + number(7) + MAC),
        {
            "type": "HELLO",
            "version": 1,
            "line_id": LINE_ID,
            "nonce": NONCE,
            "received": "7",
            "mac": MAC,
        },
    ),
    (
        "welcome with a number over 2^63",
        frame(0x03, number(BIG) + MAC),
        {"type": "WELCOME", "received": str(BIG), "mac": MAC},
    ),
    (
        "gone",
        frame(0x04, b"\x01" + "fort – weg".encode()),
        {"type": "GONE", "reason": 1, "text": "fort – weg"},
    ),
    ("gone without text", frame(0x04, b"\x05"), {"type": "GONE", "reason": 5, "text": ""}),
    (
        "gone for a reason of the future",
        frame(0x04, b"\xc8later"),
        {"type": "GONE", "reason": 200, "text": "later"},
    ),
    (
        "data",
        frame(0x10, number(3) + b"towline"),
        {"type": "DATA", "offset": "3", "payload": b"towline"},
    ),
    (
        "data of one byte",
        frame(0x10, number(0) + b"\x00"),
        {"type": "DATA", "offset": "0", "payload": b"\x00"},
    ),
    ("ack", frame(0x11, number(2**64 - 1)), {"type": "ACK", "received": str(2**64 - 1)}),
    ("ping", frame(0x12, number(9)), {"type": "PING", "token": "9"}),
    ("pong", frame(0x13, number(9)), {"type": "PONG", "token": "9"}),
    ("close", frame(0x14, b""), {"type": "CLOSE"}),
]

BROKEN = [
    ("a type of no frame", frame(0x05, b""), "unknown type"),
    ("type zero", frame(0x00, b"12345678"), "unknown type"),
    ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n", "too long"),
    ("data over 1 MiB", header(0x10, (1 << 20) + 1), "too long"),
    ("an unknown type over 1 MiB", header(0xFF, 0xFFFFFF), "too long"),
    ("data without a byte", frame(0x10, number(0)), "wrong length"),
    ("data without a whole offset", frame(0x10, b"1234567"), "wrong length"),
    ("a short greeting", frame(0x01, b"\x01" + NONCE[:31]), "wrong length"),
    ("a long greeting", frame(0x01, b"\x01" + NONCE + b"x"), "wrong length"),
    ("a short hello", header(0x02, 88), "wrong length"),
    ("a long welcome", header(0x03, 41), "wrong length"),
    ("gone without a reason", frame(0x04, b""), "wrong length"),
    ("a short ack", frame(0x11, b"1234567"), "wrong length"),
    ("a long ping", frame(0x12, b"123456789"), "wrong length"),
    ("an empty pong", frame(0x13, b""), "wrong length"),
    ("a close with a payload", frame(0x14, b"x"), "wrong length"),
]


def sign(*parts: bytes) -> bytes:
    return hmac.new(KEY, b"".join(parts), hashlib.sha256).digest()


PROOFS = [
    {
        "key": KEY,
        "agent": NONCE,
        "client": OTHER,
        "version": 1,
        "line_id": LINE_ID,
        "received": str(received),
        "hello": sign(b"towline hello", NONCE, OTHER, b"\x01", LINE_ID, number(received)),
        "welcome": sign(b"towline welcome", OTHER, NONCE, number(received)),
    }
    for received in (0, 1, BIG)
]


def plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def main() -> None:
    vectors = {
        "frames": [{"name": n, "bytes": b.hex(), "frame": plain(f)} for n, b, f in FRAMES],
        "broken": [{"name": n, "bytes": b.hex(), "error": e} for n, b, e in BROKEN],
        "proofs": [plain(proof) for proof in PROOFS],
    }
    text = json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name("line-frames.json").write_text(text)


if __name__ == "__main__":
    main()
