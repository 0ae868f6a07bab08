"""Workloads that are not the sample's: objects for them, and an image from scratch."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from towline.payload.build import find_go

from .conftest import CHECKOUT, Node, free_port

SCRATCH_IMAGE = "towline.local/scratch:1"
PYTHON_IMAGE = "towline.local/shop-api:1"
# As Pod Security `restricted` wants it, and no more writable than it must be.
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
SECURITY = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}


def load_scratch_image(node: Node, folder: Path) -> None:
    """An image with one static program in it and nothing else."""
    program = folder / "scratch"
    build = [str(find_go()), "build", "-trimpath", "-ldflags=-s -w", "-o", str(program), "."]
    environ = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(build, cwd=Path(__file__).parent / "scratch", env=environ, check=True)
    archive = folder / "scratch.tar"
    subprocess.run(
        [sys.executable, "-c", _PACK, str(program), str(archive), SCRATCH_IMAGE],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "sandbox")},
        check=True,
    )
    node.run("load", str(archive), "--name", node.name)


# The sandbox's own modules, in a process of its own: they are no package.
_PACK = f"""
import sys
from pathlib import Path
import archive
program, target, name = sys.argv[1:]
layer = Path(target).with_suffix(".layer")
archive.write_single_file_layer(layer, "scratch", Path(program))
image = archive.Image([name], [layer], {{"Cmd": ["/scratch"]}})
archive.write(Path(target), [image],
              architecture=archive.GO_ARCHITECTURES[{platform.machine()!r}])
"""


def pod_spec(image: str, **container: Any) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": SECURITY,
        "containers": [
            {
                "name": "main",
                "image": image,
                "imagePullPolicy": "Never",
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                "securityContext": RESTRICTED,
                **container,
            }
        ],
    }


def workload(kind: str, name: str, spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            **fields,
        },
    }


def service(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            **fields,
        },
    }


def here(name: str, **fields: Any) -> str:
    """A manifest whose process answers on the laptop with its environment's GREETING."""
    port = free_port()
    code = (
        "import http.server, os, socket\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = f'here: {socket.gethostname()} {os.environ.get(\"GREETING\")}'.encode()\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(body)\n"
        "    def log_message(self, *a): pass\n"
        f"http.server.ThreadingHTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
    )
    entry = {
        "mode": "hybrid",
        "reverse": [f"8080:{port}"],
        "command": [sys.executable, "-c", code],
        **fields,
    }
    return json.dumps({"dev": {name: entry}})
