"""A real API server for tests: etcd, kube-apiserver and a few controllers, without root or node.

The programs are the sandbox's own (`python sandbox build`). Everything listens on free
ports of 127.0.0.1, lives in one folder, and ends with this process, however that ends.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Any

from tests.api.certificates import Authority, rsa_pair

ROOT = Path(__file__).resolve().parents[2]
_START_S = 40.0
_CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "resourcequota-controller",
    "clusterrole-aggregation-controller",
)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running API server, and who may talk to it."""

    server: str
    folder: Path
    authority: Authority
    kubectl_program: str

    @property
    def port(self) -> int:
        return int(self.server.rpartition(":")[2])

    def user(self, name: str, *groups: str, valid_s: float = 86400.0) -> dict[str, str]:
        """A kubeconfig's `user` with a certificate of that name and groups."""
        certificate, key = self.authority.client(name, groups, valid_s=valid_s)
        return {
            "client-certificate-data": base64.b64encode(certificate).decode(),
            "client-key-data": base64.b64encode(key).decode(),
        }

    def admin(self) -> dict[str, str]:
        return self.user("admin", "system:masters")

    def config(
        self,
        user: Mapping[str, Any],
        *,
        namespace: str = "default",
        context: str = "test",
        **cluster: Any,
    ) -> dict[str, Any]:
        """A kubeconfig with one context."""
        ca = base64.b64encode(self.authority.certificate).decode()
        made = {"server": self.server, "certificate-authority-data": ca, **cluster}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": made}],
            "users": [{"name": "me", "user": dict(user)}],
            "contexts": [
                {
                    "name": context,
                    "context": {"cluster": "here", "user": "me", "namespace": namespace},
                }
            ],
            "current-context": context,
        }

    def kubectl(
        self, *words: str, namespace: str, objects: Sequence[dict[str, Any]] | None = None
    ) -> str:
        """Run the real kubectl as the administrator, with objects on its stdin."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects or [])})
        done = subprocess.run(
            [
                self.kubectl_program,
                "kubectl",
                f"--kubeconfig={self.folder / 'admin.kubeconfig'}",
                f"--namespace={namespace}",
                *words,
            ],
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout


@contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """A control plane while the block runs."""
    programs = _programs()
    authority = Authority()
    etcd_port, peer_port, api_port = _free_ports(3)
    server = f"https://127.0.0.1:{api_port}"
    kube = programs["kube"]
    plane = ControlPlane(server, folder, authority, kube)
    _write_keys(folder, authority)
    (folder / "admin.kubeconfig").write_text(json.dumps(plane.config(plane.admin())))
    # Its own role would do with an account for each controller only.
    manager = plane.user("system:kube-controller-manager", "system:masters")
    (folder / "manager.kubeconfig").write_text(json.dumps(plane.config(manager)))
    etcd = f"http://127.0.0.1:{etcd_port}"
    with ExitStack() as stack:

        def start(name: str, *words: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(_process(folder / f"{name}.log", words))

        peer = f"http://127.0.0.1:{peer_port}"
        start(
            "etcd",
            programs["etcd"],
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync=true",
            "--log-level=warn",
        )
        api = start("apiserver", kube, *_apiserver(folder, etcd, api_port))
        _wait_ready(server, authority, folder, api)
        start(
            "manager",
            kube,
            "kube-controller-manager",
            f"--kubeconfig={folder}/manager.kubeconfig",
            f"--service-account-private-key-file={folder}/sa.key",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--use-service-account-credentials=false",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )
        yield plane


def _apiserver(folder: Path, etcd: str, port: int) -> list[str]:
    return [
        "kube-apiserver",
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--service-cluster-ip-range=10.96.0.0/16",
        f"--client-ca-file={folder}/ca.crt",
        f"--tls-cert-file={folder}/server.crt",
        f"--tls-private-key-file={folder}/server.key",
        f"--token-auth-file={folder}/tokens.csv",
        f"--service-account-key-file={folder}/sa.pub",
        f"--service-account-signing-key-file={folder}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=RBAC",
        "--endpoint-reconciler-type=none",
        # No priority and fairness, no node: what is tested does not need them.
        "--allow-privileged=true",
        "--watch-cache=true",
    ]


def _programs() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "sandbox"), "build", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _write_keys(folder: Path, authority: Authority) -> None:
    (folder / "ca.crt").write_bytes(authority.certificate)
    certificate, key = authority.server("127.0.0.1")
    (folder / "server.crt").write_bytes(certificate)
    (folder / "server.key").write_bytes(key)
    private, public = rsa_pair()
    (folder / "sa.key").write_bytes(private)
    (folder / "sa.pub").write_bytes(public)
    (folder / "tokens.csv").write_text(
        'token-of-admin,token-admin,1,"system:masters"\ntoken-of-nobody,nobody,2\n'
    )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _end_with_parent() -> None:
    # PR_SET_PDEATHSIG: a test run that is killed leaves nothing behind either.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextmanager
def _process(log: Path, words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=log.parent,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent)},
            preexec_fn=_end_with_parent,
        )
        try:
            yield process
        finally:
            process.kill()  # nothing in it is to be kept
            process.wait()


def _wait_ready(
    server: str, authority: Authority, folder: Path, process: subprocess.Popen[bytes]
) -> None:
    context: SSLContext = create_default_context(cadata=authority.certificate.decode())
    deadline = time.monotonic() + _START_S
    request = urllib.request.Request(
        f"{server}/readyz", headers={"Authorization": "Bearer token-of-admin"}
    )
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    while True:
        try:
            with opener.open(request, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / "apiserver.log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"the API server does not get ready:\n{said}")
        time.sleep(0.1)
