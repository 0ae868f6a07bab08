"""The whole flow with no more rights than these, as a person of the namespace has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CHECKOUT, HERE, Node, Towline, wait_until
from .terminal import Terminal

pytestmark = pytest.mark.usefixtures("unchanged")
_RBAC = "rbac.authorization.k8s.io"


def without_reading_secrets(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`edit` as many clusters have it: Secrets may be made, not read."""
    kept = []
    for rule in rules:
        others = [r for r in rule.get("resources", []) if r != "secrets"]
        kept.append({**rule, "resources": others})
        if len(others) < len(rule.get("resources", [])):
            verbs = [v for v in rule["verbs"] if v not in ("get", "list", "watch")]
            kept.append({**rule, "resources": ["secrets"], "verbs": verbs})
    return [rule for rule in kept if rule["resources"] and rule["verbs"]]


def rules_of(node: Node, name: str) -> list[dict[str, Any]]:
    if name == "docs/rights.yaml":
        rules: list[dict[str, Any]] = yaml.safe_load((CHECKOUT / name).read_text())["rules"]
        return rules
    edit = node.get("clusterrole", "edit")["rules"]
    return edit if name == "edit" else without_reading_secrets(edit)


@pytest.fixture(params=["docs/rights.yaml", "edit", "edit without reading Secrets"])
def bound(
    node: Node, namespace: str, towline: Towline, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Towline]:
    """`towline` for a user who has exactly these rights, in this namespace alone."""
    user = f"user-{abs(hash(request.param)) % 10**6}"
    subject = {"kind": "ServiceAccount", "name": user, "namespace": namespace}
    objects = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": user}},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": {"name": user},
            "rules": rules_of(node, request.param),
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": user},
            "subjects": [subject],
        },
    ]
    node.apply(*objects, namespace=namespace)
    try:
        token = node.kubectl("-n", namespace, "create", "token", user).strip()
        config = json.loads(node.kubectl("config", "view", "--raw", "-o", "json"))
        config["users"] = [{"name": user, "user": {"token": token}}]
        config["contexts"][0]["context"] |= {"user": user, "namespace": namespace}
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        person = replace(towline, kubeconfig=str(path))
        can = ["auth", "can-i", "get", "configmaps", "--kubeconfig", str(path), "-n", namespace]
        wait_until("the rights", lambda: "yes" in node.kubectl(*can))
        yield person
    finally:
        kinds = f"rolebinding/{user}", f"role/{user}", f"serviceaccount/{user}"
        node.kubectl("-n", namespace, "delete", *kinds)


def test_up_env_exec_down_with_these_rights(node: Node, namespace: str, bound: Towline) -> None:
    doctor = bound.run("doctor", "-n", namespace)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    session = bound.up("frontend").serving()
    wait_until("the laptop", lambda: f"host: {HERE}" in node.ask(namespace, "frontend"))
    values = json.loads(bound.run("env", "--format", "json").stdout)
    assert values["REDIS_PASSWORD"] == "not-a-secret-at-all", "as the agent has it"
    assert bound.run("exec", "--", "node", "-p", "6 * 7").stdout == "42\n"
    assert "towline agent" in bound.run("logs", "--pod").stdout
    down = bound.run("down", "frontend", "-n", namespace)
    assert down.returncode == 0, down.stderr
    assert session.process.wait(timeout=30) == 143, "SIGTERM, from `down` on the same laptop"
    assert "host: frontend-" in node.ask(namespace, "frontend")


@pytest.mark.parametrize("bound", ["edit"], indirect=True)
@pytest.mark.parametrize(
    ("keeps", "then"),
    [(b"n", b"nobody until somebody runs `towline down`"), (b"y", b"the original again")],
    ids=["replace", "keep"],
)
def test_without_a_right_to_the_guard_it_asks_before_anything_changes(
    node: Node, namespace: str, bound: Towline, keeps: bytes, then: bytes
) -> None:
    terminal = Terminal(bound, "frontend", "-n", namespace, rows=50, columns=500)
    with closing(terminal):
        terminal.read_until(b"Keep the original up beside it (`original: keep`)")
        terminal.type(keeps + b"\n")
        terminal.read_until(b"Go on? [y/N]: ")
        assert then in terminal.seen
        terminal.type(b"n\n")
        assert terminal.end() == 10, terminal.seen.decode()
    assert b"nothing was changed" in terminal.seen
    assert not made_by_towline(node, namespace)


@pytest.mark.parametrize("bound", ["edit"], indirect=True)
def test_nor_does_it_begin_where_nobody_can_be_asked(
    node: Node, namespace: str, bound: Towline
) -> None:
    done = bound.run("up", "frontend", "-n", namespace)
    assert done.returncode == 10, done.stderr
    assert "no guard can give it back if this machine dies" in done.stderr
    assert "--original keep" in done.stderr
    assert not made_by_towline(node, namespace)


def made_by_towline(node: Node, namespace: str) -> list[str]:
    kinds = "cm,secret,deploy,svc"
    found = node.get("-n", namespace, kinds, "-l", "towline.dev/kind")["items"]
    return [f"{each['kind']}/{each['metadata']['name']}" for each in found]
