"""What the agent is permitted to dial for the laptop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.plan.test_takeover_plan import deployment, entry, plan_of

from towline.session.agent_config import agent_config

# Whatever a session declares: the namespace's Services (n), the API server, the pod's loopback.
ALWAYS = {
    "*.n.svc.$domain:*", "kubernetes.default.svc.$domain:*",
    "localhost:*", "127.0.0.1:*", "[::1]:*",
}  # fmt: skip


def permitted(tmp_path: Path, fields: str = "") -> set[str] | None:
    """The targets in the agent's config.json; None where nothing is said, which is anything."""
    wanted = entry(tmp_path, "    reverse: [3000:8080]\n" + fields)
    config = json.loads(agent_config(wanted, plan_of(wanted, deployment())))
    return set(config["permit"]) if "permit" in config else None


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ("", set()),
        ("    forward: [5432:db:5432, 9000:9000]\n", {"db:5432", "localhost:9000"}),
        ("    forward: ['443:[fd00::5]:443']\n", {"[fd00::5]:443"}),
        ("    names: {add: [redis.infra]}\n", {"redis.infra.svc.$domain:*"}),
        ("    names: {add: ['redis.infra.svc:6379,6380']}\n",
         {"redis.infra.svc.$domain:6379", "redis.infra.svc.$domain:6380"}),
        ("    names: {add: ['pg.example.com:5432']}\n", {"pg.example.com:5432"}),
        ("    names: {add: [no.ports.example.com]}\n", set()),
        ("    original: keep\n", {"towline-original-5e551011:*"}),
    ],
)  # fmt: skip
def test_what_is_declared_and_no_more(tmp_path: Path, fields: str, more: set[str]) -> None:
    assert permitted(tmp_path, fields) == ALWAYS | more


def test_anything_with_the_proxy_on_alone(tmp_path: Path) -> None:
    assert permitted(tmp_path, "    names: {proxy: true}\n") is None
    assert permitted(tmp_path, "    names: {proxy: false}\n") == ALWAYS
