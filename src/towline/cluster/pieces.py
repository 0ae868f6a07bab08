"""The agent's pieces in a namespace: there, what they say they are, and kept while in use.

The pieces, some megabytes, belong to a *set*: a small ConfigMap named by all of them.
Sessions add themselves to the set's owners. So a session writes one small object and
not each piece; with the last owner of the set the garbage collector takes it, and then
what it owns.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableSet

from towline._kit.objects import JsonObject
from towline._kit.together import together
from towline.cluster.api import Api
from towline.errors import Conflict, NotFound
from towline.payload.pieces import Piece, config_map, set_object, verify
from towline.plan.record import Record

# Between a look and a write the garbage collector may come.
_TRIES = 40


async def share_pieces(
    api: Api, record: Record, parts: Iterable[Piece], *, verified: MutableSet[str]
) -> None:
    """Make sure every piece is there, is what it says it is, and stays for this session.

    Args:
        verified: pieces that were read and hashed before, as `uid sha256`; what is found
            to be right is added. A piece is immutable, so of one uid it never changes,
            and those megabytes need not be read again.

    Raises:
        TowlineError: a ConfigMap of that name holds something else.
    """
    parts = tuple(parts)
    if not parts:
        return
    for _ in range(_TRIES):
        try:
            owner, *found = await together(
                _join_set(api, record, parts), *[_metadata(api, each.name) for each in parts]
            )
            pairs = zip(parts, found, strict=True)
            await together(*[_share(api, p, f, owner, verified) for p, f in pairs])  # type: ignore[arg-type]
            return
        except (Conflict, NotFound):
            continue  # made, or collected, at this moment
    raise Conflict("the agent's ConfigMaps come and go: something deletes them")


async def _metadata(api: Api, name: str) -> JsonObject | None:
    try:
        return await api.get("configmaps", name, metadata_only=True)
    except NotFound:
        return None


async def _join_set(api: Api, record: Record, parts: tuple[Piece, ...]) -> JsonObject:
    """Own the set with the others; returns what makes a piece the set's."""
    wanted = set_object(parts, owner=record.owner_reference())
    name = wanted["metadata"]["name"]
    found = await api.find("configmaps", name)
    if found is None:
        found = await api.create("configmaps", wanted)
    else:
        # Owners merge by uid. The uid: a set that is being collected is not joined.
        metadata = {
            "uid": found["metadata"]["uid"],
            "ownerReferences": wanted["metadata"]["ownerReferences"],
        }
        await api.patch("configmaps", name, {"metadata": metadata}, kind="strategic")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": name,
        "uid": str(found["metadata"]["uid"]),
    }


async def _share(
    api: Api, piece: Piece, found: JsonObject | None, owner: JsonObject, verified: MutableSet[str]
) -> None:
    if found is None:
        body = config_map(piece, owner=owner)
        made = await api.create("configmaps", body, metadata_only=True)
        verified.add(f"{made['metadata']['uid']} {piece.sha256}")
        return
    metadata = found["metadata"]
    if f"{metadata['uid']} {piece.sha256}" not in verified:
        # Before anything else: with an owner of ours on it the garbage collector would
        # take somebody else's ConfigMap at the session's end.
        whole = await api.get("configmaps", piece.name)
        verify(whole, piece)
        metadata = whole["metadata"]
        verified.add(f"{metadata['uid']} {piece.sha256}")
    if owner["uid"] in [each["uid"] for each in metadata.get("ownerReferences") or []]:
        return
    patch = {"metadata": {"uid": metadata["uid"], "ownerReferences": [owner]}}
    await api.patch("configmaps", piece.name, patch, kind="strategic", metadata_only=True)
