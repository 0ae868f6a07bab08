"""Which paths of the laptop's folder to look at again.

On Linux by inotify, elsewhere by watchfiles; where watches run out by looking.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from towline._kit.tasks import Tasks
from towline._kit.together import first_error
from towline.sync.ignore import Ignore, is_rules
from towline.sync.inotify import Inotify
from towline.sync.scan import LaptopTree

# watchfiles looks at what came every `step`, and gives it out when nothing more came for
# one step, or after `debounce`. Its defaults are 50 ms and 1.6 s.
STEP_MS = 10
DEBOUNCE_MS = 100
POLL_EVERY_S = 2.0


_MAX_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
# All programs of a user share them; an editor takes as many for the same folder.
_MUCH_OF_THEM = 0.5


def watches_allowed() -> int | None:
    """How many folders a user may watch here, by all programs; None where nobody counts."""
    try:
        return int(_MAX_WATCHES.read_text())
    except (OSError, ValueError):
        return None


def watches_text(folders: int, allowed: int | None) -> str | None:
    """What to tell of a folder that takes many watches."""
    if allowed is None or folders < allowed * _MUCH_OF_THEM:
        return None
    return (
        f"the folder takes {folders} of the {allowed} file watches of this user "
        "(fs.inotify.max_user_watches); ignore what need not be synced, or raise that"
    )


@asynccontextmanager
async def watching(
    tree: LaptopTree, *, dirty: Callable[[set[bytes]], None], told: Callable[[str], None]
) -> AsyncIterator[None]:
    """Tell changed paths while the block runs; an empty one is the whole folder.

    Nothing is missed between this and the first scan, which must come after it.
    """
    async with Tasks() as tasks:
        if sys.platform != "linux":
            tasks.start(
                watch(tree.place.path, ignore=tree.ignore, dirty=dirty, told=told),
                name="sync: watch",
            )
            # The watch begins in the task's first step.
            await asyncio.sleep(0)
            yield
            return
        try:
            inotify = Inotify(dirty)
        except OSError as error:
            tasks.start(_poll(tree, error, dirty=dirty, told=told), name="sync: poll")
            yield
            return
        tree.watched = inotify.watch
        tasks.start(_poll_if_failed(tree, inotify, dirty=dirty, told=told), name="sync: poll")
        try:
            yield
        finally:
            inotify.close()


async def _poll_if_failed(
    tree: LaptopTree,
    inotify: Inotify,
    *,
    dirty: Callable[[set[bytes]], None],
    told: Callable[[str], None],
) -> None:
    await _poll(tree, await inotify.failed, dirty=dirty, told=told)


async def _poll(
    tree: LaptopTree,
    error: OSError,
    *,
    dirty: Callable[[set[bytes]], None],
    told: Callable[[str], None],
) -> None:
    told(
        f"this machine has no more file watches (fs.inotify.max_user_watches, "
        f"max_user_instances: {error.strerror}): {tree.place.path} is looked at every "
        f"{POLL_EVERY_S:g} s"
    )
    while True:
        await asyncio.sleep(POLL_EVERY_S)
        dirty({b""})


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
    front = len(os.fsencode(root)) + 1

    def relative(path: str) -> bytes:
        return os.fsencode(path)[front:]

    def wanted(_: object, path: str) -> bool:
        below = relative(path)
        return not below or is_rules(below) or not ignore.hides(below, is_folder=True)

    # 0.1 s to import, of a start that has other things to do.
    from watchfiles import awatch

    polls = False
    while True:
        try:
            async for changes in awatch(
                root,
                watch_filter=wanted,
                step=STEP_MS,
                debounce=DEBOUNCE_MS,
                force_polling=polls,
                poll_delay_ms=int(POLL_EVERY_S * 1000),
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
                    f"every {POLL_EVERY_S:g} s (fs.inotify.max_user_watches)"
                )
            # After the first step of the next one, so that nothing falls in between.
            asyncio.get_running_loop().call_soon(dirty, {b""})
