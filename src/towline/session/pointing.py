"""`original: keep`: the Services lead here while the gate is open and the dev pod ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from towline._kit.tasks import Tasks
from towline.cluster import point
from towline.cluster.api import FIELD_MANAGER, Api
from towline.cluster.watch import continuous_watch
from towline.errors import ClusterError, Unreachable
from towline.plan.controllers import remedy, selector_held
from towline.plan.keep import PointedService
from towline.plan.record import Record
from towline.session.events import Events, StageDone, Warned
from towline.session.reverts import Reverts

_RETRY_S = 0.5


class Pointing:
    """Follows the Services, the dev pod and the gate, and changes selectors accordingly.

    Args:
        is_open: whether the gate is open now; `wake` says that it has moved.
    """

    def __init__(
        self,
        record: Record,
        *,
        api: Api,
        is_open: Callable[[], bool],
        events: Events,
    ) -> None:
        self._record = record
        self._api = api
        self._is_open = is_open
        self._events = events
        self._woken = asyncio.Event()
        self._changing = asyncio.Lock()
        self._is_over = False
        self._is_ready = False
        self._leads_here: set[str] = set()
        self._told: set[str] = set()
        self._reverts = Reverts()

    def wake(self) -> None:
        """Look again: the gate has moved, or the laptop was away."""
        self._woken.set()

    async def end(self) -> None:
        """Change nothing any more; a change that is under way is waited for."""
        self._is_over = True
        async with self._changing:
            return

    async def run(self) -> None:
        """Follow until cancelled.

        Raises:
            Reverted: a selector is put back again and again, with who does it.
            ClusterError: the cluster refuses.
        """
        async with Tasks() as tasks:
            tasks.start(self._follow_dev_workload(), name="dev workload")
            for service in self._record.pointed:
                tasks.start(self._follow(service.name), name=f"service {service.name}")
            while True:
                await self._woken.wait()
                self._woken.clear()
                try:
                    for service in self._record.pointed:
                        async with self._changing:
                            await self._settle(service)
                except Unreachable:
                    await asyncio.sleep(_RETRY_S)
                    self._woken.set()

    async def _follow_dev_workload(self) -> None:
        name = self._record.names.dev_workload
        watch = continuous_watch(self._api, "deployments", fields=f"metadata.name={name}")
        async with aclosing(watch) as events:  # type: ignore[type-var]
            async for event in events:
                is_ready = event.kind != "DELETED" and point.seen_ready(event.object)
                if is_ready is not self._is_ready:
                    self._is_ready = is_ready
                    self._woken.set()

    async def _follow(self, service: str) -> None:
        watch = continuous_watch(self._api, "services", fields=f"metadata.name={service}")
        async with aclosing(watch) as events:  # type: ignore[type-var]
            async for _ in events:
                self._woken.set()

    async def _settle(self, service: PointedService) -> None:
        """Point one Service where it should lead now, unless somebody else has a say."""
        if self._is_over:
            return
        leads_here = service.name in self._leads_here
        if not (self._is_open() and self._is_ready):
            await point.point_back(self._api, self._record, service)
            self._leads_here.discard(service.name)
            return
        was = await point.point_here(self._api, self._record, service)
        self._leads_here.add(service.name)
        name, by = f"Service {service.name}", was.by or "somebody"
        if was.points is point.Points.GONE:
            self._tell_once(f"{name} was deleted meanwhile: nothing of it will be put back")
        elif was.points is point.Points.ELSEWHERE:
            self._tell_once(f"{name} was pointed elsewhere by {by}: left so")
        elif was.points is point.Points.AT_ORIGINAL and leads_here:
            if was.by == FIELD_MANAGER:
                text = f"the original served meanwhile · {name} leads here again"
                self._events(StageDone(stage="takeover", text=text, seconds=0.0))
            else:
                what = f"{name} was pointed back by {by}"
                held = selector_held(was.service, namespace=self._api.namespace)
                self._reverts.add(what, hint=remedy(by, held))
                self._events(Warned(text=f"{what}: pointed here once more"))

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._events(Warned(text=text))


async def point_all_here(api: Api, record: Record) -> None:
    """The first time: the way back written down, then all Services pointed at the dev pod.

    Raises:
        Conflict: somebody else was faster.
    """
    await point.dev_workload_seen_ready(api, record)
    await point.mark_original(api, record)
    for service in record.pointed:
        await point.point_here(api, record, service)
    await point.endpoints_follow(api, record, here=True)


async def point_all_back(api: Api, record: Record) -> None:
    """All Services lead to the original again; where the cluster is away, the restore says so."""
    try:
        for service in record.pointed:
            await point.point_back(api, record, service)
        await point.endpoints_follow(api, record, here=False)
    except ClusterError:
        return
