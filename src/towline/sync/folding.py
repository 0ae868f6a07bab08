"""Names that a disk takes for one [pure]: macOS and Windows fold case, and how é is written."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from towline.sync.model import Entry


@dataclass(frozen=True, slots=True)
class Folding:
    """What a disk does not tell apart.

    Attributes:
        case: `README` and `readme`.
        unicode: é as one character, and as e with an accent behind it.
    """

    case: bool = False
    unicode: bool = False

    def __bool__(self) -> bool:
        return self.case or self.unicode

    def key(self, path: bytes) -> bytes:
        """The same for all paths that the disk takes for this one."""
        text = path.decode("utf-8", "surrogateescape")
        if self.unicode:
            text = unicodedata.normalize("NFC", text)
        if self.case:
            text = text.casefold()
        if self.unicode:
            # Folding may take a composed letter apart.
            text = unicodedata.normalize("NFC", text)
        return text.encode("utf-8", "surrogateescape")

    def clashes(self, wanted: Iterable[bytes], laptop: Mapping[bytes, Entry]) -> dict[bytes, bytes]:
        """Of the paths that are to be there, those that have no room beside another.

        Returns:
            Each with the path that is there in its place: the laptop's, or else the first.
        """
        if not self:
            return {}
        there: dict[bytes, bytes] = {}
        lost: dict[bytes, bytes] = {}
        for path in sorted(wanted, key=lambda path: (path not in laptop, path)):
            first = there.setdefault(self.key(path), path)
            if first != path:
                lost[path] = first
        return lost


NOTHING_FOLDED = Folding()
