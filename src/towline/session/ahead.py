"""What a session's process would get, before there is one: from the specs.

What the image sets is in no spec: it is read from the original's running container,
where that is allowed. What would be the dev pod's own is not known, and named.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from towline._kit.objects import JsonObject
from towline.cluster.api import Api
from towline.cluster.observe import observe
from towline.environ.container import Settings, before_session, encoded
from towline.environ.files import mirrored_paths
from towline.environ.names import api_server, cluster_names
from towline.environ.rewrite import End
from towline.errors import ClusterError, Forbidden, NotFound
from towline.manifest.model import Entry, Reach
from towline.plan.model import Observed
from towline.process.view import Bind
from towline.session.environment import Made, NameValues, put_together
from towline.session.machine import is_refused, namespaces_refused
from towline.session.prepare import plan_for
from towline.session.sources import Sources, read_sources
from towline.session.surroundings import ROOT_VARIABLE, Surroundings

# Where values will lead is known when a session listens.
_NOT_YET = "/TOWLINE_ROOT"
_TOLD_AT_MOST = 5


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
    foreseen = await _surroundings(entry, sources, made, api=api)
    return _marked(made, foreseen).with_notices(*notices)


async def _surroundings(entry: Entry, sources: Sources, made: Made, *, api: Api) -> Surroundings:
    """Those of a session on this machine, but for the ports and folders that it would choose."""
    names, files = entry.settings.names, entry.settings.files
    is_found = Reach.ON in (names.reach, files.reach) and not await namespaces_refused()
    ends: tuple[End, ...] = ()
    if names.reach is not Reach.OFF:
        try:
            slices = (await api.list_("endpointslices")).get("items") or []
        except (Forbidden, NotFound):
            slices = None
        services = sources.objects.services
        known = [*cluster_names(services, slices, namespace=api.namespace)]
        host, port = (
            made.values.get(name, b"").decode("ascii", "replace")
            for name in (b"KUBERNETES_SERVICE_HOST", b"KUBERNETES_SERVICE_PORT")
        )
        if host and port.isdigit():
            known.append(api_server(host, int(port)))
        ends = tuple(
            End(
                spellings=frozenset((*each.aliases, *each.addresses)),
                address="127.0.0.1",
                ports={port: _local_port(port) for port in each.ports},
                is_found=is_found and names.reach is Reach.ON,
            )
            for each in known
        )
    paths: tuple[str, ...] = ()
    if files.reach is not Reach.OFF:
        found = mirrored_paths(sources.running, sources.container, files)
        paths = tuple(each.path for each in found)
    shown = paths if is_found and files.reach is Reach.ON else ()
    return Surroundings(
        binds=tuple(Bind(source=path, target=path) for path in shown),
        ends=ends,
        keep=names.keep,
        root=_NOT_YET,
        paths=paths,
    )


def _local_port(port: int) -> int:
    """The same where it may be had; 0, which no Service has, for one that is not known yet."""
    return 0 if sys.platform != "linux" or is_refused(port) else port


def _marked(made: Made, foreseen: Surroundings) -> Made:
    """Say which values a session would change for them to lead to the same from here."""
    changed = [each.name for each in foreseen.rewritten(made.environment)]
    variables = dict(made.explanation.variables)
    for name in changed:
        definition = variables[name].definition
        note = "; ".join(filter(None, (definition.note, "another in a session: it leads there")))
        marked = replace(definition, note=note)
        variables[name] = replace(variables[name], definition=marked)
    made = replace(made, explanation=replace(made.explanation, variables=variables))
    if foreseen.paths:
        changed.append(ROOT_VARIABLE)
    if not changed:
        return made
    names = sorted(name.decode(errors="replace") for name in changed)
    more = f" and {len(names) - _TOLD_AT_MOST} more" if len(names) > _TOLD_AT_MOST else ""
    told = ", ".join(names[:_TOLD_AT_MOST]) + more
    return made.with_notices(
        f"a session sets these to what leads to the same from here (--explain marks them): {told}"
    )


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
