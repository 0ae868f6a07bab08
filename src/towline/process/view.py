"""What the local process sees of the disk: what is asked of namespace.py, and whether it can be."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_NAMESPACE = Path(__file__).with_name("namespace.py")
_PROBE_S = 10.0
# Of a few files' state; a VPN that changes /etc/hosts is not noticed sooner by anybody.
_LOOK_EVERY_S = 1.0

_REASONS = {
    "unshare: No space left on device": "user.max_user_namespaces allows no more of them",
    "unshare: Operation not permitted": "the system does not allow user namespaces",
    "mount: Operation not permitted": "in user namespaces nothing may be mounted (AppArmor?)",
    "mount: Permission denied": "in user namespaces nothing may be mounted (AppArmor?)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A file or folder of ours, shown at a path.

    Attributes:
        how: read only, writable, or only where the path's folder had to be covered.
    """

    source: str
    target: str
    how: Literal["ro", "rw", "covered"] = "ro"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown to a process, in namespaces of its own.

    Attributes:
        scratch: an empty folder of the user's own, for the kernel's layers.
    """

    binds: tuple[Bind, ...]
    scratch: str

    def order(self) -> tuple[list[tuple[str, str, str]], str]:
        """As the helper takes it."""
        return [(each.source, each.target, each.how) for each in self.binds], self.scratch


async def probe(folder: Path, binds: Iterable[Bind] = ()) -> str:
    """Try such a view; what stands in the way, or "".

    Never judged by version or setting: some systems let the namespaces be made and give
    no rights in them, and some look names up elsewhere first.

    Args:
        folder: a private one; it is used and left empty.
        binds: what else is to be in place for names to be found.
    """
    more = [word for bind in binds for word in (bind.source, bind.target, bind.how)]
    if sys.platform != "linux":
        return "this system has no such namespaces"
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(_NAMESPACE), str(folder), *more,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_PROBE_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return "the attempt hangs"
    except OSError as error:
        return error.strerror or str(error)
    if process.returncode != 0:
        return err.decode(errors="replace").strip().rpartition("\n")[2] or "the attempt failed"
    reason = out.decode(errors="replace").strip()
    return _REASONS.get(reason, reason)


async def keep_view(view: View, *, renew: Callable[[], None]) -> None:
    """Ask for the view anew when a file of the laptop under it was replaced.

    A rename takes what was mounted on the old file with it.
    """
    places = [bind.target for bind in view.binds if not _is_folder(bind.source)]
    was = [_state(place) for place in places]
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        now = [_state(place) for place in places]
        if now != was:
            was = now
            renew()


def _is_folder(path: str) -> bool:
    return Path(path).is_dir()


def _state(path: str) -> tuple[int, int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0, 0
    return found.st_dev, found.st_ino, found.st_mtime_ns
