"""A whole node, the sample shop in it, and `towline` as a user types it.

The sandbox is the tests' own and taken down at the end; with TOWLINE_TEST_SANDBOX=NAME
a sandbox that is up already is used, and left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.afterwards import afterwards

CHECKOUT = Path(__file__).resolve().parents[2]
SHOP = CHECKOUT / "samples/shop"
SANDBOX = [sys.executable, str(CHECKOUT / "sandbox")]
TOWLINE = Path(sys.executable).with_name("towline")
YARN = CHECKOUT / ".setup/node-tools/node_modules/.bin"
HERE = socket.gethostname()
COMMAND_TIMEOUT_S = 150.0

T = TypeVar("T")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_ours = Path(__file__).parent in item.path.parents
        if is_ours and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(240))


def wait_until(what: str, condition: Callable[[], T], *, within_s: float = 30.0) -> T:
    """Ask again until the answer is true; the last one is in the failure."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not after {within_s} s; last {found!r}"
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Node:
    """The sandbox: a cluster, and what only its own machine can see."""

    name: str
    kubeconfig: str

    def run(self, *words: str, text: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            [*SANDBOX, *words],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def kubectl(self, *words: str, text: str | None = None) -> str:
        return self.run("kubectl", "--name", self.name, "--", *words, text=text)

    def get(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "-o", "json", *words))
        return found

    def apply(self, *objects: dict[str, Any], namespace: str | None = None) -> None:
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        where = ["-n", namespace] if namespace else []
        self.kubectl(*where, "apply", "-f", "-", text=json.dumps(body))

    def ask(self, namespace: str, service: str, path: str = "/", *, within_s: int = 12) -> str:
        """What a Service answers to a pod's side of the network; "" if nothing."""
        url = f"http://{service}.{namespace}.svc.cluster.local{path}"
        words = ["curl", "-sS", "-m", str(within_s), url]
        return self.run("exec", "--name", self.name, "--", *words, check=False)

    def first_process(self, pod: str) -> Running:
        """PID 1 of a pod's only container, as the node sees it."""
        words = ["exec", "--name", self.name, "--", "python3", "-c", _FIRST_OF, pod]
        return Running(*map(int, self.run(*words).split()))


# PID 1 of a container, by the name of its pod; the agent, in a dev container.
_FIRST_OF = """
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        status = open(f"/proc/{pid}/status").read()
        first = open(f"/proc/{pid}/environ", "rb").read().split(b"\\0")
    except OSError:
        continue
    names = status.partition("NSpid:")[2].split("\\n")[0].split()
    if len(names) > 1 and names[-1] == "1" and f"HOSTNAME={sys.argv[1]}".encode() in first:
        print(pid, status.partition("VmRSS:")[2].split()[0], len(os.listdir(f"/proc/{pid}/fd")))
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A process of the node; memory in KiB."""

    pid: int
    memory: int
    descriptors: int


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    given = os.environ.get("TOWLINE_TEST_SANDBOX")
    name = given or f"e2e-{os.getpid()}"
    with ExitStack() as stack:
        if not given:
            stack.enter_context(afterwards(*SANDBOX, "down", "--name", name))
            subprocess.run([*SANDBOX, "up", "--name", name], check=True, timeout=300)
        load = [*SANDBOX, "image", str(SHOP), "--load", "--name", name]
        subprocess.run(load, check=True, timeout=300, stdout=subprocess.DEVNULL)
        words = [*SANDBOX, "kubeconfig", "--name", name]
        path = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        yield Node(name, path)


def deploy(node: Node, namespace: str) -> None:
    words = [sys.executable, str(SHOP / "deploy.py"), "render", "--namespace", namespace]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    node.kubectl("apply", "-f", "-", text=text)
    node.kubectl(
        "-n", namespace, "wait", "--for=condition=Available", "deploy", "--all", "--timeout=120s"
    )


@pytest.fixture(scope="session")
def namespace(node: Node) -> Iterator[str]:
    """The shop, deployed once: every test gives it back as it was."""
    name = f"shop-{os.getpid()}"
    try:
        deploy(node, name)
        yield name
    finally:
        node.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


_NOT_OURS = ("resourceVersion", "generation")


def dump(node: Node, namespace: str) -> dict[str, Any]:
    """What a takeover could leave something in, without what any write changes."""
    kinds = "deploy,sts,svc,pvc,hpa,cm,secret,role,rolebinding"
    found = {}
    for item in node.get("-n", namespace, kinds, "--show-managed-fields")["items"]:
        item.pop("status", None)
        for key in _NOT_OURS:
            item["metadata"].pop(key, None)
        # The controllers' own entries are their notes on status.
        item["metadata"]["managedFields"] = sorted(
            (e for e in item["metadata"].get("managedFields", []) if not e.get("subresource")),
            key=json.dumps,
        )
        found[f"{item['kind']}/{item['metadata']['name']}"] = item
    return found


@pytest.fixture
def unchanged(node: Node, namespace: str) -> Iterator[None]:
    """The namespace is the same before and after, and no process of towline is left."""
    before = dump(node, namespace)
    yield
    wait_until("the pieces are collected", lambda: dump(node, namespace).keys() == before.keys())
    after = dump(node, namespace)
    assert after == before


@dataclass
class Towline:
    """Runs `towline` with a home of its own, in a copy of the sample.

    Attributes:
        ports: free local ports, by those that the sample's manifest has.
    """

    home: Path
    folder: Path
    kubeconfig: str
    namespace: str
    owner: str = "tester"
    prefix: tuple[str, ...] = ()
    sessions: list[Session] = field(default_factory=list)
    ports: dict[int, int] = field(default_factory=dict)

    def environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "TOWLINE_"))}
        return {
            **kept,
            "KUBECONFIG": self.kubeconfig,
            "XDG_STATE_HOME": str(self.home / "state"),
            "LOGNAME": self.owner,
            "PATH": f"{YARN}{os.pathsep}{kept['PATH']}",
        }

    def run(
        self, *words: str, text: str | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, str(TOWLINE), *words],
            cwd=cwd or self.folder,
            env=self.environ(),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def up(self, *words: str) -> Session:
        """`towline up -o json`, running; its events are read as they come."""
        own, _, command = _split(words)
        words = ("up", *own, "-n", self.namespace, "--yes", "-o", "json", *command)
        session = Session(self.begin(*words))
        self.sessions.append(session)
        return session

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """As `run`, without waiting for its end."""
        return subprocess.Popen(
            [*self.prefix, str(TOWLINE), *words],
            cwd=self.folder,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def manifest(self, text: str) -> None:
        (self.folder / "towline.yml").write_text(text)


def _split(words: tuple[str, ...]) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    if "--" not in words:
        return words, "", ()
    at = words.index("--")
    return words[:at], "--", words[at:]


class Session:
    """A running `towline up`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.errors: list[str] = []
        self.output: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_output, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_events(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                event = json.loads(line)
                self.times.append(time.monotonic())
                self.events.append(event)
            except ValueError:
                self.errors.append(line)

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        self.output.extend(self.process.stdout)

    def event(self, name: str, *, within_s: float = 60.0, **wanted: Any) -> dict[str, Any]:
        """Wait for an event; fails at once when the session ends without it."""

        def found() -> dict[str, Any] | None:
            for event in list(self.events):
                if event["event"] == name and wanted.items() <= event.items():
                    return event
            code = self.process.poll()
            assert code is None, f"ended with {code}: {self.errors} {self.events[-3:]}"
            return None

        return wait_until(f"event {name} {wanted}", found, within_s=within_s)

    def serving(self) -> Session:
        self.event("stage-done", stage="takeover")
        return self

    @property
    def id(self) -> str:
        return str(self.event("began")["session"])

    def end(self, number: int = signal.SIGINT, *, within_s: float = 60.0) -> int:
        """Send a signal, and wait for the end of everything."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=within_s)
        for thread in self._threads:
            thread.join(timeout=5)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        # Shown where the test fails.
        print(f"the session ended with {code}:", *self.events, *self.errors, sep="\n")
        return code


@contextmanager
def asked_all_the_time(node: Node, namespace: str, service: str, answers: Path) -> Iterator[None]:
    """Ask a Service's /healthz 20 times a second, by a new connection each time."""
    name, _, port = service.partition(":")
    url = f"http://{name}.{namespace}.svc.cluster.local:{port or 80}/healthz"
    # What ends `nsenter` ends nothing of what it has started in there.
    script = (
        "exec 3<&0; (cat <&3; kill $$) & "
        f"while :; do curl -sS -m 10 {url} || echo FAILED; echo; sleep 0.05; done"
    )
    words = [*SANDBOX, "exec", "--name", node.name, "--", "sh", "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with answers.open("w") as file, subprocess.Popen(words, stdout=file, **pipes):
        yield


@pytest.fixture
def towline(node: Node, namespace: str, tmp_path: Path) -> Iterator[Towline]:
    folder = tmp_path / "shop"
    shutil.copytree(SHOP, folder)
    program = Towline(tmp_path, folder, node.kubeconfig, namespace)
    # The sample's own ports may be in use on this machine, by a demo for example.
    text = (folder / "towline.yml").read_text()
    for port in (8080, 16379, 18000):
        program.ports[port] = free_port()
        text = text.replace(str(port), str(program.ports[port]))
    program.manifest(text)
    try:
        yield program
    finally:
        for session in program.sessions:
            session.end(within_s=90)


def page_server(port: int) -> list[str]:
    """A command that answers at a port of this laptop."""
    return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def colleague(towline: Towline, tmp_path: Path) -> Towline:
    """Somebody else, on another laptop."""
    return Towline(
        tmp_path / "colleague", towline.folder, towline.kubeconfig, towline.namespace, "colleague"
    )


@pytest.fixture
def empty_namespace(node: Node, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of a test's own under Pod Security `restricted`, gone after it."""
    name = f"shape-{os.getpid()}-{abs(hash(request.node.name)) % 10**6}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    try:
        node.apply({"apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": name, "labels": labels}})  # fmt: skip
        yield name
    finally:
        node.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def elsewhere(node: Node, empty_namespace: str, tmp_path: Path) -> Iterator[Towline]:
    """`towline` in an empty folder and an empty namespace."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    program = Towline(tmp_path, folder, node.kubeconfig, empty_namespace)
    try:
        yield program
    finally:
        for session in program.sessions:
            session.end(within_s=90)


# Here, and behind what it needs: a session's fixture that two files import would be made twice.
from .petclinic import clinic, petclinic_namespace  # noqa: E402, F401
from .ways import loop, network, token  # noqa: E402, F401
