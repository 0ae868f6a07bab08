"""The known word that a mistyped one was meant to be."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], *, within: int) -> str | None:
    """The known word at the smallest edit distance, None beyond `within`.

    A word that has fewer letters than the distance allows for would be near to
    everything, so at least half of its letters must be right.
    """
    best, best_distance = None, min(within, len(word) // 2) + 1
    for candidate in known:
        distance = edit_distance(word.lower(), candidate.lower(), limit=best_distance)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def edit_distance(a: str, b: str, *, limit: int) -> int:
    """Insertions, deletions and replacements between the words, at most `limit`."""
    if abs(len(a) - len(b)) >= limit:
        return limit
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return min(row[-1], limit)
