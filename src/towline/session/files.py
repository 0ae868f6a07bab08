"""The container's files on the laptop while a session lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from towline.cluster.api import Api
from towline.environ.files import Mirrored, mirrored_paths
from towline.environ.mirror import Mirror, Version
from towline.errors import ClusterError, ConnectionLost
from towline.manifest.model import Entry

if TYPE_CHECKING:
    from towline.session.link import Connection
    from towline.transport.files import Ended

# Of each path: the mirror is in the laptop's memory.
LIMIT_BYTES = 64 << 20
_TOO_LARGE = "larger than the limit"
_SHOWN_AT_MOST = 5


class SessionFiles:
    """The mirror of one session's files.

    Args:
        folder: below it each is under its own path.
        tell: says something worth knowing.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        api: Api,
        container: str,
        folder: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._entry = entry
        self._api = api
        self._container = container
        self._mirror = Mirror(folder)
        self._tell = tell
        self._told: set[str] = set()
        self._roots: tuple[Mirrored, ...] = ()
        self._bad: set[str] = set()
        self.settled = asyncio.Event()

    @property
    def paths(self) -> tuple[str, ...]:
        """The container's paths that are mirrored, as far as they could be."""
        return tuple(root.path for root in self._roots if root.path not in self._bad)

    def place(self, path: str) -> Path:
        return self._mirror.place(path)

    async def follow(self, current: Connection) -> None:
        """Mirror them all, then every change, until the connection is lost."""
        try:
            await self._read_roots(current)
            if self._roots:
                await self._follow(current)
        except ConnectionLost:
            pass  # the next one begins anew
        except (ClusterError, OSError) as error:
            self._say(f"the container's files are not here: {error}")
            self.settled.set()
        if not self._roots:
            self.settled.set()

    async def _read_roots(self, current: Connection) -> None:
        # By a list: to watch pods is among the rights that `up` needs, to get one is not.
        listed = await self._api.list_("pods", fields=f"metadata.name={current.pod.name}")
        [pod] = listed.get("items") or [None]
        if pod is None:
            raise ConnectionLost(f"the pod {current.pod.name} is gone")
        self._roots = mirrored_paths(pod, self._container, self._entry.settings.files)

    async def _follow(self, current: Connection) -> None:
        from towline.transport.files import (
            Begun,
            Ended,
            FileTold,
            LinkTold,
            Root,
            Settled,
            told_files,
        )

        asked = [Root(path=root.path, watch=root.is_watched) for root in self._roots]
        version: Version | None = None
        stream = told_files(current.ssh, asked, limit_bytes=LIMIT_BYTES)
        async with aclosing(stream) as told:  # type: ignore[type-var]
            async for each in told:
                match each:
                    case Begun(root=number, is_file=is_file):
                        version = self._mirror.begin(self._roots[number].path, is_file=is_file)
                    case FileTold(name=name, mode=mode, data=data) if version is not None:
                        version.file(name, mode, data)
                    case LinkTold(name=name, target=target) if version is not None:
                        version.link(name, target)
                    case Ended() if version is not None:
                        self._end(each, version)
                        version = None
                    case Settled():
                        self.settled.set()

    def _end(self, ended: Ended, version: Version) -> None:
        path = self._roots[ended.root].path
        if ended.error is not None:
            self._bad.add(path)
            text = ended.error
            if text == _TOO_LARGE:
                text = (
                    f"larger than {LIMIT_BYTES >> 20} MiB: name a smaller part of it in "
                    "`files: {add: …}`, or leave it out with `exclude`"
                )
            self._say(f"{path} of the container is not here: {text}")
            return
        version.end()
        self._bad.discard(path)
        left_out = [*ended.left_out, *version.refused]
        if left_out:
            names = ", ".join(left_out[:_SHOWN_AT_MOST])
            more = " …" if left_out[_SHOWN_AT_MOST:] else ""
            self._say(
                f"{path}: no files, or links that lead out of it, are left out: {names}{more}"
            )

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)
