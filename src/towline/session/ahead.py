"""What a session's process would get, before there is one: from the specs.

What the image sets is in no spec: it is read from the original's running container,
where that is allowed. What would be the dev pod's own is not known, and named.
"""

from __future__ import annotations

from towline._kit.objects import JsonObject
from towline.cluster.api import Api
from towline.cluster.observe import observe
from towline.environ.container import Settings, before_session, encoded
from towline.errors import ClusterError
from towline.manifest.model import Entry
from towline.plan.model import Observed
from towline.session.environment import Made, NameValues, put_together
from towline.session.prepare import plan_for
from towline.session.sources import read_sources


async def environment_ahead(entry: Entry, *, api: Api, options: NameValues = ()) -> Made:
    """What the process of an `up` of now would get.

    Raises:
        ClusterError: the cluster cannot be asked, or there is no such workload.
    """
    observed = await observe(entry, api=api)
    plan = plan_for(entry, observed).plan
    running = _running(observed, plan.container)
    truth, why_not = await _truth(running, plan.container, api=api)
    planned = plan.dev_workload["spec"]["template"]
    sources = await read_sources(
        api,
        container=plan.container,
        original=observed.template,
        planned=planned,
        running=running or observed.template,
        with_master=True,
    )
    settings = Settings(
        manifest=frozenset(encoded(v.name) for v in entry.environment),
        own_links=sources.own_links,
        order=entry.settings.environment_order,
    )
    container = before_session(truth, sources.specs, settings)
    notices = (f"what the image sets is not known: {why_not}",) if why_not else ()
    made = put_together(
        entry,
        container,
        options=options,
        services=[str(s["metadata"]["name"]) for s in sources.objects.services],
        namespace=api.namespace,
    )
    return made.with_notices(*notices)


def _running(observed: Observed, container: str) -> JsonObject | None:
    """A pod of the original whose container runs."""
    for pod in observed.pods:
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            if status["name"] == container and "running" in (status.get("state") or {}):
                return pod
    return None


async def _truth(
    pod: JsonObject | None, container: str, *, api: Api
) -> tuple[dict[bytes, bytes] | None, str | None]:
    """The environment of a pod's container, or why it cannot be read."""
    from towline.cluster.podexec import output_of

    if pod is None:
        return None, "no pod of the original runs"
    name = str(pod["metadata"]["name"])
    # Of `cat` itself: it is given the container's environment anew, and may always read it.
    command = ("cat", "/proc/self/environ")
    try:
        block = await output_of(api, pod=name, container=container, command=command)
    except ClusterError as error:
        return None, error.message
    pairs = (entry.partition(b"=") for entry in block.split(b"\0") if entry)
    return {variable: value for variable, _, value in pairs}, None
