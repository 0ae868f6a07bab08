"""A session from the running pod to the service given back, whatever the process is."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from towline._kit.memory import settle, tidy
from towline._kit.moments import time_text
from towline._kit.stopwatch import Stopwatch
from towline._kit.tasks import Tasks, finish
from towline.cluster.api import Api
from towline.cluster.apply import is_recorded
from towline.cluster.pods import DevPod, pod_ready
from towline.cluster.watch import patiently
from towline.errors import ClusterError, ConnectionLost, PodError, TowlineError
from towline.manifest.model import Entry, Handover
from towline.plan.model import Observed, Plan
from towline.plan.record import Record
from towline.process import Ending
from towline.session import local
from towline.session.anew import Anew
from towline.session.around import Around
from towline.session.control_socket import Answer
from towline.session.events import (
    Events,
    Restoring,
    StageDone,
    TakenAnew,
    TakingAnew,
    Waiting,
    Warned,
    WillRestore,
)
from towline.session.gatekeeper import Gatekeeper
from towline.session.guard import Guard
from towline.session.link import Connection, Link, keep_link
from towline.session.options import Options
from towline.session.original import OriginalWatch
from towline.session.others import DevWatch, ServicesWatch
from towline.session.pointing import Pointing
from towline.session.requests import Requests
from towline.session.takeover import Takeover, give_back, hand_over, record_gone
from towline.transport.keys import Keys

if TYPE_CHECKING:
    from towline.tunnels.forward import Forward
    from towline.tunnels.spares import Spares

# `status` is read by people.
_STATE_EVERY_S = 2.0
_RETRY_S = 0.5


class Standing(ABC):
    """A dev pod that stands in for the original, and the link to it, over what may come.

    What both modes share: the connection and what is built anew of it, the gate, the
    takeover and the way back. Where the process is and how it ends is of those below.
    """

    where = "localhost"
    process_kept = True

    def __init__(
        self,
        *,
        entry: Entry,
        takeover: Takeover,
        api: Api,
        options: Options,
        events: Events,
        requests: Requests,
        keys: Keys,
        session: local.LocalSession,
        around: Around,
        spares: Spares,
        answers: dict[str, Answer],
        anew: Anew,
        watch: Stopwatch,
    ) -> None:
        self._entry = entry
        self._takeover = takeover
        self._anew = anew
        self._api = api
        self._options = options
        self._events = events
        self._requests = requests
        self._keys = keys
        self._session = session
        self._around = around
        self._spares = spares
        self._answers = answers
        self._watch = watch
        self._has_handed_over = False
        self._link = Link()
        self._keeper = Gatekeeper(
            ports=self._ports(),
            hold_for_s=entry.settings.hold_for_s,
            listening=self._listened,
            set_gate=self._set_gate,
            process_ports=self._process_ports,
            events=events,
            where=self.where,
            shut_refuses=self._record.is_kept,
        )
        self._pointing: Pointing | None = None
        self._stands = asyncio.Event()
        self._stands.set()

    # Of the takeover of the moment: after a long sleep it is another one.

    @property
    def _plan(self) -> Plan:
        return self._takeover.plan

    @property
    def _record(self) -> Record:
        return self._takeover.record

    def _ports(self) -> frozenset[int]:
        """The ports that Services lead to."""
        return frozenset(port.local for port in self._plan.ports)

    @property
    def link(self) -> Link:
        """The connection of the moment."""
        return self._link

    def session(self) -> local.LocalSession:
        """What the laptop keeps of the session, as it is now."""
        return self._session

    @abstractmethod
    async def serve(self, pod: DevPod, opened: list[Forward], observed: Observed) -> int:
        """Connect, run the command, take over, wait for the end, give back."""

    async def _connect(self, pod: DevPod, opened: list[Forward], *, tasks: Tasks) -> None:
        from towline.session.ports import connect_ports, ports_text

        async def connected(current: Connection, is_first: bool) -> None:
            if is_first:
                trip = current.line.statistics().round_trip_s
                text = "ssh through port-forward" + (
                    f", round trip {trip * 1000:.1f} ms" if trip is not None else ""
                )
                self._stage("connection", text)
            await connect_ports(
                self._entry,
                current,
                opened,
                self._keeper,
                spares=self._spares,
                tasks=tasks,
                kept_by=self._record.session if self._record.is_kept else None,
            )
            if is_first:
                self._stage("ports", ports_text(self._entry, opened))
            self._around.connected(current)
            self._save(pod=current.pod.name, stage="connected")
            await self._reassert(current)
            await self._reread(current)

        tasks.start(
            keep_link(
                self._link,
                api=self._api,
                record=lambda: self._record,
                keys=self._keys,
                pod=pod,
                timeout_s=self._entry.resources_timeout_s,
                events=self._events,
                connected=connected,
                healed=self._healed,
                pod_gone=self._pod_gone,
                process_kept=self.process_kept,
            ),
            name="link",
        )
        await self._link.get()

    async def _healed(self, current: Connection) -> None:
        """The agent shuts the gate of a laptop that is away, and the guard gives back."""
        with suppress(ConnectionLost):  # lost again: the next connection begins with this
            await self._reassert(current)
            await self._retake(current.pod)
        # The carriers before: a TLS connection each, and the dials that did not come through.
        tidy()

    async def _pod_gone(self) -> None:
        """Before another pod is waited for: see that there is a session that will have one."""
        await self._retake()
        await self._dev_watch().look()
        while self._takeover.guard.ended_the_session:
            record = self._record
            is_there = await patiently(lambda: is_recorded(self._api, self._record))
            if is_there or self._record is not record:
                return
            self._stands.clear()
            await self._stands.wait()

    async def _retake(self, pod: DevPod | None = None) -> None:
        """Take the service back if the guard gave it back meanwhile; `pod` is there, or None."""
        guard = self._takeover.guard
        if not self._has_handed_over or not guard.may_have_given_back:
            return
        is_exclusive = self._takeover.plan.handover is Handover.EXCLUSIVE
        if self._pointing is not None:
            await self._wake_after_absence(guard, self._pointing)
            return
        self._watch.lap()
        if pod is not None and not is_exclusive and self._keeper.is_open:
            try:
                await patiently(partial(pod_ready, self._api, pod))
            except PodError:
                return  # the one that comes in its place begins with this
        try:
            was_serving = await patiently(
                lambda: guard.retake(self._record, is_exclusive=is_exclusive)
            )
        except ClusterError as error:
            self._events(Warned(text=f"the service is not taken back: {error.message}"))
            return
        if was_serving:
            self._stage("takeover", "the original served meanwhile · the Service is here again")

    async def _wake_after_absence(self, guard: Guard, pointing: Pointing) -> None:
        try:
            is_there = await patiently(lambda: guard.renew(self._record))
        except ClusterError as error:
            self._events(Warned(text=f"the guard's lease is not renewed: {error.message}"))
            is_there = True
        if is_there:  # else the session is over; the record's watch tells
            pointing.wake()

    async def _reassert(self, current: Connection) -> None:
        if self._keeper.is_open:
            await current.ssh.control.gate(is_open=True)

    async def _stand(self, observed: Observed) -> None:
        """Hold the service until the session is over; anew where the guard has ended it.

        Not where a person has: what was ended on purpose is not begun again by itself.

        Raises:
            TowlineError: it is somebody else's by now, or cannot be taken over any more.
        """
        while True:
            async with Tasks() as tasks:
                tasks.start(self._hold(observed), name="hold")
                gone = await record_gone(self._api, self._record)
            if gone.by_hand or not self._takeover.guard.ended_the_session:
                self._requests.end(gone.reason)
                return
            observed = await self._take_over_anew()

    async def _take_over_anew(self) -> Observed:
        self._has_handed_over = False
        self._pointing = None
        away = f"away for longer than keepFor ({self._entry.settings.keep_for_s:g} s)"
        self._events(
            TakingAnew(
                entry=self._entry.name,
                reason=f"this laptop was {away}",
                process_kept=self.process_kept,
            )
        )
        await self._link.lost()
        self._watch.lap()
        try:
            observed = await self._anew.take_over(self._takeover)
        except TowlineError:
            self._events(Restoring(reason=f"{away}, and it cannot be taken over anew"))
            raise
        self._keeper.begin_anew(self._ports())
        self._note_original(observed)
        self._save(
            session=self._record.session,
            home=self._session.folder.name,
            since=self._record.since,
            container=self._plan.container,
            line_port=self._plan.agent_ports.line,
        )
        self._events(TakenAnew(session=self._record.session))
        self._stands.set()
        return observed

    async def _hold(self, observed: Observed) -> None:
        """Take over once the gate is open, and see what others do to all that it stands on."""
        async with Tasks() as tasks:
            tasks.start(self._dev_watch().run(), name="dev workload")
            await self._hand_over()
            services = ServicesWatch(self._plan, api=self._api, events=self._events)
            tasks.start(services.run(), name="services")
            watch = OriginalWatch(self._record, observed, api=self._api, events=self._events)
            if not self._record.is_kept:
                await watch.run()
                return
            tasks.start(watch.run(), name="original")
            self._pointing = pointing = Pointing(
                self._record,
                api=self._api,
                is_open=self._may_lead_here,
                events=self._events,
            )
            self._keeper.moved = pointing.wake
            await pointing.run()

    def _dev_watch(self) -> DevWatch:
        guard = self._takeover.guard
        return DevWatch(self._record, guard, api=self._api, events=self._events)

    def _may_lead_here(self) -> bool:
        # On waking from a long sleep the Service is seen to lead to the original before the
        # dev pod is seen to be gone: pointed there once more it would lead nowhere.
        return self._keeper.is_open and not self._takeover.guard.ended_the_session

    async def _hand_over(self) -> None:
        await self._keeper.opened.wait()
        current: Connection | None = None
        while True:
            current = await self._link.get(after=current)
            try:
                await patiently(
                    partial(hand_over, self._api, self._takeover, current.pod),
                    waiting=lambda reason: self._events(Waiting(stage="takeover", reason=reason)),
                )
                break
            except PodError:  # it went in this very moment: another one comes in its place
                continue
        self._has_handed_over = True
        self._save(stage="serving", gate_open=True)
        self._stage("takeover", self._takeover_text())
        posted = self._takeover.guard.is_posted
        after_s = self._entry.settings.give_back_after_s if posted else None
        self._events(WillRestore(by_itself_after_s=after_s))
        settle()

    def _takeover_text(self) -> str:
        answers = self._answering()
        if self._record.is_kept:
            services = ", ".join(each.name for each in self._record.pointed)
            then = (
                f"Service {services} leads here, the original stays up; open connections stay "
                "where they are"
            )
            return f"{answers} · {then}" if answers else then
        return (f"{answers} · the Service is here, " if answers else "") + "original at 0"

    async def _note_state(self) -> None:
        """Keep what `status` reads fresh."""
        while True:
            current = self._link.current
            if current is not None:
                line = current.line.statistics()
                self._save(
                    gate_open=self._keeper.is_open,
                    connected_since=self._wall_time(line.connected_since),
                    round_trip_s=line.round_trip_s,
                    bytes_in=line.bytes_in,
                    bytes_out=line.bytes_out,
                )
            await asyncio.sleep(_STATE_EVERY_S)

    def _wall_time(self, at: float | None) -> str | None:
        """A moment of the loop's clock, as people and programs read it."""
        if at is None:
            return None
        return time_text(seconds_ago=asyncio.get_running_loop().time() - at)

    async def _go_back(self, opened: Iterable[Forward]) -> None:
        """Give the service back, then leave the forwards to whoever shares them.

        Before the connection goes: what is accepted after that could only be refused.
        """
        self._requests.restoring()
        try:
            await finish(self._give_back())
        finally:
            for forward in opened:
                forward.close()

    async def _give_back(self) -> None:
        if self._plan.handover is Handover.EXCLUSIVE:
            return
        self._keeper.stay()
        process_runs = self._process_runs()
        if self._pointing is not None:
            await self._pointing.end()
            if self._entry.command is not None and not process_runs:
                await self._keeper.give_up()
        await give_back(
            self._api,
            self._record,
            self._link.current,
            process_runs=process_runs,
            hold_for_s=self._entry.settings.hold_for_s,
            events=self._events,
            ready_timeout_s=self._options.ready_timeout_s,
            left_ports=self._left_ports(),
        )

    def _left_ports(self) -> Iterable[int]:
        """Ports of the dev container that a process there no longer listens on."""
        return ()

    # What the gatekeeper asks

    async def _set_gate(self, is_open: bool) -> None:
        while True:
            current = await self._link.get()
            try:
                await current.ssh.control.gate(is_open=is_open)
                return
            except ConnectionLost:
                await current.ssh.wait_closed()
                await asyncio.sleep(_RETRY_S)

    @abstractmethod
    async def _listened(self, ports: Iterable[int]) -> frozenset[int]:
        """Which of some local ports are listened on now."""

    def _process_ports(self) -> Iterable[int]:
        """The ports that the process listens on, where that can be known."""
        return ()

    # What the two modes differ in

    @abstractmethod
    def _answering(self) -> str:
        """Which ports answer by now, in words; "" where no Service leads to any."""

    def _process_runs(self) -> bool:
        """Whether a process on this laptop still answers."""
        return False

    async def _reread(self, current: Connection) -> None:  # noqa: B027 - mostly there is nothing
        """Read once more what was read of the first connection's container."""

    def _note_original(self, observed: Observed) -> None:  # noqa: B027 - mostly there is nothing
        """Another original is stood in for, or the same one once more."""

    def _goes_on_after(self, ending: Ending) -> bool:
        """Whether the session outlives a command: it failed, and somebody can restart it."""
        can_ask = self._options.offer is not None and not self._options.exit_with_command
        return ending.is_failure and can_ask

    def _stage(self, stage: str, text: str) -> None:
        self._events(StageDone(stage=stage, text=text, seconds=self._watch.lap()))

    def _save(self, **changes: object) -> None:
        self._session = replace(self._session, **changes)  # type: ignore[arg-type]
        local.save(self._session)
