"""Faults × loads on one session: what is noticed and healed when, and what is lost.

`make chaos` writes the table of docs/reliability.md by it; a short form is a test.
"""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fakes.badserver import BadServer, Says, Slow
from fakes.netfault import FaultyNetwork

from .conftest import SANDBOX, TOWLINE, Node, Session, Towline, free_port, wait_until
from .pods import deleted, drained, evicted, killed, pod_of
from .shapes import PYTHON_IMAGE, pod_spec, service
from .ways import Loop, Network

_API_PORT = 6443
_PIECE = bytes(range(256)) * 256
# Generous: what counts is in the table, and a busy machine is no failure.
_HEALS_WITHIN_S = 90.0

# Serves numbers and slow downloads; the same here and in the pod.
_SERVER = """
import http.server, sys, time
piece = bytes(range(256)) * 256
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        words = self.path.split("/")
        if words[1] != "bytes":
            return self.answer(words[1].encode())
        count, pause = int(words[2]), float(words[3])
        self.send_response(200)
        self.send_header("Content-Length", str(len(piece) * count))
        self.end_headers()
        for _ in range(count):
            self.wfile.write(piece)
            time.sleep(pause)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), H).serve_forever()
"""
# Requests over connections that stay open, on each one after each pause, until its input ends.
_REQUESTS = """
import http.client, json, sys, threading, time
host, connections, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ended, count = threading.Event(), [0, 0, 0]
def ask(first):
    number, c = first, None
    while not ended.wait(pause):
        number += connections
        try:
            c = c or http.client.HTTPConnection(host, timeout=600)
            c.request("GET", f"/{number}")
            count[0 if c.getresponse().read() == str(number).encode() else 1] += 1
        except Exception as error:
            count[2] += 1
            c = None
threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(connections)]
[t.start() for t in threads]
sys.stdin.read()
ended.set()
[t.join(60) for t in threads]
print(json.dumps(count))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A session that is to suffer, and what surrounds it.

    Attributes:
        forward: the local port that leads to the pod `chaos-peer`.
        address: of the Service that leads here.
    """

    node: Node
    towline: Towline
    session: Session
    forward: int
    address: str

    def inside(self, *words: str) -> list[str]:
        return [*SANDBOX, "exec", "--name", self.node.name, "--", *words]

    def count(self, event: str) -> int:
        return [each["event"] for each in list(self.session.events)].count(event)


@contextmanager
def session_of(person: Towline, node: Node, **settings: str) -> Iterator[Setup]:
    """Begin one on `frontend`, with these settings in its manifest, and end it."""
    namespace = person.namespace
    spec = pod_spec(PYTHON_IMAGE, command=["python3", "-c", _SERVER, "8080"])
    peer = {"apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": "chaos-peer", "labels": {"app": "chaos-peer"}}}  # fmt: skip
    try:
        # With an address of its own it would be in the variables of whichever pods start now.
        headless = service("chaos-peer")
        headless["spec"]["clusterIP"] = "None"
        node.apply(peer, headless, namespace=namespace)
        node.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/chaos-peer",
                     "--timeout=60s")  # fmt: skip
        local, forward = free_port(), free_port()
        entry = {"mode": "hybrid", "reverse": [f"3000:{local}"],
                 "forward": [f"{forward}:chaos-peer:8080"],
                 "command": [sys.executable, "-c", _SERVER, str(local)]}  # fmt: skip
        person.manifest(json.dumps({"names": "off", **settings, "dev": {"frontend": entry}}))
        session = person.up("frontend").serving()
        address = node.get("-n", namespace, "service", "frontend")["spec"]["clusterIP"]
        try:
            # Until the node has followed, the original answers: it would take its connections
            # along when it ends, and they would count as broken.
            asked = [f"/{number}" for number in range(12)]
            wait_until(
                "the node has followed",
                lambda: all(node.ask(namespace, "frontend", each) == each[1:] for each in asked),
            )
            yield Setup(
                node=node,
                towline=person,
                session=session,
                forward=forward,
                address=address,
            )
        finally:
            session.end(within_s=120)
    finally:
        node.kubectl("-n", namespace, "delete", "pod/chaos-peer", "service/chaos-peer", "--now",
                     "--ignore-not-found")  # fmt: skip


# Loads: each is begun before the faults, and asked afterwards what it has lost.


@dataclass(slots=True)
class Lost:
    """What a load has to say at its end; `answers` and `moved` bytes are those that were right."""

    bytes: int = 0
    connections: int = 0
    answers: int = 0
    moved: int = 0
    note: str = ""


class Load(Protocol):
    name: str

    def begin(self, setup: Setup) -> None: ...
    def end(self) -> Lost: ...


class Idle:
    name = "idle"

    def begin(self, setup: Setup) -> None:
        pass

    def end(self) -> Lost:
        return Lost()


class Requests:
    """Each answer is the number that was asked for.

    Args:
        connections: how many, with a request after each `pause_s` on each.
        through_forward: from the laptop to the cluster, and not the other way.
    """

    def __init__(
        self, connections: int = 4, *, pause_s: float = 0.2, through_forward: bool = False
    ) -> None:
        self._rate = [str(connections), str(pause_s)]
        self._through_forward = through_forward
        self.name = f"{connections / pause_s:g} requests/s"

    def begin(self, setup: Setup) -> None:
        script = ["-c", _REQUESTS]
        if self._through_forward:
            words = [sys.executable, *script, f"127.0.0.1:{setup.forward}", *self._rate]
        else:
            words = setup.inside("python3", *script, setup.address, *self._rate)
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def end(self) -> Lost:
        said, _ = self._process.communicate(timeout=180)
        right, wrong, broken = json.loads(said)
        return Lost(bytes=wrong, connections=broken, answers=right)


class Transfers:
    """One each way, with a digest over all of it.

    To the laptop through `forward`, from a pod; to the cluster through `reverse`, from the
    local process.
    """

    def __init__(self, megabytes: int, *, over_s: float) -> None:
        self._count = megabytes * (1 << 20) // len(_PIECE)
        self._pause = over_s / self._count
        self.name = f"{megabytes} MB each way"

    def begin(self, setup: Setup) -> None:
        path = f"/bytes/{self._count}/{self._pause}"
        to_laptop = [sys.executable, "-c", _DIGEST, f"http://127.0.0.1:{setup.forward}{path}"]
        to_cluster = setup.inside("python3", "-c", _DIGEST, f"http://{setup.address}{path}")
        self._both = [
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for words in (to_laptop, to_cluster)
        ]

    def end(self) -> Lost:
        whole = hashlib.sha256()
        for _ in range(self._count):
            whole.update(_PIECE)
        lost = Lost()
        for process in self._both:
            said, error = process.communicate(timeout=600)
            if said.strip() == whole.hexdigest():
                lost.moved += self._count * len(_PIECE)
            else:
                lost.connections += 1
                lost.note = error.strip().splitlines()[-1] if error else said
        return lost


_DIGEST = """
import hashlib, sys, urllib.request
seen = hashlib.sha256()
with urllib.request.urlopen(sys.argv[1], timeout=600) as answer:
    while data := answer.read(65536):
        seen.update(data)
print(seen.hexdigest())
"""


class Typing:
    """A terminal in the dev container that says back what is typed, line by line."""

    name = "terminal"

    def begin(self, setup: Setup) -> None:
        near, far = pty.openpty()
        says = "console.log('ready'); require('readline').createInterface({input: process.stdin})"
        says += ".on('line', line => console.log('got ' + line))"
        words = [str(TOWLINE), "exec", "frontend", "--", "node", "-e", says]
        self._process = subprocess.Popen(
            # What exec itself says of the network would be in the middle of the lines.
            words, stdin=far, stdout=far, stderr=subprocess.DEVNULL, cwd=setup.towline.folder,
            env=setup.towline.environ(), start_new_session=True,
        )  # fmt: skip
        os.close(far)
        self._near, self._said, self._typed = near, "", 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._read, self._type)]
        self._threads[0].start()
        # What is typed before the terminal is lent to the command is nobody's.
        wait_until("the command", lambda: "ready" in self._said, within_s=60)
        self._threads[1].start()

    def _read(self) -> None:
        with suppress(OSError):  # the terminal is gone at its end
            while data := os.read(self._near, 65536):
                self._said += data.decode(errors="replace")

    def _type(self) -> None:
        while not self._over.wait(0.2):
            self._typed += 1
            os.write(self._near, f"line {self._typed}\n".encode())

    def _heard(self) -> list[str]:
        # On a busy machine what is typed is echoed into the middle of an answer's line.
        return re.findall(r"got line \d+", self._said)

    def end(self) -> Lost:
        self._over.set()
        self._threads[1].join()
        wanted = [f"got line {number + 1}" for number in range(self._typed)]
        with suppress(AssertionError):
            wait_until("all lines", lambda: len(self._heard()) >= len(wanted), within_s=60)
        heard = self._heard()
        self._process.terminate()
        self._process.wait(30)
        os.close(self._near)
        self._threads[0].join(10)
        wrong = sum(a != b for a, b in zip(wanted, heard, strict=False))
        wrong += abs(len(wanted) - len(heard))
        return Lost(bytes=wrong, answers=len(heard), note=repr(self._said) if wrong else "")


# Faults: begun, and ended if they end at all; then the line must be whole again.


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Attributes: `begin` says when it was, if not at once; `breaks` what cannot outlive it, so
    that nothing is promised of that; `given_back` is long enough for the original to answer
    before its end, and healed is then when the laptop answers again."""

    name: str
    begin: Callable[[Setup], float | None]
    end: Callable[[Setup], None] | None = None
    lasts_s: float = 0.0
    healed_by: str = "network-back"
    breaks: bool = False
    given_back: bool = False


def _moved(network: Network) -> None:
    network.do(FaultyNetwork.reset)
    network.do(FaultyNetwork.thaw)


def _sleep(network: Network, length_s: float, *, given_back: bool = False) -> Fault:
    """The whole of the laptop's side: the client, its helper and the process."""

    def begin(setup: Setup) -> None:
        network.do(FaultyNetwork.freeze)
        signal_all(setup.session, signal.SIGSTOP)

    def end(setup: Setup) -> None:
        signal_all(setup.session, signal.SIGCONT)
        # The Wi-Fi comes back a moment after the laptop, and its old connections do not.
        _moved(network)

    return Fault(name=f"the laptop sleeps {length_s:g} s", begin=begin, end=end,
                 lasts_s=length_s, given_back=given_back)  # fmt: skip


def signal_all(session: Session, number: signal.Signals) -> None:
    """To the client and all that it has started."""
    for pid in _family(session.process.pid):
        os.kill(pid, number)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _drops(probability: float) -> tuple[Callable[[Setup], None], Callable[[Setup], None]]:
    """Packets between the laptop and the API server, in the sandbox's own network namespace."""

    def rules(setup: Setup, how: str) -> None:
        rule = f"-m statistic --mode random --probability {probability} -j DROP"
        commands = [
            f"iptables {how} {chain} -p tcp {port} {_API_PORT} {address} 198.18.0.1 {rule}"
            for chain, port, address in (("INPUT", "--dport", "-d"), ("OUTPUT", "--sport", "-s"))
        ]
        # Together: what it takes counts as not noticed yet.
        words = ["sh", "-c", " && ".join(commands)]
        subprocess.run(setup.inside(*words), check=True, timeout=60)

    return lambda setup: rules(setup, "-I"), lambda setup: rules(setup, "-D")


def _restarts(component: str) -> Callable[[Setup], float]:
    """The sandbox starts a component that ends again, after a second or so.

    One that needs the API server may just be away, after another fault: it is waited for.
    """
    find = f"""
import os, signal, time
found = False
while not found:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{{pid}}/cmdline").read().split("\\0")
        except OSError:
            continue
        if words[1:2] == ["{component}"]:
            os.kill(int(pid), signal.SIGKILL)
            found = True
    print(time.monotonic())
    time.sleep(0.1)
"""

    def begin(setup: Setup) -> float:
        words = setup.inside("python3", "-c", find)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        return float(done.stdout.split()[-1])

    return begin


def network_faults(network: Network, *lengths_s: float) -> list[Fault]:
    """The network's own, each as long as said."""
    found = [
        Fault(name="streams closed by a load balancer",
              begin=lambda _: network.do(FaultyNetwork.reset)),
        Fault(name="half-open streams: their other end is gone",
              begin=lambda _: network.do(FaultyNetwork.half_open)),
    ]  # fmt: skip
    for length_s in lengths_s:
        text = f"{length_s:g} s"
        found += [
            Fault(name=f"frozen {text}", begin=lambda _: network.do(FaultyNetwork.freeze),
                  end=lambda _: network.do(FaultyNetwork.thaw), lasts_s=length_s),
            Fault(name=f"cut {text}", begin=lambda _: network.do(FaultyNetwork.cut),
                  end=lambda _: network.do(FaultyNetwork.restore), lasts_s=length_s),
            Fault(name=f"another address after {text}",
                  begin=lambda _: network.do(FaultyNetwork.freeze),
                  end=lambda _: _moved(network), lasts_s=length_s),
        ]  # fmt: skip
    return found


def other_faults(network: Network, length_s: float) -> list[Fault]:
    some, all_of_them = _drops(0.3), _drops(1.0)
    text = f"{length_s:g} s"
    return [
        Fault(name=f"0.3 s later each way, {text}", lasts_s=length_s,
              begin=lambda _: network.do(FaultyNetwork.delay, 0.3),
              end=lambda _: network.do(FaultyNetwork.delay, 0.0)),
        Fault(name=f"32 KiB/s each way, {text}", lasts_s=length_s,
              begin=lambda _: network.do(FaultyNetwork.slow, 32 * 1024),
              end=lambda _: network.do(FaultyNetwork.slow, 0)),
        Fault(name=f"30 % of packets dropped, {text}", begin=some[0], end=some[1],
              lasts_s=length_s),
        Fault(name=f"all packets dropped, {text}", begin=all_of_them[0], end=all_of_them[1],
              lasts_s=length_s),
        _sleep(network, length_s),
        Fault(name="the API server restarts", begin=_restarts("kube-apiserver")),
        Fault(name="the kubelet restarts", begin=_restarts("kubelet")),
    ]  # fmt: skip


def long_sleep(network: Network, length_s: float) -> Fault:
    """Longer than `giveBackAfter`, which is 2 minutes."""
    return _sleep(network, length_s, given_back=True)


def api_faults(server: BadServer, loop: Loop, length_s: float) -> list[Fault]:
    """All streams are reset, and until it is over no other gets by this."""

    def fault(name: str, says: Says | Slow) -> Fault:
        def begin(setup: Setup) -> None:
            server.decide = lambda asked: says
            loop.call(server.cut)

        def end(setup: Setup) -> None:
            server.decide = lambda asked: None

        return Fault(name=f"reset, then {name}, {length_s:g} s", begin=begin, end=end,
                     lasts_s=length_s)  # fmt: skip

    return [
        fault("throttled (429, a second's advice)", Says(429, {"Retry-After": "1"})),
        fault("an API server that fails (500)", Says(500)),
        fault("the credentials are accepted no more (401)", Says(401)),
        fault("each answer 5 s late", Slow(5.0)),
    ]


def pod_faults() -> list[Fault]:
    """What ends the dev pod; the connections through it end, too."""

    def fault(name: str, how: Callable[[Node, str, str], None]) -> Fault:
        def begin(setup: Setup) -> None:
            how(setup.node, setup.towline.namespace, pod_of(setup.session))

        return Fault(name=name, begin=begin, healed_by="pod-replaced", breaks=True)

    return [
        fault("the dev pod is deleted", deleted),
        fault("the dev pod is evicted", evicted),
        fault("the dev container is killed", killed),
        fault("the dev pod's node is drained", drained),
    ]


@dataclass(slots=True)
class Row:
    """What one fault did under one load, over its repetitions."""

    fault: Fault
    load: str
    times: int = 0
    noticed_s: list[float] = field(default_factory=list)
    healed_s: list[float] = field(default_factory=list)
    lost: Lost = field(default_factory=Lost)
    restarted: int = 0
    unhealed: str = ""


def inflict(setup: Setup, fault: Fault, row: Row) -> None:
    """One fault, from its beginning to a line that is whole again."""
    row.times += 1
    losses, heals = setup.count("network-lost"), setup.count(fault.healed_by)
    noticed = Stamp(setup, "network-lost", losses)
    healed = Stamp(setup, fault.healed_by, heals)
    began = time.monotonic()
    began = fault.begin(setup) or began
    if fault.end is not None:
        try:
            if fault.given_back:
                wait_until("the original", lambda: not reached(setup), within_s=fault.lasts_s)
            # How long it lasts is what is tested.
            time.sleep(max(fault.lasts_s - (time.monotonic() - began), 0.0))
        finally:
            fault.end(setup)
        ended = time.monotonic()
    else:
        ended = began
        with suppress(AssertionError):
            # It may go unseen: nothing was under way, or another carrier was there at once.
            wait_until("noticed", lambda: noticed.seen() or healed.seen(), within_s=8)
    # First what shows that it carries: until then it may be that nobody has noticed yet.
    wait_until(f"reached: {fault.name}", lambda: reached(setup), within_s=_HEALS_WITHIN_S)
    again = time.monotonic()
    wait_until(
        f"healed: {fault.name}",
        lambda: (
            setup.count("network-back") >= setup.count("network-lost")
            and (fault.healed_by == "network-back" or setup.count(fault.healed_by) > heals)
        ),
        within_s=_HEALS_WITHIN_S,
    )
    if (at := noticed.seen()) is not None:
        row.noticed_s.append(at - began)
    if fault.given_back:
        row.healed_s.append(again - ended)
    elif (at := healed.seen()) is not None:
        row.healed_s.append(max(at - ended, 0.0))


def reached(setup: Setup) -> bool:
    """Whether new connections get through: from the cluster to the laptop's process, and back."""
    number = str(time.monotonic_ns())
    address = f"http://{setup.address}/{number}"
    words = setup.inside("curl", "-sS", "-m", "5", address)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.stdout != number:
        return False
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{setup.forward}/{number}", timeout=5) as a:
            return bool(a.read().decode() == number)
    except OSError:
        return False


class Stamp:
    """When the first event of a kind came, after so many."""

    def __init__(self, setup: Setup, event: str, after: int) -> None:
        self._setup, self._event, self._after = setup, event, after

    def seen(self) -> float | None:
        session = self._setup.session
        pairs = zip(list(session.events), list(session.times), strict=False)
        times = [at for each, at in pairs if each["event"] == self._event]
        return times[self._after] if len(times) > self._after else None


def run(setup: Setup, faults: list[Fault], loads: list[Load], *, repeated: int = 1) -> list[Row]:
    """All faults, one after the other, while all loads are under way.

    The first that is not healed is the last: those after it have been inflicted 0 times.
    """
    name = " + ".join(load.name for load in loads)
    starts = setup.count("command-started")
    rows = [Row(fault=fault, load=name) for fault in faults]
    for load in loads:
        load.begin(setup)
    with ExitStack() as stack:
        losses: list[Lost] = []
        stack.callback(lambda: losses.extend(load.end() for load in loads))
        for row in [each for each in rows for _ in range(times(each.fault, repeated))]:
            try:
                inflict(setup, row.fault, row)
            except AssertionError as error:
                row.unhealed = str(error)
                break
    for row in rows:
        row.restarted = setup.count("command-started") - starts
        for lost in losses:
            row.lost.bytes += lost.bytes
            row.lost.connections += lost.connections
            row.lost.note = row.lost.note or lost.note
    return rows


def times(fault: Fault, repeated: int) -> int:
    """How often to inflict it: once what takes minutes."""
    return 1 if fault.lasts_s >= 60 else repeated


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| fault | load | times | noticed after, p50 / max | healed after, p50 / p95 / max "
        "| bytes lost | connections lost | processes restarted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        noticed = _figures(row.noticed_s, row.times, 0.5, 1.0)
        healed = _figures(row.healed_s, row.times, 0.5, 0.95, 1.0)
        if row.unhealed:
            healed = f"not within {_HEALS_WITHIN_S:g} s"
        lines.append(
            f"| {row.fault.name} | {row.load} | {row.times} | {noticed} | {healed} "
            f"| {row.lost.bytes} | {row.lost.connections} | {row.restarted} |"
        )
    return "\n".join(lines)


def _figures(found: list[float], times: int, *shares: float) -> str:
    if not found:
        return "not noticed"
    ordered = sorted(found)
    figures = [ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in shares]
    figures[0] = statistics.median(ordered)
    few = f" ({len(found)} of {times})" if len(found) < times else ""
    return " / ".join(f"{each:.2f}" for each in figures) + f" s{few}"


def machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "load": os.getloadavg()[0]}


def write(path: Path, name: str, text: str, *, seconds: float, before: dict[str, Any]) -> None:
    """Put what was found into its place in a document; the name's first word is make's."""
    after = machine()
    head = (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {seconds / 60:.0f} minutes on "
        f"{before['cores']} cores (load {before['load']:.1f} before, {after['load']:.1f} after), "
        "client, cluster and loads all on them."
    )
    made_by = name.split()[0]
    begin, end = f"<!-- {name}: written by `make {made_by}` -->", f"<!-- {name}: end -->"
    start, rest = path.read_text().split(begin)
    _, tail = rest.split(end)
    path.write_text(f"{start}{begin}\n{head}\n\n{text}\n\n{end}{tail}")
