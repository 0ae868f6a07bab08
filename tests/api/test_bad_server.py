"""An API server that throttles, conflicts, is slow or fails: waited for, nothing half done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import create_default_context

import pytest
from tests.api.cluster import Cluster, service
from tests.api.cluster import deployment as a_deployment
from tests.api.test_takeover import begin, entry_of, is_as, restore, settled
from tests.fakes.badserver import Asked, BadServer, Fault, Says, Slow
from tests.fakes.netfault import faulty_network

from towline.cluster.api import Api, WatchEvent
from towline.cluster.watch import until
from towline.errors import Unreachable
from towline.session.end import find_records


@asynccontextmanager
async def through(cluster: Cluster) -> AsyncIterator[tuple[BadServer, Api]]:
    authority = cluster.plane.authority.certificate.decode()
    bad = BadServer(
        "127.0.0.1",
        cluster.plane.port,
        tls=create_default_context(cadata=authority),
        tls_name="127.0.0.1",
    )
    async with bad.running():
        server = f"http://127.0.0.1:{bad.port}"
        extra = {"server": server, "certificate-authority-data": ""}
        yield bad, cluster.api_as({"token": "token-of-admin"}, **extra)


class Once:
    """Each request meets the fault once; its repetition gets through."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._met: set[tuple[str, str]] = set()
        self.count = 0

    def __call__(self, asked: Asked) -> Fault:
        key = (asked.method, asked.path)
        if key in self._met or "watch=1" in asked.path:
            return None
        self._met.add(key)
        self.count += 1
        return self._fault


@pytest.mark.parametrize("kind", ["Deployment", "kept"])
@pytest.mark.parametrize(
    "fault",
    [Says(429, {"Retry-After": "0"}), Says(503, {"Retry-After": "0"}), Slow(0.2)],
    ids=["throttles", "fails", "is-slow"],
)
async def test_every_request_meets_it_once(cluster: Cluster, kind: str, fault: Fault) -> None:
    cluster.apply(a_deployment(), service())
    before = await settled(cluster)
    async with through(cluster) as (bad, api):
        bad.decide = once = Once(fault)
        _, plan = await cluster.plan(entry_of("web", kind), api=api)
        record = await begin(api, plan)
        await restore(api, record)
    assert once.count > 15, "it was met"
    await is_as(cluster, before)


async def test_a_patch_that_conflicts_is_decided_anew(cluster: Cluster) -> None:
    cluster.apply(a_deployment(), service())
    before = await settled(cluster)
    async with through(cluster) as (bad, api):
        met: dict[str, int] = {}

        def thrice(asked: Asked) -> Fault:
            name = asked.path.partition("?")[0]
            if asked.method != "PATCH" or not name.endswith("/web"):
                return None
            met[name] = met.get(name, 0) + 1
            return Says(409) if met[name] % 4 else None

        bad.decide = thrice
        for kind in ("Deployment", "kept"):
            _, plan = await cluster.plan(entry_of("web", kind), api=api)
            await restore(api, await begin(api, plan))
            await is_as(cluster, before)


async def test_the_servers_own_advice_is_waited_for(cluster: Cluster) -> None:
    async with through(cluster) as (bad, api):
        bad.decide = Once(Says(429, {"Retry-After": "1"}))
        began = time.monotonic()
        await api.list_("configmaps")
        assert time.monotonic() - began >= 1


async def test_a_watch_is_not_asked_for_before_the_server_wants_it_again(
    cluster: Cluster,
) -> None:
    async with through(cluster) as (bad, api):
        asked_at: list[float] = []
        again = asyncio.Event()

        def throttled(asked: Asked) -> Fault:
            if "watch=1" not in asked.path:
                return None
            asked_at.append(time.monotonic())
            if len(asked_at) == 1:
                return Says(429, {"Retry-After": "1"})
            again.set()
            return None

        bad.decide = throttled
        watching = asyncio.ensure_future(
            until(api, "configmaps", lambda event: event.object["metadata"]["name"] == "later")
        )
        async with asyncio.timeout(30):
            await again.wait()
            await cluster.api.create("configmaps", {"metadata": {"name": "later"}})
            await watching
    assert asked_at[1] - asked_at[0] >= 1


async def test_writes_that_take_5_s_are_waited_for(cluster: Cluster) -> None:
    cluster.apply(a_deployment(), service())
    before = await settled(cluster)
    async with through(cluster) as (bad, api):
        is_of_the_original = lambda asked: asked.write and "/deployments/web" in asked.path  # noqa: E731
        bad.decide = lambda asked: Slow(5) if is_of_the_original(asked) else None
        _, plan = await cluster.plan(api=api)
        await restore(api, await begin(api, plan))
    await is_as(cluster, before)


async def test_a_server_that_fails_for_good_leaves_what_leads_back(cluster: Cluster) -> None:
    cluster.apply(a_deployment(), service())
    before = await settled(cluster)
    async with through(cluster) as (bad, api):
        _, plan = await cluster.plan(api=api)
        bad.decide = lambda asked: Says(500, {"Retry-After": "0"}) if asked.write > 4 else None
        with pytest.raises(Unreachable, match="the API server failed"):
            await begin(api, plan)
        bad.decide = lambda asked: None
        for record in await find_records(api, None):
            await restore(api, record)
    await is_as(cluster, before)


async def test_a_watch_that_begins_without_a_network_waits_for_it(cluster: Cluster) -> None:
    """A session that came back after two minutes, and lost the network again, ended."""
    async with faulty_network(cluster.plane.port) as network:
        server = f"https://127.0.0.1:{network.port}"
        api = cluster.api_as({"token": "token-of-admin"}, server=server)
        network.cut()

        def is_it(event: WatchEvent) -> bool:
            return bool(event.object["metadata"]["name"] == "later")

        watching = asyncio.ensure_future(until(api, "configmaps", is_it))
        try:
            with pytest.raises(Unreachable):
                await api.list_("configmaps")
            assert not watching.done()
            network.restore()
            await cluster.api.create("configmaps", {"metadata": {"name": "later"}})
            async with asyncio.timeout(30):
                await watching
        finally:
            watching.cancel()
