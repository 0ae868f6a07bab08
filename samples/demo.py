"""The main job, told step by step, on a real cluster.

    make demo                            in the sandbox (Linux, root)
    TOWLINE_CONTEXT=NAME make demo       on a cluster of yours: public images, a fresh
                                         namespace that is gone at the end

Each step prints its time; a step that does not hold ends it with a code that is not 0.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from towline.cluster.access import Access
from towline.cluster.api import Api
from towline.cluster.kubeconfig import read_target
from towline.cluster.watch import until
from towline.errors import Conflict

ROOT = Path(__file__).resolve().parent.parent
SHOP = ROOT / "samples/shop"
SANDBOX = [sys.executable, str(ROOT / "sandbox")]
TOWLINE = Path(sys.executable).with_name("towline")
# Asks the shop's face as any pod would, on a new connection each time, and prints when
# and what it was answered.
SHOPPER = """
import json, sys, time, urllib.error, urllib.request
while True:
    began = time.time()
    path = "/db" if int(began * 10) % 10 == 0 else "/"
    try:
        with urllib.request.urlopen("http://frontend" + path, timeout=5) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        text = f"error: {error.code} {error.read().decode()}"
    except Exception as error:
        text = f"error: {error}"
    print(json.dumps({"at": time.time(), "path": path, "text": text}), flush=True)
    time.sleep(max(0.0, began + 0.05 - time.time()))
"""


class StepFailed(Exception):
    """A step of the demo does not hold."""


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def step(text: str) -> Iterator[Callable[[str], None]]:
    """One step: its words, what was seen, its time."""
    say(f"\n── {text}")
    began = time.monotonic()

    def seen(what: str) -> None:
        for line in what.strip().splitlines():
            say(f"   {line}")

    yield seen
    say(f"   {time.monotonic() - began:.2f} s")


def run(*command: str, **options: Any) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise StepFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return str(done.stdout)


class Shopper:
    """A pod in the cluster that asks `frontend` through its Service, and what it is told."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._answers: list[tuple[float, str]] = []
        self._new = asyncio.Condition()

    async def follow(self) -> None:
        """Read the pod's log as it grows."""
        buffer = b""
        async for chunk in self._api.follow("pods", "shopper", "log", {"tailLines": "0"}):
            *lines, buffer = (buffer + chunk).split(b"\n")
            async with self._new:
                for line in lines:
                    self._answers.append((time.time(), json.loads(line)["text"]))
                self._new.notify_all()

    async def answer(self, wanted: str, *, without: str = "\0", within_s: float = 30.0) -> str:
        """Wait for an answer from now on that has `wanted` in it."""
        seen = len(self._answers)

        def found() -> str | None:
            fresh = (text for _, text in self._answers[seen:])
            return next((t for t in fresh if wanted in t and without not in t), None)

        try:
            async with asyncio.timeout(within_s), self._new:
                await self._new.wait_for(lambda: found() is not None)
        except TimeoutError:
            last = self._answers[-1][1] if self._answers else "nothing"
            raise StepFailed(
                f"no answer with {wanted!r} in {within_s:.0f} s; the last: {last}"
            ) from None
        return found() or ""

    def begin(self) -> None:
        """Count from here on: nodes follow the Services of a new app a moment late."""
        self._answers.clear()

    def errors(self) -> list[str]:
        return [
            f"{time.strftime('%X', time.localtime(at))} {text}"
            for at, text in self._answers
            if text.startswith("error:")
        ]

    @property
    def count(self) -> int:
        return len(self._answers)


def prepare_sandbox() -> tuple[str, str]:
    """The sandbox with the sample's images; returns its context and the namespace."""
    subprocess.run([*SANDBOX, "up"], check=True, stdout=subprocess.DEVNULL)
    os.environ["KUBECONFIG"] = run(*SANDBOX, "kubeconfig").strip()
    subprocess.run([*SANDBOX, "image", str(SHOP), "--load"], check=True, stdout=subprocess.DEVNULL)
    context = read_target(environ=os.environ).context
    return context, "shop"


def render(namespace: str, *, public: bool) -> list[dict[str, Any]]:
    words = [sys.executable, str(SHOP / "deploy.py"), "render", "--namespace", namespace]
    text = run(*words, *(["--public"] if public else []))
    return [document for document in yaml.safe_load_all(text) if document]


def shopper_pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """The shopper, in the image and the security context that the shop's `api` has."""
    template = next(
        o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "api"
    )["spec"]["template"]["spec"]
    container = template["containers"][0]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shopper"},
        "spec": {
            "securityContext": template.get("securityContext") or {},
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "shopper",
                    "image": container["image"],
                    "command": ["python3", "-u", "-c", SHOPPER],
                    "securityContext": container["securityContext"],
                }
            ],
        },
    }


async def apply(api: Api, objects: list[dict[str, Any]]) -> None:
    for each in objects:
        resource = each["kind"].lower() + "s"
        try:
            await api.create(resource, each)
        except Conflict:
            continue  # from the last time: the sandbox keeps the shop


async def ready(api: Api, name: str) -> None:
    async with asyncio.timeout(180):
        await until(
            api,
            "deployments",
            lambda e: (
                (e.object.get("status") or {}).get("readyReplicas", 0)
                >= e.object["spec"].get("replicas", 1)
            ),
            fields=f"metadata.name={name}",
        )


async def names_in(api: Api) -> set[str]:
    """The objects of the namespace that a takeover could leave something among."""
    found = set()
    for resource in ("deployments", "statefulsets", "services", "configmaps", "secrets", "pods"):
        for item in (await api.list_(resource)).get("items") or []:
            if resource != "pods" or "towline" in item["metadata"]["name"]:
                found.add(f"{resource}/{item['metadata']['name']}")
    return found


@asynccontextmanager
async def towline_up(
    namespace: str, context: str, *, entry: str = "frontend"
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """`towline up`, with its words on this terminal."""
    words = [str(TOWLINE), "up", entry, "-n", namespace, "--context", context, "--yes"]
    say(f"   $ towline {' '.join(words[1:])}")
    process = subprocess.Popen(  # noqa: ASYNC220 - a fork is all that it waits for
        words, cwd=SHOP_COPY, stdin=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=180)


async def wait_for(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait, 180)


# Edited by the demo: the checkout stays as it is.
SHOP_COPY = Path(os.environ.get("TMPDIR", "/tmp")) / f"towline-demo-{os.getpid()}"


async def demo(context: str, namespace: str, *, public: bool) -> None:
    target = read_target(environ=os.environ, context=context, namespace=namespace)
    access = Access(target, environ=os.environ)
    async with Api(access, namespace=namespace, environ=os.environ) as api:
        try:
            async with asyncio.TaskGroup() as group:
                shopper = Shopper(api)
                objects = render(namespace, public=public)
                await deploy(api, objects)
                following = group.create_task(shopper.follow())
                await told(api, shopper, namespace, context)
                await told_in_sync(api, shopper, namespace, context)
                following.cancel()
        finally:
            if public:
                with step(f"the namespace {namespace} goes") as seen:
                    await api.delete("namespaces", namespace)
                    async with asyncio.timeout(120):
                        while await api.find("namespaces", namespace):  # noqa: ASYNC110
                            await asyncio.sleep(0.5)
                    seen("gone")


async def deploy(api: Api, objects: list[dict[str, Any]]) -> None:
    with step("the sample app: frontend (Node), api (Python), db (Redis)") as seen:
        await apply(api, objects)
        await api.delete("pods", "shopper", grace_s=0)
        async with asyncio.timeout(60):
            while True:
                try:
                    await api.create("pods", shopper_pod(objects))
                    break
                except Conflict:
                    await asyncio.sleep(0.2)
        for name in ("db", "api", "frontend"):
            await ready(api, name)
        async with asyncio.timeout(60):
            await until(
                api,
                "pods",
                lambda e: (e.object.get("status") or {}).get("phase") == "Running",
                fields="metadata.name=shopper",
            )
        seen(
            f"namespace {api.namespace}, and a pod `shopper` that asks http://frontend all the time"
        )


async def told(api: Api, shopper: Shopper, namespace: str, context: str) -> None:
    """The main job."""
    laptop = os.uname().nodename
    with step("a pod reaches frontend through its Service: the original answers") as seen:
        await shopper.answer("db: PONG")
        seen(await shopper.answer("api: visit"))
        shopper.begin()
    before = await names_in(api)
    with step("towline up frontend: the same request, answered by the process here") as seen:
        session = towline_up(namespace, context)
        process = await session.__aenter__()
        try:
            seen(await shopper.answer(f"host: {laptop}", within_s=90))
            await in_session(shopper, laptop)
        except BaseException:
            await session.__aexit__(None, None, None)
            raise
    with step("Ctrl-C: the original answers again") as seen:
        process.send_signal(signal.SIGINT)
        answer = await shopper.answer("host: frontend-", within_s=60)
        seen(answer)
        code = await wait_for(process)
        seen(f"towline ended with {code}")
    with step("nothing of Towline is left in the namespace") as seen:
        await nothing_left(api, before)
        seen(f"{len(before)} objects before, the same now")
    with step(
        "not one request was refused or left alone, on the way in, out, and in between"
    ) as seen:
        # The one that the process was answering when the edit restarted it died with it,
        # as it would have in a container: that is the process's own doing.
        cut = [e for e in shopper.errors() if "closed connection" in e or "reset by peer" in e]
        others = [e for e in shopper.errors() if e not in cut]
        if others or len(cut) > 1:
            raise StepFailed(f"{len(others) + len(cut)} requests failed: {others[:3]} {cut}")
        seen(f"{shopper.count} requests, on new connections; cut by the restart: {len(cut)}")


async def in_session(shopper: Shopper, laptop: str) -> None:
    with step("the process here reached the cluster's database through `forward`") as seen:
        seen(await shopper.answer("db: PONG from localhost"))
    with step("a source file is edited and saved: the cluster sees the new answer") as seen:
        source = SHOP_COPY / "frontend/server.js"
        text = source.read_text().replace("const VERSION = '1'", "const VERSION = '2, just edited'")
        began = time.monotonic()
        source.write_text(text)
        seen(await shopper.answer("version: 2, just edited"))
        seen(f"from save to answer in the cluster: {time.monotonic() - began:.2f} s")


async def told_in_sync(api: Api, shopper: Shopper, namespace: str, context: str) -> None:
    """The other way round: the process in the cluster, the files following from here."""
    before = await names_in(api)
    async with towline_up(namespace, context, entry="api-synced") as process:
        with step("towline up api-synced: its process in the cluster, its files from here") as seen:
            seen(await shopper.answer("counted by api-towline-", within_s=90))
        with step("a source file is edited and saved: the process there reloads") as seen:
            source = SHOP_COPY / "api/server.py"
            text = source.read_text().replace("visit {count},", "visit {count}, just edited,")
            began = time.monotonic()
            source.write_text(text)
            seen(await shopper.answer("just edited, counted by api-towline-"))
            seen(f"from save to answer in the cluster: {time.monotonic() - began:.2f} s")
        with step("Ctrl-C: the original api answers again") as seen:
            process.send_signal(signal.SIGINT)
            seen(await shopper.answer("counted by api-", without="towline", within_s=60))
            seen(f"towline ended with {await wait_for(process)}")
    with step("nothing of Towline is left in the namespace") as seen:
        await nothing_left(api, before)
        seen(f"{len(before)} objects before, the same now")


async def nothing_left(api: Api, before: set[str]) -> None:
    async with asyncio.timeout(30):
        while True:
            left = await names_in(api) - before
            if not left:
                return
            # The garbage collector takes the shared pieces a moment after their last owner.
            await asyncio.sleep(0.2)


def main() -> int:
    began = time.monotonic()
    failed = False
    foreign = os.environ.get("TOWLINE_CONTEXT")
    try:
        with step("a cluster") as seen:
            if foreign:
                context, namespace = foreign, f"towline-demo-{secrets.token_hex(3)}"
            else:
                context, namespace = prepare_sandbox()
            seen(f"context {context}, namespace {namespace}")
        shutil.copytree(SHOP, SHOP_COPY)
        asyncio.run(demo(context, namespace, public=bool(foreign)))
    except* (StepFailed, TimeoutError, subprocess.SubprocessError) as errors:
        say(f"\nThe demo does not hold: {errors.exceptions[0]}")
        failed = True
    finally:
        shutil.rmtree(SHOP_COPY, ignore_errors=True)
    if failed:
        return 1
    say(f"\nDone in {time.monotonic() - began:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
