"""When the session gives way to somebody who puts back what it changed."""

from __future__ import annotations

import time
from collections import deque

from towline.errors import Reverted

# So often within so long is somebody's programme: a GitOps controller, mostly. Whoever did
# it once by hand sees what it does to the session.
_AT_MOST = 2
_WITHIN_S = 60.0


class Reverts:
    """Counts how often one thing was put back."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_AT_MOST)

    def add(self, what: str, *, hint: str) -> None:
        """Count one more.

        Args:
            what: what was put back to what, and by whom.

        Raises:
            Reverted: it was the second within a minute.
        """
        now = time.monotonic()
        self._times.append(now)
        if len(self._times) == _AT_MOST and now - self._times[0] < _WITHIN_S:
            raise Reverted(
                f"{what} twice within {_WITHIN_S:.0f} s: the session gives way", hint=hint
            )
