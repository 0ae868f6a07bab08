"""Plan → apply → restore: the cluster is as it was, whatever comes between."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.api.cluster import (
    ANNA,
    BEN,
    FILES,
    PARTS,
    Cluster,
    autoscaler,
    container,
    deployment,
    entry,
    eventually,
    record_for,
    service,
    stateful_set,
)

from towline.cluster import apply, point
from towline.cluster.api import Api
from towline.cluster.observe import observe, records
from towline.cluster.pieces import share_pieces
from towline.errors import Conflict, NotFound, SessionTaken, TowlineError, Unreachable
from towline.manifest.model import Entry, Handover, Original, Settings
from towline.payload.pieces import config_map
from towline.plan.model import ANNOTATION_RESTORE, LABEL_SESSION, Plan
from towline.plan.record import Record, read_record
from towline.session.end import find_records
from towline.session.takeover import RecordGone, record_gone

_SETTLED_S = 10.0
# What the controller of Deployments writes a moment after the first status.
_REVISION = "deployment.kubernetes.io/revision"


def silent(text: str) -> None:
    pass


async def settled(cluster: Cluster) -> dict[str, Any]:
    """A dump once the controllers have seen every workload."""
    async with asyncio.timeout(_SETTLED_S):
        while True:
            workloads = [
                *(await cluster.api.list_("deployments"))["items"],
                *(await cluster.api.list_("statefulsets"))["items"],
            ]
            seen = all(
                (w.get("status") or {}).get("observedGeneration") == w["metadata"]["generation"]
                and int((w.get("status") or {}).get("replicas") or 0) == w["spec"]["replicas"]
                and ("serviceName" in w["spec"] or _REVISION in w["metadata"]["annotations"])
                for w in workloads
            )
            claims = (await cluster.api.list_("persistentvolumeclaims"))["items"]
            sets = (await cluster.api.list_("statefulsets"))["items"]
            # Looked at only now: what it holds is then as new as what was seen.
            dump = await cluster.dump()
            made = len(claims) >= len(sets) and "serviceaccounts/default" in dump
            if seen and made and "configmaps/kube-root-ca.crt" not in dump:
                return dump
            await asyncio.sleep(0.05)


async def is_as(cluster: Cluster, before: dict[str, Any], *, but: str = "-") -> None:
    """The dump is as before: at once but for the garbage collector, which takes its time.

    `but` begins the names of what does not count.
    """

    def counts(dump: dict[str, Any]) -> dict[str, Any]:
        return {name: item for name, item in dump.items() if not name.startswith(but)}

    async def same() -> bool:
        return counts(await cluster.dump()) == counts(before)

    try:
        await eventually(same)
    except TimeoutError:
        now, before = counts(await cluster.dump()), counts(before)
        assert now.keys() == before.keys()
        for name, item in now.items():
            # As text: the message then shows what differs, and not all there is.
            assert json.dumps(item, indent=1) == json.dumps(before[name], indent=1)


async def begin(api: Api, plan: Plan) -> Record:
    """What `up` does to the cluster, in its order (session.takeover.applied, hand_over)."""
    record = await apply.write_record(api, record_for(plan))
    if plan.way_back is not None:
        await point.create_way_back(api, record, plan.way_back.service)
    await share_pieces(api, record, PARTS, verified=set())
    await apply.create_secret(api, record, FILES)
    if plan.handover is Handover.EXCLUSIVE:
        await apply.stop_original(api, record)
        await apply.original_ended(api, record)
    await apply.create_dev_workload(api, record, plan.dev_workload)
    if record.is_kept:
        await point.mark_original(api, record)
        for each in record.pointed:
            await point.point_here(api, record, each)
    elif plan.handover is Handover.SEAMLESS:
        await apply.stop_original(api, record)
    return record


async def restore(
    api: Api,
    record: Record,
    *,
    report: Callable[[str], None] = silent,
    ended_by: str | None = None,
) -> None:
    await apply.restore(api, record, report=report, ready_timeout_s=20.0, ended_by=ended_by)


class BreakingApi(Api):
    """The network goes at write number `breaks_at`: before it arrives, or before its answer."""

    breaks_at = 0
    answer_lost = False
    writes = 0

    async def request(self, method: str, path: str, **settings: Any) -> dict[str, Any]:
        if method == "GET":
            if self.breaks_at and self.writes >= self.breaks_at:
                raise Unreachable("cut by the test")
            return await super().request(method, path, **settings)
        self.writes += 1
        if self.breaks_at and self.writes >= self.breaks_at:
            if self.answer_lost and self.writes == self.breaks_at:
                await super().request(method, path, **settings)
            raise Unreachable("cut by the test")
        return await super().request(method, path, **settings)


def kept(**fields: Any) -> Entry:
    return entry(settings=Settings(original=Original.KEEP), **fields)


def entry_of(name: str, kind: str) -> Entry:
    return kept() if kind == "kept" else entry(name)


def the_shop(cluster: Cluster, kind: str) -> str:
    """A workload of a kind with what may surround it; returns its name."""
    around = [service(), autoscaler()]
    if kind == "kept":
        # Each with owners of its own: a server-side applier, kubectl, and one without ports.
        cluster.apply(deployment(), service(), service("other", selector={"app": "other"}))
        headless = service("web-headless", selector={"app": "web"}, clusterIP="None")
        cluster.apply_as("pipeline", headless)
        return "web"
    if kind == "Deployment":
        cluster.apply(deployment(), *around)
        return "web"
    policy = {"whenDeleted": "Retain", "whenScaled": "Delete"}
    cluster.apply(stateful_set(persistentVolumeClaimRetentionPolicy=policy), service("db"))
    return "db"


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_what_was_there_is_there_again_to_the_last_field_manager(
    cluster: Cluster, kind: str
) -> None:
    name = the_shop(cluster, kind)
    before = await settled(cluster)
    _, plan = await cluster.plan(entry(name))
    record = await begin(cluster.api, plan)
    workload = await cluster.api.get(plan.kind.resource, name)
    assert workload["spec"]["replicas"] == 0
    assert "anna@laptop" in workload["metadata"]["annotations"][ANNOTATION_RESTORE]
    await restore(cluster.api, record)
    await is_as(cluster, before)


async def test_the_former_manager_applies_again_client_side(cluster: Cluster) -> None:
    cluster.apply(deployment())
    _, plan = await cluster.plan()
    await restore(cluster.api, await begin(cluster.api, plan))
    cluster.apply(deployment(replicas=5))
    assert (await cluster.api.get("deployments", "web"))["spec"]["replicas"] == 5


async def test_the_former_client_side_manager_migrates_to_server_side_without_force(
    cluster: Cluster,
) -> None:
    cluster.apply(deployment())
    _, plan = await cluster.plan()
    await restore(cluster.api, await begin(cluster.api, plan))
    # kubectl's own name: it takes over what kubectl-client-side-apply has.
    cluster.apply_as("kubectl", deployment(replicas=5))
    assert (await cluster.api.get("deployments", "web"))["spec"]["replicas"] == 5


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_a_server_side_applier_goes_on_without_force(cluster: Cluster, kind: str) -> None:
    policy = {"whenDeleted": "Retain", "whenScaled": "Delete"}
    made = (
        deployment()
        if kind == "Deployment"
        else stateful_set("web", persistentVolumeClaimRetentionPolicy=policy)
    )
    cluster.apply_as("pipeline", made)
    before = await settled(cluster)
    _, plan = await cluster.plan()
    await restore(cluster.api, await begin(cluster.api, plan))
    await is_as(cluster, before)
    again = {**made, "spec": {**made["spec"], "replicas": 3}}
    cluster.apply_as("pipeline", again)
    live = await cluster.api.get(plan.kind.resource, "web")
    assert live["spec"]["replicas"] == 3


async def test_kubectl_scale_keeps_its_own_entry(cluster: Cluster) -> None:
    cluster.apply(deployment())
    cluster.plane.kubectl("scale", "deployment/web", "--replicas=3", namespace=cluster.namespace)
    before = await settled(cluster)
    _, plan = await cluster.plan()
    await restore(cluster.api, await begin(cluster.api, plan))
    await is_as(cluster, before)


async def test_a_workload_without_replicas_of_its_own_keeps_the_default(cluster: Cluster) -> None:
    await cluster.create(deployment(replicas=None))
    before = await settled(cluster)
    _, plan = await cluster.plan()
    await restore(cluster.api, await begin(cluster.api, plan))
    await is_as(cluster, before)


async def test_a_workload_at_0_stays_at_0(cluster: Cluster) -> None:
    await cluster.create(deployment(replicas=0))
    before = await settled(cluster)
    _, plan = await cluster.plan()
    await restore(cluster.api, await begin(cluster.api, plan))
    await is_as(cluster, before)


async def test_a_session_that_was_ended_before_it_watched_its_record_is_told(
    cluster: Cluster,
) -> None:
    """It went on: its record was gone before the watch of it began."""
    await cluster.create(deployment(), service())
    before = await settled(cluster)
    _, plan = await cluster.plan()
    record = await begin(cluster.api, plan)
    await restore(cluster.api, record, ended_by=f"{BEN} (`towline down`)")
    async with asyncio.timeout(10):
        gone = await record_gone(cluster.api, record)
    assert gone == RecordGone(reason=f"ended by {BEN} (`towline down`)", by_hand=True)
    await is_as(cluster, before)


async def test_a_record_that_kubectl_deleted_names_nobody(cluster: Cluster) -> None:
    await cluster.create(deployment(), service())
    before = await settled(cluster)
    _, plan = await cluster.plan()
    record = await begin(cluster.api, plan)
    await cluster.api.delete("configmaps", record.names.record)
    async with asyncio.timeout(10):
        assert not (await record_gone(cluster.api, record)).by_hand
    await restore(cluster.api, record)
    await is_as(cluster, before)


async def test_selectors_of_expressions_alone_work(cluster: Cluster) -> None:
    expressions = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}
    await cluster.create(deployment(selector=expressions), deployment("other"))
    before = await settled(cluster)
    observed, plan = await cluster.plan(entry(reverse=()))
    assert {p["metadata"]["labels"]["app"] for p in observed.pods} == {"web"}
    assert plan.handover is Handover.EXCLUSIVE
    await restore(cluster.api, await begin(cluster.api, plan))
    await is_as(cluster, before)


@pytest.mark.parametrize("answer_lost", [False, True], ids=["not-sent", "answer-lost"])
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "kept"])
async def test_cut_at_any_write_the_record_leads_back(
    cluster: Cluster, kind: str, answer_lost: bool
) -> None:
    """The way in and the way back are cut at write 1, 2, …; then `down` runs from elsewhere."""
    name = the_shop(cluster, kind)
    before = await settled(cluster)
    for breaks_at in range(1, 40):
        broken = cluster.api_as(cluster.plane.admin(), kind=BreakingApi)
        assert isinstance(broken, BreakingApi)
        broken.breaks_at, broken.answer_lost = breaks_at, answer_lost
        _, plan = await cluster.plan(entry_of(name, kind), session=f"{breaks_at:08x}")
        try:
            record = await begin(broken, plan)
            await restore(broken, record)
        except Unreachable:
            for left in await find_records(cluster.api, None):
                await restore(cluster.api, left)
                await restore(cluster.api, left)
            await is_as(cluster, before)
        else:
            await is_as(cluster, before)
            break
    else:
        raise AssertionError("it never went through")
    assert breaks_at > 10


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "kept"])
async def test_the_annotation_alone_leads_back(cluster: Cluster, kind: str) -> None:
    name = the_shop(cluster, kind)
    before = await settled(cluster)
    _, plan = await cluster.plan(entry_of(name, kind))
    record = await begin(cluster.api, plan)
    await cluster.api.delete("configmaps", record.names.record)
    for wanted in (name, None):
        [left] = await find_records(cluster.api, wanted)
        assert (left.session, left.owner, left.replicas) == (record.session, ANNA, 2)
    await restore(cluster.api, left)
    await is_as(cluster, before)


async def test_the_record_alone_leads_back(cluster: Cluster) -> None:
    cluster.apply_as("pipeline", deployment())
    before = await settled(cluster)
    _, plan = await cluster.plan()
    await begin(cluster.api, plan)
    cluster.plane.kubectl(
        "annotate", "deployment/web", f"{ANNOTATION_RESTORE}-", namespace=cluster.namespace
    )
    [left] = await find_records(cluster.api, "web")
    await restore(cluster.api, left)
    await is_as(cluster, before)


async def test_up_sees_a_session_of_which_only_the_annotation_is_left(cluster: Cluster) -> None:
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    record = await begin(cluster.api, plan)
    await cluster.api.delete("configmaps", record.names.record)
    observed = await observe(entry(), api=cluster.api)
    assert observed.record is not None
    assert read_record(observed.record).replicas == 2


async def test_a_deleted_original_is_told_and_all_else_removed(cluster: Cluster) -> None:
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    record = await begin(cluster.api, plan)
    await cluster.api.delete("deployments", "web")
    told: list[str] = []
    await restore(cluster.api, record, report=told.append)
    assert told == ["Deployment web is gone or was made anew: nothing to put back"]

    async def nothing_left() -> bool:
        left = ("configmaps", "secrets", "deployments")
        return not any(name.startswith(left) for name in await cluster.dump())

    await eventually(nothing_left)


async def test_an_original_made_anew_is_left_alone(cluster: Cluster) -> None:
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    record = await begin(cluster.api, plan)
    await cluster.api.delete("deployments", "web")
    cluster.apply(deployment(replicas=1))
    told: list[str] = []
    await restore(cluster.api, record, report=told.append)
    assert "made anew" in told[0]
    assert (await cluster.api.get("deployments", "web"))["spec"]["replicas"] == 1


async def test_who_scaled_the_original_meanwhile_is_named_and_obeyed(cluster: Cluster) -> None:
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    record = await begin(cluster.api, plan)
    cluster.apply_as("argocd-controller", deployment(replicas=3), force=True)
    told: list[str] = []
    await restore(cluster.api, record, report=told.append)
    assert told == [
        "Deployment web was scaled to 3 by argocd-controller meanwhile: left as it is (it had 2)"
    ]
    live = await cluster.api.get("deployments", "web")
    assert live["spec"]["replicas"] == 3
    assert ANNOTATION_RESTORE not in live["metadata"]["annotations"]
    assert not [e for e in live["metadata"]["managedFields"] if e["manager"] == "towline"]
    cluster.apply_as("argocd-controller", deployment(replicas=4))


async def test_somebody_elses_zero_stays(cluster: Cluster) -> None:
    """Who scales to 0 by force during a session wants 0: the field is not ours any more."""
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    record = await begin(cluster.api, plan)
    cluster.apply_as("argocd-controller", deployment(replicas=1), force=True)
    cluster.apply_as("argocd-controller", deployment(replicas=0))
    told: list[str] = []
    await restore(cluster.api, record, report=told.append)
    assert "scaled to 0 by argocd-controller" in told[0]
    assert (await cluster.api.get("deployments", "web"))["spec"]["replicas"] == 0


async def test_claims_are_not_put_at_risk_by_putting_the_retention_back(cluster: Cluster) -> None:
    name = the_shop(cluster, "StatefulSet")
    await settled(cluster)
    _, plan = await cluster.plan(entry(name))
    record = await begin(cluster.api, plan)
    made = stateful_set(replicas=1)
    cluster.apply_as("person", made, force=True)
    told: list[str] = []
    await restore(cluster.api, record, report=told.append)
    assert any("claims" in line for line in told)
    live = await cluster.api.get("statefulsets", name)
    assert live["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"


async def test_scaled_between_looking_and_stopping_is_a_conflict_that_names_who(
    cluster: Cluster,
) -> None:
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    cluster.apply_as("person", deployment(replicas=4), force=True)
    with pytest.raises(Conflict, match=r"scaled from 2 to 4 meanwhile, by person"):
        await begin(cluster.api, plan)


async def test_of_two_owners_exactly_one_gets_it(cluster: Cluster) -> None:
    await cluster.create(deployment())
    _, annas = await cluster.plan(session="aaaaaaaa")
    _, bens = await cluster.plan(session="bbbbbbbb", owner=BEN)
    results = await asyncio.gather(
        *[apply.write_record(cluster.api, record_for(p)) for p in (annas, bens)],
        return_exceptions=True,
    )
    errors = [r for r in results if isinstance(r, BaseException)]
    [winner] = [r for r in results if isinstance(r, Record)]
    assert len(errors) == 1 and isinstance(errors[0], SessionTaken)
    assert str(winner.owner) in errors[0].message
    assert len(await records(cluster.api)) == 1


async def test_a_session_that_was_ended_elsewhere_leaves_its_successor_alone(
    cluster: Cluster,
) -> None:
    """A laptop that wakes up after somebody ended its session must not end theirs."""
    await cluster.create(deployment())
    before = await settled(cluster)
    _, annas = await cluster.plan(session="aaaaaaaa")
    old = await begin(cluster.api, annas)
    await restore(cluster.api, old)
    _, bens = await cluster.plan(session="bbbbbbbb", owner=BEN)
    new = await begin(cluster.api, bens)
    told: list[str] = []
    await restore(cluster.api, old, report=told.append)
    assert told == ["Deployment web is held by session bbbbbbbb meanwhile: left to it"]
    live = await cluster.api.get("deployments", "web")
    assert live["spec"]["replicas"] == 0
    dev = await cluster.api.get("deployments", "web-towline")
    assert dev["metadata"]["labels"][LABEL_SESSION] == "bbbbbbbb"
    await cluster.api.get("configmaps", new.names.record)
    await restore(cluster.api, new)
    await is_as(cluster, before)


async def test_a_deployment_that_has_the_dev_workloads_name_is_left_alone(
    cluster: Cluster,
) -> None:
    await cluster.create(deployment(), deployment("web-towline"))
    before = await settled(cluster)
    _, plan = await cluster.plan()
    with pytest.raises(Conflict, match="web-towline already, which is not of this session"):
        await begin(cluster.api, plan)
    [record] = await find_records(cluster.api, "web")
    await restore(cluster.api, record)
    await is_as(cluster, before)


async def test_a_piece_that_holds_something_else_is_refused_and_left_as_it_is(
    cluster: Cluster,
) -> None:
    await cluster.create(deployment())
    foreign = config_map(PARTS[0], owner={})
    del foreign["metadata"]["ownerReferences"]
    foreign["binaryData"] = {PARTS[0].key: base64.b64encode(b"something else").decode()}
    await cluster.api.create("configmaps", foreign)
    before = await settled(cluster)
    _, plan = await cluster.plan()
    with pytest.raises(TowlineError, match="does not hold what its name says"):
        await begin(cluster.api, plan)
    [record] = await find_records(cluster.api, "web")
    await restore(cluster.api, record)
    await is_as(cluster, before)


async def test_a_piece_that_can_be_changed_is_refused(cluster: Cluster) -> None:
    await cluster.create(deployment())
    loose = config_map(PARTS[0], owner={})
    del loose["metadata"]["ownerReferences"], loose["immutable"]
    await cluster.api.create("configmaps", loose)
    _, plan = await cluster.plan()
    with pytest.raises(TowlineError, match="can be changed"):
        await begin(cluster.api, plan)


async def test_pieces_are_shared_and_go_with_the_last_session(cluster: Cluster) -> None:
    await cluster.create(deployment(), deployment("api"))
    before = await settled(cluster)
    _, web = await cluster.plan(session="aaaaaaaa")
    _, api = await cluster.plan(entry("api"), session="bbbbbbbb")
    first, second = await begin(cluster.api, web), await begin(cluster.api, api)
    [shared] = (await cluster.api.list_("configmaps", labels="towline.dev/kind=piece-set"))["items"]
    owners = {o["uid"] for o in shared["metadata"]["ownerReferences"]}
    assert owners == {first.uid, second.uid}
    piece = await cluster.api.get("configmaps", PARTS[0].name)
    assert [o["uid"] for o in piece["metadata"]["ownerReferences"]] == [shared["metadata"]["uid"]]
    await restore(cluster.api, first)
    await cluster.api.get("configmaps", PARTS[0].name)
    await restore(cluster.api, second)
    await is_as(cluster, before)


async def test_a_piece_that_was_read_once_is_not_read_again(cluster: Cluster) -> None:
    """They are megabytes: each `up` read and wrote all of them."""
    await cluster.create(deployment(), deployment("api"))
    verified: set[str] = set()
    _, web = await cluster.plan(session="aaaaaaaa")
    _, other = await cluster.plan(entry("api"), session="bbbbbbbb")
    first = await apply.write_record(cluster.api, record_for(web))
    await share_pieces(cluster.api, first, PARTS, verified=verified)
    assert len(verified) == len(PARTS)
    asked: list[tuple[str, str]] = []

    class Listening(Api):
        async def request(self, method: str, path: str, **settings: Any) -> dict[str, Any]:
            metadata_only = "PartialObjectMetadata" in settings.get("accept", "")
            asked.append((method, "metadata" if metadata_only else path.rpartition("/")[2]))
            return await super().request(method, path, **settings)

    api = cluster.api_as(cluster.plane.admin(), kind=Listening)
    second = await apply.write_record(api, record_for(other))
    asked.clear()
    await share_pieces(api, second, PARTS, verified=verified)
    whole = [each for each in asked if each[1] != "metadata"]
    assert len(whole) == 2 and all("towline-pieces-" in name for _, name in whole), asked
    # A ConfigMap that was made anew under a piece's name is another one.
    foreign = config_map(PARTS[0], owner=second.owner_reference())
    foreign["binaryData"] = {PARTS[0].key: base64.b64encode(b"something else").decode()}
    await cluster.api.delete("configmaps", PARTS[0].name)
    await cluster.api.create("configmaps", foreign)
    with pytest.raises(TowlineError, match="does not hold what its name says"):
        await share_pieces(api, second, PARTS, verified=verified)


async def test_a_writer_that_changes_the_workload_all_the_time(cluster: Cluster) -> None:
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    writer = cluster.api_as(cluster.plane.admin())

    async def write() -> None:
        for n in range(100_000):
            labels = {"metadata": {"labels": {"written": str(n)}}}
            await writer.patch("deployments", "web", labels)

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(write())
        record = await begin(cluster.api, plan)
        assert (await cluster.api.get("deployments", "web"))["spec"]["replicas"] == 0
        await restore(cluster.api, record)
        writing.cancel()
    live = await cluster.api.get("deployments", "web")
    assert live["spec"]["replicas"] == 2
    assert int(live["metadata"]["labels"]["written"]) > 3


async def test_the_namespace_deleted_during_a_session_ends_it_in_order(cluster: Cluster) -> None:
    await cluster.create(deployment())
    _, plan = await cluster.plan()
    record = await begin(cluster.api, plan)
    await cluster.api.delete("namespaces", cluster.namespace)

    async def is_gone() -> bool:
        return await cluster.api.find("deployments", "web") is None

    await eventually(is_gone, within_s=20.0)
    told: list[str] = []
    await restore(cluster.api, record, report=told.append)
    assert "gone" in told[0]
    with pytest.raises(NotFound):
        await find_records(cluster.api, "web")


async def test_a_kept_originals_services_lead_to_the_dev_pod_and_back(cluster: Cluster) -> None:
    the_shop(cluster, "kept")
    before = await settled(cluster)
    observed, plan = await cluster.plan(kept())
    assert {each.name for each in record_for(plan).pointed} == {"web", "web-headless"}
    record = await begin(cluster.api, plan)
    here = {LABEL_SESSION: record.session}
    for name in ("web", "web-headless"):
        assert (await cluster.api.get("services", name))["spec"]["selector"] == here
    assert (await cluster.api.get("services", "other"))["spec"]["selector"] == {"app": "other"}
    live = await cluster.api.get("deployments", "web")
    assert live["spec"] == observed.workload["spec"], "it is up, as it was"
    dev = (await cluster.api.get("deployments", "web-towline"))["spec"]["template"]
    assert "app" not in dev["metadata"]["labels"]
    back = await cluster.api.get("services", f"towline-original-{record.session}")
    assert back["spec"]["selector"] == {"app": "web"}
    await restore(cluster.api, record)
    await is_as(cluster, before)
    # The server-side applier goes on without force.
    again = service("web-headless", selector={"app": "web", "tier": "x"}, clusterIP="None")
    cluster.apply_as("pipeline", again)


async def test_a_service_that_somebody_pointed_elsewhere_is_left_and_told(
    cluster: Cluster,
) -> None:
    the_shop(cluster, "kept")
    _, plan = await cluster.plan(kept())
    record = await begin(cluster.api, plan)
    theirs = service(selector={"app": "theirs"})
    cluster.apply_as("argocd-controller", theirs, force=True)
    await cluster.api.delete("services", "web-headless")
    told: list[str] = []
    await restore(cluster.api, record, report=told.append)
    assert sorted(told) == [
        "Service web was pointed elsewhere by argocd-controller meanwhile: left as it is",
        "Service web-headless is gone or was made anew: nothing to put back",
    ]
    live = await cluster.api.get("services", "web")
    assert live["spec"]["selector"]["app"] == "theirs"


async def test_a_service_that_others_share_is_not_pointed_at_the_laptop(cluster: Cluster) -> None:
    both = {"matchLabels": {"app": "web2"}}
    template = {"metadata": {"labels": {"app": "web2", "tier": "front"}},
                "spec": {"containers": [container()]}}  # fmt: skip
    mine = deployment()
    mine["spec"]["template"]["metadata"] = {"labels": {"app": "web", "tier": "front"}}
    await cluster.create(
        mine,
        deployment("web2", selector=both, template=template, replicas=0),
        service(selector={"tier": "front"}),
    )
    with pytest.raises(TowlineError, match=r"Service web leads to Deployment web2, too"):
        await cluster.plan(kept())
    assert not await records(cluster.api)
