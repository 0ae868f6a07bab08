"""One object changed as its present state says, under its resourceVersion."""

from __future__ import annotations

from collections.abc import Callable

from towline._kit.objects import JsonObject
from towline.cluster.api import Api
from towline.errors import Conflict

# Between a read and a write somebody else may write (a controller's status, mostly).
# Each try is lost to such a write only when it falls into a few milliseconds.
_LOCK_TRIES = 40


async def changed(
    api: Api,
    resource: str,
    name: str,
    *,
    uid: str,
    change: Callable[[JsonObject], JsonObject | None],
) -> JsonObject | None:
    """Patch an object as `change` says of its present state.

    `change` returns a merge patch, or None for nothing to do. Returns the object after
    it, or None when that very object (its uid) is gone.

    Raises:
        Conflict: somebody else writes it all the time.
    """
    for _ in range(_LOCK_TRIES):
        found = await api.find(resource, name)
        if found is None or str(found["metadata"]["uid"]) != uid:
            return None
        patch = change(found)
        if patch is None:
            return found
        metadata = {
            **patch.get("metadata", {}),
            "uid": uid,
            "resourceVersion": found["metadata"]["resourceVersion"],
        }
        try:
            return await api.patch(resource, name, {**patch, "metadata": metadata})
        except Conflict:
            continue
    raise Conflict(f"{resource} {name} is changed by somebody else all the time")
