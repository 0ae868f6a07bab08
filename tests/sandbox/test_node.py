"""One sandbox that is up: what a cluster must do, it does."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import ssl
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .conftest import CHECKOUT, Sandbox, eventually

SHOP = CHECKOUT / "samples" / "shop"
PANIC = Path("/proc/sys/kernel/panic")
PANIC_BEFORE = PANIC.read_text() if PANIC.exists() else ""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def test_up_is_ready_with_dns(sandbox: Sandbox) -> None:
    assert sandbox.facts["state"] == "running"
    assert sandbox.facts["ready_after_s"] < 60.0  # 7 s when nothing else runs
    node = json.loads(sandbox.kubectl("get", "nodes", "-o", "json"))["items"][0]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.34.4"
    assert {"type": "Ready", "status": "True"}.items() <= node["status"]["conditions"][-1].items()
    answer = sandbox.inside("getent", "hosts", "kubernetes.default.svc.cluster.local")
    assert answer.split()[0] == "10.96.0.1"


def test_a_name_outside_does_not_exist_at_once(sandbox: Sandbox) -> None:
    started = time.monotonic()
    sandbox.inside("getent", "hosts", "example.com", check=False)
    assert time.monotonic() - started < 3.0


def test_up_of_a_running_sandbox_says_so_at_once(sandbox: Sandbox) -> None:
    started = time.monotonic()
    again = sandbox.host.up(sandbox.name)
    assert time.monotonic() - started < 3.0
    assert again.facts == sandbox.facts
    assert again.said.count("\n") == 1


def test_status_and_kubeconfig(sandbox: Sandbox) -> None:
    status = json.loads(sandbox.host.run("status", "--name", sandbox.name, "-o", "json").stdout)
    assert status == sandbox.facts
    printed = sandbox.host.run("kubeconfig", "--name", sandbox.name).stdout.decode().strip()
    config = json.loads(Path(printed).read_text())
    assert config["current-context"] == f"sandbox-{sandbox.name}"
    assert Path(printed).stat().st_mode & 0o077 == 0


def test_clients_in_the_cluster_get_a_certificate_without_loopback(sandbox: Sandbox) -> None:
    def names(tls_name: str) -> set[str]:
        config = json.loads(Path(sandbox.facts["kubeconfig"]).read_text())
        port = urlsplit(config["clusters"][0]["cluster"]["server"]).port
        context = ssl.create_default_context(cafile=str(sandbox.state / "pki" / "ca.crt"))
        context.check_hostname = False
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=tls_name) as tls,
        ):
            certificate = tls.getpeercert() or {}
        return {value for _, value in certificate["subjectAltName"]}

    host_name = f"sandbox-{sandbox.name}.towline.internal"
    assert names(host_name) == {host_name}
    inside = names("kubernetes.default.svc")
    assert {"kubernetes.default.svc", "10.96.0.1", "198.18.0.1"} <= inside
    assert not inside & {"localhost", "127.0.0.1", "0:0:0:0:0:0:0:1"}


def test_kernel_settings_of_the_machine_stay(sandbox: Sandbox) -> None:
    # The kubelet wants 10, and would set it for the whole machine.
    assert sandbox.inside("cat", str(PANIC)).strip() == "10"
    assert PANIC.read_text() == PANIC_BEFORE


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_a_loaded_image_runs(sandbox: Sandbox, tmp_path: Path, form: str) -> None:
    name = f"towline.local/test-{form}:1"
    program = next(Path(sandbox.facts["kubectl"]).resolve().parents[1].glob("*/node"))
    path = tmp_path / "image.tar"
    path.write_bytes((_docker_archive if form == "docker" else _oci_archive)(name, program))
    sandbox.host.run("load", "--name", sandbox.name, str(path))
    sandbox.apply(_pod(f"loaded-{form}", image=name, command=["/program", "pause"]))
    sandbox.kubectl("wait", "pod", f"loaded-{form}", "--for=condition=Ready", "--timeout=30s")
    sandbox.kubectl("delete", "pod", f"loaded-{form}", "--wait=false")


def test_an_archive_that_is_none_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "broken.tar").write_text("no archive at all")
    for name in ("broken.tar", "absent.tar"):
        path = str(tmp_path / name)
        done = sandbox.host.run("load", "--name", sandbox.name, path, check=False)
        assert done.returncode == 1
        assert path in done.stderr.decode()


def test_a_claim_is_bound(sandbox: Sandbox) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    sandbox.apply(claim)
    eventually(
        lambda: sandbox.kubectl("get", "pvc", "kept", "-o", "jsonpath={.status.phase}"),
        lambda phase: phase == "Bound",
        within_s=20.0,
    )
    volume = sandbox.kubectl("get", "pv", "-o", "jsonpath={.items[0].spec.hostPath.path}")
    # The node's, not the machine's.
    sandbox.inside("test", "-d", volume)
    assert not Path(volume).exists()
    sandbox.kubectl("delete", "pvc", "kept", "--wait=false")


@pytest.mark.parametrize("images", ["own", "public"])
def test_the_shop_runs_under_restricted(sandbox: Sandbox, images: str) -> None:
    namespace = f"shop-{images}"
    deploy = [sys.executable, str(SHOP / "deploy.py")]
    tags = subprocess.run([*deploy, "tags"], capture_output=True, timeout=10, check=True)
    sandbox.host.run(
        "image", str(SHOP), *tags.stdout.decode().split(), "--load", "--name", sandbox.name
    )
    public = ["--public"] if images == "public" else []
    rendered = subprocess.run(
        [*deploy, "render", "--namespace", namespace, *public],
        capture_output=True,
        timeout=10,
        check=True,
    ).stdout
    sandbox.kubectl("apply", "-f", "-", input=rendered)
    sandbox.kubectl("rollout", "status", "-n", namespace, "deployment", "--timeout=60s")
    ask = f"http://frontend.{namespace}.svc.cluster.local/"
    answer = eventually(
        lambda: sandbox.inside("curl", "-sS", "-m", "5", ask, check=False),
        lambda text: "visit" in text,
        within_s=20.0,
    )
    assert "Welcome to the shop\nversion: 1\nhost: frontend-" in answer
    # From one pod to the other, by the Service's short name.
    fetch = "import urllib.request as u; print(u.urlopen('http://frontend/db').read().decode())"
    said = sandbox.kubectl("exec", "-n", namespace, "deploy/api", "--", "python3", "-c", fetch)
    assert "db: PONG from db:6379" in said
    sandbox.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_component_that_dies_comes_back(sandbox: Sandbox) -> None:
    sandbox.inside("pkill", "-9", "-f", "kube-apiserver")
    ready = ("status", "--name", sandbox.name)
    eventually(
        lambda: sandbox.host.run(*ready, check=False).returncode,
        lambda code: code == 0,
        within_s=60.0,
    )
    assert "Ready" in sandbox.kubectl("get", "nodes")


def _pod(name: str, *, image: str, command: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "program",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": command,
                    "securityContext": RESTRICTED,
                }
            ],
        },
    }


def _tar(files: dict[str, bytes], *, mode: int = 0o644) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return written.getvalue()


def _config(layer: bytes) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()


def _docker_archive(name: str, program: Path) -> bytes:
    layer = _tar({"program": program.read_bytes()}, mode=0o755)
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {"config.json": _config(layer), "layer.tar": layer}
    return _tar({**files, "manifest.json": json.dumps(manifest).encode()})


def _oci_archive(name: str, program: Path) -> bytes:
    layer = _tar({"program": program.read_bytes()}, mode=0o755)
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_config(layer), "config.v1+json"),
        "layers": [blob(layer, "layer.v1.tar")],
    }
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [entry]}
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps(index).encode(),
    }
    return _tar({**files, **blobs})
