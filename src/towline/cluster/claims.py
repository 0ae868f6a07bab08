"""The claims that keep folders over sessions: made by `up`, listed, deleted when asked for.

They are owned by nothing: what is in them is the user's.
"""

from __future__ import annotations

from dataclasses import dataclass

from towline._kit.objects import JsonObject
from towline.cluster.api import Api
from towline.errors import Conflict, Forbidden
from towline.plan.folders import ANNOTATION_ENTRY, ANNOTATION_OWNER, ANNOTATION_WORKLOAD
from towline.plan.model import LABEL_KIND

_CLAIMS = "persistentvolumeclaims"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim with kept folders.

    Attributes:
        size: what the volume has, or what was asked for while there is none.
        since: when it was made, RFC 3339.
    """

    name: str
    entry: str
    workload: str
    owner: str
    size: str
    since: str

    def is_of(self, name: str) -> bool:
        # An entry's services are ENTRY/SERVICE.
        return name in (self.entry, self.entry.partition("/")[0], self.workload, self.name)


async def create_claim(api: Api, claim: JsonObject) -> None:
    """Create the claim that keeps folders over sessions; one that is there is used as it is.

    Raises:
        Conflict: a claim that is not Towline's has the name, or it is being deleted.
    """
    name = str(claim["metadata"]["name"])
    try:
        await api.create(_CLAIMS, claim)
    except Conflict as error:
        found = await api.get(_CLAIMS, name)
        if (found["metadata"].get("labels") or {}).get(LABEL_KIND) != "claim":
            raise Conflict(
                f"there is a claim {name} already, which is not Towline's",
                hint="rename or delete it, or turn `persistentVolume` off",
            ) from error
        if found["metadata"].get("deletionTimestamp"):
            raise Conflict(
                f"claim {name} is being deleted",
                hint="try again when the pods that use it are gone",
            ) from error


async def kept_claims(api: Api) -> list[Claim]:
    """The claims in the namespace; none where they may not be listed."""
    try:
        found = await api.list_(_CLAIMS, labels=f"{LABEL_KIND}=claim")
    except Forbidden:
        return []
    return [
        _claim(each)
        for each in found.get("items") or []
        if not each["metadata"].get("deletionTimestamp")
    ]


def _claim(found: JsonObject) -> Claim:
    metadata = found["metadata"]
    marks = metadata.get("annotations") or {}
    capacity = (found.get("status") or {}).get("capacity") or {}
    asked = found["spec"]["resources"]["requests"]
    return Claim(
        name=str(metadata["name"]),
        entry=str(marks.get(ANNOTATION_ENTRY, "")),
        workload=str(marks.get(ANNOTATION_WORKLOAD, "")),
        owner=str(marks.get(ANNOTATION_OWNER, "")),
        size=str(capacity.get("storage") or asked["storage"]),
        since=str(metadata.get("creationTimestamp") or ""),
    )


async def delete_claim(api: Api, claim: Claim) -> None:
    """Delete a claim, and with it what it holds once no pod uses it any more."""
    await api.delete(_CLAIMS, claim.name)
