"""What others do to the Services and the dev workload: noticed, told by name, not fought over."""

from __future__ import annotations

from contextlib import aclosing

from towline._kit.objects import JsonObject
from towline.cluster import apply
from towline.cluster.api import FIELD_MANAGER, Api, WatchEvent
from towline.cluster.watch import continuous_watch, patiently
from towline.errors import Forbidden, Reverted
from towline.manifest.model import Original
from towline.plan.fields import PORTS, REPLICAS, SELECTOR, TEMPLATE, owner_named
from towline.plan.model import Plan
from towline.plan.record import Record
from towline.plan.services import selects, target_port
from towline.session.events import Events, Warned
from towline.session.guard import Guard


class ServicesWatch:
    """Follows the Services that lead to the dev pod, from the takeover to the session's end.

    With `original: keep` their ports alone: `Pointing` has their selectors.
    """

    def __init__(self, plan: Plan, *, api: Api, events: Events) -> None:
        self._plan = plan
        self._api = api
        self._events = events
        self._template: JsonObject = plan.dev_workload["spec"]["template"]
        self._away = dict.fromkeys((port.service for port in plan.ports), "")

    async def run(self) -> None:
        """Watch until cancelled; at once over without the right to: it is for notices only."""
        try:
            async with aclosing(continuous_watch(self._api, "services")) as changes:  # type: ignore[type-var]
                async for event in changes:
                    self._see(event)
        except Forbidden:
            return

    def _see(self, event: WatchEvent) -> None:
        name = str(event.object["metadata"]["name"])
        if name not in self._away:
            return
        was, away = self._away[name], self._why_away(event)
        self._away[name] = away
        if away and away != was:
            self._events(Warned(text=f"Service {name} {away}"))
        elif was and not away:
            self._events(Warned(text=f"Service {name} leads here again"))

    def _why_away(self, event: WatchEvent) -> str:
        """What keeps a Service from leading here as planned; "" for nothing."""
        spec = event.object["spec"]
        if self._plan.original is not Original.KEEP:
            if event.kind == "DELETED":
                return "was deleted by somebody: nothing comes here by it any more"
            if not selects(spec.get("selector"), self._template["metadata"]["labels"]):
                by = owner_named(event.object, SELECTOR)
                return f"was pointed elsewhere by {by}: left so, nothing comes here by it any more"
        return self._moved(event.object)

    def _moved(self, service: JsonObject) -> str:
        ports = {each["port"]: each for each in service["spec"].get("ports") or []}
        for planned in self._plan.ports:
            if planned.service != service["metadata"]["name"]:
                continue
            by, now = owner_named(service, PORTS), ports.get(planned.port)
            if now is None:
                return f"was changed by {by}: it has no port {planned.port} any more"
            if target_port(now, self._template["spec"]["containers"]) != planned.remote:
                return (
                    f"was changed by {by}: its port {planned.port} leads to "
                    f"{now.get('targetPort', planned.port)} and no more to {planned.remote}; left "
                    "so, the next `up` takes it"
                )
        return ""


class DevWatch:
    """Follows the dev workload: without it nobody serves, and no pod of it comes again."""

    def __init__(self, record: Record, guard: Guard, *, api: Api, events: Events) -> None:
        self._record = record
        self._guard = guard
        self._api = api
        self._events = events
        self._template: JsonObject | None = None
        self._replicas = 1

    async def run(self) -> None:
        """Watch until cancelled.

        Raises:
            Reverted: somebody has taken it away, with who did, where that is known.
            ClusterError: the cluster refuses the watch.
        """
        fields = f"metadata.name={self._record.names.dev_workload}"
        events = continuous_watch(self._api, "deployments", fields=fields)
        async with aclosing(events) as changes:  # type: ignore[type-var]
            async for event in changes:
                await self._see(None if event.kind == "DELETED" else event.object)

    async def look(self) -> None:
        """Look once whether it is there, and has a pod; raises as `run`."""
        name = self._record.names.dev_workload
        await self._see(await patiently(lambda: self._api.find("deployments", name)))

    async def _see(self, found: JsonObject | None) -> None:
        # An object's deletion has no manager.
        if found is None or found["metadata"].get("deletionTimestamp"):
            await self._taken_away("deleted", by="somebody")
            return
        replicas, template = int(found["spec"].get("replicas", 1)), found["spec"]["template"]
        if replicas != self._replicas:
            self._replicas, by = replicas, owner_named(found, REPLICAS)
            if replicas == 0:
                await self._taken_away("scaled to 0", by=by)
            elif replicas > 1:
                self._tell(f"was scaled to {replicas} by {by}: only one pod gets anything")
        if self._template is not None and template != self._template:
            by = owner_named(found, TEMPLATE)
            if by != FIELD_MANAGER:
                self._tell(f"was changed by {by}: another pod takes its place")
        self._template = template

    async def _taken_away(self, how: str, *, by: str) -> None:
        is_away = self._guard.may_have_given_back or self._guard.ended_the_session
        if by == FIELD_MANAGER or is_away:
            return  # the guard's doing: whoever takes the service back sees to it
        if await patiently(lambda: apply.is_being_ended(self._api, self._record)):
            return  # with the whole session: the record's watch tells
        what = f"{self._record.kind} {self._record.workload}"
        raise Reverted(
            f"Deployment {self._record.names.dev_workload}, which stands in for {what}, was {how} "
            f"by {by}: the session ends",
            hint="ask them, or run `towline up` again",
        )

    def _tell(self, text: str) -> None:
        self._events(Warned(text=f"Deployment {self._record.names.dev_workload} {text}"))
