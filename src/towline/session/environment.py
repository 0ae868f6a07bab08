"""What the local process gets: the container's truth, the manifest's and the laptop's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

from towline._kit.objects import JsonObject
from towline.environ.dotenv import from_files
from towline.environ.policy import LocalEnvironment, Policy, local_environment
from towline.manifest.model import Entry


def manifest_variables(
    entry: Entry, *, options: Iterable[tuple[str, str]] = ()
) -> dict[bytes, bytes]:
    """The manifest's own variables: envFiles < `environment` < `-e`.

    Raises:
        ManifestError: an envFile is missing or broken.
    """
    values = from_files(entry.env_files, environ=os.environ)
    values |= {variable.name: variable.value for variable in entry.environment}
    values |= dict(options)
    return {os.fsencode(name): os.fsencode(value) for name, value in values.items()}


def cluster_names(services: Iterable[JsonObject], *, namespace: str) -> tuple[str, ...]:
    """The names and addresses that a laptop's proxy must not be asked for."""
    names = [str(s["metadata"]["name"]) for s in services]
    suffixes = (namespace, "svc", f"{namespace}.svc", ".svc", ".cluster.local")
    return (*names, *suffixes, "localhost", "127.0.0.1", "::1")


def session_environment(
    entry: Entry,
    container: Mapping[bytes, bytes],
    *,
    options: Iterable[tuple[str, str]] = (),
    services: Iterable[JsonObject] = (),
    namespace: str,
) -> LocalEnvironment:
    """The local process's environment, from what the agent read in the container."""
    policy = Policy.of(
        entry.settings,
        platform=sys.platform,
        no_proxy=cluster_names(services, namespace=namespace),
    )
    return local_environment(
        container=container,
        manifest=manifest_variables(entry, options=options),
        laptop=dict(os.environb) if os.supports_bytes_environ else _encoded(os.environ),
        policy=policy,
    )


def _encoded(environ: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
