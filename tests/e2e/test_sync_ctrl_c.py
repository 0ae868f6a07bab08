"""A sync session that ends by Ctrl-C in its terminal, under load: nobody is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Node, Towline
from .loads import WHO, load_on
from .shapes import PYTHON_IMAGE, pod_spec, service, workload
from .terminal import Terminal

ENDINGS = 3
# What npm is to the server that it runs: it ends a while after it.
BEHIND = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, lambda *_: None)
subprocess.call(sys.argv[2:])
time.sleep(float(sys.argv[1]))
"""
SERVER = ["python3", "-c", WHO, "dev pod", "8080", "/nowhere"]


def endings(
    node: Node,
    towline: Towline,
    spec: dict[str, Any],
    original: str,
    command: list[str],
    *,
    per_second: int = 200,
) -> dict[str, int]:
    """Begin and end so many sessions; returns what went wrong with what was asked meanwhile."""
    namespace = towline.namespace
    main = spec["containers"][0]
    main["command"] = ["python3", "-c", WHO, "original", "8080", "/nowhere"]
    # As each deployment should that is scaled under load: the nodes follow after the signal.
    main["lifecycle"] = {"preStop": {"sleep": {"seconds": 3}}}
    spec["terminationGracePeriodSeconds"] = 10
    # Not ready because this machine is busy would be refused, too.
    main["readinessProbe"] |= {"timeoutSeconds": 10, "failureThreshold": 30}
    # Without a request it gets next to nothing of processors that others keep busy.
    main["resources"] = {"requests": {"cpu": "100m"}}
    node.apply(workload("Deployment", "who", spec, replicas=2), service("who"), namespace=namespace)
    node.kubectl("-n", namespace, "wait", "--for=condition=Available", "deploy/who")
    (towline.folder / "src").mkdir()
    entry = {"mode": "sync", "sync": ["./src:/src"], "command": command}
    towline.manifest(json.dumps({"original": original, "dev": {"who": entry}}))
    with load_on(node, namespace, "who", per_second=per_second) as load:
        load.next_answers_are("original")
        for _ in range(ENDINGS):
            terminal = Terminal(towline, "who", "-n", namespace, "--yes")
            try:
                terminal.read_until(b"this laptop is gone")
                load.next_answers_are("dev pod")
                terminal.type(b"\x03")
                assert terminal.end() == 0, terminal.seen
            finally:
                terminal.close()
            load.next_answers_are("original")
        asked, errors = load.ended()
    assert asked > 1000
    return errors


@pytest.mark.parametrize("original", ["replace", "keep"])
@pytest.mark.parametrize(
    "command", [SERVER, ["python3", "-c", BEHIND, "0.1", *SERVER]], ids=["", "behind"]
)
def test_ctrl_c_refuses_nobody(
    node: Node, elsewhere: Towline, original: str, command: list[str]
) -> None:
    """Where the agent may have the server's socket: it is never away."""
    enforce = "pod-security.kubernetes.io/enforce=baseline"
    node.kubectl("label", "--overwrite", "namespace", elsewhere.namespace, enforce)
    spec = pod_spec(PYTHON_IMAGE)
    spec["securityContext"] = {"runAsNonRoot": True, "runAsUser": 10001}
    assert not endings(node, elsewhere, spec, original, command)


def test_under_a_seccomp_profile_a_moment_is_left(node: Node, elsewhere: Towline) -> None:
    """RuntimeDefault has no pidfd_getfd: the port is free until the next try, 0.1 ms later.

    On a busy machine the agent waits for a CPU first, and what the closing server had not
    accepted is reset by its kernel. It was the whole time until the command's end.
    """
    # The agent holds 1,024 connections at once: slowly enough that the original is back first.
    away_s, per_second = 2.0, 100
    command = ["python3", "-c", BEHIND, str(away_s), *SERVER]
    errors = endings(
        node, elsewhere, pod_spec(PYTHON_IMAGE), "replace", command, per_second=per_second
    )
    assert sum(errors.values()) < ENDINGS * per_second * away_s / 10, errors
