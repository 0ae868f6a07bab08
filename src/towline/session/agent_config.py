"""What the agent is told of a session."""

from __future__ import annotations

import json
from contextlib import suppress

from towline.environ.names import DOMAIN, NotAName, added_name
from towline.manifest.model import Entry
from towline.plan.keep import way_back_name
from towline.plan.model import Plan

# The cluster's domain is known only in the pod: the agent puts it here.
_DOMAIN = "$domain"


def agent_config(entry: Entry, plan: Plan) -> bytes:
    """The agent's `config.json`; docs/protocol.md."""
    return json.dumps(
        {
            "version": 1,
            "session": plan.session,
            "line_port": plan.agent_ports.line,
            "gate": {"port": plan.agent_ports.gate, "path": "/towline/ready"},
            "reverse": sorted({each.remote for each in entry.reverse}),
            "hold_for_s": entry.settings.hold_for_s,
            "keep_for_s": entry.settings.keep_for_s,
            "carrier_lost_shut_s": 30,
            **_permitted(entry, plan),
            **_passes(plan),
        }
    ).encode()


def _permitted(entry: Entry, plan: Plan) -> dict[str, object]:
    """What the agent dials for this laptop: with the proxy on, anything that the pod reaches."""
    if entry.settings.names.proxy:
        return {}
    targets = [f"{_bracketed(each.host or 'localhost')}:{each.remote}" for each in entry.forward]
    targets += [f"*.{plan.namespace}.svc.{_DOMAIN}:*", f"kubernetes.default.svc.{_DOMAIN}:*"]
    # An IDE's server in the dev container is on loopback; whoever has the session's key may
    # run commands there anyway.
    targets += ["localhost:*", "127.0.0.1:*", "[::1]:*"]
    for text in entry.settings.names.add:
        with suppress(NotAName):
            _, name = added_name(text, namespace=plan.namespace)
            host = name.host.removesuffix(DOMAIN) + _DOMAIN if name.aliases[1:] else name.host
            targets += [f"{host}:{port}" for port in name.ports or ("*",)]
    if plan.way_back is not None:
        targets.append(f"{way_back_name(plan.session)}:*")
    return {"permit": targets}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _passes(plan: Plan) -> dict[str, object]:
    """Where the agent passes connections on to, with an original that is kept.

    It notices a carrier's silence after 4 s; with the second here that is 5.
    """
    if plan.way_back is None or not plan.way_back.passes:
        return {}
    passes = {str(port): list(to) for port, to in plan.way_back.passes.items()}
    return {"original": passes, "carrier_lost_shut_s": 1}
