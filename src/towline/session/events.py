"""What happens in a session, as values; the UI shows them, nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """A session begins: its id finds its processes and files."""

    session: str
    entry: str
    mode: str
    namespace: str
    context: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDone:
    """A stage of design §10 is done."""

    stage: str
    text: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The dev workload is made; what follows is the cluster's time."""

    workload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A stage takes longer, and this is what it waits for."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something worth knowing that stops nothing."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSynced:
    """With `sync.verbose`: a path went over, or is gone there, too.

    Attributes:
        to: `container` or `laptop`.
    """

    path: str
    to: str
    is_gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandStarting:
    """The local process is about to run; from here on the terminal is its own."""

    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandStarted:
    """The process runs: on this machine, with its pid, or in the dev container (None)."""

    pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEnded:
    """The local process ended, by itself or by a signal."""

    code: int | None
    signal: int | None
    session_goes_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """There is no command: the session waits for a process that somebody else starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateChanged:
    """The Service's way to the process opened or shut.

    Attributes:
        where: whose ports they are, as a person calls it.
        original_serves: meanwhile the original answers, which is kept.
    """

    is_open: bool
    ports: tuple[int, ...]
    where: str = "localhost"
    original_serves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentChanged:
    """A ConfigMap or Secret that the container's environment uses has changed.

    Attributes:
        object: which one, such as `ConfigMap frontend`.
        names: the variables that the process would get with another value.
        restarts: whether the process is restarted with them now (`--restart-on-change`).
    """

    object: str
    names: tuple[str, ...]
    restarts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLost:
    """Nothing comes from the cluster any more; connections wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkBack:
    """The line is whole again, with every byte."""

    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReplaced:
    """The dev pod was lost; a new one stands in.

    Attributes:
        process_kept: the local process kept running; else the command starts again there,
            after the files.
    """

    pod: str
    after_s: float
    process_kept: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TakingAnew:
    """The guard has ended the session meanwhile: the service is taken over once more.

    Attributes:
        process_kept: as in `PodReplaced`.
    """

    entry: str
    reason: str
    process_kept: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenAnew:
    """The session that follows one that was ended: its id in the cluster is another."""

    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WillRestore:
    """What gives the cluster back: the session's end, and a guard if there is one (seconds)."""

    by_itself_after_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring:
    """The way back has begun, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The cluster is as it was."""

    text: str
    seconds: float


Event = (
    Began
    | StageDone
    | Applied
    | Waiting
    | Warned
    | PathSynced
    | CommandStarting
    | CommandStarted
    | CommandEnded
    | Holding
    | GateChanged
    | EnvironmentChanged
    | NetworkLost
    | NetworkBack
    | PodReplaced
    | TakingAnew
    | TakenAnew
    | WillRestore
    | Restoring
    | Restored
)
Events = Callable[[Event], None]
