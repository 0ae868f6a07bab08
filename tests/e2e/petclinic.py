"""The pet clinic: built with Maven, put into an image, deployed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import CHECKOUT, SANDBOX, Node, Towline, free_port
from .ides import IntelliJ, in_namespace, with_own_ports

PETCLINIC = CHECKOUT / "samples/petclinic"
BUILD_TIMEOUT_S = 600.0  # the first time Maven fetches 60 MB, and the image Debian's Java


@pytest.fixture(scope="session")
def petclinic_namespace(node: Node) -> Iterator[str]:
    """The clinic, deployed once, with a pet in its database."""
    subprocess.run(
        ["mvn", "--quiet", "--batch-mode", "package"],
        cwd=PETCLINIC,
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    load = [*SANDBOX, "image", str(PETCLINIC), "--load", "--name", node.name]
    subprocess.run(load, check=True, timeout=BUILD_TIMEOUT_S, stdout=subprocess.DEVNULL)
    name = f"petclinic-{os.getpid()}"
    text = (PETCLINIC / "k8s/00-namespace.yaml").read_text()
    try:
        node.kubectl("apply", "-f", "-", text=text.replace("name: petclinic", f"name: {name}"))
        for path in sorted(PETCLINIC.glob("k8s/[1-9]*.yaml")):
            node.kubectl("-n", name, "apply", "-f", str(path))
        wait = ("--for=condition=Available", "deploy", "--all", "--timeout=120s")
        node.kubectl("-n", name, "wait", *wait)
        admit(node, name, "Basil", "parrot")
        yield name
    finally:
        node.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def clinic(node: Node, petclinic_namespace: str, tmp_path: Path) -> Iterator[IntelliJ]:
    """The clinic's project, opened by somebody whose context has the namespace."""
    home = tmp_path / "clinic"
    folder = home / "petclinic"
    shutil.copytree(PETCLINIC, folder)
    with_own_ports(folder, {port: free_port() for port in (18080, 5005)})
    kubeconfig = in_namespace(node.kubeconfig, petclinic_namespace, home)
    program = Towline(home, folder, kubeconfig, petclinic_namespace)
    yield IntelliJ(folder, program.environ())
    program.run("down", "--all")


def admit(node: Node, namespace: str, pet: str, kind: str) -> None:
    """Put a row into the database, through the service."""
    url = f"http://petclinic.{namespace}.svc.cluster.local/pets"
    body = json.dumps({"name": pet, "kind": kind})
    words = ["curl", "-sS", "-m", "30", "--json", body, url]
    answer = node.run("exec", "--name", node.name, "--", *words)
    assert json.loads(answer) == {"name": pet, "kind": kind}, answer
