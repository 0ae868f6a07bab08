"""The part of a session from the running pod to the process's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from towline._kit.limits import raise_open_files
from towline._kit.tasks import Tasks
from towline.cluster.pods import DevPod
from towline.errors import ClusterError, TowlineError
from towline.plan.model import Observed
from towline.process import Ending, Process, supervised
from towline.process.listening import listening_among, ports_of
from towline.session.cluster_environment import ClusterEnvironment
from towline.session.events import (
    CommandEnded,
    CommandStarted,
    CommandStarting,
    EnvironmentChanged,
    Holding,
    Restoring,
    Warned,
)
from towline.session.link import Connection
from towline.session.prepare import check_folder
from towline.session.requests import Phase
from towline.session.standing import Standing

if TYPE_CHECKING:
    from towline.tunnels.forward import Forward


class Serving(Standing):
    """As `Standing`, with the process on this laptop."""

    _process: Process | None = None
    _environment: ClusterEnvironment | None = None
    _stopped: asyncio.Event
    _environment_changed: asyncio.Event

    async def serve(self, pod: DevPod, opened: list[Forward], observed: Observed) -> int:
        """Connect, start the process, take over, wait for the end, give back."""
        self._stopped, self._environment_changed = asyncio.Event(), asyncio.Event()
        async with Tasks() as tasks:
            await self._connect(pod, opened, tasks=tasks)
            environment = await self._read_environment(observed)
            values, changed = self._environment_values(environment)
            count = f"{len(values)} variables" + (f", {changed} changed" if changed else "")
            self._stage("environment", f"{count} (towline env --explain)")
            self._answers["environment"] = environment.passed_on
            async with self._command(values):
                raise_open_files()
                try:
                    tasks.start(self._keeper.run(), name="gate")
                    tasks.start(self._stand(observed), name="takeover")
                    tasks.start(self._note_state(), name="state")
                    tasks.start(self._answer_stops(), name="stops")
                    tasks.start(environment.watch(self._note_change), name="environment")
                    return await self._until_the_end()
                finally:
                    await self._go_back(opened)

    async def _read_environment(self, observed: Observed) -> ClusterEnvironment:
        environment = ClusterEnvironment(
            self._api,
            self._entry,
            container=self._plan.container,
            original=observed.template,
            planned=self._plan.dev_workload["spec"]["template"],
            options=self._options.variables,
        )
        current = await self._link.get()
        truth = await current.ssh.control.environ()
        await self._around.ready(current, truth)
        for stage, text in self._around.stages():
            self._stage(stage, text)
        await environment.read(truth, pod=current.pod.name)
        for notice in environment.container.notices:
            self._events(Warned(text=notice))
        self._environment = environment
        return environment

    def _environment_values(
        self, environment: ClusterEnvironment
    ) -> tuple[dict[bytes, bytes], int]:
        """What the process gets if it is started now, and how much of it was changed for here."""
        self._environment_changed.clear()
        values, changed = self._around.now.environment(environment.for_process().environment)
        return values, len(changed)

    def _note_change(self, changed: str, names: tuple[str, ...]) -> None:
        restarts = self._options.restart_on_change and self._process is not None
        self._events(EnvironmentChanged(object=changed, names=names, restarts=restarts))
        if restarts:
            self._environment_changed.set()

    @asynccontextmanager
    async def _command(self, values: dict[bytes, bytes]) -> AsyncIterator[None]:
        """The local process while the block runs; none where the manifest has no command."""
        if self._entry.command is None:
            self._events(
                Warned(
                    text="no command: start the process with `towline run`, which gives it the "
                    "cluster's names and the container's files, or yourself"
                )
            )
            self._events(Holding())
            yield
            return
        self._events(CommandStarting(command=str(self._entry.command)))
        async with supervised(
            command=self._entry.command,
            env=values,
            cwd=check_folder(self._entry),
            terminal=self._options.terminal,
            output=self._session.log if self._options.keep_output else self._options.outputs,
            view=self._around.now.view,
            open_files=self._around.open_files,
            on_stopped=self._stopped.set,
            on_unseen=lambda text: self._events(Warned(text=f"not there for the process: {text}")),
        ) as process:
            self._process = process
            self._started(process)
            yield

    def _started(self, process: Process) -> None:
        assert process.pid is not None
        self._save(command_pid=process.pid, stage="running")
        self._requests.phase = Phase.SERVING
        self._events(CommandStarted(pid=process.pid))

    async def _answer_stops(self) -> None:
        """Ctrl-Z: the terminal is ours; the command goes on, or the session ends, on a key."""
        while True:
            await self._stopped.wait()
            self._stopped.clear()
            if self._options.offer is None or self._process is None:
                continue
            text = "the command is stopped (Ctrl-Z). c lets it go on, q ends the session"
            self._events(Warned(text=text))
            if await self._options.offer("cq") == "q":
                self._requests.end("stopped by Ctrl-Z")
            # A stopped process cannot be asked to end.
            self._process.resume()

    async def _until_the_end(self) -> int:
        self._requests.phase = Phase.SERVING
        while True:
            ending = await self._first_of_end_and_request()
            if ending is None and self._requests.reason is None:
                await self._restart()
                continue
            if ending is None:
                self._events(Restoring(reason=self._requests.reason or ""))
                return 128 + self._requests.signal if self._requests.signal else 0
            goes_on = self._goes_on_after(ending)
            self._events(
                CommandEnded(code=ending.code, signal=ending.signal, session_goes_on=goes_on)
            )
            if not goes_on:
                return ending.exit_code
            if not await self._restart_wanted():
                return ending.exit_code

    async def _first_of_end_and_request(self) -> Ending | None:
        """Wait for the process's end, or for a request to end, or to restart it (None)."""
        async with Tasks() as tasks:
            asked = tasks.start(self._requests.wait(), name="request")
            if self._process is None:
                await asyncio.wait([asked])
                return None
            ended = tasks.start(self._process.ended(), name="process")
            changed = tasks.start(self._environment_changed.wait(), name="environment")
            await asyncio.wait([asked, ended, changed], return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else None

    async def _restart_wanted(self) -> bool:
        assert self._options.offer is not None and self._process is not None
        while True:
            async with Tasks() as tasks:
                asked = tasks.start(self._requests.wait(), name="request")
                key = tasks.start(self._options.offer("rq"), name="keys")
                await asyncio.wait([asked, key], return_when=asyncio.FIRST_COMPLETED)
                if not key.done() or key.result() == "q":
                    return False
            if await self._restart():
                return True

    async def _restart(self) -> bool:
        """Start the process anew, with the values of now; whether it could be."""
        assert self._process is not None and self._environment is not None
        self._events(CommandStarting(command=str(self._entry.command)))
        try:
            values, _ = self._environment_values(self._environment)
            await self._process.restart(env=values)
        except TowlineError as error:
            self._events(Warned(text=error.message))
            return False
        self._started(self._process)
        return True

    # Of the two modes' difference

    def _answering(self) -> str:
        where = ", ".join(f"localhost:{p}" for p in sorted(self._ports()))
        return f"{where} answers" if where else ""

    def _process_runs(self) -> bool:
        return self._process is not None and self._process.is_running

    async def _reread(self, current: Connection) -> None:
        if self._environment is None:
            return
        # Another container, with the values of its own start. Where the cluster cannot be
        # asked now, what is known of the old one stays.
        truth = await current.ssh.control.environ()
        with suppress(ClusterError):
            await self._environment.read(truth, pod=current.pod.name)

    def _note_original(self, observed: Observed) -> None:
        if self._environment is not None:
            self._environment.stands_in_for(
                observed.template,
                planned=self._plan.dev_workload["spec"]["template"],
                container=self._plan.container,
            )

    async def _listened(self, ports: Iterable[int]) -> frozenset[int]:
        return await listening_among(ports, host=self._entry.interface)

    def _process_ports(self) -> Iterable[int]:
        if self._process is None:
            return ()
        return ports_of(self._process.helper_pid) or ()
