"""Sync mode: what an entry's fields do to the dev container, seen from inside of it."""

from __future__ import annotations

import json
import socket
import stat
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from .conftest import Node, Towline, dump, free_port, wait_until
from .shapes import (
    PYTHON_IMAGE,
    SCRATCH_IMAGE,
    load_scratch_image,
    pod_spec,
    service,
    workload,
)
from .test_shapes import given_back, start

# Answers what the process finds: its environment, its files, its user.
SERVER = """
import http.server, json, os, pathlib
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = pathlib.Path("/run/app/key")
        body = json.dumps({
            "uid": os.getuid(), "groups": os.getgroups(), "cwd": os.getcwd(),
            "env": dict(os.environ), "folder": sorted(os.listdir("/app")),
            "key": key.read_text(), "mode": key.stat().st_mode, "owner": key.stat().st_uid,
        })
        self.send_response(200); self.end_headers(); self.wfile.write(body.encode())
    def log_message(self, *a): pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
"""


def entry(**fields: Any) -> dict[str, Any]:
    return {
        "sync": ["./src:/app"],
        "workdir": "/app",
        "command": "python3 -u main.py",
        **fields,
    }


def seen(node: Node, namespace: str) -> dict[str, Any]:
    answer = node.ask(namespace, "thing")
    found: dict[str, Any] = json.loads(answer) if answer.startswith("{") else {}
    return found


def test_every_field_is_in_force_on_a_read_only_root_for_any_user(
    node: Node, elsewhere: Towline
) -> None:
    """Pod Security `restricted`, a user that the image does not know."""
    spec = pod_spec(
        PYTHON_IMAGE,
        command=["python3", "-m", "http.server", "8080"],
        env=[{"name": "FROM_SPEC", "value": "redis://$(HOST)"}],
    )
    start(node, elsewhere, workload("Deployment", "thing", spec), service("thing"))
    before = dump(node, elsewhere.namespace)
    folder = elsewhere.folder
    (folder / "src").mkdir()
    (folder / "src/main.py").write_text(SERVER)
    (folder / "key").write_text("s3cret")
    (folder / "first.env").write_text("A=first\nB=first\nC=first\n")
    (folder / "second.env").write_text("B=second\nHOST=db\n")
    port, ssh = free_port(), free_port()
    made = entry(
        container="main",
        envFiles=["first.env", "second.env"],
        environment={"C": "entry", "D": "$$PATH and $(A)"},
        secrets=["./key:/run/app/key:0600"],
        securityContext={"runAsUser": 1234567, "fsGroup": 4242},
        resources={"limits": {"memory": "200Mi"}, "requests": {"cpu": "7m"}},
        nodeSelector={"kubernetes.io/os": "linux"},
        tolerations=[{"key": "special", "operator": "Exists"}],
        metadata={"labels": {"team": "blue"}, "annotations": {"note": "here"}},
        forward=[f"{port}:8080"],
        timeout="2m",
        sshServerPort=ssh,
    )
    elsewhere.manifest(yaml.safe_dump({"dev": {"thing": made}}))
    session = elsewhere.up("thing", "--env", "E=canary-4711").serving()
    found = wait_until("the process there", lambda: seen(node, elsewhere.namespace))
    assert found["uid"] == 1234567 and 4242 in found["groups"] and found["cwd"] == "/app"
    env = found["env"]
    assert [env[name] for name in "ABCDE"] == [
        "first",
        "second",
        "entry",
        "$PATH and $(A)",
        "canary-4711",
    ]
    assert env["FROM_SPEC"] == "redis://db"
    assert "server.py" in found["folder"], "what the image has is there"
    assert found["key"] == "s3cret" and found["owner"] == 1234567
    assert stat.S_IMODE(found["mode"]) == 0o600
    assert not (folder / "src/server.py").exists(), "and does not come here"
    local = elsewhere.run(
        "exec", "thing", "--", "python3", "-c", "import os; print(os.environ['E'])"
    )
    assert local.stdout == "canary-4711\n", local.stderr
    (pod,) = [
        each
        for each in node.get("-n", elsewhere.namespace, "pods")["items"]
        if each["metadata"]["labels"].get("towline.dev/session") == session.id
        and "guard" not in each["metadata"]["name"]
    ]
    assert "canary-4711" not in json.dumps(pod), "it is in the session's Secret alone"
    assert pod["metadata"]["labels"]["team"] == "blue"
    assert pod["metadata"]["annotations"]["note"] == "here"
    assert pod["spec"]["nodeSelector"]["kubernetes.io/os"] == "linux"
    assert {"key": "special", "operator": "Exists"} in pod["spec"]["tolerations"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "200Mi"}
    assert container["resources"]["requests"]["cpu"] == "7m"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    # And both ways.
    made_there = "open('/app/made', 'w').write('there')"
    assert elsewhere.run("exec", "thing", "--", "python3", "-c", made_there).returncode == 0
    wait_until("the file", lambda: (folder / "src/made").exists())
    assert session.end() == 130
    given_back(node, elsewhere, before)


def start_as_root(node: Node, elsewhere: Towline) -> dict[str, Any]:
    """A Deployment `thing` of root's, where that is allowed; returns what is there then."""
    enforce = "pod-security.kubernetes.io/enforce=baseline"
    node.kubectl("label", "--overwrite", "namespace", elsewhere.namespace, enforce)
    spec = pod_spec(PYTHON_IMAGE, command=["python3", "-m", "http.server", "8080"])
    spec["securityContext"] = {**spec["securityContext"], "runAsNonRoot": False, "runAsUser": 0}
    spec["containers"][0]["securityContext"] = {"allowPrivilegeEscalation": False}
    start(node, elsewhere, workload("Deployment", "thing", spec), service("thing"))
    return dump(node, elsewhere.namespace)


def test_a_claim_keeps_folders_over_sessions_and_a_command_in_the_background(
    node: Node, elsewhere: Towline
) -> None:
    """`--detach`, `logs`, `status`, another pod, `down`; and `down --volumes` at the end."""
    namespace = elsewhere.namespace
    # The sandbox's provisioner makes folders for root alone.
    before = start_as_root(node, elsewhere)
    folder = elsewhere.folder
    (folder / "src").mkdir()
    (folder / "src/main.py").write_text(SERVER.replace("/run/app/key", "/app/main.py"))
    made = entry(persistentVolume={"size": "1Gi", "labels": {"team": "blue"}}, volumes=["/cache"])
    elsewhere.manifest(yaml.safe_dump({"dev": {"thing": made}}))
    up = ["up", "thing", "-n", namespace, "--yes", "--detach"]
    detached = elsewhere.run(*up)
    assert detached.returncode == 0, detached.stderr
    assert "serving\n" in elsewhere.run("logs", "thing").stdout
    rows = json.loads(elsewhere.run("status", "-n", namespace, "-o", "json").stdout)
    (row,), (claim,) = rows["sessions"], rows["claims"]
    assert row["stage"] == "serving" and row["command_pid"] is None
    assert [each.rpartition(", ")[2] for each in row["sync"]] == ["in step"]
    assert claim["size"] == "1Gi" and claim["workload"] == "thing"
    write = "from pathlib import Path as P; P('/cache/kept').touch(); P('/app/server.py').unlink()"
    assert elsewhere.run("exec", "thing", "--", "python3", "-c", write).returncode == 0
    node.kubectl("delete", "pod", "-n", namespace, row["pod"], "--wait=false")

    def again() -> str:
        return elsewhere.run("logs", "thing").stdout

    wait_until("the command in the next pod", lambda: again().count("serving\n") == 2, within_s=60)
    assert elsewhere.run("down", "thing", "-n", namespace).returncode == 0
    # A session later, and what was deleted of the image's own stays so.
    assert elsewhere.run(*up).returncode == 0
    look = "import os; print(os.listdir('/cache'), os.path.exists('/app/server.py'))"
    found = elsewhere.run("exec", "thing", "--", "python3", "-c", look)
    assert "'kept'" in found.stdout and "False" in found.stdout, found
    text = elsewhere.run("status", "-n", namespace).stdout
    assert f"claim {claim['name']}, 1Gi, since " in text
    assert elsewhere.run("down", "thing", "-n", namespace).returncode == 0
    assert claim["name"] in str(dump(node, namespace).keys()), "`down` keeps it"
    unnamed = elsewhere.run("down", "--volumes", "-n", namespace)
    assert unnamed.returncode == 2 and "claims are kept of thing" in unnamed.stderr
    gone = elsewhere.run("down", "thing", "--volumes", "-n", namespace)
    assert gone.returncode == 0 and f"claim {claim['name']} " in gone.stderr
    given_back(node, elsewhere, before)


def test_a_workload_is_made_where_there_is_none_and_goes_with_its_session(
    node: Node, elsewhere: Towline
) -> None:
    """`autocreate`; nothing is stopped, and a Service of the app's finds it by its label."""
    namespace = elsewhere.namespace
    node.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "fresh"},
            "spec": {"selector": {"app": "fresh"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        namespace=namespace,
    )
    before = dump(node, namespace)
    folder = elsewhere.folder
    (folder / "src").mkdir()
    (folder / "src/index.html").write_text("made here")
    security = {
        "runAsUser": 10001,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    made = entry(
        autocreate=True,
        image=PYTHON_IMAGE,
        imagePullPolicy="Never",
        securityContext=security,
        workdir="/app/pages",
        sync=["./src:/app/pages"],
        command=["python3", "-m", "http.server", "8080"],
    )
    elsewhere.manifest(yaml.safe_dump({"dev": {"fresh": made}}))
    planned = elsewhere.run("plan", "-n", namespace)
    assert "make Deployment fresh with 0 replicas" in planned.stdout, planned.stderr
    session = elsewhere.up("fresh").serving()
    wait_until("the page", lambda: node.ask(namespace, "fresh") == "made here")
    # Killed: the record is there, and the next `up` begins anew all the same.
    session.process.kill()
    session.process.wait()
    again = elsewhere.up("fresh").serving()
    wait_until("the page again", lambda: node.ask(namespace, "fresh") == "made here")
    assert again.end() == 130
    given_back(node, elsewhere, before)


def test_services_are_developed_beside_an_entry_with_the_same_folders(
    node: Node, elsewhere: Towline
) -> None:
    """A service without a command runs what it always runs; one `down` gives all back."""
    namespace = elsewhere.namespace
    pages = ["python3", "-m", "http.server", "8080"]
    spec = pod_spec(PYTHON_IMAGE, command=pages, workingDir="/app")
    start(node, elsewhere, workload("Deployment", "thing", spec), service("thing"))
    start(node, elsewhere, workload("Deployment", "worker", spec), service("worker"))
    before = dump(node, namespace)
    folder = elsewhere.folder
    (folder / "src").mkdir()
    (folder / "src/index.html").write_text("first")
    made = entry(
        command=pages,
        services=[{"name": "worker", "environment": {"ROLE": "worker"}}],
    )
    elsewhere.manifest(yaml.safe_dump({"dev": {"thing": made}}))
    session = elsewhere.up("thing").serving()

    def answers() -> set[str]:
        return {node.ask(namespace, name, "/index.html") for name in ("thing", "worker")}

    wait_until("both", lambda: answers() == {"first"}, within_s=60)
    (folder / "src/index.html").write_text("second")
    wait_until("the edit in both", lambda: answers() == {"second"})
    role = elsewhere.run(
        "exec", "worker", "--", "python3", "-c", "import os; print(os.environ['ROLE'])"
    )
    assert role.stdout == "worker\n", role.stderr
    assert "GET /index.html" in elsewhere.run("logs", "worker").stdout
    rows = json.loads(elsewhere.run("status", "-n", namespace, "-o", "json").stdout)["sessions"]
    assert {row["service"] for row in rows} == {"thing", "thing/worker"}
    assert session.end() == 130
    assert not [e for e in session.events if "not given back" in e.get("text", "")]
    assert "Deployment worker is back" in str(session.events)
    given_back(node, elsewhere, before)


def test_a_service_that_cannot_be_developed_ends_the_whole_as_it_was(
    node: Node, elsewhere: Towline
) -> None:
    spec = pod_spec(PYTHON_IMAGE, command=["python3", "-m", "http.server", "8080"])
    start(node, elsewhere, workload("Deployment", "thing", spec), service("thing"))
    before = dump(node, elsewhere.namespace)
    (elsewhere.folder / "src").mkdir()
    elsewhere.manifest(yaml.safe_dump({"dev": {"thing": entry(services=[{"name": "nobody"}])}}))
    up = elsewhere.run("up", "thing", "-n", elsewhere.namespace, "--yes")
    assert up.returncode == 4 and "'nobody'" in up.stderr, up.stderr
    given_back(node, elsewhere, before)


def test_a_scratch_image_has_its_folders_and_files_all_the_same(
    node: Node, elsewhere: Towline, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No shell, no tar, no libc, a read-only root and a user that no image knows."""
    load_scratch_image(node, tmp_path_factory.mktemp("scratch"))
    spec = pod_spec(SCRATCH_IMAGE)
    spec["securityContext"] = {**spec["securityContext"], "runAsUser": 1234567}
    start(node, elsewhere, workload("Deployment", "tiny", spec), service("tiny"))
    before = dump(node, elsewhere.namespace)
    (elsewhere.folder / "src").mkdir()
    (elsewhere.folder / "src/page").write_text("first")
    (elsewhere.folder / "key").write_text("s3cret")
    made = {
        "sync": "./src:/site",
        "secrets": ["./key:/etc/key:0400"],
        "command": "/scratch /site/page /etc/key",
    }
    elsewhere.manifest(yaml.safe_dump({"dev": {"tiny": made}}))
    session = elsewhere.up("tiny").serving()
    ask = lambda: node.ask(elsewhere.namespace, "tiny")  # noqa: E731
    found = wait_until("it", lambda: "first" in (answer := ask()) and answer)
    assert "uid: 1234567" in found and "/etc/key: s3cret <nil>" in found
    (elsewhere.folder / "src/page").write_text("second")
    wait_until("the edit", lambda: "/site/page: second <nil>" in ask())
    assert session.end() == 130
    given_back(node, elsewhere, before)


def test_the_images_own_folder_ports_both_ways_and_another_pod(
    node: Node, elsewhere: Towline
) -> None:
    """The image holds an older version of a file; the next pod has it again, for a moment."""
    namespace = elsewhere.namespace
    before = start_as_root(node, elsewhere)
    folder = elsewhere.folder
    (folder / "src").mkdir()
    (folder / "src/server.py").write_text("mine")
    local, remote = free_port(), free_port()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = entry(
            command=["python3", "-m", "http.server", "8080"],
            forward=f"{local}:8080",
            reverse=f"{remote}:{listening.getsockname()[1]}",
        )
        elsewhere.manifest(yaml.safe_dump({"dev": {"thing": made}}))
        session = elsewhere.up("thing").serving()
        assert not node.get("-n", namespace, "pods", "-l", f"towline.dev/session={session.id}")[
            "items"
        ][0]["spec"].get("initContainers")
        with urllib.request.urlopen(f"http://localhost:{local}/server.py") as answer:
            assert answer.read() == b"mine"
        dial = f"import socket; print(socket.create_connection(('127.0.0.1', {remote})).recv(9))"
        with ThreadPoolExecutor(1) as there:
            ran = there.submit(elsewhere.run, "exec", "thing", "--", "python3", "-c", dial)
            listening.settimeout(30)
            arrived, _ = listening.accept()
            with arrived:
                arrived.sendall(b"from here")
            assert ran.result().stdout == "b'from here'\n"
    # The container's own: never here, not even its reload.py; and gone with the pod.
    assert [path.name for path in (folder / "src").iterdir()] == ["server.py"]
    pod = session.event("stage-done", stage="dev pod")["text"].split()[0]
    (folder / "src/server.py").write_text("mine, edited")
    node.kubectl("delete", "pod", "-n", namespace, pod, "--wait=false")
    session.event("pod-replaced", process_kept=False)
    page = lambda: node.ask(namespace, "thing", "/server.py")  # noqa: E731
    wait_until("the files in the next pod", lambda: page() == "mine, edited", within_s=60)
    assert (folder / "src/server.py").read_text() == "mine, edited"
    assert sum(event["event"] == "command-starting" for event in session.events) == 2
    assert session.end() == 130
    given_back(node, elsewhere, before)
