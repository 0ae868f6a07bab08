"""Deletions that belong together, though they go over one after the other [pure].

`rm -r` of a large tree on a slow disk is seen in portions, and no portion is more than half
of the files. So those of one side are counted together for as long as it deletes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from towline.sync.model import Change, Kind, Tree

# What is deleted so long after the last one is another deletion. Between two files of one
# `rm -r` there is a second at most, also on a busy disk of the network's; somebody who deletes
# a file, looks, and deletes another mostly needs longer. A guess: no such disk was measured.
PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Before:
    """What became of the files of one deletion's beginning.

    Attributes:
        gone: those that the side deleted, by path, with what was in them.
        made: paths that have come into step since. What a test run makes and deletes again
            is not missing afterwards, and what is in them may be a file that was moved.
    """

    gone: Mapping[bytes, bytes] = field(default_factory=dict)
    made: Mapping[bytes, bytes] = field(default_factory=dict)

    def with_(self, changes: Iterable[Change]) -> Before:
        """The same, after these changes of the other side."""
        gone, made = dict(self.gone), dict(self.made)
        for change in changes:
            path = change.path
            if change.takes_file:
                assert change.old is not None
                if made.pop(path, None) is None:
                    gone[path] = change.old.content
            elif change.makes_file:
                assert change.new is not None
                if gone.pop(path, None) is None:
                    made[path] = change.new.content
        return Before(gone, made)

    @property
    def missing(self) -> int:
        """Files that are gone, and were not only moved."""
        return (Counter(self.gone.values()) - Counter(self.made.values())).total()

    def files_at_first(self, ancestor: Tree) -> int:
        """Files in step when it began, of those in step now."""
        now = sum(entry.kind is not Kind.FOLDER for entry in ancestor.values())
        return now + len(self.gone) - sum(path in ancestor for path in self.made)


NOTHING_BEFORE = Before()


class Deletion:
    """One side's deletions, from the first until it has paused.

    Times are seconds of a clock that does not jump.
    """

    def __init__(self) -> None:
        self._before = NOTHING_BEFORE
        self._last_at: float | None = None

    def at(self, now: float) -> Before:
        """What belongs to a deletion of this moment."""
        if self._last_at is not None and now - self._last_at > PAUSE_S:
            self.forget()
        return self._before

    def forget(self) -> None:
        """It was meant so."""
        self._before, self._last_at = NOTHING_BEFORE, None

    def deleted(self, changes: Iterable[Change], *, now: float) -> None:
        """The other side has followed this one in these changes."""
        changes = tuple(changes)
        if not any(change.takes_file for change in changes):
            self.made(changes, now=now)
            return
        self._before, self._last_at = self.at(now).with_(changes), now

    def made(self, changes: Iterable[Change], *, now: float) -> None:
        """The side has these files now, by itself or from the other one."""
        before = self.at(now)
        if self._last_at is not None:
            self._before = before.with_(each for each in changes if each.makes_file)
