"""The part of a sync session from the running pod to the command's end."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from towline._kit.limits import raise_open_files
from towline._kit.paths import folders, private
from towline._kit.tasks import Tasks
from towline.cluster.pods import DevPod
from towline.errors import ConnectionLost, TowlineError
from towline.manifest.model import Command, Handover, SyncFolder
from towline.plan.command import sync_command
from towline.plan.folders import lies_in_claim
from towline.plan.model import Observed
from towline.process import Ending
from towline.process.listening import listening_among
from towline.session.events import (
    CommandEnded,
    CommandStarted,
    CommandStarting,
    Holding,
    PathSynced,
    Restoring,
    Warned,
)
from towline.session.requests import Phase
from towline.session.standing import Standing
from towline.session.sync_state import SyncState
from towline.sync.events import Differed, Event, InStep, Noted, NotSynced, Stopped, Went
from towline.sync.reconcile import Reason
from towline.sync.status import Stage

if TYPE_CHECKING:
    from towline.session.link import Connection
    from towline.tunnels.forward import Forward

_RETRY_S = 0.5
# The agent tells of ports of its own accord: this is for those that are brought from here.
_LOOK_EVERY_S, _LOOK_EVERY_OPEN_S = 0.2, 1.0
_SIGNALLED = 128
_DELETIONS = (Reason.ROOT_EMPTIED, Reason.MANY_DELETIONS)


class SyncServing(Standing):
    """As `Standing`, with the process in the dev container and the files following."""

    where = "dev pod"
    process_kept = False
    has_input = True
    _in_step: asyncio.Event
    _folders_in_step: set[int]
    _state: SyncState
    _own_command: Command | None
    _uid: int
    _listened_there: frozenset[int] = frozenset()

    async def serve(self, pod: DevPod, opened: list[Forward], observed: Observed) -> int:
        """Connect, bring the files, run the command, take over, wait for its end, give back."""
        self._in_step, self._folders_in_step = asyncio.Event(), set()
        self._state = SyncState(self._entry.sync.folders)
        containers = observed.template["spec"]["containers"]
        original = next(c for c in containers if c["name"] == self._plan.container)
        self._own_command = sync_command(self._entry, original)
        async with Tasks() as tasks:
            await self._connect(pod, opened, tasks=tasks)
            raise_open_files()
            self._answers |= self._state.methods()
            try:
                tasks.start(self._keep_synced(), name="sync")
                await self._in_step.wait()
                tasks.start(self._keeper.run(), name="gate")
                tasks.start(self._stand(observed), name="takeover")
                tasks.start(self._note_state(), name="state")
                return await self._until_the_command_ends()
            finally:
                await self._go_back(opened)

    # The files

    async def _keep_synced(self) -> None:
        """Keep all folders in step, over each connection anew."""
        while True:
            current = await self._link.get()
            try:
                self._uid = (await current.ssh.control.hello()).uid
                async with Tasks() as tasks:
                    for number in range(len(self._entry.sync.folders)):
                        tasks.start(self._keep_folder(number, current), name=f"sync {number}")
                    if not self._entry.sync.folders:
                        self._in_step.set()
                    await current.ssh.wait_closed()
            except ConnectionLost:
                pass
            self._in_step.clear()
            self._folders_in_step.clear()
            self._state.connecting()
            await asyncio.sleep(_RETRY_S)

    async def _keep_folder(self, number: int, current: Connection) -> None:
        from towline.sync.loop import SyncedFolder, keep_in_step
        from towline.transport.subsystem import open_subsystem

        folder, state = self._entry.sync.folders[number], self._state.folders[number]
        state.status = state.status.at(Stage.SYNCING)
        pair = SyncedFolder(
            local=folder.local,
            remote=str(folder.remote),
            state=self._state_of(folder),
            # Otherwise the connection's speed decides.
            compression=None if self._entry.sync.compression else False,
            rescan_s=self._entry.sync.rescan_interval_s,
            tells_each=self._entry.sync.verbose,
            is_claim=lies_in_claim(
                self._plan.dev_workload["spec"]["template"]["spec"],
                self._plan.container,
                folder.remote,
            ),
        )
        await keep_in_step(
            pair,
            open_stream=lambda: open_subsystem(current.ssh.connection, "towline-sync"),
            told=lambda event: self._tell(number, event),
            resume=state.resume,
            was_in_step=state.was_in_step,
        )

    def _state_of(self, folder: SyncFolder) -> Path:
        """Not in the session's own folder, which goes with it: what was kept is the user's."""
        plan = self._plan
        parts = (plan.context, plan.namespace, plan.workload, folder.local, folder.remote)
        key = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
        return private(folders(os.environ).state) / "sync" / key

    def _tell(self, number: int, event: Event) -> None:
        folder = self._entry.sync.folders[number]
        names = f"{folder.local.name} → {folder.remote}"
        self._state.folders[number].tell(event)
        self._note_folders()
        match event:
            case InStep():
                if number not in self._folders_in_step:
                    self._folders_in_step.add(number)
                    text = f"{names} in step, {event.in_container} brought to the container"
                    away = f", {event.not_synced} not synced" if event.not_synced else ""
                    self._stage("sync", text + away)
                if len(self._folders_in_step) == len(self._entry.sync.folders):
                    self._in_step.set()
            case Differed():
                text = f"{event.path} was another on both sides: yours is there, the "
                self._events(Warned(text=f"{text}container's is kept in {event.kept}"))
            case NotSynced():
                text = f"{event.path} is not synced ({event.side}: {event.reason})"
                if event.side == "container" and "permission denied" in event.reason and self._uid:
                    # An image's user that neither the spec nor the runtime tells of.
                    text += (
                        f". With `securityContext: {{runAsUser: {self._uid}}}` in the entry "
                        f"{folder.remote} is a folder of the pod's that this user can write to"
                    )
                self._events(Warned(text=text))
            case Stopped():
                reasons = "; ".join(halt.text for halt in event.halts)
                self._events(
                    Warned(
                        text=f"sync of {names} has stopped, and deletes nothing more: {reasons}. "
                        f"Look there, then `{_way_on(event)}`"
                    )
                )
            case Went():
                self._events(PathSynced(path=event.path, to=event.side, is_gone=event.is_gone))
            case Noted():
                self._events(Warned(text=event.text))

    def _note_folders(self) -> None:
        """Keep what `status` says of them."""
        words = tuple(str(each.status) for each in self._state.folders)
        if words != self._session.sync:
            self._save(sync=words)

    # The command

    async def _until_the_command_ends(self) -> int:
        self._requests.phase = Phase.SERVING
        while True:
            ending = await self._run_command()
            if ending is None:
                self._events(Restoring(reason=self._requests.reason or ""))
                return _SIGNALLED + self._requests.signal if self._requests.signal else 0
            goes_on = self._goes_on_after(ending)
            self._events(CommandEnded(code=ending.code, signal=None, session_goes_on=goes_on))
            if not goes_on or not await self._wants_another():
                return ending.exit_code

    async def _run_command(self) -> Ending | None:
        """Run it to its end, in each new container anew; None when the session is to end."""
        async with Tasks() as tasks:
            asked = tasks.start(self._requests.wait(), name="request")
            if self._own_command is None:
                self._save(stage="running")
                self._events(Holding())
                await asked
                return None
            running = tasks.start(self._in_each_container(self._own_command), name="command")
            await asyncio.wait([asked, running], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await self._hold_ports()
            return running.result() if running.done() else None

    def _held_when_left(self) -> frozenset[int]:
        """The ports that the agent holds once the command has ended, however it did."""
        # With an exclusive handover there is nobody whom what is held could be passed on to.
        return frozenset() if self._plan.handover is Handover.EXCLUSIVE else self._routed()

    async def _hold_ports(self) -> None:
        """Before the command is ended: its ports are the agent's the moment it leaves them."""
        current = self._link.current
        if current is None or not self._held_when_left():
            return
        with suppress(ConnectionLost, TowlineError):
            await current.ssh.control.route(
                "hold",
                hold_for_s=self._options.ready_timeout_s,
                listen=self._held_when_left() if self._keeper.is_open else (),
            )

    async def _in_each_container(self, command: Command) -> Ending:
        while True:
            # The files first, also after the pod was replaced.
            await self._in_step.wait()
            current = await self._link.get()
            self._events(CommandStarting(command=str(command)))
            try:
                code = await self._run_once(current, command)
            except ConnectionLost as error:
                text = f"{error.message}: the command starts again in the next container"
                self._events(Warned(text=text))
                await current.ssh.wait_closed()
                self._in_step.clear()
                continue
            return Ending(code=code, signal=None)

    async def _run_once(self, current: Connection, command: Command) -> int:
        from towline.transport.command import run_in_container

        def started() -> None:
            self._save(stage="running")
            self._events(CommandStarted(pid=None))

        with ExitStack() as kept:
            outputs = self._options.outputs or (1, 2)
            if self._options.keep_output:
                log = kept.enter_context(self._session.log.open("ab")).fileno()
                outputs = (log, log)
            terminal = self._options.terminal
            return await run_in_container(
                current.ssh,
                command.argv if command.shell is None else command.shell,
                terminal=terminal,
                started=started,
                outputs=outputs,
                has_input=self.has_input and self._options.outputs is None,
                ports=self._held_when_left(),
            )

    async def _wants_another(self) -> bool:
        assert self._options.offer is not None
        async with Tasks() as tasks:
            asked = tasks.start(self._requests.wait(), name="request")
            key = tasks.start(self._options.offer("rq"), name="keys")
            await asyncio.wait([asked, key], return_when=asyncio.FIRST_COMPLETED)
            return key.done() and key.result() == "r"

    # What the gatekeeper asks

    def _left_ports(self) -> Iterable[int]:
        return self._routed()

    def _routed(self) -> frozenset[int]:
        """The ports that Services lead to and the dev container's process listens on."""
        brought = {each.remote for each in self._entry.reverse}
        return frozenset(p.local for p in self._plan.ports if p.remote not in brought)

    async def _listened(self, ports: Iterable[int]) -> frozenset[int]:
        wanted = frozenset(ports)
        routed = self._routed()
        there: frozenset[int] = frozenset()
        if routed:
            current = await self._link.get()
            try:
                there = await current.ssh.control.listening(
                    unlike=self._listened_there,
                    within_s=_LOOK_EVERY_OPEN_S if self._keeper.is_open else _LOOK_EVERY_S,
                )
            except ConnectionLost:
                return frozenset()
            finally:
                self._listened_there = there
        here = await listening_among(wanted - routed, host=self._entry.interface)
        return (there & routed) | here

    def _answering(self) -> str:
        ports = ", ".join(str(p) for p in sorted({p.remote for p in self._plan.ports}))
        return f"port {ports} of the dev pod answers" if ports else ""


def _way_on(stopped: Stopped) -> str:
    """What goes on after a halt."""
    if any(halt.reason in _DELETIONS for halt in stopped.halts):
        return "towline sync resume [--accept-deletions]"
    return "towline sync resume"
