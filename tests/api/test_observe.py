"""What is seen of a workload, and what is said when there is none to see."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.cluster import Cluster, autoscaler, deployment, entry, service, stateful_set

from towline.cluster.observe import observe
from towline.errors import NotFound, TowlineError
from towline.manifest.model import Original, Settings
from towline.plan.model import Kind


async def test_a_workload_and_what_surrounds_it(cluster: Cluster) -> None:
    await cluster.create(deployment(), deployment("api"), service(), service("api"), autoscaler())
    seen = await observe(entry(), api=cluster.api)
    assert (seen.kind, seen.name, seen.replicas) == (Kind.DEPLOYMENT, "web", 2)
    assert [s["metadata"]["name"] for s in seen.services] == ["web"]
    assert [a["metadata"]["name"] for a in seen.autoscalers] == ["web"]
    assert (seen.context, seen.namespace, seen.record) == ("test", cluster.namespace, None)


async def test_the_workloads_name_may_differ_from_the_entrys(cluster: Cluster) -> None:
    await cluster.create(stateful_set())
    seen = await observe(entry("database", workload="db"), api=cluster.api)
    assert (seen.kind, seen.name) == (Kind.STATEFULSET, "db")


async def test_by_selector(cluster: Cluster) -> None:
    await cluster.create(deployment(), deployment("api"))
    seen = await observe(entry("x", selector={"app": "api"}), api=cluster.api)
    assert seen.name == "api"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"selector": {"team": "a"}}, ["matches 2 workloads", "Deployment web", "StatefulSet db"]),
        ({"selector": {"team": "z"}}, ["team=z", "matches no Deployment or StatefulSet"]),
        ({"workload": "wep"}, ["no Deployment or StatefulSet 'wep'", "did you mean web?", "db"]),
        ({"workload": "zzzz"}, ["no Deployment or StatefulSet 'zzzz'", "(there: db, web)"]),
    ],
)
async def test_none_or_several(cluster: Cluster, fields: dict[str, Any], words: list[str]) -> None:
    await cluster.create(deployment(), stateful_set())
    with pytest.raises(NotFound) as raised:
        await observe(entry("x", **fields), api=cluster.api)
    for word in words:
        assert word in raised.value.message


async def test_both_kinds_of_one_name(cluster: Cluster) -> None:
    await cluster.create(deployment("db"), stateful_set("db"))
    with pytest.raises(NotFound, match="both a Deployment and a StatefulSet"):
        await observe(entry("db"), api=cluster.api)


@pytest.mark.parametrize("kind", ["DaemonSet", "Job", "CronJob"])
async def test_unsupported_kinds_are_named_with_what_to_do(cluster: Cluster, kind: str) -> None:
    template = deployment()["spec"]["template"]
    template["spec"]["restartPolicy"] = "Always" if kind == "DaemonSet" else "Never"
    job = {"template": template}
    spec: dict[str, Any] = {
        "DaemonSet": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
        "Job": job,
        "CronJob": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}},
    }[kind]
    group = "apps/v1" if kind == "DaemonSet" else "batch/v1"
    await cluster.create(
        {"apiVersion": group, "kind": kind, "metadata": {"name": "web"}, "spec": spec}
    )
    with pytest.raises(TowlineError, match=f"{kind} web cannot be taken") as raised:
        await observe(entry(), api=cluster.api)
    assert raised.value.hint


async def test_a_namespace_that_is_not_there(cluster: Cluster) -> None:
    cluster.api.namespace = "no-such"
    with pytest.raises(NotFound, match="no namespace no-such in context test"):
        await observe(entry(), api=cluster.api)


async def test_a_dev_workload_is_not_taken_itself(cluster: Cluster) -> None:
    made = deployment("web-towline")
    made["metadata"]["labels"]["towline.dev/session"] = "0a0a0a0a"
    await cluster.create(made)
    with pytest.raises(TowlineError, match="dev workload itself"):
        await observe(entry("web-towline"), api=cluster.api)


async def test_claims_that_the_template_mounts(cluster: Cluster) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "files"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    made = deployment()
    made["spec"]["template"]["spec"]["volumes"] = [
        {"name": "files", "persistentVolumeClaim": {"claimName": "files"}}
    ]
    await cluster.create(made, claim)
    _, plan = await cluster.plan()
    assert plan.handover_reason == "claim files can be written from one place only"


async def test_the_dev_workload_is_what_the_cluster_accepts_as_it_is(cluster: Cluster) -> None:
    """Nothing in it is dropped or changed on the way in: what was planned is what runs."""
    await cluster.create(deployment(), stateful_set())
    for name in ("web", "db"):
        _, plan = await cluster.plan(entry(name))
        made = await cluster.api.create("deployments", plan.dev_workload, dry_run=True)
        wanted = plan.dev_workload["spec"]["template"]
        got = made["spec"]["template"]
        assert got["metadata"]["labels"] == wanted["metadata"]["labels"]
        assert got["spec"]["containers"] == wanted["spec"]["containers"]


async def test_who_keeps_the_original_as_it_is_seen_in_the_cluster(cluster: Cluster) -> None:
    """By the field managers and marks that the API server keeps, in what `up` reads anyway."""
    cluster.apply_as("argocd-controller", deployment())
    scaler = autoscaler()
    scaler["metadata"]["labels"] = {"scaledobject.keda.sh/name": "web-scaler"}
    cluster.apply_as("keda", scaler)
    await cluster.create(service())
    _, plan = await cluster.plan()
    told = "\n".join(plan.warnings)
    assert "Argo CD looks after Deployment web and may put its replicas back: " in told
    where = f"-n {cluster.namespace}"
    paused = f"kubectl {where} annotate scaledobject web-scaler autoscaling.keda.sh/paused=true"
    assert f"KEDA looks after Deployment web and may put its replicas back: `{paused}`" in told


async def test_network_policies_by_the_originals_labels(cluster: Cluster) -> None:
    def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
        kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
        return {**kind, "metadata": {"name": name}, "spec": spec}

    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    others = {"podSelector": {"matchLabels": {"app": "db"}}}
    cluster.apply(
        deployment(),
        service(),
        policy("own", {**web, "policyTypes": ["Ingress"]}),
        policy("in", {**others, "policyTypes": ["Ingress"], "ingress": [{"from": [web]}]}),
        policy("out", {**others, "policyTypes": ["Egress"], "egress": [{"to": [web]}]}),
        policy("any", {**others, "policyTypes": ["Egress"], "egress": [{}]}),
    )
    _, plan = await cluster.plan(entry(settings=Settings(original=Original.KEEP)))
    told = sorted(each for each in plan.warnings if each.startswith("NetworkPolicy"))
    assert told == [
        "NetworkPolicy in lets the original in by labels that the dev pod lacks: what it protects "
        "may refuse the dev pod's connections",
        "NetworkPolicy out lets pods out to the original by labels that the dev pod lacks: their "
        "connections to the dev pod may be refused",
        "NetworkPolicy own holds for the original and not for the dev pod, which lacks its labels",
    ]
    _, replaced = await cluster.plan()
    assert "NetworkPolicy" not in "".join(replaced.warnings), "the dev pod has the labels"
