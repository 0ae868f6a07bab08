"""What the cluster refuses is shown whole, and nothing stays half done."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.api.cluster import Cluster, deployment, entry, eventually, service
from tests.api.test_takeover import begin, is_as, restore, settled

from towline._kit.tasks import Tasks
from towline.cluster import apply
from towline.cluster.observe import observe
from towline.cluster.pods import pod_running
from towline.errors import PodError, Refused
from towline.manifest.model import Handover
from towline.plan.model import LABEL_SESSION
from towline.session.end import find_records
from towline.session.events import Event, Warned
from towline.session.guard import Guard
from towline.session.prepare import tried_plan
from towline.session.takeover import Takeover, running_pod

_SAID = "ours alone: ask the platform team (ticket 4711)"


def policy(cluster: Cluster, *, resource: str, operation: str, rule: str) -> list[dict[str, Any]]:
    name = f"policy-{cluster.namespace}"
    here = {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}}
    group = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": here,
                    "resourceRules": [
                        {
                            "apiGroups": ["*"],
                            "apiVersions": ["*"],
                            "operations": [operation],
                            "resources": [resource],
                        }
                    ],
                },
                "validations": [{"expression": rule, "message": _SAID, "reason": "Forbidden"}],
            },
        },
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]


async def until_refused(cluster: Cluster) -> None:
    """A policy is in force a moment after it was made."""
    async with asyncio.timeout(20):
        while True:
            try:
                await cluster.api.create("deployments", deployment("x-towline"), dry_run=True)
            except Refused:
                return
            await asyncio.sleep(0.1)


async def test_an_admission_policys_words_are_shown_whole(cluster: Cluster) -> None:
    await cluster.create(deployment())
    before = await settled(cluster)
    rule = "!object.metadata.name.endsWith('-towline')"
    cluster.apply(*policy(cluster, resource="deployments", operation="CREATE", rule=rule))
    await until_refused(cluster)
    _, plan = await cluster.plan()
    with pytest.raises(Refused) as raised:
        await begin(cluster.api, plan)
    assert _SAID in raised.value.message
    assert "rights" not in (raised.value.hint or ""), "no right would help"
    [record] = await find_records(cluster.api, "web")
    await restore(cluster.api, record)
    await is_as(cluster, before)


async def full_quota(cluster: Cluster) -> None:
    """Two pods, and no more than two."""
    await cluster.create(deployment(), service())
    await settled(cluster)
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
    await cluster.api.create("resourcequotas", quota)

    async def counts() -> bool:  # from the moment that its status is known
        found = await cluster.api.get("resourcequotas", "few")
        return bool((found.get("status") or {}).get("used", {}).get("pods") == "2")

    await eventually(counts)


async def test_a_full_quota_is_seen_before_the_takeover(cluster: Cluster) -> None:
    await full_quota(cluster)
    before = await settled(cluster)
    observed = await observe(entry(), api=cluster.api)
    _, prepared = await tried_plan(entry(), observed, api=cluster.api)
    assert prepared.plan.handover is Handover.EXCLUSIVE
    reason = prepared.plan.handover_reason or ""
    assert "the quota has no room for both (few, requested: pods=1" in reason
    wanted = entry(settings=replace(entry().settings, handover=Handover.SEAMLESS))
    _, prepared = await tried_plan(wanted, observed, api=cluster.api)
    assert prepared.plan.handover is Handover.SEAMLESS, "the manifest says so"
    await is_as(cluster, before)


async def test_a_quota_that_fills_up_meanwhile_makes_the_original_stop_first(
    cluster: Cluster,
) -> None:
    """The dry run said that there was room; the way back knows that there was none."""
    await cluster.create(deployment(), service())
    before = await settled(cluster)
    _, plan = await cluster.plan()
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
    await cluster.api.create("resourcequotas", quota)
    record = await begin(cluster.api, plan)
    told: list[Event] = []
    async with Tasks() as tasks:
        settings = entry().settings
        guard = Guard(plan, settings, api=cluster.api, tasks=tasks, events=told.append)
        takeover = Takeover(plan, record, guard)
        with pytest.raises(PodError):  # there is no node here that would run it
            await running_pod(
                takeover, api=cluster.api, timeout_s=8, may_stop_original=True, events=told.append
            )
    assert takeover.plan.handover is Handover.EXCLUSIVE
    assert any(isinstance(e, Warned) and "exceeded quota: few" in e.text for e in told)
    [found] = await find_records(cluster.api, "web")
    assert found.handover is Handover.EXCLUSIVE
    pods = await cluster.api.list_("pods", labels=f"{LABEL_SESSION}={plan.session}")
    assert len(pods["items"]) == 1, "made anew once the original's pods were gone"
    await cluster.api.delete("resourcequotas", "few")
    await restore(cluster.api, found)
    await is_as(cluster, before)


async def test_a_quota_of_pods(cluster: Cluster) -> None:
    await full_quota(cluster)
    before = await settled(cluster)
    _, plan = await cluster.plan()
    record = await apply.write_record(cluster.api, (await _record(plan)))
    await apply.create_dev_workload(cluster.api, record, plan.dev_workload)
    with pytest.raises(Refused, match="exceeded quota: few") as raised:
        await pod_running(cluster.api, record, timeout_s=10, waiting=lambda reason: None)
    assert "--handover exclusive" in (raised.value.hint or "")
    await restore(cluster.api, record)
    await is_as(cluster, before)


async def _record(plan: Any) -> Any:
    from tests.api.cluster import record_for

    return record_for(plan)


async def test_a_quota_of_configmaps(cluster: Cluster) -> None:
    await cluster.create(deployment())
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"configmaps": "0"}}}
    await cluster.api.create("resourcequotas", quota)
    async with asyncio.timeout(10):
        while True:
            body = {"metadata": {"name": "probe"}}
            try:
                await cluster.api.create("configmaps", body, dry_run=True)
            except Refused as refused:
                if "exceeded quota" in refused.message:
                    break
            await asyncio.sleep(0.05)
    _, plan = await cluster.plan()
    with pytest.raises(Refused, match="exceeded quota: none") as raised:
        await begin(cluster.api, plan)
    assert raised.value.hint


async def test_a_namespace_that_is_being_deleted(cluster: Cluster) -> None:
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    body = {"metadata": {"name": "stays", "finalizers": ["tests.example/stays"]}}
    await cluster.api.create("configmaps", body)
    await cluster.api.delete("namespaces", cluster.namespace)
    with pytest.raises(Refused, match="being terminated") as raised:
        await begin(cluster.api, plan)
    assert raised.value.hint == "the namespace is being deleted"
    await cluster.api.patch("configmaps", "stays", {"metadata": {"finalizers": None}})
