"""The session's guard, seen from the laptop: posted, told that we live, taken over from again."""

from __future__ import annotations

import asyncio
import time

from towline._kit.tasks import Tasks
from towline.cluster import apply
from towline.cluster.api import Api
from towline.cluster.guard import create_guard, guard_gone, guard_runs, renew_lease
from towline.cluster.watch import patiently
from towline.errors import ClusterError, Unreachable
from towline.manifest.model import Settings
from towline.plan.keep import pointed_services, unguarded_notice
from towline.plan.model import Plan
from towline.plan.record import Record
from towline.session.events import Events, Warned

# A lease is renewed often enough that a few lost tries do not matter.
_RENEWALS_IN_GIVE_BACK = 8
_RENEW_AT_MOST_EVERY_S = 10.0
_RETRY_S = 1.0
# For its image, its scheduling, its start: what takes longer is told.
_RUNS_WITHIN_S = 60.0


class Guard:
    """Posts the guard at most once, and renews its lease for as long as `tasks` live."""

    def __init__(
        self, plan: Plan, settings: Settings, *, api: Api, tasks: Tasks, events: Events
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._api = api
        self._tasks = tasks
        self._events = events
        self._renewed_at: float | None = None
        self._running: list[asyncio.Task[None]] = []
        self.is_posted = False
        self._is_retaking = False

    def successor(self, plan: Plan) -> Guard:
        """The guard of the same laptop's next session, not posted yet."""
        return Guard(plan, self._settings, api=self._api, tasks=self._tasks, events=self._events)

    def retire(self) -> None:
        """Tell nobody any more that we live."""
        for each in self._running:
            each.cancel()

    async def post(self, record: Record) -> None:
        """Make it, unless it is not wanted; told and gone without where the cluster refuses.

        Raises:
            Unreachable: the network is away; what was made is made on by the next try.
        """
        if not self._plan.guard or self.is_posted:
            return
        give_back_after_s = self._settings.give_back_after_s
        try:
            await create_guard(
                self._api, record, self._plan.guard, give_back_after_s=give_back_after_s
            )
        except Unreachable:
            raise
        except ClusterError as error:
            self._tell_missing(error.message)
            return
        self.is_posted = True
        self._renewed_at = _now()
        self._running = [
            self._tasks.start(self._keep_renewing(record), name="lease"),
            self._tasks.start(self._see_it_run(record), name="guard"),
        ]

    async def renew(self, record: Record) -> bool:
        """Renew the lease; False when it is gone. Raises Unreachable, ClusterError."""
        # Before it is sent: a laptop that falls asleep meanwhile has its answer on waking.
        sent_at = _now()
        is_there = await renew_lease(self._api, record)
        if is_there:
            self._renewed_at = sent_at
        return is_there

    async def retake(self, record: Record, *, is_exclusive: bool) -> bool:
        """Take the service back after an absence; whether it had been given back meanwhile.

        In a seamless handover the dev pod is Ready by now: its gate was opened before.
        Whatever of it was done, it stays due until it has come to its end: who waits for it
        may be cancelled, by an exclusive handover's own dev pod that ends.

        Raises:
            Unreachable: the network is away.
            Conflict: somebody scaled the original meanwhile.
            ClusterError: the cluster refuses.
        """
        self._is_retaking = True
        try:
            was_serving = await self._retake(record, is_exclusive=is_exclusive)
        except ClusterError as error:
            self._is_retaking = isinstance(error, Unreachable)
            raise
        self._is_retaking = False
        return was_serving

    async def _retake(self, record: Record, *, is_exclusive: bool) -> bool:
        if not await self.renew(record):
            return False  # the session is over; the record's watch tells
        was_serving = await apply.stop_original(self._api, record, anew=True)
        if is_exclusive:
            # Also where it did not serve yet: the guard stops the dev pod first.
            await apply.original_ended(self._api, record)
            await apply.start_dev_workload(self._api, record)
        return was_serving

    @property
    def ended_the_session(self) -> bool:
        """Whether we were away for so long that the guard has removed all of it by now."""
        return self._renewed_at is not None and self._away_s > self._settings.keep_for_s

    @property
    def may_have_given_back(self) -> bool:
        """Whether we were away for so long that the original may serve again."""
        return self.is_posted and (self._is_retaking or self._was_away)

    @property
    def _was_away(self) -> bool:
        # Half of it, as this decides whether to look: the guard's clock is another one.
        return self._away_s > self._settings.give_back_after_s / 2

    @property
    def _away_s(self) -> float:
        return _now() - (self._renewed_at or _now())

    async def _keep_renewing(self, record: Record) -> None:
        every_s = self._settings.give_back_after_s / _RENEWALS_IN_GIVE_BACK
        every_s = min(every_s, _RENEW_AT_MOST_EVERY_S)
        while True:
            await asyncio.sleep(every_s)
            # After a long absence the retaking renews it: the original is to be looked at
            # between the two.
            if self._was_away:
                continue
            try:
                if not await self.renew(record):
                    return
            except Unreachable:
                await asyncio.sleep(min(_RETRY_S, every_s))
            except ClusterError as error:
                self._tell_missing(f"its lease cannot be renewed: {error.message}")
                return

    async def _see_it_run(self, record: Record) -> None:
        reason = await guard_runs(self._api, record, within_s=_RUNS_WITHIN_S)
        if reason is None:
            reason = await guard_gone(self._api, record)
            if await patiently(lambda: apply.is_being_ended(self._api, record)):
                return
        self._tell_missing(reason)

    def _tell_missing(self, reason: str) -> None:
        if pointed := [each.name for each in pointed_services(self._plan.actions)]:
            text = unguarded_notice(self._plan.workload, pointed, reason)
            self._events(Warned(text=text))
            return
        text = (
            f"no guard: if this laptop is gone, {self._plan.workload} stays as it is until "
            f"somebody runs `towline down` ({reason})"
        )
        self._events(Warned(text=text))


def _now() -> float:
    """Seconds that pass also while the laptop sleeps, where there is such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.time()
