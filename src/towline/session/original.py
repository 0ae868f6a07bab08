"""What others do to the original during a session: noticed, told by name, not fought over."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

from towline._kit.objects import JsonObject
from towline.cluster import apply
from towline.cluster.api import FIELD_MANAGER, Api, WatchEvent
from towline.cluster.watch import continuous_watch
from towline.plan.controllers import Held, program_called, remedy, replicas_held
from towline.plan.fields import REPLICAS, TEMPLATE, owner_named
from towline.plan.model import ANNOTATION_GIVEN_BACK, Observed
from towline.plan.record import Record
from towline.session.events import Events, Warned
from towline.session.reverts import Reverts


class OriginalWatch:
    """Follows one original, from the takeover to the session's end."""

    def __init__(self, record: Record, observed: Observed, *, api: Api, events: Events) -> None:
        self._record = record
        self._template = observed.template
        self._held = replicas_held(observed)
        self._api = api
        self._events = events
        self._what = f"{record.kind} {record.workload}"
        self._reverts = Reverts()
        self._replicas = 0
        self._another = ""

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            Reverted: what was changed is put back again and again, with who does it.
            ClusterError: the cluster refuses the watch.
        """
        fields = f"metadata.name={self._record.workload}"
        events = continuous_watch(self._api, self._record.kind.resource, fields=fields)
        async with aclosing(events) as changes:  # type: ignore[type-var]
            async for event in changes:
                found = event.object
                if found["metadata"]["uid"] != self._record.workload_uid:
                    self._see_another(event)
                    continue
                if event.kind == "DELETED":
                    self._tell("was deleted meanwhile: nothing of it will be put back")
                    continue
                self._see_template(found)
                await self._see_replicas(found)

    def _see_another(self, event: WatchEvent) -> None:
        uid = str(event.object["metadata"]["uid"])
        if event.kind == "DELETED" or uid == self._another:
            return
        self._another = uid
        by = owner_named(event.object, TEMPLATE)
        beside = "" if self._record.is_kept else ", it serves beside this laptop"
        self._tell(f"was made anew by {by}: left so{beside}")

    def _see_template(self, found: JsonObject) -> None:
        if found["spec"]["template"] == self._template:
            return
        self._template = found["spec"]["template"]
        by = owner_named(found, TEMPLATE)
        self._tell(f"was changed by {by}: the dev pod is still as before, the next `up` takes it")

    async def _see_replicas(self, found: JsonObject) -> None:
        replicas = int(found["spec"].get("replicas", 1))
        if replicas == self._replicas:
            return  # a change of something else: status, marks, owners of fields
        self._replicas = replicas
        if self._record.is_kept:
            return  # it is up, and nothing of ours: its owners scale it as they like
        by = owner_named(found, REPLICAS)
        given_back = ANNOTATION_GIVEN_BACK in (found["metadata"].get("annotations") or {})
        if replicas == 0 or by == FIELD_MANAGER or given_back:
            return
        if replicas == self._record.replicas:
            await self._reverted(by, replace(self._held, found=found))
            return
        text = f"was scaled to {replicas} by {by}: left so, it serves beside this laptop"
        if program_called(by) is not None:
            text += f" ({remedy(by, replace(self._held, found=found))})"
        self._tell(text)

    async def _reverted(self, by: str, held: Held) -> None:
        what = f"was scaled back to {self._record.replicas} by {by}"
        self._reverts.add(f"{self._what} {what}", hint=remedy(by, held))
        if not await apply.is_recorded(self._api, self._record):
            return  # the session is over, and this is its way back: the record's watch tells
        self._tell(f"{what}: scaled to 0 once more")
        await apply.stop_original(self._api, self._record)

    def _tell(self, text: str) -> None:
        self._events(Warned(text=f"{self._what} {text}"))
