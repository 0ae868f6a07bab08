"""What the local process gets: the container's environment, the manifest's and the laptop's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from towline.environ.container import ContainerEnvironment, encoded
from towline.environ.definitions import Definition, Kind, Variable
from towline.environ.dotenv import assignments_of
from towline.environ.explain import Explanation, explained
from towline.environ.policy import LocalEnvironment, Policy, local_environment
from towline.manifest.model import Entry

NameValues = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The local process's environment, and where all of it comes from."""

    environment: LocalEnvironment
    explanation: Explanation

    @property
    def values(self) -> Mapping[bytes, bytes]:
        return self.environment.values

    def with_notices(self, *notices: str) -> Made:
        explanation = self.explanation
        told = replace(explanation, notices=(*explanation.notices, *notices))
        return replace(self, explanation=told)


def manifest_variables(entry: Entry, *, options: NameValues = ()) -> dict[bytes, Variable]:
    """The manifest's own variables: envFiles < `environment` < `-e`.

    Raises:
        ManifestError: an envFile is missing or broken.
    """
    found = [
        _defined(each.name, each.value or "", Kind.ENV_FILE, each.place.file, each.place.line)
        for each in assignments_of(entry.env_files, environ=os.environ)
    ]
    found += [
        _defined(each.name, each.value, Kind.ENVIRONMENT, each.place.file, each.place.line)
        for each in entry.environment
    ]
    found += [_defined(name, value, Kind.OPTION) for name, value in options]
    variables: dict[bytes, Variable] = {}
    for each in found:
        before = variables.get(encoded(each.name))
        shadows = before.all if before else ()
        variables[encoded(each.name)] = Variable(definition=each, shadows=shadows)
    return variables


def _defined(
    name: str, value: str, kind: Kind, file: str | None = None, line: int | None = None
) -> Definition:
    # As it is typed: relative to where the command is run, where that is shorter.
    shown = min(file, os.path.relpath(file), key=len) if file else None
    where = None if line is None else str(line)
    return Definition(name=name, value=os.fsencode(value), kind=kind, object=shown, key=where)


def cluster_names(services: Iterable[str], *, namespace: str) -> tuple[str, ...]:
    """The names and addresses that a laptop's proxy must not be asked for."""
    suffixes = ("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", namespace)
    return (*suffixes, "svc", f"{namespace}.svc", f".{namespace}", *services)


def put_together(
    entry: Entry,
    container: ContainerEnvironment,
    *,
    options: NameValues = (),
    services: Iterable[str] = (),
    namespace: str,
) -> Made:
    """The local process's environment on this laptop, explained.

    Args:
        options: `-e` of the command line.
        services: the names of the namespace's Services, for NO_PROXY.

    Raises:
        ManifestError: an envFile is missing or broken.
    """
    policy = Policy.of(
        entry.settings,
        platform=sys.platform,
        no_proxy=cluster_names(services, namespace=namespace),
    )
    manifest = manifest_variables(entry, options=options)
    laptop = dict(os.environb) if os.supports_bytes_environ else _encoded(os.environ)
    made = local_environment(
        container=container.values,
        manifest={name: v.definition.value or b"" for name, v in manifest.items()},
        laptop=laptop,
        policy=policy,
    )
    explanation = explained(made, container=container, manifest=manifest, laptop=laptop)
    return Made(environment=made, explanation=explanation)


def _encoded(environ: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
