"""One control plane for all tests here, a namespace of its own for each."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.api.cluster import Cluster
from tests.api.controlplane import ControlPlane, running

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    folder = Path(tempfile.mkdtemp(prefix="towline-api-"))
    try:
        with running(folder) as started:
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def cluster(plane: ControlPlane) -> AsyncIterator[Cluster]:
    """An administrator's way in, in a fresh namespace."""
    async with AsyncExitStack() as stack:
        made = Cluster(plane, namespace=f"test-{next(_numbers)}", stack=stack)
        body: dict[str, Any] = {"metadata": {"name": made.namespace}}
        await made.api.create("namespaces", body)
        yield made
        await made.api.delete("namespaces", made.namespace)
