"""What runs in the dev container: the entry's command, or the container's own with arguments."""

from __future__ import annotations

from typing import Any

import pytest

from towline.errors import ManifestError
from towline.manifest.model import Command, Entry
from towline.manifest.places import Place
from towline.plan.command import own_command, sync_command

OWN = {"command": ["python3", "-u"], "args": ["server.py"]}


def entry(**fields: Any) -> Entry:
    return Entry(
        name="api",
        place=Place(file="towline.yml", line=2, column=3),
        workload="api",
        **fields,
    )


def test_arguments_alone_follow_the_containers_own_command() -> None:
    assert sync_command(entry(command=Command(shell="make run")), OWN) == Command(shell="make run")
    args = Command(argv=("-m", "pdb"))
    assert sync_command(entry(args=args), OWN) == Command(argv=("python3", "-u", "-m", "pdb"))
    whole = ("python3", "-u", "server.py")
    assert own_command(entry(), OWN, args=None) == Command(argv=whole)
    assert sync_command(entry(), OWN) is None
    assert sync_command(entry(is_service=True), OWN) == Command(argv=whole)


def test_the_images_own_command_is_not_known() -> None:
    with pytest.raises(ManifestError, match=r"towline\.yml:2:3: api: args would follow"):
        sync_command(entry(args=Command(argv=("-v",))), {"args": ["server.py"]})
