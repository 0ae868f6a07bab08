"""What the local process finds around it: the cluster's names, the container's files.

A value: `around` makes it beside the stages of a session, `towline run` reads it from the
session's folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from towline.environ.policy import LocalEnvironment, Origin
from towline.environ.rewrite import End, Rewritten, rewritten_names, rewritten_paths
from towline.process.view import Bind, View
from towline.session.environment import Made

ROOT_VARIABLE = b"TOWLINE_ROOT"
_STATE = "surroundings.json"
_LOOPBACK = re.compile(rb"127\.\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is shown to the process, and what its environment must say instead.

    Attributes:
        binds: files and folders of ours, where the process looks for them; none where the
            system does not let it have namespaces.
        ends: where the cluster's names are reached.
        keep: globs of variables that are never changed.
        root: below it are the container's files.
        paths: the container's paths that are mirrored.
        no_proxy: names that a proxy of the laptop's must not be asked for.
        proxy_port: of the proxy that resolves in the cluster; 0 where none was asked for.
    """

    binds: tuple[Bind, ...] = ()
    scratch: str = ""
    ends: tuple[End, ...] = ()
    keep: tuple[str, ...] = ()
    root: str = ""
    paths: tuple[str, ...] = ()
    no_proxy: tuple[str, ...] = ()
    proxy_port: int = 0

    @property
    def view(self) -> View | None:
        return View(binds=self.binds, scratch=self.scratch) if self.binds else None

    def rewritten(self, made: LocalEnvironment) -> tuple[Rewritten, ...]:
        """Which of the process's variables change, and why; the laptop's own never do."""
        values = {
            name: value
            for name, value in made.values.items()
            if made.origins[name].origin is not Origin.LAPTOP
        }
        changed = rewritten_names(values, self.ends, keep=self.keep)
        shown = {bind.target for bind in self.binds}
        elsewhere = [path for path in self.paths if path not in shown]
        return (*changed, *rewritten_paths(values, elsewhere, root=self.root))

    def environment(
        self, made: LocalEnvironment
    ) -> tuple[dict[bytes, bytes], tuple[Rewritten, ...]]:
        """The process's whole environment, and what of it is not as in the container."""
        changed = self.rewritten(made)
        values = dict(made.values) | {each.name: each.now for each in changed}
        if self.paths:
            values[ROOT_VARIABLE] = os.fsencode(self.root)
        self._keep_from_proxy(values, changed)
        if self.proxy_port:
            values |= _proxy_variables(self.proxy_port)
        return values, changed

    def explained(self, made: Made) -> Made:
        """What `env` shows: the values as the process gets them, and why they are others."""
        values, changed = self.environment(made.environment)
        variables = dict(made.explanation.variables)
        for each in changed:
            variable = variables[each.name]
            notes = [note for note in (variable.definition.note, each.why) if note]
            definition = replace(variable.definition, value=each.now, note="; ".join(notes))
            variables[each.name] = replace(variable, definition=definition)
        return Made(
            environment=replace(made.environment, values=values),
            explanation=replace(made.explanation, variables=variables),
        )

    def _keep_from_proxy(self, values: dict[bytes, bytes], changed: Iterable[Rewritten]) -> None:
        """Where NO_PROXY was made, the addresses that changed values lead to go in, too."""
        addresses = {found for each in changed for found in _LOOPBACK.findall(each.now)}
        more = sorted(addresses | {name.encode() for name in self.no_proxy})
        for name in (b"NO_PROXY", b"no_proxy"):
            if more and values.get(name, b"*") != b"*":
                values[name] = b",".join([values[name], *more])

    def save(self, folder: Path) -> None:
        """Leave it for other commands in a session's folder, whole at every moment."""
        text = json.dumps(asdict(self), default=sorted)
        partial = folder / f"{_STATE}.partial"
        with suppress(OSError):
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(text)
            partial.replace(folder / _STATE)

    @classmethod
    def of_session(cls, folder: Path) -> Surroundings:
        """Those of a running session; empty ones while it has none."""
        try:
            found: dict[str, Any] = json.loads((folder / _STATE).read_text())
        except (OSError, ValueError):
            return cls()
        return cls(
            binds=tuple(Bind(**each) for each in found["binds"]),
            scratch=found["scratch"],
            ends=tuple(_end(each) for each in found["ends"]),
            keep=tuple(found["keep"]),
            root=found["root"],
            paths=tuple(found["paths"]),
            no_proxy=tuple(found["no_proxy"]),
            proxy_port=found["proxy_port"],
        )


def _proxy_variables(port: int) -> dict[bytes, bytes]:
    """In both spellings, for programs differ; with `h` SOCKS leaves names to the proxy."""
    place = b"127.0.0.1:%d" % port
    values = {
        b"HTTP_PROXY": b"http://" + place,
        b"HTTPS_PROXY": b"http://" + place,
        b"ALL_PROXY": b"socks5h://" + place,
        b"NO_PROXY": b"localhost,127.0.0.1,::1",
    }
    return values | {name.lower(): value for name, value in values.items()}


def _end(values: Mapping[str, Any]) -> End:
    return End(
        spellings=frozenset(values["spellings"]),
        address=values["address"],
        ports={int(port): local for port, local in values["ports"].items()},
        is_found=values["is_found"],
    )
