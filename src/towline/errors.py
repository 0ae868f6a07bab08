"""Every error that a user can meet, as one tree.

    TowlineError                1  anything else that went wrong
    ├── UsageError              2  the command line itself (as click does)
    ├── ManifestError           3  the manifest, one line per problem
    ├── ClusterError            4  no cluster, wrong context, refused, not found
    │   ├── Unreachable            nobody answers at the API server's address
    │   │   └── CredentialsEnded   they were good, and cannot be renewed at the moment
    │   ├── Unauthorized           the credentials are not (or no longer) good
    │   ├── Forbidden              the rights do not suffice; names verb and resource
    │   ├── NotFound               an object, a container or a namespace is missing
    │   ├── Conflict               somebody else changed it meanwhile
    │   └── Refused                an admission webhook, a quota, a validation said no
    ├── PodError                5  the dev pod does not get to run; the reason it gave
    ├── PortInUse               6  a port cannot be bound, on the laptop or in the pod
    ├── SessionTaken            7  somebody else's session holds the workload
    ├── CommandError            8  the local command cannot be started
    ├── ConnectionLost          9  the session ended because its pod or line is gone
    ├── NeedsConfirmation      10  a question nobody is there to answer; use --yes
    └── Reverted               11  somebody undoes what the takeover changed or made

The number is the exit code. A command's own exit code passes through; 130 is
Ctrl-C before there was a command.
"""

from __future__ import annotations


class TowlineError(Exception):
    """A failure told to the user as one sentence, and one on what to do next.

    Attributes:
        message: names the thing and the value found.
        hint: the next step, or None where there is none to give.
        exit_code: what the process ends with.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TowlineError):
    """The command line does not say what is needed."""

    exit_code = 2


class ManifestError(TowlineError):
    """The manifest has problems; `message` has one line for each.

    A line is `FILE:LINE:COLUMN: what is wrong`.
    """

    exit_code = 3


class ClusterError(TowlineError):
    """The cluster, or the way to it, refused or failed a request."""

    exit_code = 4


class Unreachable(ClusterError):
    """Nobody answers at the API server's address."""


class CredentialsEnded(Unreachable):
    """They were good, have come to their end, and fresh ones cannot be had at the moment."""


class Unauthorized(ClusterError):
    """The API server does not accept the credentials."""


class Forbidden(ClusterError):
    """The credentials are good, the rights do not suffice."""


class NotFound(ClusterError):
    """An object that is needed does not exist."""


class Conflict(ClusterError):
    """An object was changed by somebody else since it was read."""


class Refused(ClusterError):
    """The API server understood and refused: quota, admission, validation."""


class PodError(TowlineError):
    """The dev pod does not get to run."""

    exit_code = 5


class PortInUse(TowlineError):
    """A port cannot be bound, on the laptop or in the pod."""

    exit_code = 6


class SessionTaken(TowlineError):
    """Another session holds the workload."""

    exit_code = 7


class CommandError(TowlineError):
    """The local command cannot be started."""

    exit_code = 8


class ConnectionLost(TowlineError):
    """The session cannot go on: its pod or its line is gone for good."""

    exit_code = 9


class NeedsConfirmation(TowlineError):
    """A question must be answered, and there is no terminal to ask in."""

    exit_code = 10


class Reverted(TowlineError):
    """Somebody undoes the takeover: puts back what it changed, or takes away what it made."""

    exit_code = 11
