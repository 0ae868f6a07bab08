"""`environ.resolve` against the kubelet: the same specs, no difference.

Each example is a pod of 25 containers, each with a spec of its own, whose command prints
the environment it got. The objects they refer to are drawn anew for each pod.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from towline.cluster.access import Access
from towline.cluster.api import Api, WatchEvent
from towline.cluster.kubeconfig import read_target
from towline.cluster.watch import until
from towline.environ.definitions import Objects
from towline.environ.resolve import resolve

from .conftest import SANDBOX, Node, wait_until
from .environ_specs import CONFIG_MAPS, CONTAINERS, SECRETS, SERVICES, config_map, pods, secret

READER = Path(__file__).with_name("environ_reader")
PODS = 9
Json = dict[str, Any]
T = TypeVar("T")


class Oracle:
    """The kubelet, asked what a container's environment is."""

    def __init__(self, api: Api, runner: asyncio.Runner) -> None:
        self.api = api
        self._runner = runner
        self._count = 0
        [node] = self.run(api.list_("nodes"))["items"]
        self.allocatable = node["status"]["allocatable"]
        master = "/api/v1/namespaces/default/services/kubernetes"
        self.master = self.run(api.request("GET", master))

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(job)

    def create(self, *objects: Json) -> None:
        async def all_of_them() -> None:
            for each in objects:
                await self.api.create(f"{each['kind'].lower()}s", each)

        self.run(all_of_them())

    def delete(self, resource: str, *names: str) -> None:
        async def all_of_them() -> None:
            for name in names:
                await self.api.delete(resource, name, grace_s=0)

        self.run(all_of_them())

    def services(self) -> tuple[Json, ...]:
        return tuple(self.run(self.api.list_("services"))["items"])

    def ask(self, pod: Json) -> tuple[Json, dict[str, dict[bytes, bytes] | str]]:
        """Run a pod; it, and each container's environment or why it does not start."""
        self._count += 1
        name = f"oracle-{self._count}"
        metadata = {**pod["metadata"], "name": name}
        self.create({**pod, "apiVersion": "v1", "kind": "Pod", "metadata": metadata})
        try:
            return self.run(self._answers(name))
        finally:
            self.delete("pods", name)

    async def _answers(self, name: str) -> tuple[Json, dict[str, dict[bytes, bytes] | str]]:
        states: list[Json] = []

        def finished(event: WatchEvent) -> bool:
            statuses = event.object["status"].get("containerStatuses") or []
            states[:] = [s["state"] for s in statuses]
            return bool(states) and all(_is_settled(s) for s in states)

        try:
            async with asyncio.timeout(90):
                event = await until(self.api, "pods", finished, fields=f"metadata.name={name}")
        except TimeoutError:
            pytest.fail(f"not settled: {[s for s in states if not _is_settled(s)]}")
        statuses = event.object["status"]["containerStatuses"]
        return event.object, {s["name"]: await self._answer(name, s) for s in statuses}

    async def _answer(self, pod: str, status: Json) -> dict[bytes, bytes] | str:
        if "waiting" in status["state"]:
            return str(status["state"]["waiting"]["message"])
        if status["state"]["terminated"].get("reason") == "StartError":
            return str(status["state"]["terminated"]["message"])
        text = await self.api.text("pods", pod, "log", {"container": status["name"]})
        assert status["state"]["terminated"]["exitCode"] == 0, (status, text)
        pairs = (entry.partition(b"=") for entry in base64.b64decode(text).split(b"\0") if entry)
        return {variable: value for variable, _, value in pairs}


def _is_settled(state: Json) -> bool:
    waiting = state.get("waiting") or {}
    waits_for = waiting.get("reason")
    if "timed out waiting for the condition" in waiting.get("message", ""):
        return False  # the kubelet is busy, and tries again
    return "terminated" in state or waits_for in (
        "CreateContainerConfigError",  # a reference that leads nowhere
        "CreateContainerError",  # not UTF-8
    )


@pytest.fixture(scope="module")
def oracle(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copy(READER / "images.json", folder)
    build = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(folder / "reader")]
    environ = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off"}
    subprocess.run([*build, str(READER / "main.go")], check=True, env=environ, timeout=120)
    load = [*SANDBOX, "image", str(folder), "--load", "--name", node.name]
    subprocess.run(load, check=True, timeout=120, stdout=sys.stderr)
    target = read_target(environ={"KUBECONFIG": node.kubeconfig})
    name = f"oracle-{os.getpid()}"
    with asyncio.Runner() as runner:
        api = Api(Access(target, environ={}), namespace=name, environ={})
        made = Oracle(api, runner)
        made.create({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
        try:
            made.create(*SERVICES)
            yield made
        finally:
            made.delete("namespaces", name)
            runner.run(api.__aexit__())


@pytest.fixture(scope="module")
def runtime(oracle: Oracle) -> dict[bytes, bytes]:
    """What the container runtime adds by itself, seen where the spec has nothing.

    Waits until the kubelet knows of the Services: it is told of them a little late.
    """
    container = {"name": "c", "image": "towline.local/environ-reader:1"}
    spec = {"containers": [container], "restartPolicy": "Never"}
    expected = {b"WEB_SERVICE_HOST", b"MY_DNS_SERVICE_HOST", b"KUBERNETES_SERVICE_HOST"}

    def seen() -> dict[bytes, bytes] | None:
        _, answers = oracle.ask({"metadata": {}, "spec": spec})
        answer = answers["c"]
        assert isinstance(answer, dict)
        return answer if expected <= answer.keys() else None

    answer = wait_until("the kubelet knows of the Services", seen)
    return {n: v for n, v in answer.items() if n in (b"PATH", b"HOME", b"HOSTNAME")}


@pytest.mark.timeout(300)
def test_no_difference(oracle: Oracle, runtime: dict[bytes, bytes]) -> None:
    started = stopped = 0
    services = oracle.services()

    # A failure names its container; to shrink it would take a pod for each step.
    @settings(
        max_examples=PODS,
        phases=(Phase.generate,),
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(pod=pods(), maps=CONFIG_MAPS, secrets=SECRETS)
    def compare(pod: Json, maps: dict[str, dict[str, str]], secrets: dict[str, Any]) -> None:
        nonlocal started, stopped
        same = _compare(oracle, runtime, services, pod=pod, maps=maps, secrets=secrets)
        started, stopped = started + same[0], stopped + same[1]

    compare()
    print(f"{started} environments and {stopped} refusals are the same")
    assert started + stopped >= 200
    assert started > stopped


def _compare(
    oracle: Oracle,
    runtime: dict[bytes, bytes],
    services: tuple[Json, ...],
    *,
    pod: Json,
    maps: dict[str, dict[str, str]],
    secrets: dict[str, dict[str, bytes]],
) -> tuple[int, int]:
    """Compare one pod; returns how many of its containers started and how many did not."""
    drawn_maps = {name: config_map(name, values) for name, values in maps.items()}
    drawn_secrets = {name: secret(name, values) for name, values in secrets.items()}
    oracle.create(*drawn_maps.values(), *drawn_secrets.values())
    try:
        real, answers = oracle.ask(pod)
    finally:
        oracle.delete("configmaps", *maps)
        oracle.delete("secrets", *secrets)
    objects = Objects(
        config_maps={**drawn_maps, "missing": None},
        secrets={**drawn_secrets, "missing": None},
        services=services,
        master=oracle.master,
        allocatable=oracle.allocatable,
    )
    own_name = {b"HOSTNAME": real["metadata"]["name"].encode()}
    for name, answer in answers.items():
        spec = next(c for c in real["spec"]["containers"] if c["name"] == name)
        found = resolve(real, name, objects)
        if isinstance(answer, str):
            assert _names_the_same(answer, found.problems), (answer, found.problems, spec)
            continue
        assert not found.problems, (found.problems, spec)
        ours = {n.encode(): v.definition.value for n, v in found.variables.items()}
        assert {**runtime, **own_name, **ours} == answer, (spec, maps, secrets)
    assert len(answers) == CONTAINERS
    stopped = sum(isinstance(answer, str) for answer in answers.values())
    return CONTAINERS - stopped, stopped


def _names_the_same(kubelets: str, problems: tuple[str, ...]) -> bool:
    """Whether the kubelet's complaint (it stops at the first) is among ours.

    Its words, beside the runtime's: `configmap "missing" not found`,
    `couldn't find key A in Secret NS/one`.
    """
    if "invalid UTF-8" in kubelets:
        return any(p.endswith("is not UTF-8") for p in problems)
    if "can't contain null" in kubelets:
        return any(p.endswith("has a NUL in it") for p in problems)
    words = kubelets.replace('"', "").split()
    if words[-2:] == ["not", "found"]:
        kind, name = words[0], words[-3]
        return any(kind in p.lower().replace(" ", "") and p.endswith(f"/{name}") for p in problems)
    key, kind, place = words[3], words[5], words[6]
    return any(p.endswith(f"no key {key!r} in {kind} {place}") for p in problems)


def test_the_pods_are_as_meant() -> None:
    """Each kind of definition is drawn, so that agreement means something."""
    kinds: set[str] = set()

    @settings(max_examples=PODS, database=None, suppress_health_check=list(HealthCheck))
    @given(pod=pods())
    def look(pod: Json) -> None:
        for container in pod["spec"]["containers"]:
            kinds.update(k for e in container["envFrom"] for k in e)
            kinds.update(k for e in container["env"] for k in e.get("valueFrom", {"value": 0}))

    look()
    assert kinds >= {
        "configMapRef", "secretRef", "value", "fieldRef", "resourceFieldRef", "configMapKeyRef",
        "secretKeyRef",
    }  # fmt: skip
