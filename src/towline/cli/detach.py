"""`towline up --detach`: the session in a process of its own, and what it says meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towline._kit.paths import folders, private, written
from towline.errors import NeedsConfirmation, PodError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from towline.manifest.model import Entry

    Ask = Callable[[str], Coroutine[None, None, bool]]

# How often the child's events are looked for; people read them.
_LOOK_EVERY_S = 0.05
# Beyond the pod's own time-out: connecting, the process's start, the takeover.
_SLACK_S = 120.0


def detached(entries: tuple[Entry, ...], *, wait: str, output: str, ask: Ask | None) -> int:
    """Start `up` again in the background, show its events until it is far enough.

    Args:
        ask: asks the question that the child, which has no terminal, cannot ask.

    Returns:
        0 once each service is here, or its process started with `--wait=started`, or
        without a command the session holds; the child's exit code when it ends before.

    Raises:
        PodError: it is not far enough in time; the child is ended, and restores.
    """
    show = _Show(output, tuple(entry.name for entry in entries))
    code = _in_background(entries, wait=wait, show=show)
    if code == NeedsConfirmation.exit_code and ask is not None:
        question = " ".join(line.removeprefix("towline: ") for line in show.errors[:1])
        show.errors.clear()
        if not asyncio.run(ask(f"{question}. Go on?")):
            raise NeedsConfirmation("nothing was changed")
        code = _in_background(entries, wait=wait, show=show, more=("--yes",))
    sys.stderr.writelines(f"{line}\n" for line in show.errors)
    if code == 0 and output == "text":
        sys.stderr.write("in the background; see `towline status`, `logs`, `down`\n")
    return code


def _in_background(
    entries: tuple[Entry, ...], *, wait: str, show: _Show, more: tuple[str, ...] = ()
) -> int:
    folder = private(folders(os.environ).state) / "detached"
    with written(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="up-", suffix=".events", dir=folder)
    with os.fdopen(handle, "wb") as events:
        child = subprocess.Popen(
            _command(more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=events,
            env={**os.environ, "TOWLINE_DETACHED": "1"},
            start_new_session=True,
        )
    reached = "command-started" if wait == "started" else "takeover"
    # Without a command the service comes with a process that is not started before this
    # returns.
    until = {e.name: "holding" if e.command is None else reached for e in entries}
    try:
        deadline_s = max(max(e.timeout_s, e.resources_timeout_s) for e in entries) + _SLACK_S
        return _follow(Path(name), child, until=until, deadline_s=deadline_s, show=show)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        return 130
    finally:
        Path(name).unlink(missing_ok=True)


def _command(more: tuple[str, ...]) -> list[str]:
    """This very command line without `--detach`, its events as JSON, with nobody to ask."""
    words = sys.argv[1:]
    own, rest = (words, [])
    if "--" in words:
        own, rest = words[: words.index("--")], words[words.index("--") :]
    kept = [w for w in own if w not in ("-d", "--detach")]
    return [sys.executable, "-m", "towline.cli.main", *kept, *more, "-o", "json", *rest]


def _follow(
    events: Path,
    child: subprocess.Popen[bytes],
    *,
    until: dict[str, str],
    deadline_s: float,
    show: _Show,
) -> int:
    deadline = time.monotonic() + deadline_s
    with events.open() as file:
        while True:
            line = file.readline()
            if line.endswith("\n"):
                service, step = show(line)
                # One alone is not named in its events.
                name = service or next(iter(until))
                if until.get(name) == step:
                    del until[name]
                if not until:
                    return 0
                continue
            if line:
                file.seek(file.tell() - len(line))
            code = child.poll()
            if code is not None:
                for late in file:
                    show(late)
                return code if code >= 0 else 128 - code
            if time.monotonic() > deadline:
                child.send_signal(signal.SIGTERM)
                child.wait()
                raise PodError(
                    f"the service is not here after {deadline_s:.0f} s; the session was ended",
                    hint="without --detach the command's own output says why",
                )
            time.sleep(_LOOK_EVERY_S)


class _Show:
    """Shows the child's lines, and tells which service and step each one means.

    Attributes:
        errors: its last words, in those of `main`, kept until it is known what they mean.
    """

    def __init__(self, output: str, names: tuple[str, ...]) -> None:
        from towline.ui.prefixed import prefixes
        from towline.ui.terminal import Terminal, wants_colour

        self.errors: list[str] = []
        self._output = output
        self._terminals: dict[object, Terminal] = {None: Terminal()}
        if len(names) > 1:
            found = prefixes(names, colour=wants_colour(sys.stderr, os.environ))
            self._terminals |= {name: Terminal(prefix=text) for name, text in found.items()}

    def __call__(self, line: str) -> tuple[str | None, str | None]:
        from towline.ui.lines import event_of

        try:
            values: dict[str, Any] = json.loads(line)
        except ValueError:
            self.errors.append(line.rstrip("\n"))
            return None, None
        service = values.get("service")
        if self._output == "json":
            sys.stderr.write(line)
        elif (event := event_of(values)) is not None:
            self._terminals[service](event)
        name = str(values.get("event"))
        is_here = values.get("stage") == "takeover" and name == "stage-done"
        return service, "takeover" if is_here else name
