"""What a running session's process gets, for the other commands of this laptop.

The session itself is asked, by its control socket; where that is not possible the
cluster and the agent are, by a connection of one's own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from towline.environ.passing import unpacked
from towline.manifest.model import Entry
from towline.session.control_socket import NotAnswering, ask
from towline.session.environment import Made, put_together
from towline.session.local import LocalSession

if TYPE_CHECKING:
    from towline.cluster.api import Api

OpenApi = Callable[[LocalSession], AbstractAsyncContextManager["Api"]]

__all__ = ["NotAnswering", "environment_of", "environment_read_anew"]


def environment_of(session: LocalSession, entry: Entry) -> Made:
    """What the session's process gets, with this laptop's environment of now; blocks.

    Raises:
        NotAnswering: see `environment_read_anew`.
        ManifestError: an envFile is missing or broken.
    """
    passed = ask(session.folder, "environment")
    return put_together(
        entry,
        unpacked(passed["container"]),
        options=[(name, value) for name, value in passed["options"]],
        services=passed["services"],
        namespace=session.namespace,
    )


async def environment_read_anew(session: LocalSession, entry: Entry, *, open_api: OpenApi) -> Made:
    """The same from the agent and the cluster, without `-e` of the session's command line.

    Raises:
        ConnectionLost: the session has no pod at the moment.
        ClusterError: the cluster cannot be asked.
    """
    from towline.cluster.observe import observe
    from towline.plan.build import names_for
    from towline.session.attach import attached
    from towline.session.cluster_environment import ClusterEnvironment

    async with open_api(session) as api, attached(session, api=api) as (_, ssh):
        truth = await ssh.control.environ()
        observed = await observe(entry, api=api)
        names = names_for(observed.kind, observed.name, session=session.session)
        dev = await api.get("deployments", names.dev_workload)
        environment = ClusterEnvironment(
            api,
            entry,
            container=session.container,
            original=observed.template,
            planned=dev["spec"]["template"],
        )
        await environment.read(truth, pod=session.pod or "")
        return environment.for_process()
