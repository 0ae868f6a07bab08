"""The samples' buttons in VS Code and IntelliJ, pressed; and debuggers that stand still."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from .conftest import HERE, Node, Towline, free_port, wait_until
from .debuggers import Dap, Jdb
from .ides import IntelliJ, Program, VsCode, in_namespace, with_own_ports

# As the issue has it; the kubelet asks each second, a gate that is shut for 10 s is told to
# the Services, a laptop that is away for 30 s loses its connections.
STANDS_S = 60.0


@pytest.fixture
def ports() -> dict[int, int]:
    return {port: free_port() for port in (8001, 26379, 5678, 9229)}


@pytest.fixture
def shop(towline: Towline, ports: dict[int, int], tmp_path: Path) -> Iterator[Towline]:
    """The sample's project, opened by somebody whose context has the namespace."""
    with_own_ports(towline.folder, ports)
    towline.kubeconfig = in_namespace(towline.kubeconfig, towline.namespace, tmp_path)
    yield towline
    towline.run("down", "--all")


@pytest.fixture
def code(shop: Towline) -> VsCode:
    return VsCode(shop.folder, shop.environ())


@pytest.fixture
def idea(shop: Towline) -> IntelliJ:
    return IntelliJ(shop.folder, shop.environ())


def answers_here(node: Node, namespace: str, program: Program, *, path: str = "/") -> str:
    def answer() -> str | None:
        assert program.process.poll() is None, program.said
        text = node.ask(namespace, "frontend", path)
        return text if f"host: {HERE}" in text else None

    try:
        return str(wait_until("the cluster is answered from here", answer))
    except AssertionError as error:
        raise AssertionError(f"{error}; it said: {program.said}") from error


@pytest.mark.usefixtures("unchanged")
def test_vs_code_debugs_the_frontend(
    node: Node, namespace: str, code: VsCode, tmp_path: Path
) -> None:
    """F5 is `towline up -- node …`; the debugger's hook gets through to the process."""
    config = code.launch("frontend (Node)")
    assert (config["type"], config["request"], config["killBehavior"]) == (
        "node", "launch", "polite",
    )  # fmt: skip
    words = [config["runtimeExecutable"], *config["runtimeArgs"], config["program"]]
    # This is how VS Code's debugger enters each Node that is started below it.
    (tmp_path / "hook.js").write_text(
        f"require('node:fs').writeFileSync({json.dumps(str(tmp_path / 'hooked'))},"
        " JSON.stringify(process.argv));"
    )
    hook = {"NODE_OPTIONS": f"--require {tmp_path / 'hook.js'}"}
    with code.program(*words, environ=hook, cwd=Path(config["cwd"])) as program:
        assert "Welcome to the shop" in answers_here(node, namespace, program)
        assert json.loads((tmp_path / "hooked").read_text())[1] == config["program"]
        assert program.stop() == 128 + 15, program.said
    assert "host: frontend-" in node.ask(namespace, "frontend")


@pytest.mark.usefixtures("unchanged")
def test_intellij_runs_the_api_with_its_environment(
    node: Node, namespace: str, idea: IntelliJ
) -> None:
    """The IDE starts the process itself, as its own debugger wants it."""
    for _ in range(2):  # the second time the session is there already
        idea.before_launch("api")
    path = Path(idea.option("api", "ENV_FILES"))
    assert path.stat().st_mode & 0o077 == 0, "Secrets are in it"
    environ = {k: v or "" for k, v in dotenv_values(path, interpolate=False).items()}
    folder = Path(idea.option("api", "WORKING_DIRECTORY"))
    python = shutil.which("python3", path=idea.environ["PATH"])
    assert python is not None
    words = (python, idea.option("api", "SCRIPT_NAME"))
    with idea.program(*words, environ=environ, cwd=folder) as program:
        ask = lambda: node.ask(namespace, "api", ":8000/visit")  # noqa: E731
        wait_until("counted here", lambda: f"counted by {HERE}" in ask())
        assert program.process.poll() is None, program.said
        idea.script("give back")
        program.stop()
    assert "counted by api-" in node.ask(namespace, "api", ":8000/visit")


@pytest.mark.usefixtures("unchanged")
def test_vs_code_runs_the_api_in_a_session(node: Node, namespace: str, code: VsCode) -> None:
    code.before_task("run api in its session")
    with code.program("/bin/sh", "-c", code.command("run api in its session")) as program:
        ask = lambda: node.ask(namespace, "api", ":8000/visit")  # noqa: E731
        wait_until("counted here", lambda: f"counted by {HERE}" in ask())
        code.task("give api back")
        program.stop()
    assert "counted by api-" in node.ask(namespace, "api", ":8000/visit")


# Its page /db does not ask the api, in which a debugger stands.


def run_the_frontend(node: Node, namespace: str, idea: IntelliJ) -> None:
    shell = idea.option("frontend", "INTERPRETER_PATH")
    with idea.program(shell, "-c", idea.command("frontend")) as program:
        answers_here(node, namespace, program, path="/db")
        program.stop()
    assert "host: frontend-" in node.ask(namespace, "frontend", "/db")


def debug_the_frontend(node: Node, namespace: str, idea: IntelliJ) -> None:
    idea.before_launch("frontend (debug)")
    port = idea.configuration("frontend (debug)").get("port")
    with urllib.request.urlopen(f"http://localhost:{port}/json/list", timeout=10) as answer:
        [target] = json.load(answer)
    assert target["url"].endswith("/frontend/server.js") and target["webSocketDebuggerUrl"]
    ask = lambda: node.ask(namespace, "frontend", "/db")  # noqa: E731
    wait_until("answered from here", lambda: f"host: {HERE}" in ask())
    idea.shell("towline down frontend")
    assert "host: frontend-" in node.ask(namespace, "frontend", "/db")


def dev_pod(node: Node, namespace: str, workload: str) -> dict[str, Any]:
    """What tells of a restart of the dev pod, or of a gate that was shut for a moment."""
    pods = node.get("-n", namespace, "pods", "-l", f"app={workload}")["items"]
    [pod] = [p for p in pods if f"{workload}-towline-" in p["metadata"]["name"]]
    [ready] = [c for c in pod["status"]["conditions"] if c["type"] == "Ready"]
    slices = node.get("-n", namespace, "endpointslices",
                      "-l", f"kubernetes.io/service-name={workload}")["items"]  # fmt: skip
    assert ready["status"] == "True"
    return {
        "uid": pod["metadata"]["uid"],
        "restarts": [c["restartCount"] for c in pod["status"]["containerStatuses"]],
        "ready since": ready["lastTransitionTime"],
        "serving": [
            e["targetRef"]["uid"]
            for each in slices
            for e in each["endpoints"] or []
            if e["conditions"]["ready"]
        ],
    }


@pytest.mark.timeout(420)  # the clinic is built and deployed in it, too
@pytest.mark.usefixtures("unchanged")
def test_debuggers_stand_at_a_breakpoint(
    node: Node,
    namespace: str,
    petclinic_namespace: str,
    code: VsCode,
    idea: IntelliJ,
    clinic: IntelliJ,
    ports: dict[int, int],
) -> None:
    """Python under DAP and Java under JDWP, at the same time, each with a request in it.

    Meanwhile a third service is worked on, in another IDE.
    """
    config = code.launch("api (Python)")
    code.task(config["preLaunchTask"])
    same_in_both(VsCode(clinic.folder, clinic.environ), clinic)
    clinic.before_launch("petclinic (debug)")
    source = code.folder / "api/server.py"
    line = source.read_text().splitlines().index('    (count,) = redis("INCR visits")') + 1
    within_s = int(STANDS_S) + 60
    with (
        ThreadPoolExecutor(2) as cluster,  # outside: without the debuggers its requests end
        Dap(config["connect"]["port"]) as python,
        Jdb(int(clinic.option("petclinic (debug)", "PORT"))) as java,
    ):
        python.attach(source, line)
        java.ask("stop in petclinic.Clinic.page", "Set breakpoint petclinic.Clinic.page")
        before = pods(node, api=namespace, petclinic=petclinic_namespace)
        visit = cluster.submit(node.ask, namespace, "api", ":8000/visit", within_s=within_s)
        page = cluster.submit(node.ask, petclinic_namespace, "petclinic", within_s=within_s)
        thread = python.event("stopped")["body"]["threadId"]
        [frame, *_] = python.request("stackTrace", threadId=thread)["stackFrames"]
        assert (frame["name"], frame["line"]) == ("visit", line)
        java.until(r"Breakpoint hit: .*petclinic\.Clinic\.page\(\)")
        stood = time.monotonic()
        run_the_frontend(node, namespace, idea)
        debug_the_frontend(node, namespace, idea)
        java.stands_for(STANDS_S - (time.monotonic() - stood))
        python.stands_for(STANDS_S - (time.monotonic() - stood))
        assert not visit.done() and not page.done()
        assert pods(node, api=namespace, petclinic=petclinic_namespace) == before
        shown = python.request("evaluate", expression="DB_ADDR", frameId=frame["id"])
        assert shown["result"] == f"'localhost:{ports[26379]}'"
        java.ask("print greeting", 'greeting = "Welcome to the clinic"')
        python.request("continue", threadId=thread)
        java.ask("cont", "")
        assert f"counted by {HERE}" in visit.result()
        assert f'"host":"{HERE}"' in page.result() and "Basil" in page.result()
    code.task(config["postDebugTask"])
    clinic.script("give back")
    assert "counted by api-" in node.ask(namespace, "api", ":8000/visit")
    assert '"host":"petclinic-' in node.ask(petclinic_namespace, "petclinic")


def same_in_both(code: VsCode, idea: IntelliJ) -> None:
    """What one of the clinic's IDEs does is what the other does."""
    config = code.launch("petclinic (Java)")
    assert str(config["port"]) == idea.option("petclinic (debug)", "PORT")
    for task, script in (
        ("preLaunchTask", "take petclinic, with a debugger"),
        ("postDebugTask", "give back"),
    ):
        assert code.command(config[task]) == idea.command(script)


def pods(node: Node, **namespaces: str) -> dict[str, dict[str, Any]]:
    return {name: dev_pod(node, namespace, name) for name, namespace in namespaces.items()}
