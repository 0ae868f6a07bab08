"""Kubernetes' own JSON, for the few modules that read and make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JsonObject = dict[str, Any]


def mutable(tree: object) -> Any:
    """A frozen tree as JSON has it: dicts, lists and scalars of one's own."""
    if isinstance(tree, Mapping):
        return {key: mutable(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return [mutable(each) for each in tree]
    return tree
