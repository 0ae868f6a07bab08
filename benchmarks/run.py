"""Measures what the README and the docs claim; writes RESULTS.md beside this.

    make bench                      all of it, in a sandbox of its own
    TOWLINE_BENCH_SANDBOX=NAME …    in a sandbox that is up already
    TOWLINE_BENCH_RUNS=3 …          fewer runs

Whole processes on a real node, the alternatives in the same run. Machines are shared
and noisy: read the ratios.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

ROOT = Path(__file__).resolve().parent.parent
SHOP = ROOT / "samples/shop"
SANDBOX = [sys.executable, str(ROOT / "sandbox")]
TOWLINE = str(Path(sys.executable).with_name("towline"))
YARN = ROOT / ".setup/node-tools/node_modules/.bin"
RUNS = int(os.environ.get("TOWLINE_BENCH_RUNS", "10"))
BULK_BYTES = 256 * 1024 * 1024
NAMESPACE = "bench"
TURNS = 5

# Serves in the dev pod or on the laptop: the first byte says what is wanted.
#   e  echo, a message at a time      d  send BULK bytes      u  take all, then say so
SERVER = """
import socket, sys, threading
bulk = int(sys.argv[2])
block = b"x" * (1 << 18)
def serve(s):
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with s:
        what = s.recv(1)
        if what == b"e":
            while data := s.recv(65536):
                s.sendall(data)
        elif what == b"d":
            for _ in range(bulk // len(block)):
                s.sendall(block)
        elif what == b"u":
            left = bulk
            while left > 0:
                left -= len(s.recv(1 << 18))
            s.sendall(b"k")
listener = socket.create_server(("", int(sys.argv[1])), backlog=512)
print("serving", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
# Asks a Service all the time on new connections, from inside the node's network.
ASKER = """
import json, select, socket, sys, time
address, limit = sys.argv[1], float(sys.argv[2])
end = time.time() + limit
# It ends with its standard input: killing the program around it does not reach it, and
# it must not go on asking behind the next measurement.
while time.time() < end and not select.select([sys.stdin], [], [], 0)[0]:
    began = time.time()
    try:
        with socket.create_connection((address, 80), 0.25) as s:
            s.settimeout(0.25)
            s.sendall(b"GET /whoami HTTP/1.0\\r\\n\\r\\n")
            text = b""
            while data := s.recv(4096):
                text += data
        who = text.rsplit(b"\\r\\n\\r\\n", 1)[-1].decode().strip() or "empty"
    except OSError as error:
        who = "error: " + (error.strerror or str(error))
    print(json.dumps([time.time(), who]), flush=True)
    time.sleep(max(0.0, began + 0.02 - time.time()))
"""
# The workload's own server, which says who answered: fast to start, here and there.
FRONT = """
import http.server, os, socket
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("WHO", "original").encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super(http.server.HTTPServer, self).server_bind()
S(("", int(os.environ["PORT"])), H).serve_forever()
"""


@dataclass
class Table:
    """Rows of RESULTS.md."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, figure: str, target: str = "") -> None:
        print(f"  {what}: {figure}" + (f"   (target {target})" if target else ""), flush=True)
        self.rows.append((what, figure, target))


def ms(values: list[float], share: float = 0.5) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000


class Cluster:
    """The sandbox with the benchmark's workload."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kubeconfig = self._run("kubeconfig", "--name", name).strip()

    def _run(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run(
            [*SANDBOX, *words], input=text, capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode != 0:
            raise SystemExit(f"{words}: {done.stderr}")
        return done.stdout

    def kubectl(self, *words: str, text: str | None = None) -> str:
        return self._run("kubectl", "--name", self.name, "--", *words, text=text)

    def node_command(self, *words: str) -> list[str]:
        return [*SANDBOX, "exec", "--name", self.name, "--", *words]

    def kubectl_binary(self) -> list[str]:
        """kubectl of the same version, started as a process of its own."""
        status = json.loads(self._run("status", "--name", self.name, "-o", "json"))
        return [str(status["kubectl"]), "--kubeconfig", self.kubeconfig]

    def deploy(self) -> None:
        objects = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "front", "namespace": NAMESPACE},
                "spec": {
                    "selector": {"app": "front"},
                    "ports": [{"port": 80, "targetPort": 3000}],
                },
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "front", "namespace": NAMESPACE},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": {"app": "front"}},
                    "template": {
                        "metadata": {"labels": {"app": "front"}},
                        "spec": {
                            "terminationGracePeriodSeconds": 5,
                            "containers": [
                                {
                                    "name": "front",
                                    "image": "towline.local/shop-api:1",
                                    "command": ["python3", "-c", FRONT],
                                    "env": [{"name": "PORT", "value": "3000"}],
                                    "ports": [{"containerPort": 3000}],
                                    # Nodes follow endpoints up to a second late.
                                    "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
                                    "readinessProbe": {
                                        "httpGet": {"path": "/", "port": 3000},
                                        "periodSeconds": 1,
                                    },
                                }
                            ],
                        },
                    },
                },
            },
        ]
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "-f", "-", text=body)
        self.kubectl(
            "-n", NAMESPACE, "wait", "--for=condition=Available", "deploy/front", "--timeout=120s"
        )

    def keep_pieces(self) -> None:
        """Give the agent's pieces another owner, so that they outlive the sessions."""
        keeper = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "keeper"}}
        self.kubectl("-n", NAMESPACE, "apply", "-f", "-", text=json.dumps(keeper))
        uid = self.kubectl("-n", NAMESPACE, "get", "cm", "keeper", "-o", "jsonpath={.metadata.uid}")
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "keeper", "uid": uid}
        patch = json.dumps({"metadata": {"ownerReferences": [owner]}})
        names = self.kubectl(
            "-n", NAMESPACE, "get", "cm", "-l", "towline.dev/kind=piece-set", "-o", "name"
        )
        for name in names.split():
            self.kubectl("-n", NAMESPACE, "patch", name, "--type=strategic", "-p", patch)

    def drop_pieces(self) -> None:
        """Delete the pieces, so that the next session brings them."""
        kinds = "towline.dev/kind in (piece-set,piece)"
        self.kubectl("-n", NAMESPACE, "delete", "cm", "-l", kinds)

    def service_address(self) -> str:
        words = ["-n", NAMESPACE, "get", "svc", "front", "-o", "jsonpath={.spec.clusterIP}"]
        return self.kubectl(*words)


MANIFEST = """\
dev:
  front:
    mode: hybrid
    reverse:
    - 3000:18080
    - 9100:19100
    forward:
    - 19000:9000
    workdir: .
    command: ["{python}", "-c", {code}]
    environment:
      PORT: "18080"
      WHO: laptop
"""


class Session:
    """A running `towline up -o json`, with the time of each event."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.began = time.time()
        self.at: dict[str, float] = {}
        self.process = subprocess.Popen(
            [TOWLINE, "up", "front", "-n", NAMESPACE, "--yes", "-o", "json"],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._done = threading.Event()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            name = event["event"]
            name = event["stage"] if name == "stage-done" else name
            self.at.setdefault(name, time.time())
            if name in ("takeover", "restored"):
                self._done.set()

    def serving(self) -> Session:
        if not self._done.wait(60):
            raise SystemExit(f"up did not get there: {self.said}")
        return self

    def end(self) -> float:
        """Ctrl-C; returns the seconds until the program was gone, which it may be already."""
        began = time.time()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        return time.time() - began


@contextmanager
def served(folder: Path, environ: dict[str, str]) -> Iterator[Session]:
    """A session from the moment that it serves to the block's end, however that comes."""
    session = Session(folder, environ)
    try:
        yield session.serving()
    finally:
        session.end()


class Program(NamedTuple):
    """Another program that runs."""

    pid: int
    said: TextIO


@contextmanager
def started(words: list[str], **how: Any) -> Iterator[Program]:
    """A program from its first line on while the block runs."""
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **how
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield Program(process.pid, process.stdout)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def asking(cluster: Cluster, address: str) -> Iterator[list[tuple[float, str]]]:
    """Ask the Service every 20 ms while the block runs."""
    answers: list[tuple[float, str]] = []
    words = cluster.node_command("python3", "-u", "-c", ASKER, address, "60")
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            at, who = json.loads(line)
            answers.append((at, who))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    wait_for(lambda: len(answers) > 5, "the asker's first answers")
    try:
        yield answers
    finally:
        assert process.stdin is not None
        process.stdin.close()
        thread.join(10)
        process.wait(10)


def wait_for(condition: Callable[[], object], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not after {within_s} s")
        time.sleep(0.01)


def longest_gap(answers: list[tuple[float, str]]) -> float:
    good = [at for at, who in answers if not who.startswith(("error", "empty"))]
    return max((b - a for a, b in itertools.pairwise(good)), default=0.0)


@dataclass
class Round:
    """One `up` and its end, in seconds.

    Attributes:
        own: the client's share: from exec to the gate open, without the pod's start
            (from the dev workload applied to its container running) and without the
            command's (from its start to its port being listened on). What is behind the
            gate is the kubelet's probe, the EndpointSlice and kube-proxy.
    """

    whole: float
    own: float
    restore: float
    restore_own: float
    gap: float


def round_of(
    cluster: Cluster, address: str, folder: Path, environ: dict[str, str], *, keep: bool
) -> Round:
    with asking(cluster, address) as answers, served(folder, environ) as session:
        wait_for(lambda: answers[-1][1] == "laptop", "the laptop's answer")
        first = next(at for at, who in answers if who == "laptop")
        at = session.at
        pod = at["dev pod"] - at["applied"]
        command = at["gate-changed"] - at["command-starting"]
        time.sleep(1.5)
        if keep:
            cluster.keep_pieces()
        ended = time.time()
        restore = session.end()
        wait_for(lambda: answers[-1][1] == "original", "the original's answer")
        back = next(t for t, who in answers if t > ended and who == "original")
        time.sleep(2.0)
    return Round(
        whole=first - session.began,
        own=at["gate-changed"] - session.began - pod - command,
        restore=restore,
        restore_own=max(restore - (back - ended), 0.0),
        gap=longest_gap(answers),
    )


def measure_up(cluster: Cluster, folder: Path, environ: dict[str, str], table: Table) -> None:
    """From exec to the first request answered by the laptop, and back."""
    address = cluster.service_address()
    without = []
    for n in range(max(RUNS // 3, 1)):
        if n:
            cluster.drop_pieces()
        without.append(round_of(cluster, address, folder, environ, keep=True))
    rounds = [round_of(cluster, address, folder, environ, keep=False) for _ in range(RUNS)]
    cold = f"without the agent's pieces in the namespace {ms([r.whole for r in without]):.0f} ms"
    whole = ms([r.whole for r in rounds])
    table.add("`up` → first answer through the Service", f"{whole:.0f} ms; {cold}", "≤ 3500 ms")
    cold = f"without the pieces {ms([r.own for r in without]):.0f} ms"
    own = ms([r.own for r in rounds])
    table.add("… of that Towline's own share", f"{own:.0f} ms; {cold}", "≤ 600 ms")
    restore = ms([r.restore for r in rounds])
    table.add("Ctrl-C → program gone, the original serving", f"{restore:.0f} ms")
    restore = ms([r.restore_own for r in rounds])
    table.add("… after the original's first answer", f"{restore:.0f} ms", "≤ 300 ms")
    gaps = [r.gap for r in [*without, *rounds]]
    text = f"{ms(gaps):.0f} ms median, {max(gaps) * 1000:.0f} ms worst"
    table.add("longest gap between answers, up and down, asked every 20 ms", text, "≤ 100 ms")


Dial = Callable[[], socket.socket]


def connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), 10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def is_answered(address: str, port: int) -> bool:
    try:
        first_bytes(lambda: socket.create_connection((address, port), 10), 1)
    except OSError:
        return False
    return True


def first_bytes(dial: Dial, count: int) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter()
        with dial() as s:
            s.sendall(b"ex")
            s.recv(1)
            found.append(time.perf_counter() - began)
        time.sleep(0.005)
    return found


def requests(dial: Dial, count: int) -> list[float]:
    found = []
    with dial() as s:
        s.sendall(b"e")
        for _ in range(count):
            began = time.perf_counter()
            s.sendall(b"x" * 100)
            got = 0
            while got < 100:
                got += len(s.recv(4096))
            found.append(time.perf_counter() - began)
    return found


def bulk(dial: Dial, what: bytes) -> float:
    """MB/s of one stream."""
    with dial() as s:
        s.settimeout(120)
        began = time.perf_counter()
        s.sendall(what)
        if what == b"d":
            left = BULK_BYTES
            while left > 0:
                data = s.recv(1 << 18)
                if not data:
                    raise SystemExit("the stream ended early")
                left -= len(data)
        else:
            block = b"x" * (1 << 18)
            for _ in range(BULK_BYTES // len(block)):
                s.sendall(block)
            s.recv(1)
        return BULK_BYTES / (time.perf_counter() - began) / 1e6


def cpu_s(pid: int) -> float:
    """Of all threads, as the scheduler counts them: what runs for less than a tick (10 ms)
    is counted in ticks by chance."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9


def by_turns(
    ours: Dial, theirs: Dial, measure: Callable[[Dial, int], list[float]], *, count: int
) -> tuple[list[float], list[float]]:
    """The same for both ways, in turns: the machine is not the same for a minute."""
    a: list[float] = []
    b: list[float] = []
    for _ in range(TURNS):
        a += measure(ours, count // TURNS)
        b += measure(theirs, count // TURNS)
    return a, b


def bulk_by_turns(ways: list[tuple[Dial, int]], what: bytes) -> list[tuple[float, float]]:
    """For each way, with its process: (MB/s, CPU seconds of the process per GB), medians."""
    speeds: list[list[float]] = [[] for _ in ways]
    costs: list[list[float]] = [[] for _ in ways]
    for _ in range(TURNS):
        for n, (dial, pid) in enumerate(ways):
            before = cpu_s(pid)
            speeds[n].append(bulk(dial, what))
            costs[n].append((cpu_s(pid) - before) / (BULK_BYTES / 1e9))
    return [
        (statistics.median(speed), statistics.median(cost))
        for speed, cost in zip(speeds, costs, strict=True)
    ]


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measure_tunnels(cluster: Cluster, folder: Path, environ: dict[str, str], table: Table) -> None:
    """`forward` beside kubectl port-forward to the same pod and port, and `reverse`."""
    path = "jsonpath={.items[0].metadata.name}"
    with served(folder, environ) as session, serving_in_the_pod(folder, environ, BULK_BYTES):
        pod = cluster.kubectl(
            "-n", NAMESPACE, "get", "pods", "-l", "towline.dev/session", "-o", path
        )
        words = [*cluster.kubectl_binary(), "-n", NAMESPACE, "port-forward", pod, "19001:9000"]
        with started(words, stderr=subprocess.DEVNULL) as kubectl:
            time.sleep(1)
            idle(session.process.pid, table)
            beside(session.process.pid, kubectl.pid, table)
            reverse(cluster, folder, table)


def serving_in_the_pod(
    folder: Path, environ: dict[str, str], bulk_bytes: int
) -> AbstractContextManager[Program]:
    words = ["python3", "-u", "-c", SERVER, "9000", str(bulk_bytes)]
    return started([TOWLINE, "exec", "front", "--", *words], cwd=folder, env=environ)


def make_services(cluster: Cluster, names: Iterable[str]) -> None:
    spec = {"selector": {"app": "front"}, "ports": [{"port": 9000}]}
    services = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }
        for name in names
    ]
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": services})
    cluster.kubectl("apply", "-f", "-", text=body)


def measure_names(cluster: Cluster, folder: Path, environ: dict[str, str], table: Table) -> None:
    """The surroundings of a process in a namespace of 20 Services, and a name beside `forward`."""
    make_services(cluster, (f"echo-{number}" for number in range(19)))
    manifest = folder / "towline.yml"
    text = manifest.read_text()
    manifest.write_text(text.replace("19000:9000\n", "19000:9000\n    - 19002:echo-1:9000\n"))
    ready = []
    for run in range(RUNS):
        with served(folder, environ) as session:
            at = session.at
            ready.append(max(at["names"], at["files"]) - at["connection"])
            if run == RUNS - 1:
                through_a_name(folder, environ, table)
                measure_env(folder, environ, table)
                come_and_go(cluster, folder, environ, table)
    text = f"{ms(ready):.0f} ms, worst {max(ready) * 1000:.0f} ms"
    table.add("names and files ready after SSH is up, 20 Services", text, "≤ 150 ms")
    make_services(cluster, (f"more-{number}" for number in range(180)))
    with served(folder, environ) as session:
        took = max(session.at["names"], session.at["files"]) - session.at["connection"]
        memory = rss_mb(session.process.pid)
    text = f"{took * 1000:.0f} ms, client {memory:.0f} MB"
    table.add("… 200 Services, all listened for at the start (once)", text, "–")


def measure_env(folder: Path, environ: dict[str, str], table: Table) -> None:
    found = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        words = [TOWLINE, "env", "front", "-o", "json"]
        subprocess.run(words, cwd=folder, env=environ, stdout=subprocess.DEVNULL, check=True)
        found.append(time.perf_counter() - began)
    text = f"{ms(found[1:]):.0f} ms, worst {max(found[1:]) * 1000:.0f} ms"
    table.add("`towline env` during a session", text, "≤ 250 ms")


# Prints when its name is found, and when it is not any more.
LOOK = """
import socket, time
def wait(wanted):
    while True:
        try:
            socket.gethostbyname("late")
            found = True
        except OSError:
            found = False
        if found is wanted: break
        time.sleep(0.01)
    print(time.time(), flush=True)
wait(False), wait(True), wait(False)
"""


def come_and_go(cluster: Cluster, folder: Path, environ: dict[str, str], table: Table) -> None:
    found = []
    for _ in range(RUNS):
        words = [TOWLINE, "run", "front", "--", "python3", "-c", LOOK]
        with started(words, cwd=folder, env=environ) as looking:
            make_services(cluster, ["late"])
            made = time.time()
            found.append(float(looking.said.readline()) - made)
            cluster.kubectl("-n", NAMESPACE, "delete", "service", "late")
            gone = time.time()
            found.append(float(looking.said.readline()) - gone)
    # kubectl ends a moment after the API server has it: less than nothing is possible.
    text = f"{ms(found):.0f} ms, worst {max(found) * 1000:.0f} ms after kubectl's end"
    table.add("a Service made or removed → its name in the process", text, "≤ 2 s")


def through_a_name(folder: Path, environ: dict[str, str], table: Table) -> None:
    named, forward = [], []
    with serving_in_the_pod(folder, environ, 1):
        words = [TOWLINE, "run", "front", "--", "getent", "hosts", "echo-1"]
        found = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True)
        address = found.stdout.split()[0]
        # The node may not know that Service's endpoint yet.
        wait_for(lambda: is_answered(address, 9000), "the name's Service", within_s=30)
        for _ in range(4):
            named += first_bytes(lambda: socket.create_connection((address, 9000), 10), 50)
            forward += first_bytes(lambda: connect(19002), 50)
    text = f"{ms(named):.2f} / {ms(named, 0.99):.2f} ms; forward {ms(forward):.2f} ms; "
    text += f"ratio {ms(named) / ms(forward):.2f}"
    table.add("through a name, first byte on a new connection, p50 / p99", text, "as forward")


def idle(pid: int, table: Table) -> None:
    before = cpu_s(pid)
    time.sleep(10)
    table.add("client, idle: memory", f"{rss_mb(pid):.0f} MB", "≤ 70 MB")
    table.add("client, idle: CPU", f"{(cpu_s(pid) - before) * 10:.2f} % of a core", "≤ 1 %")


def beside(ours: int, theirs: int, table: Table) -> None:
    def via_towline() -> socket.socket:
        return connect(19000)

    def via_kubectl() -> socket.socket:
        return connect(19001)

    first_bytes(via_towline, 10)
    first_bytes(via_kubectl, 10)
    a, b = by_turns(via_towline, via_kubectl, first_bytes, count=200)
    table.add(
        "forward, first byte on a new connection, p50 / p99",
        f"{ms(a):.2f} / {ms(a, 0.99):.2f} ms; kubectl {ms(b):.2f} / {ms(b, 0.99):.2f} ms; "
        f"ratio {ms(a) / ms(b):.2f}",
        "ratio ≤ 0.6",
    )
    a, b = by_turns(via_towline, via_kubectl, requests, count=500)
    table.add(
        "forward, 100 bytes there and back on an open connection, p50 / p99",
        f"{ms(a):.2f} / {ms(a, 0.99):.2f} ms; kubectl {ms(b):.2f} / {ms(b, 0.99):.2f} ms; "
        f"ratio {ms(a) / ms(b):.2f}",
        "ratio ≤ 1.3",
    )
    for what, name in ((b"d", "cluster → laptop"), (b"u", "laptop → cluster")):
        (speed, cost), (other, other_cost) = bulk_by_turns(
            [(via_towline, ours), (via_kubectl, theirs)], what
        )
        table.add(
            f"forward, one bulk stream, {name}",
            f"{speed:.0f} MB/s, {cost:.1f} CPU s/GB; kubectl {other:.0f} MB/s, "
            f"{other_cost:.1f} CPU s/GB; ratios {speed / other:.2f}, {cost / other_cost:.2f}",
            "≥ 0.8 at ≤ 1.3",
        )
    errors = at_once(via_towline, 50)
    table.add("forward, 50 connections at once", f"{errors} errors", "0")
    errors = at_once(via_towline, 1000)
    table.add("forward, 1,000 connections at once", f"{errors} errors", "0")


def at_once(dial: Dial, count: int) -> int:
    """Open many, and have an answer on each while all are open."""
    errors = 0
    opened = []
    for _ in range(count):
        try:
            opened.append(dial())
        except OSError:
            errors += 1
    for s in opened:
        s.sendall(b"ex")
    for s in opened:
        try:
            s.settimeout(20)
            errors += s.recv(1) != b"x"
        except OSError:
            errors += 1
    for s in opened:
        s.close()
    return errors


REVERSE_CLIENT = """
import json, socket, sys, time
def dial():
    s = socket.create_connection((sys.argv[1], 9100), 10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s
found = []
for _ in range(210):
    began = time.perf_counter()
    with dial() as s:
        s.sendall(b"ex"); s.recv(1)
        found.append(time.perf_counter() - began)
    time.sleep(0.005)
again = []
with dial() as s:
    s.sendall(b"e")
    for _ in range(500):
        began = time.perf_counter()
        s.sendall(b"x" * 100)
        got = 0
        while got < 100: got += len(s.recv(4096))
        again.append(time.perf_counter() - began)
print(json.dumps([found[10:], again]))
"""


def reverse(cluster: Cluster, folder: Path, table: Table) -> None:
    """Into the dev pod's port 9100, out on the laptop, from inside the node."""
    with started([sys.executable, "-u", "-c", SERVER, "19100", str(BULK_BYTES)]):
        path = "jsonpath={.items[0].status.podIP}"
        words = ["-n", NAMESPACE, "get", "pods", "-l", "towline.dev/session", "-o", path]
        address = cluster.kubectl(*words)
        command = cluster.node_command("python3", "-c", REVERSE_CLIENT, address)
        found, again = json.loads(subprocess.check_output(command, timeout=120))
        forward_first = first_bytes(lambda: connect(19000), 200)
        forward_again = requests(lambda: connect(19000), 500)
        table.add(
            "reverse, first byte on a new connection, p50 / p99",
            f"{ms(found):.2f} / {ms(found, 0.99):.2f} ms; forward {ms(forward_first):.2f} ms; "
            f"ratio {ms(found) / ms(forward_first):.2f}",
            "ratio ≤ 1.2",
        )
        table.add(
            "reverse, 100 bytes there and back on an open connection, p50 / p99",
            f"{ms(again):.2f} / {ms(again, 0.99):.2f} ms; forward {ms(forward_again):.2f} ms; "
            f"ratio {ms(again) / ms(forward_again):.2f}",
            "ratio ≤ 1.2",
        )


def measure_help(table: Table) -> None:
    found = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run([TOWLINE, "--help"], stdout=subprocess.DEVNULL, check=True)
        found.append(time.perf_counter() - began)
    table.add("`towline --help`", f"{ms(found[1:]):.0f} ms", "≤ 150 ms")


def results(table: Table, cluster: Cluster) -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    version = json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    lines = [
        "# Results",
        "Written by `make bench`. Client, cluster and load share one machine, so the ratios",
        "say more than the figures.",
        "",
        f"- {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {cpu}, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}",
        f"- Kubernetes {version} (the sandbox); median of {RUNS} where nothing else is said",
        "",
        "| what | measured | wanted |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {figure} | {target} |" for what, figure, target in table.rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    given = os.environ.get("TOWLINE_BENCH_SANDBOX")
    name = given or "bench"
    folder = Path(tempfile.mkdtemp(prefix="towline-bench-"))
    try:
        if not given:
            subprocess.run([*SANDBOX, "up", "--name", name], check=True)
        load = [*SANDBOX, "image", str(SHOP), "--load", "--name", name]
        subprocess.run(load, check=True, stdout=subprocess.DEVNULL)
        cluster = Cluster(name)
        cluster.deploy()
        manifest = MANIFEST.format(python=sys.executable, code=json.dumps(FRONT))
        (folder / "towline.yml").write_text(manifest)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TOWLINE_")}
        environ = {
            **kept,
            "KUBECONFIG": cluster.kubeconfig,
            "XDG_STATE_HOME": str(folder / "state"),
        }
        table = Table()
        try:
            measure_help(table)
            measure_up(cluster, folder, environ, table)
            measure_tunnels(cluster, folder, environ, table)
            measure_names(cluster, folder, environ, table)
        finally:
            cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        (ROOT / "benchmarks/RESULTS.md").write_text(results(table, cluster))
    finally:
        if not given:
            subprocess.run([*SANDBOX, "down", "--name", name], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
