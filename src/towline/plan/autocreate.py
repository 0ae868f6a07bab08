"""A workload made for a session where there is none of that name. [pure]

It has no pods of its own (0 replicas), so that all else is as with one that was there;
the session's record owns it, and takes it along.
"""

from __future__ import annotations

from towline._kit.objects import JsonObject
from towline.errors import ManifestError
from towline.manifest.model import Entry
from towline.plan.model import MANAGED_BY

_MADE = "towline.dev/made"


def made_workload(entry: Entry) -> JsonObject:
    """The Deployment, with the entry's image.

    Raises:
        ManifestError: the entry names none.
    """
    name = entry.workload or entry.name
    if entry.image is None:
        raise ManifestError(
            f"{entry.places.get('autocreate', entry.place)}: {entry.name}: autocreate needs an "
            "`image`: there is no container to take it from"
        )
    labels = {"app": name}
    container = {"name": entry.container or name, "image": entry.image}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "labels": {**labels, **MANAGED_BY},
            "annotations": {_MADE: "true"},
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def was_made(workload: JsonObject) -> bool:
    """Whether a workload was made for a session, and goes with it."""
    return _MADE in (workload["metadata"].get("annotations") or {})
