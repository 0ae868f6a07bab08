"""Inside the node: process 1, and below it the one that brings everything up and keeps it up.

Process 1 does nothing but reap: whatever is orphaned in the node becomes its
child. When the keeper ends, process 1 ends, and the kernel ends all the rest.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - loaded late otherwise, when the node has its own /tmp
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import archive
import components
import namespaces
from apiserver import Api
from objects import COREDNS_IMAGE, objects
from places import CONTAINERD_SOCKET, NODE_STATE
from problem import Problem

READY = "READY"

_READY_TIMEOUT_S = 120.0
_RESTARTS = 5
_RESTARTS_WITHIN_S = 60.0
_RESTART_DELAY_S = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """What the host tells the node. Paths of programs are as the node sees them."""

    name: str
    tls_name: str
    cgroup: str
    state: str  # on the host
    binaries: str  # on the host
    plugins: str
    architecture: str
    node: str
    etcd: str
    coredns: str
    kube: str
    listener_fd: int
    progress_fd: int

    def argument(self) -> str:
        return json.dumps(asdict(self))


def main(argument: str) -> int:
    """Be process 1 of the node; returns when the keeper has ended."""
    keeper = os.fork()
    if keeper == 0:
        os._exit(_keep(Settings(**json.loads(argument))))
    signal.signal(signal.SIGTERM, lambda *_: os.kill(keeper, signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == keeper:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _keep(settings: Settings) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keeper = _Keeper(settings)
    try:
        keeper.bring_up()
        keeper.wait_for_failure()
    except Problem as problem:
        keeper.tell(str(problem))
    except Exception as error:
        keeper.tell(f"{type(error).__name__}: {error}")
        raise
    finally:
        sys.stderr.flush()
    return 1


class _Keeper:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._progress_fd: int | None = settings.progress_fd
        self._failed = threading.Event()
        self._failure = ""
        self._api = Api(
            host=components.NODE_IP,
            port=components.API_PORT,
            tls_name=components.NODE_IP,
            pki=components.PKI,
        )

    def tell(self, text: str) -> None:
        """One line to whoever waits for the node, and to the log."""
        line = text.replace("\n", " ")
        print(line, file=sys.stderr, flush=True)
        if self._progress_fd is not None:
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more
                os.write(self._progress_fd, f"{line}\n".encode())

    def bring_up(self) -> None:
        node = self._prepare()
        commands = components.commands(node)
        self._start("relay", self._relay(), pass_fds=(self._settings.listener_fd,))
        for name in ("etcd", "apiserver", "containerd"):
            self._start(name, commands[name])
        self._import_own_images()
        self._until(lambda: self._ok("/readyz"), "the API server is ready")
        for name in ("kubelet", "controller-manager", "proxy", "scheduler"):
            self._start(name, commands[name])
        self._until(self._accounts_ready, "default service accounts are there")
        for collection, item in objects():
            self._api.create(collection, item)
        self._until(self._node_ready, "the node is ready")
        self._until(_dns_answers, "DNS answers")
        self.tell(READY)
        self._progress_fd = None

    def wait_for_failure(self) -> None:
        self._failed.wait()
        raise Problem(self._failure)

    def _prepare(self) -> components.Node:
        s = self._settings
        namespaces.enter(state=Path(s.state), binaries=Path(s.binaries), hostname=s.name)
        node = components.Node(
            name=s.name,
            tls_name=s.tls_name,
            cgroup=s.cgroup,
            snapshotter=namespaces.snapshotter(),
            plugins=s.plugins,
            etcd=s.etcd,
            kube=s.kube,
        )
        for path, content in components.files(node).items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        namespaces.resolve_cluster_names(NODE_STATE / "resolv.conf")
        return node

    def _relay(self) -> list[str]:
        address = f"{components.NODE_IP}:{components.API_PORT}"
        return [self._settings.node, "relay", str(self._settings.listener_fd), address]

    def _start(self, name: str, command: list[str], *, pass_fds: tuple[int, ...] = ()) -> None:
        threading.Thread(
            target=self._keep_running, args=(name, command, pass_fds), name=name, daemon=True
        ).start()

    def _keep_running(self, name: str, command: list[str], pass_fds: tuple[int, ...]) -> None:
        """Start a component again when it ends, but not one that cannot stay up."""
        ends: list[float] = []
        while True:
            code = self._run(name, command, pass_fds)
            now = time.monotonic()
            ends = [end for end in ends if now - end < _RESTARTS_WITHIN_S] + [now]
            log = Path(self._settings.state) / "log" / f"{name}.log"
            self.tell(f"{name} ended with {code}; its log: {log}")
            if len(ends) > _RESTARTS:
                self._failure = f"{name} does not stay up; its log: {log}"
                self._failed.set()
                return
            # Longer each time: those that need the API server end again until it is back.
            time.sleep(_RESTART_DELAY_S * 2 ** (len(ends) - 1))

    def _run(self, name: str, command: list[str], pass_fds: tuple[int, ...]) -> int:
        with (NODE_STATE / "log" / f"{name}.log").open("ab") as log:
            try:
                component = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=pass_fds,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{error}\n".encode())
                return 127
            return component.wait()

    def _import_own_images(self) -> None:
        own = NODE_STATE / "own-images"
        own.mkdir()
        made = []
        for image, program, user in (
            (components.PAUSE_IMAGE, self._settings.node, "65535:65535"),
            (COREDNS_IMAGE, self._settings.coredns, "0:0"),
        ):
            name = "pause" if program == self._settings.node else "coredns"
            layer = own / f"{name}.layer"
            archive.write_single_file_layer(layer, name, Path(program))
            config: dict[str, Any] = {"Entrypoint": [f"/{name}"], "User": user}
            made.append(archive.Image(names=[image], layers=[layer], config=config))
        whole = own / "images.tar"
        archive.write(whole, made, architecture=self._settings.architecture)
        self._until(_containerd_answers, None)
        ctr = ["ctr", "-a", str(CONTAINERD_SOCKET), "-n", "k8s.io", "images", "import", str(whole)]
        done = subprocess.run(ctr, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise Problem(f"the node's own images were refused: {done.stderr.strip()}")

    def _until(self, holds: Callable[[], bool], what: str | None) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not holds():
            if self._failed.is_set():
                raise Problem(self._failure)
            if time.monotonic() > deadline:
                raise Problem(f"waited {_READY_TIMEOUT_S:.0f} s, and still not: {what}")
            time.sleep(0.05)
        if what:
            self.tell(what)

    def _ok(self, path: str) -> bool:
        answer = self._api.get(path)
        return answer is not None and answer.get("text") == "ok"

    def _accounts_ready(self) -> bool:
        """Pods need both: they are made with an account, and mount the configuration."""
        return all(
            self._api.get(f"/api/v1/namespaces/{namespace}/{item}") is not None
            for namespace in ("default", "kube-system")
            for item in ("serviceaccounts/default", "configmaps/kube-root-ca.crt")
        )

    def _node_ready(self) -> bool:
        node = self._api.get(f"/api/v1/nodes/{self._settings.name}")
        if node is None:
            return False
        ready = any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in node["status"].get("conditions", [])
        )
        return ready and not node["spec"].get("taints")


def _containerd_answers() -> bool:
    asked = ["ctr", "-a", str(CONTAINERD_SOCKET), "--connect-timeout", "1s", "version"]
    done = subprocess.run(asked, capture_output=True, timeout=10, check=False)
    return done.returncode == 0


def _dns_answers() -> bool:
    """Whether the DNS Service resolves the API server's name, to the right address."""
    labels = f"kubernetes.default.svc.{components.DOMAIN}".split(".")
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.3)
        try:
            asking.sendto(query, (components.DNS_SERVICE_IP, 53))
            return asking.recv(512).endswith(socket.inet_aton(components.API_SERVICE_IP))
        except OSError:
            return False
