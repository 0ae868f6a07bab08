"""`make demo`'s other branch: a cluster that is not ours, public images, a passing namespace."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from .conftest import CHECKOUT, SANDBOX, SHOP, YARN, Node


def test_the_demo_on_a_foreign_context(node: Node) -> None:
    """The sandbox plays the foreign cluster; the public images' names are loaded into it."""
    render = [sys.executable, str(SHOP / "deploy.py"), "tags"]
    tags = subprocess.run(render, check=True, capture_output=True, text=True).stdout.split()
    load = [*SANDBOX, "image", str(SHOP), *tags, "--load", "--name", node.name]
    subprocess.run(load, check=True, timeout=300, stdout=subprocess.DEVNULL)
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "samples/demo.py")],
        env={
            **os.environ,
            "KUBECONFIG": node.kubeconfig,
            "TOWLINE_CONTEXT": node.kubectl("config", "current-context").strip(),
            "PATH": f"{YARN}{os.pathsep}{os.environ['PATH']}",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"namespace (towline-demo-[0-9a-f]{6})", done.stdout)
    assert found, done.stdout
    namespaces = node.kubectl("get", "namespaces", "-o", "name")
    assert found[1] not in namespaces, "it is gone at the end"
    for seen in (
        "db: PONG from localhost",
        "from save to answer in the cluster:",
        "the same now",
        "just edited, counted by api-towline-",
    ):
        assert seen in done.stdout, done.stdout
