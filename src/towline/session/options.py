"""What the command line says of one `up`, beside the manifest."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of one `up`.

    Attributes:
        variables: `-e NAME=VALUE`: above everything else in the process's environment.
        ask: asks a question and returns the answer; None where nobody is there.
        offer: waits until one of some keys is pressed, and returns it; None likewise.
        assume_yes: take every question as answered with yes.
        exit_with_command: end the session when the command fails, too.
        no_guard: post no guard in the cluster.
        restart_on_change: restart the command when a ConfigMap or Secret of its environment
            changes.
        terminal: lend the terminal to the command.
        outputs: where the command's stdout and stderr go, with nothing on its stdin; None is
            to ours.
        before_change: awaited once all is decided, before anything is changed.
        keep_output: keep the command's output in a file, for `logs` (`--detach`).
    """

    manifest: Path
    kubeconfig: str
    variables: tuple[tuple[str, str], ...] = ()
    ask: Callable[[str], Coroutine[None, None, bool]] | None = None
    offer: Callable[[str], Coroutine[None, None, str]] | None = None
    assume_yes: bool = False
    end_other_session: bool = False
    exit_with_command: bool = False
    no_guard: bool = False
    restart_on_change: bool = False
    terminal: bool = True
    outputs: tuple[int, int] | None = None
    before_change: Callable[[], Coroutine[None, None, None]] | None = None
    keep_output: bool = False
    ready_timeout_s: float = 120.0
