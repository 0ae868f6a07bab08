"""Which paths of the laptop's folder to look at again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from towline._kit.together import first_error
from towline.sync.ignore import RULES, Ignore

# watchfiles looks at what came every `step`, and gives it out when nothing more came for
# one step, or after `debounce`. Its defaults are 50 ms and 1.6 s.
STEP_MS = 10
DEBOUNCE_MS = 100
_POLL_MS = 1000


async def watch(
    root: Path,
    *,
    ignore: Ignore,
    dirty: Callable[[set[bytes]], None],
    told: Callable[[str], None],
) -> None:
    """Tell changed paths until cancelled; an empty one is the whole folder.

    What happened before the first step of this coroutine is not told.
    """
    # 0.1 s to import, of a start that has other things to do.
    from watchfiles import awatch

    front = len(os.fsencode(root)) + 1

    def relative(path: str) -> bytes:
        return os.fsencode(path)[front:]

    def wanted(_: object, path: str) -> bool:
        below = relative(path)
        return not below or below in RULES or not ignore.hides(below, is_folder=True)

    polls = False
    while True:
        try:
            async for changes in awatch(
                root,
                watch_filter=wanted,
                step=STEP_MS,
                debounce=DEBOUNCE_MS,
                force_polling=polls,
                poll_delay_ms=_POLL_MS,
                ignore_permission_denied=True,
            ):
                dirty({relative(path) for _, path in changes})
        except (OSError, ExceptionGroup, RuntimeError) as error:
            # A name that is not UTF-8 ends the watcher: then all is looked at.
            if "decode" not in str(first_error(error)):
                if polls:
                    raise
                polls = True
                told(
                    f"this machine has no more file watches ({error}): {root} is looked at "
                    f"every {_POLL_MS // 1000} s (fs.inotify.max_user_watches)"
                )
            # After the first step of the next one, so that nothing falls in between.
            asyncio.get_running_loop().call_soon(dirty, {b""})
