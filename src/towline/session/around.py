"""Making a session's surroundings, beside its stages: names, files, and what is shown of them."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from towline._kit.limits import open_files
from towline._kit.tasks import Tasks
from towline.cluster.api import Api
from towline.environ.files import needed_below
from towline.errors import ClusterError
from towline.manifest.model import Entry, Reach
from towline.plan.model import Plan
from towline.process.listening import only_on_loopback
from towline.process.view import Bind, probe
from towline.session import local
from towline.session.files import SessionFiles
from towline.session.machine import lookup_binds, moved_text
from towline.session.names import SessionNames, write_in_place
from towline.session.surroundings import Surroundings

if TYPE_CHECKING:
    from towline.session.link import Connection
    from towline.tunnels.named import NamedListeners
    from towline.tunnels.proxy import Proxy
    from towline.tunnels.spares import Spares

_ROOT, _SCRATCH = "root", "scratch"
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_SYSTEMS = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sys", "/usr/lib", "/var")
_LAPTOPS = (Path("/etc/hosts"), Path("/etc/resolv.conf"))
_LOOK_EVERY_S = 1.0
# A claim's 64 MiB over a slow line; the process is started without the rest then.
_FILES_S = 30.0


class Around:
    """Makes a session's surroundings, beside its stages.

    `begin` needs the cluster only; `ready` a connection, too.

    Args:
        folder: the session's private one.
        state: the session's folder where other commands look.
        spares: what connections to the names are led through.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        api: Api,
        plan: Plan,
        folder: Path,
        state: Path,
        spares: Spares,
        tasks: Tasks,
        tell: Callable[[str], None],
    ) -> None:
        self._entry = entry
        self._api = api
        self._spares = spares
        self._plan = plan
        self._folder = folder
        self._state = state
        self._tasks = tasks
        self._tell = tell
        self._names: SessionNames | None = None
        self._files: SessionFiles | None = None
        self._following: asyncio.Task[None] | None = None
        self._listening: NamedListeners | None = None
        self._proxy: Proxy | None = None
        self._probed: asyncio.Task[str] | None = None
        self._lookup: tuple[Bind, ...] = ()
        self._begun: asyncio.Task[None] | None = None
        self.refusal = ""
        self.open_files = open_files()
        self.now = Surroundings(scratch=str(folder / _SCRATCH))

    def begin(self) -> None:
        """Probe, and read and listen for the names, while the pod starts."""
        settings = self._entry.settings
        if Reach.ON in (settings.names.reach, settings.files.reach):
            scratch = self._folder / _SCRATCH
            scratch.mkdir(mode=0o700)
            self._lookup = lookup_binds(self._folder)
            self._probed = self._tasks.start(probe(scratch, self._lookup), name="probe")
        if settings.names.reach is not Reach.OFF:
            self._begun = self._tasks.start(self._begin_names(), name="names")
        if settings.files.reach is not Reach.OFF:
            self._files = SessionFiles(
                self._entry,
                api=self._api,
                container=self._plan.container,
                folder=self._folder / _ROOT,
                tell=self._tell,
            )

    async def _begin_names(self) -> None:
        # In a thread: SSH comes with it, 0.2 s.
        await asyncio.to_thread(importlib.import_module, "towline.tunnels.named")
        from towline.tunnels.named import NamedListeners
        from towline.tunnels.proxy import Proxy

        if self._entry.settings.names.proxy:
            self._proxy = Proxy(spares=self._spares, tasks=self._tasks)
            await self._proxy.listen()
        free = self._entry.settings.names.free
        own: dict[int, str] = dict.fromkeys(free, "is the process's own (names.free)")
        own |= {
            each.local: f"is the process's own (reverse {each})" for each in self._entry.reverse
        }
        self._listening = NamedListeners(spares=self._spares, tasks=self._tasks, avoid=own)
        names = SessionNames(
            self._entry,
            api=self._api,
            key=f"{self._plan.context}/{self._plan.namespace}/{self._entry.name}",
            hosts=self._folder / "hosts",
            listening=self._listening,
            tell=self._tell,
        )
        try:
            await names.begin()
        except ClusterError as error:
            self._tell(f"the cluster's names are not known here: {error.message}")
            return
        self._names = names
        self._tasks.start(self._give_way(self._listening), name="other sessions")

    async def _give_way(self, listening: NamedListeners) -> None:
        """Leave other sessions of this laptop the ports that their processes listen on."""
        was: set[int] = set()
        while True:
            wanted = {
                port
                for session in local.sessions()
                if session.folder != self._state
                for port in session.reverse_ports
            }
            if wanted or was:
                # On 127.0.0.1 alone it is not in our way, nor would it get what we do not.
                wanted -= only_on_loopback(wanted)
                await listening.give_way(wanted)
            was = wanted
            await asyncio.sleep(_LOOK_EVERY_S)

    def connected(self, current: Connection) -> None:
        """Open channels for the names through a new connection, and mirror its pod's files."""
        if self._listening is not None and self._listening.count:
            self._spares.fill()
        if self._files is not None:
            if self._following is not None:
                self._following.cancel()
            self._following = self._tasks.start(self._files.follow(current), name="files")

    async def ready(self, current: Connection, container: Mapping[bytes, bytes]) -> Surroundings:
        """All of it, for the process that is about to be started."""
        self.refusal = await self._probed if self._probed is not None else "turned off"
        await self._ready_names(current, container)
        await self._ready_files()
        if self.now.binds:
            self._carry_in()
            self._tasks.start(self._keep_carrying_in(), name="the laptop's own")
        self.now.save(self._state)
        return self.now

    async def _ready_files(self) -> None:
        files = self._files
        if files is None:
            return
        try:
            async with asyncio.timeout(_FILES_S):
                await files.settled.wait()
        except TimeoutError:
            self._tell(f"not all of the container's files are here after {_FILES_S:.0f} s")
        is_shown = not self.refusal and self._entry.settings.files.reach is Reach.ON
        binds = []
        for path in files.paths:
            needed = needed_below(path, self._needed_here())
            if needed is None:
                binds.append(Bind(source=str(files.place(path)), target=path))
            elif is_shown:
                self._tell(
                    f"{path} of the container is only below TOWLINE_ROOT: here it would hide "
                    f"{needed}, which the process needs"
                )
        if _SERVICE_ACCOUNT in files.paths and not any(end.is_found for end in self.now.ends):
            self._tell(
                "a client of the cluster's API does not work in the process: "
                "kubernetes.default.svc is only in a hosts file of its own"
                + (f", which it has not ({self.refusal})" if self.refusal else "")
            )
        self.now = replace(
            self.now,
            binds=(*self.now.binds, *(binds if is_shown else ())),
            root=str(self._folder / _ROOT),
            paths=files.paths,
        )

    def _needed_here(self) -> list[str]:
        """What of the laptop the process cannot be without."""
        folders = [str(Path.home()), tempfile.gettempdir(), str(self._folder), sys.prefix]
        folders += [str(self._entry.workdir), *os.environ.get("PATH", "").split(os.pathsep)]
        return [*folders, *_SYSTEMS]

    def _carry_in(self) -> None:
        """Bring what the laptop has changed of its own into the process's copies.

        Below an overlay a file that is replaced by rename is not followed.
        """
        if self._names is not None:
            self._names.write_hosts()
        for place in _LAPTOPS:
            if not self._is_copied(place) or any(b.target == str(place) for b in self.now.binds):
                continue
            bind = Bind(source=str(self._folder / place.name), target=str(place), how="covered")
            self.now = replace(self.now, binds=(*self.now.binds, bind))
        for bind in self.now.binds:
            if bind.how == "covered":
                write_in_place(Path(bind.source), Path(bind.target).read_bytes())

    def _is_copied(self, place: Path) -> bool:
        """A link leads to where no overlay is."""
        return place.is_file() and not place.is_symlink()

    async def _keep_carrying_in(self) -> None:
        was = [_stamp(place) for place in _LAPTOPS]
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now = [_stamp(place) for place in _LAPTOPS]
            if now != was:
                was = now
                with suppress(OSError):
                    self._carry_in()

    async def _ready_names(self, current: Connection, container: Mapping[bytes, bytes]) -> None:
        if self._begun is not None:
            await self._begun
        names = self._names
        if names is None:
            return
        is_shown = not self.refusal and self._entry.settings.names.reach is Reach.ON
        hello = await current.ssh.control.hello()
        await names.use_container(hello, container, is_shown=is_shown)
        hosts = Bind(source=str(self._folder / "hosts"), target="/etc/hosts", how="rw")
        binds = (hosts, *self._lookup)
        self.now = replace(
            self.now,
            keep=self._entry.settings.names.keep,
            binds=(*self.now.binds, *(binds if is_shown else ())),
            ends=names.ends(),
            no_proxy=names.added(),
            proxy_port=self._proxy.port if self._proxy is not None else 0,
        )
        for why, ports in names.moved().items():
            self._tell(moved_text(why, ports))
        self._tasks.start(names.follow(), name="names follow")

    def stages(self) -> list[tuple[str, str]]:
        """What is in force, as the terminal shows it: (stage, text)."""
        shown = {bind.target for bind in self.now.binds if bind.how != "covered"}
        why = f" ({self.refusal})" if self.refusal else ""
        told = []
        if self._names is not None:
            how = "in a hosts file of the process's own"
            if "/etc/hosts" not in shown:
                how = f"by their addresses here, in variables{why}"
            told.append(("names", f"{self._names.count} of the cluster, {how}"))
        if self.now.paths:
            how = "at their own paths"
            if not shown & set(self.now.paths):
                how = f"below TOWLINE_ROOT{why}"
            told.append(("files", f"{len(self.now.paths)} of the container's mounts, {how}"))
        return told

    def close(self) -> None:
        for each in (self._listening, self._proxy):
            if each is not None:
                each.close()


@asynccontextmanager
async def around(
    entry: Entry,
    *,
    api: Api,
    plan: Plan,
    folder: Path,
    state: Path,
    spares: Spares,
    tell: Callable[[str], None],
) -> AsyncIterator[Around]:
    """A session's surroundings, not begun; their listeners and watches end with the block."""
    async with Tasks() as tasks:
        made = Around(
            entry,
            api=api,
            plan=plan,
            folder=folder,
            state=state,
            spares=spares,
            tasks=tasks,
            tell=tell,
        )
        try:
            yield made
        finally:
            made.close()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
