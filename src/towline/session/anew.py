"""A service taken over once more, after the guard has ended the session of a laptop that slept."""

from __future__ import annotations

from dataclasses import replace

from towline._kit.moments import time_text
from towline.cluster.api import Api
from towline.cluster.watch import patiently
from towline.manifest.model import Entry
from towline.plan.model import Observed
from towline.plan.record import record_of
from towline.session.agent_config import agent_config
from towline.session.events import Applied, Events
from towline.session.options import Options
from towline.session.prepare import prepare
from towline.session.takeover import Takeover, apply_anew, running_pod_of


class Anew:
    """Everything below the local process, from the plan to the dev pod.

    Args:
        files: of the session's Secret, without what follows from the plan.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        api: Api,
        options: Options,
        events: Events,
        files: dict[str, bytes],
    ) -> None:
        self._entry = entry
        self._api = api
        # Nobody is asked, nor ended, for a session that was agreed to before the sleep:
        # whoever has the service by now has it for good reason.
        self._options = replace(options, ask=None, assume_yes=True, end_other_session=False)
        self._events = events
        self._files = files

    async def take_over(self, takeover: Takeover) -> Observed:
        """Look, decide and apply as `up` does; returns once the dev pod runs.

        Raises:
            TowlineError: what stands in the way; `takeover` is what there is to undo.
        """
        # A network comes later than the laptop wakes.
        _, observed, prepared = await patiently(
            lambda: prepare(
                self._entry,
                api=self._api,
                options=self._options,
                events=self._events,
                process_runs=True,
            )
        )
        plan = prepared.plan
        await apply_anew(
            takeover,
            plan,
            record_of(plan, since=time_text(), entry=self._entry.name, mode=self._entry.mode.value),
            api=self._api,
            parts=prepared.parts,
            files={**self._files, "config.json": agent_config(self._entry, plan)},
            events=self._events,
        )
        self._events(Applied(workload=takeover.record.names.dev_workload))
        await running_pod_of(self._entry, takeover, api=self._api, events=self._events)
        return observed
