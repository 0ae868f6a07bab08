"""A laptop that comes back while the guard gives back: whoever was first, one of both serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.api.cluster import Cluster, deployment, entry, eventually, service
from tests.api.test_takeover import begin, is_as, restore, settled

from towline._kit.tasks import Tasks
from towline.cluster.api import Api
from towline.errors import Conflict
from towline.manifest.model import Handover, Settings
from towline.plan.record import Record
from towline.session.guard import Guard

_SETTINGS = Settings(handover=Handover.EXCLUSIVE)
_HOLD = {"metadata": {"finalizers": ["tests.towline.dev/hold"]}}


class Session:
    """An exclusive takeover that is guarded."""

    def __init__(self, api: Api, record: Record, guard: Guard) -> None:
        self.api = api
        self.record = record
        self.guard = guard

    async def replicas(self) -> tuple[int, int]:
        """Of the original and of the dev workload."""
        found = [
            await self.api.get("deployments", name)
            for name in (self.record.workload, self.record.names.dev_workload)
        ]
        return found[0]["spec"]["replicas"], found[1]["spec"]["replicas"]

    async def scale(self, name: str, replicas: int) -> None:
        await self.api.patch("deployments", name, {"spec": {"replicas": replicas}})

    async def pods_of_the_original(self) -> list[dict[str, Any]]:
        pods = await self.api.list_("pods", labels="app=web,!towline.dev/session")
        return list(pods["items"])


@pytest.fixture
async def session(cluster: Cluster) -> AsyncIterator[Session]:
    await cluster.create(deployment(), service())
    before = await settled(cluster)
    _, plan = await cluster.plan(entry(settings=_SETTINGS))
    assert plan.handover is Handover.EXCLUSIVE and plan.guard
    record = await begin(cluster.api, plan)
    async with Tasks() as tasks:
        guard = Guard(plan, _SETTINGS, api=cluster.api, tasks=tasks, events=lambda event: None)
        await guard.post(record)
        yield Session(cluster.api, record, guard)
        guard.retire()
    await restore(cluster.api, record)
    await is_as(cluster, before)


async def test_the_dev_pod_is_started_where_the_guard_had_only_begun(session: Session) -> None:
    """It stopped the dev pod first, and left the original when it saw the laptop: nobody served."""
    await session.scale(session.record.names.dev_workload, 0)
    assert not await session.guard.retake(session.record, is_exclusive=True), "it did not serve"
    assert await session.replicas() == (0, 1)


async def test_a_retaking_that_was_cancelled_is_still_due(session: Session) -> None:
    """Its dev pod ends meanwhile, and with it who waited: the next one found nothing to do."""
    await session.scale(session.record.names.dev_workload, 0)
    await session.scale(session.record.workload, 2)

    async def serves() -> bool:
        return len(await session.pods_of_the_original()) == 2

    await eventually(serves)
    pods = [pod["metadata"]["name"] for pod in await session.pods_of_the_original()]
    for pod in pods:
        await session.api.patch("pods", pod, _HOLD)
    assert not session.guard.may_have_given_back
    retaking = asyncio.create_task(session.guard.retake(session.record, is_exclusive=True))

    async def waits_for_its_end() -> bool:
        return (await session.replicas())[0] == 0

    await eventually(waits_for_its_end)
    retaking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await retaking
    assert session.guard.may_have_given_back
    for pod in pods:
        await session.api.patch("pods", pod, {"metadata": {"finalizers": None}})
    await session.guard.retake(session.record, is_exclusive=True)
    assert await session.replicas() == (0, 1)
    assert not session.guard.may_have_given_back


class LateApi(Api):
    """Whose answers to a renewal come when they are let through."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.renewed, self.may_answer = asyncio.Event(), asyncio.Event()

    async def patch(self, resource: str, *words: Any, **settings: Any) -> dict[str, Any]:
        answer = await super().patch(resource, *words, **settings)
        self.renewed.set()
        await self.may_answer.wait()
        return answer


async def test_a_renewal_whose_answer_came_on_waking_is_as_old_as_it_is(
    cluster: Cluster, session: Session
) -> None:
    """It passed for one of that moment: the guard's end of the session for a `down`."""
    _, plan = await cluster.plan(entry(settings=_SETTINGS), session="0b0b0b0b")
    api = cluster.api_as(cluster.plane.admin(), kind=LateApi)
    assert isinstance(api, LateApi)
    settings = Settings(give_back_after_s=0.5, keep_for_s=1.0)
    async with Tasks() as tasks:
        guard = Guard(plan, settings, api=api, tasks=tasks, events=lambda event: None)
        renewing = asyncio.create_task(guard.renew(session.record))
        await api.renewed.wait()
        await asyncio.sleep(1.1)  # the sleep
        api.may_answer.set()
        assert await renewing
        assert guard.ended_the_session


async def test_a_write_of_the_guards_that_is_under_way_does_not_count(session: Session) -> None:
    """It read the dev workload, and then the lease, before the laptop was back."""
    name = session.record.names.dev_workload
    read = await session.api.get("deployments", name)
    await session.guard.retake(session.record, is_exclusive=True)
    version = {"resourceVersion": read["metadata"]["resourceVersion"]}
    with pytest.raises(Conflict):
        patch = {"metadata": version, "spec": {"replicas": 0}}
        await session.api.patch("deployments", name, patch)
    assert await session.replicas() == (0, 1)
