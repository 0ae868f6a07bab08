"""With exactly the rights of docs/rights.yaml, with `edit`, and with one right missing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.api.cluster import Cluster, autoscaler, deployment, entry, service, stateful_set
from tests.api.controlplane import ROOT
from tests.api.test_takeover import begin, is_as, restore, settled

from towline.cluster.api import Api, WatchEvent
from towline.cluster.checks import MORE, NEEDED, USEFUL, check_namespace, check_reach, check_rights
from towline.cluster.observe import observe
from towline.cluster.pods import pod_running
from towline.cluster.watch import continuous_watch
from towline.errors import Forbidden, PodError, TowlineError
from towline.line.carrier import CarrierDialler
from towline.plan.model import Plan
from towline.session.end import find_records
from towline.session.others import ServicesWatch
from towline.session.takeover import RecordGone, record_gone

RIGHTS = yaml.safe_load((ROOT / "docs/rights.yaml").read_text())
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}

Right = tuple[str, str, str]


def granted(role: dict[str, Any]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


class NotingApi(Api):
    """Notes the rights that requests need."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.used: set[Right] = set()

    def _note(self, verb: str, path: str) -> None:
        parts = urlsplit(path).path.strip("/").split("/")
        if not parts[0].startswith("api"):
            return
        group = "" if parts[0] == "api" else parts[1]
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if rest[:1] != ["namespaces"] or len(rest) < 3:
            return  # nothing of a namespaced Role's
        resource, name = rest[2], rest[3] if len(rest) > 3 else None
        verb = "list" if verb == "get" and name is None else verb
        self.used.add((group, resource, verb))

    async def request(self, method: str, path: str, **settings: Any) -> dict[str, Any]:
        self._note(_VERBS[method], path)
        return await super().request(method, path, **settings)

    async def watch(self, resource: str, **settings: Any) -> AsyncIterator[WatchEvent]:
        self._note("watch", self._path(resource, "any", None))
        async for event in super().watch(resource, **settings):
            yield event


def test_the_role_grants_what_is_checked_for() -> None:
    assert granted(RIGHTS) == set(NEEDED) | {(g, r, v) for g, r, v, _ in USEFUL}
    text = (ROOT / "docs/rights.yaml").read_text()
    more = yaml.safe_load(re.sub("^# ", "", text[text.index("# - apiGroups") :], flags=re.M))
    assert granted({"rules": more}) >= {(g, r, v) for g, r, v, _ in MORE}


async def bound(cluster: Cluster, *, role: dict[str, Any] | None) -> NotingApi:
    """A user bound to a Role, or to the built-in `edit` (None)."""
    name = "system:anna" if role is None else "anna"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    if role is not None:
        await cluster.api.create("roles", role)
        reference |= {"kind": "Role", "name": role["metadata"]["name"]}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}
    body = {"metadata": {"name": "bound"}, "roleRef": reference, "subjects": [subject]}
    await cluster.api.create("rolebindings", body)
    api = cluster.api_as(cluster.plane.user(name), kind=NotingApi)
    assert isinstance(api, NotingApi)
    async with asyncio.timeout(10):
        while True:  # the authorizer learns of a binding by a watch
            try:
                await api.list_("configmaps")
                break
            except Forbidden:
                await asyncio.sleep(0.05)
    api.used.clear()
    return api


async def up_and_down(api: NotingApi, plan: Plan) -> None:
    """The session's requests, as session/ and cli/ make them; the pod has no node to run on."""
    record = await begin(api, plan)
    with pytest.raises(PodError):
        await pod_running(api, record, timeout_s=0.5, waiting=lambda reason: None)
    pods = await api.list_("pods", labels=f"towline.dev/session={plan.session}")
    [pod] = [p["metadata"]["name"] for p in pods["items"]]
    for kind in ("spdy", "websocket"):
        dialler = CarrierDialler(api, pod=pod, port=48222)
        dialler.kind = kind
        with pytest.raises(TowlineError) as raised:
            await dialler.dial()
        assert not isinstance(raised.value, Forbidden), raised.value.message
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(record_gone(api, record))
        [found] = [r for r in await find_records(api, None) if r.session == plan.session]
        await restore(api, found, ended_by="ben@desk (`towline down`)")
    gone = ended.result()
    assert gone == RecordGone(reason="ended by ben@desk (`towline down`)", by_hand=True)


async def test_services_that_may_not_be_watched_are_gone_without(cluster: Cluster) -> None:
    await cluster.create(deployment(), service())
    _, plan = await cluster.plan()
    rules = [{"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": ["list"]}]
    api = await bound(cluster, role={"metadata": {"name": "lists"}, "rules": rules})
    told: list[object] = []
    async with asyncio.timeout(10):
        await ServicesWatch(plan, api=api, events=told.append).run()
    assert ("", "services", "watch") in api.used and not told


@pytest.mark.parametrize("role", [RIGHTS, None], ids=["docs/rights.yaml", "edit"])
async def test_up_and_down_with_exactly_these_rights(
    cluster: Cluster, role: dict[str, Any] | None
) -> None:
    made = deployment()
    claim = {"name": "f", "persistentVolumeClaim": {"claimName": "none"}}
    made["spec"]["template"]["spec"]["volumes"] = [claim]
    await cluster.create(made, stateful_set(), service(), autoscaler(), deployment("other"))
    api = await bound(cluster, role=role)
    # Somebody has the pieces already, so that ours is one more owner of them.
    await settled(cluster)
    _, others = await cluster.plan(entry("other"), session="0f0f0f0f")
    await begin(cluster.api, others)
    before = await settled(cluster)
    for name in ("web", "db"):
        _, plan = await cluster.plan(entry(name, reverse=entry().reverse), api=api)
        await up_and_down(api, plan)
        # The shared pieces have had one more owner: their field managers' times tell.
        await is_as(cluster, before, but="configmaps/towline-")
    await find_records(api, None)
    with pytest.raises(TowlineError, match="no Deployment or StatefulSet 'nope'"):
        await observe(entry("nope"), api=api)
    # Made by the carrier, and asserted on above; these are the two that take no Api call.
    used = api.used | {("", "pods/portforward", v) for v in ("get", "create")}
    unused = set(NEEDED) - used
    assert not unused, f"docs/rights.yaml asks for more than is used: {sorted(unused)}"


async def test_doctor_is_content_with_the_smallest_role(cluster: Cluster) -> None:
    api = await bound(cluster, role=RIGHTS)
    findings = [await check_reach(api), *await check_rights(api), *await check_namespace(api)]
    assert all(f.ok for f in findings), findings
    assert "v1." in findings[0].text


@pytest.mark.parametrize(
    ("group", "resource", "verb"),
    [
        ("", "pods/portforward", "create"),
        ("apps", "deployments", "patch"),
        ("", "secrets", "create"),
    ],
)
async def test_doctor_names_the_one_right_that_is_missing(
    cluster: Cluster, group: str, resource: str, verb: str
) -> None:
    rules = []
    for rule in RIGHTS["rules"]:
        hit = group in rule["apiGroups"] and resource in rule["resources"]
        rules.append({**rule, "verbs": [v for v in rule["verbs"] if not (hit and v == verb)]})
    api = await bound(cluster, role={**RIGHTS, "rules": rules})
    [missing] = [f for f in await check_rights(api) if not f.ok]
    name = f"{resource}.{group}" if group else resource
    assert missing.text == f"you may not {verb} {name} in namespace {cluster.namespace}"
    assert "docs/rights.yaml" in (missing.hint or "")


async def test_a_missing_right_is_named_and_all_is_undone(cluster: Cluster) -> None:
    await cluster.create(deployment())
    before_role = [r for r in RIGHTS["rules"] if r["resources"] != ["secrets"]]
    api = await bound(cluster, role={**RIGHTS, "rules": before_role})
    before = await settled(cluster)
    _, plan = await cluster.plan(api=api)
    with pytest.raises(Forbidden, match='cannot create resource "secrets"') as raised:
        await begin(api, plan)
    assert "docs/rights.yaml" in (raised.value.hint or "")
    [record] = await find_records(cluster.api, None)
    await restore(cluster.api, record)
    await is_as(cluster, before)


async def test_a_watch_that_may_not_be_is_an_error_and_not_silence(cluster: Cluster) -> None:
    api = cluster.api_as({"token": "token-of-nobody"})
    with pytest.raises(Forbidden, match='cannot list resource "pods"'):
        async for _ in continuous_watch(api, "pods"):
            raise AssertionError("nothing may be seen")
