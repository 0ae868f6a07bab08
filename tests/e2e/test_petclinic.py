"""A Spring Boot service, taken as it is: configured by a mounted file, its database a Service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import HERE, Node, dump, wait_until
from .ides import IntelliJ
from .petclinic import admit


@pytest.mark.timeout(420)  # it may be built and deployed in it, too
def test_the_clinic_is_developed_with_nothing_changed(
    node: Node, petclinic_namespace: str, clinic: IntelliJ
) -> None:
    before = dump(node, petclinic_namespace)
    original = page(node, petclinic_namespace)
    assert original["host"].startswith("petclinic-")
    shell = clinic.option("petclinic", "INTERPRETER_PATH")
    with clinic.program(shell, "-c", clinic.command("petclinic")) as program:
        taken = wait_until(
            f"the laptop answers; {program.said}",
            lambda: (found := page(node, petclinic_namespace))["host"] == HERE and found,
            within_s=90,
        )
        assert taken == {
            "greeting": "Welcome to the clinic",  # from the ConfigMap, by its file
            "host": HERE,
            "pets": [{"name": "Basil", "kind": "parrot"}],  # from the database, by its name
        }
        assert not Path("/etc/petclinic").exists(), "the process alone sees it"
        # What is written here is in the cluster's database.
        admit(node, petclinic_namespace, "Rosy", "basset")
        program.stop()
    restored = page(node, petclinic_namespace)
    assert restored["host"].startswith("petclinic-")
    assert [pet["name"] for pet in restored["pets"]] == ["Basil", "Rosy"]
    after = lambda: dump(node, petclinic_namespace)  # noqa: E731
    wait_until("the pieces are collected", lambda: after().keys() == before.keys())
    assert after() == before


def page(node: Node, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.ask(namespace, "petclinic", within_s=60))
    return found
