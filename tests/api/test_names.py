"""The names of a namespace with 5,000 Services, listened for on this laptop."""

from __future__ import annotations

import asyncio
import resource
import time
from contextlib import closing
from pathlib import Path

import pytest
from tests.api.cluster import Cluster, entry

from towline._kit.tasks import Tasks
from towline.cluster.api import Api
from towline.environ.rewrite import rewritten_names
from towline.errors import Forbidden
from towline.session.names import SessionNames
from towline.transport.control import AgentHello
from towline.tunnels.named import NamedListeners
from towline.tunnels.spares import Spares

COUNT = 5000
HELLO = AgentHello(version="", session="", boot="", arch="amd64", hostname="x", reverse=())


async def make_services(cluster: Cluster) -> None:
    """Many at once; each is a write of the API server's own."""
    numbers = iter(range(COUNT))

    async def some() -> None:
        for number in numbers:
            name = f"service-{number:04}"
            spec = {"selector": {"app": "x"}, "ports": [{"port": 9000}]}
            await cluster.api.create("services", {"metadata": {"name": name}, "spec": spec})

    async with asyncio.TaskGroup() as group:
        for _ in range(24):
            group.create_task(some())


async def reader_of_services(cluster: Cluster) -> Api:
    """May not see EndpointSlices: then each Service counts as one that answers."""
    rules = [{"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]}]
    await cluster.api.create("roles", {"metadata": {"name": "reader"}, "rules": rules})
    group = "rbac.authorization.k8s.io"
    body = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "reader"}],
    }
    await cluster.api.create("rolebindings", body)
    api = cluster.api_as(cluster.plane.user("reader"))
    async with asyncio.timeout(10):
        while True:  # the authorizer learns of a binding by a watch
            try:
                await api.list_("services")
                return api
            except Forbidden:
                await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_five_thousand_services(cluster: Cluster, tmp_path: Path) -> None:
    """All in the hosts file, all listened for where a descriptor can be had, the rest told."""
    await make_services(cluster)
    api = await reader_of_services(cluster)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # as a shell gives it
    told: list[str] = []
    hosts = tmp_path / "hosts"
    try:
        async with Tasks() as tasks:
            spares = Spares(hold_for_s=0, tasks=tasks)
            with closing(NamedListeners(spares=spares, tasks=tasks, avoid={})) as listening:
                began, used = time.monotonic(), time.process_time()
                names = SessionNames(
                    entry(), api=api, key=str(tmp_path), hosts=hosts,
                    listening=listening, tell=told.append,
                )  # fmt: skip
                await names.begin()
                await names.use_container(HELLO, {}, is_shown=True)
                took, work = time.monotonic() - began, time.process_time() - used
                print(f"{names.count} names in {took:.2f} s, of them {work:.2f} s of work")
                assert names.count == COUNT
                lines = hosts.read_text().splitlines()
                [line] = [each for each in lines if " service-4999 " in each]
                address = line.split()[0]
                reader, writer = await asyncio.open_connection(address, 9000)
                with pytest.raises(ConnectionResetError):  # somebody listens; nobody carries it
                    await reader.readexactly(1)
                writer.close()
                assert len({each.split()[0] for each in lines if "service-" in each}) == COUNT
                changed = rewritten_names({b"URL": b"http://service-4999:9000/"}, names.ends())
                assert changed == (), "its own port, and found"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert told == []
