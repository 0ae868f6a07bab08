"""How a dev pod goes without anybody's asking."""

from __future__ import annotations

import json

from .conftest import Node, Session, wait_until


def pod_of(session: Session) -> str:
    """The dev pod of now."""
    name = str(session.event("stage-done", stage="dev pod")["text"].split()[0])
    later = [str(each["pod"]) for each in list(session.events) if each["event"] == "pod-replaced"]
    return later[-1] if later else name


def deleted(node: Node, namespace: str, pod: str) -> None:
    now = ["--force", "--grace-period=0", "--wait=false"]
    node.kubectl("-n", namespace, "delete", "pod", pod, *now)


def evicted(node: Node, namespace: str, pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace}}  # fmt: skip
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    node.kubectl("create", "--raw", path, "-f", "-", text=json.dumps(body))


def killed(node: Node, namespace: str, pod: str) -> None:
    """As for its memory: the container's first process, the pod stays."""
    pid = node.first_process(pod).pid
    node.run("exec", "--name", node.name, "--", "kill", "-9", str(pid))


def drained(node: Node, namespace: str, pod: str) -> None:
    """The only node takes no pod until it is back: the session waits for it."""
    name = f"{node.name}-node"
    node.kubectl("cordon", name)
    try:
        evicted(node, namespace, pod)
        labels = "status.phase=Pending"
        wait_until(
            "no place for the next one",
            lambda: node.get("-n", namespace, "pods", "--field-selector", labels)["items"],
        )
    finally:
        node.kubectl("uncordon", name)
