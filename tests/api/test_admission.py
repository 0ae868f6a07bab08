"""A real admission webhook that changes a pod's environment: the truth, and what is said of it."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.api.cluster import Cluster, deployment, eventually
from tests.api.controlplane import ControlPlane

from towline.environ.container import encoded, in_session
from towline.session.sources import pod_named, read_sources

_HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_CHANGES = [
    {"op": "add", "path": "/spec/containers/0/env/-", "value": {"name": "INJECTED", "value": "x"}},
    {"op": "replace", "path": "/spec/containers/0/env/0/value", "value": "other"},
]


class _Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        response = {
            "uid": review["request"]["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(_CHANGES).encode()).decode(),
        }
        answer = {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@asynccontextmanager
async def webhook(plane: ControlPlane, cluster: Cluster, folder: Path) -> AsyncIterator[None]:
    """A webhook for the pods of the cluster's namespace, while the block runs."""
    for name, content in zip(("crt", "key"), plane.authority.server("127.0.0.1"), strict=True):
        (folder / name).write_bytes(content)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "crt", folder / "key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Webhook)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    name = f"env-{cluster.namespace}"
    hook = {
        "name": "env.tests.example",
        "clientConfig": {
            "url": f"https://127.0.0.1:{server.server_address[1]}/",
            "caBundle": base64.b64encode(plane.authority.certificate).decode(),
        },
        "rules": [
            {
                "operations": ["CREATE"],
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
    }
    body: dict[str, Any] = {"metadata": {"name": name}, "webhooks": [hook]}
    await cluster.api.request("POST", _HOOKS, body=body)
    try:
        yield
    finally:
        await cluster.api.request("DELETE", f"{_HOOKS}/{name}")
        server.shutdown()
        thread.join()
        server.server_close()


async def test_what_admission_changes_is_told(
    plane: ControlPlane, cluster: Cluster, tmp_path: Path
) -> None:
    template = deployment()["spec"]["template"]
    template["spec"]["containers"][0]["env"] = [
        {"name": "MODE", "value": "plain"},
        {"name": "OF_MODE", "value": "<$(MODE)>"},
        {"name": "KEPT", "value": "1"},
    ]
    body: dict[str, Any] = {"metadata": {"name": "web-1"}, "spec": template["spec"]}
    async with webhook(plane, cluster, tmp_path):

        async def made() -> bool:
            await cluster.api.delete("pods", "web-1", grace_s=0)
            pod = await cluster.api.create("pods", body)
            return len(pod["spec"]["containers"][0]["env"]) == 4

        # The API server takes up a new webhook a moment later.
        await eventually(made)
    running = await pod_named(cluster.api, "web-1")
    assert running is not None
    sources = await read_sources(
        cluster.api, container="main", original=template, planned=template, running=running
    )
    # What a kubelet makes of the admitted pod (tests/e2e/test_oracle.py).
    resolved = sources.specs.running.variables
    truth = {encoded(n): v.definition.value or b"" for n, v in resolved.items()}
    found = in_session(truth, sources.specs)
    told = {n: (v.definition.value, str(v.definition)) for n, v in found.variables.items()}
    assert {n: v for n, v in told.items() if not n.startswith(b"KUBERNETES_")} == {
        b"MODE": (b"other", "injected by admission"),
        b"INJECTED": (b"x", "injected by admission"),
        b"OF_MODE": (b"<other>", "injected by admission"),
        b"KEPT": (b"1", "container env"),
    }
