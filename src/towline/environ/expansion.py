"""`$(NAME)` in a container's values. [pure]"""

from __future__ import annotations


def references_in(text: bytes) -> list[tuple[bytes, bytes | None]]:
    """Split a value at its `$(NAME)`: each literal, and the name that follows it.

    The rules of k8s.io/kubernetes/third_party/forked/golang/expansion: `$$` is a dollar
    (so `$$(NAME)` is no reference), and an opened one that is never closed is literal.
    """
    found: list[tuple[bytes, bytes | None]] = []
    literal = bytearray()
    at = 0
    while at < len(text):
        here, after = text[at : at + 1], text[at + 1 : at + 2]
        if here == b"$" and after == b"$":
            literal += b"$"
            at += 2
        elif here == b"$" and after == b"(" and (end := text.find(b")", at + 2)) >= 0:
            found.append((bytes(literal), text[at + 2 : end]))
            literal.clear()
            at = end + 1
        else:
            literal += here
            at += 1
    found.append((bytes(literal), None))
    return found
