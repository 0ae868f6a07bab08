"""The container's environment over a session: its truth, and what changes in the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from towline._kit.objects import JsonObject
from towline._kit.tasks import Tasks
from towline.cluster.api import Api, WatchEvent
from towline.cluster.watch import continuous_watch
from towline.environ.container import (
    Changes,
    ContainerEnvironment,
    Settings,
    changes,
    encoded,
    in_session,
    laid_over,
)
from towline.environ.definitions import Kind
from towline.environ.passing import packed
from towline.errors import ClusterError, Forbidden, ManifestError
from towline.manifest.model import Entry
from towline.session.environment import Made, put_together
from towline.session.sources import Sources, pod_named, read_sources

_KINDS = {"configmaps": Kind.CONFIG_MAP, "secrets": Kind.SECRET}
Changed = Callable[[str, tuple[str, ...]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """One container's truth, and the sources as they were then and are now."""

    truth: Mapping[bytes, bytes]
    then: Sources
    now: Sources

    @property
    def changed(self) -> Changes:
        if self.now is self.then:
            return Changes()
        return changes(self.then.specs.running, self.now.specs.running)


class ClusterEnvironment:
    """What the dev container has, and would have if it started now.

    Args:
        original, planned: the pod templates of the original and of the dev workload.
        options: `-e` of the command line.
    """

    def __init__(
        self,
        api: Api,
        entry: Entry,
        *,
        container: str,
        original: JsonObject,
        planned: JsonObject,
        options: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._api = api
        self._entry = entry
        self._container = container
        self._original = original
        self._planned = planned
        self._options = options
        self._read: _Read | None = None

    def stands_in_for(self, original: JsonObject, *, planned: JsonObject, container: str) -> None:
        """Take other pod templates from the next reading on."""
        self._original, self._planned, self._container = original, planned, container

    async def read(self, truth: Mapping[bytes, bytes], *, pod: str) -> None:
        """Take a container's truth for what is, with the cluster's objects as they are now.

        Raises:
            ClusterError: the cluster cannot be asked.
        """
        running = await pod_named(self._api, pod)
        sources = await read_sources(
            self._api,
            container=self._container,
            original=self._original,
            planned=self._planned,
            running=running or self._planned,
        )
        self._read = _Read(truth=truth, then=sources, now=sources)

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the namespace's Services."""
        assert self._read is not None
        return tuple(str(s["metadata"]["name"]) for s in self._read.now.objects.services)

    @property
    def container(self) -> ContainerEnvironment:
        """The truth, with what has changed in the cluster since laid over it."""
        assert self._read is not None
        changed = self._read.changed
        settings = Settings(
            manifest=frozenset(encoded(v.name) for v in self._entry.environment),
            own_links=self._read.now.own_links,
            changed=frozenset(changed.values),
            order=self._entry.settings.environment_order,
        )
        return in_session(laid_over(self._read.truth, changed), self._read.now.specs, settings)

    def for_process(self) -> Made:
        """What the local process gets if it is started now."""
        return put_together(
            self._entry,
            self.container,
            options=self._options,
            services=self.services,
            namespace=self._api.namespace,
        )

    async def passed_on(self, _params: JsonObject) -> JsonObject:
        """For other commands of this laptop, by the control socket."""
        return {
            "container": packed(self.container),
            "options": [list(each) for each in self._options],
            "services": list(self.services),
        }

    async def watch(self, changed: Changed) -> None:
        """Call back for every change of what the environment is made of, until cancelled.

        It is told the object (`ConfigMap frontend`) and the names of the variables that
        the process would get with another value.
        """
        assert self._read is not None
        config_maps, secrets = self._read.now.references
        async with Tasks() as tasks:
            for resource, names in (("configmaps", config_maps), ("secrets", secrets)):
                for name in names:
                    job = self._watch_one(resource, name, changed)
                    tasks.start(job, name=f"watch {resource}/{name}")
            await asyncio.get_running_loop().create_future()

    async def _watch_one(self, resource: str, name: str, changed: Changed) -> None:
        events = continuous_watch(self._api, resource, fields=f"metadata.name={name}")
        try:
            async with aclosing(events) as all_of_them:  # type: ignore[type-var]
                async for event in all_of_them:
                    self._note(resource, name, event, changed)
        except Forbidden:
            return  # Secrets, mostly: what may not be read is not followed
        except ClusterError:
            return  # the session's own watches tell of a cluster that cannot be asked

    def _note(self, resource: str, name: str, event: WatchEvent, changed: Changed) -> None:
        assert self._read is not None
        before = self._process_values()
        now = None if event.kind == "DELETED" else event.object
        self._read = replace(self._read, now=self._read.now.with_object(resource, name, now))
        after = self._process_values()
        names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        if names:
            texts = tuple(n.decode("utf-8", "backslashreplace") for n in names)
            changed(f"{_KINDS[resource]} {name}", texts)

    def _process_values(self) -> Mapping[bytes, bytes]:
        try:
            return self.for_process().values
        except ManifestError:
            # An envFile that is being edited: the next start of the process tells.
            return self.container.values
