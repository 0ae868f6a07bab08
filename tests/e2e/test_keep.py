"""`original: keep`: the original stays up, and the Services lead to the laptop and back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from .conftest import HERE, SANDBOX, Node, Session, Towline, dump, free_port, wait_until

pytestmark = pytest.mark.usefixtures("unchanged")
ORIGINAL = {"app": "frontend"}


def kept(towline: Towline, *words: str, settings: str = "") -> Session:
    text = (towline.folder / "towline.yml").read_text()
    towline.manifest("original: keep\n" + settings + text)
    return towline.up("frontend", *words).serving()


def selector(node: Node, namespace: str) -> dict[str, str]:
    found: dict[str, str] = node.get("-n", namespace, "service", "frontend")["spec"]["selector"]
    return found


def replicas(node: Node, namespace: str) -> int:
    return int(node.get("-n", namespace, "deploy", "frontend")["spec"]["replicas"])


def test_the_service_leads_here_and_back_while_the_original_stays_up(
    node: Node, namespace: str, towline: Towline
) -> None:
    before = selector(node, namespace)
    session = kept(towline)
    assert selector(node, namespace) == {"towline.dev/session": session.id}
    assert replicas(node, namespace) == 2
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    text = session.event("stage-done", stage="takeover")["text"]
    assert "Service frontend leads here, the original stays up" in text
    assert session.end() == 130
    assert selector(node, namespace) == before
    assert session.event("restored")["text"] == "Service frontend leads to Deployment frontend again"
    wait_until("the original", lambda: "host: frontend-" in node.ask(namespace, "frontend"))
