"""Kubernetes Events on the original: what is told of a session, and what is read back of it.

All of it is for people, and where the rights do not allow it there is none, but for one
thing: by whose hand a session was ended while its own client could not be told.
"""

from __future__ import annotations

from towline._kit.moments import time_text
from towline.cluster.api import Api
from towline.errors import Forbidden, NotFound, Refused
from towline.plan.model import ANNOTATION_ENDED_BY, LABEL_SESSION
from towline.plan.record import Record

_TAKEN_OVER, _RESTORED = "TowlineTakenOver", "TowlineRestored"


async def tell_taken_over(api: Api, record: Record) -> None:
    """The original is stood in for."""
    text = f"in development by {record.owner}: `towline down` gives it back"
    await _tell(api, record, reason=_TAKEN_OVER, message=text)


async def tell_restored(api: Api, record: Record) -> None:
    """The session's own client has given it back."""
    await _tell(api, record, reason=_RESTORED, message=f"development by {record.owner} ended")


async def tell_ended(api: Api, record: Record, *, by: str) -> None:
    """Somebody has given it back from outside the session."""
    text = f"development by {record.owner} was ended by {by}"
    await _tell(api, record, reason=_RESTORED, message=text, ended_by=by)


async def hand_that_ended(api: Api, record: Record) -> str | None:
    """Who ended a session from outside, and by what; None where nobody is known to have.

    An Event is the one trace that is nobody's configuration and goes by itself: after an
    hour, where the cluster is not told otherwise. The guard leaves none, so its Role needs
    no more than the session's own objects.

    Raises:
        Unreachable: the network is away.
    """
    labels, fields = f"{LABEL_SESSION}={record.session}", f"reason={_RESTORED}"
    try:
        found = (await api.list_("events", labels=labels, fields=fields)).get("items") or []
    except (Forbidden, Refused, NotFound):
        return None
    told = [(each["metadata"].get("annotations") or {}).get(ANNOTATION_ENDED_BY) for each in found]
    return next((str(each) for each in told if each), None)


async def _tell(
    api: Api, record: Record, *, reason: str, message: str, ended_by: str | None = None
) -> None:
    now = time_text()
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "generateName": f"{record.workload[:200]}.towline-",
            "labels": {LABEL_SESSION: record.session},
            "annotations": {ANNOTATION_ENDED_BY: ended_by} if ended_by else {},
        },
        "involvedObject": {
            "apiVersion": "apps/v1",
            "kind": record.kind.value,
            "name": record.workload,
            "namespace": api.namespace,
            "uid": record.workload_uid,
        },
        "reason": reason,
        "message": message,
        "type": "Normal",
        "source": {"component": "towline"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        await api.create("events", body)
    except (Forbidden, Refused, NotFound):
        return
