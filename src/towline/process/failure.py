"""Why a command could not be started, as a sentence to act on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from towline.errors import CommandError


def command_failure(stage: str, number: int, *, name: str, cwd: str) -> CommandError:
    """The sentence for an errno that came up while the command was being started."""
    reason = os.strerror(number) if number else stage
    if stage == "cwd":
        if number == errno.ENOENT:
            reason = "there is no such folder"
        return CommandError(
            f"the command's folder {cwd} cannot be entered: {reason}",
            hint="change 'workdir' in the manifest; it is relative to the manifest's folder",
        )
    if stage == "interpreter":
        return CommandError(
            f"'{name}' cannot be run: the interpreter in its first line is not there",
            hint="look at what stands after '#!' in it",
        )
    if number == errno.ENOENT and "/" not in name:
        return CommandError(
            f"there is no command '{name}' on this machine",
            hint="install it, or change 'command' in the manifest; it is looked for in PATH",
        )
    if number == errno.ENOENT:
        return CommandError(
            f"there is no file {Path(cwd, name)} to run",
            hint="change 'command' in the manifest; it is relative to 'workdir'",
        )
    if number == errno.EACCES:
        return CommandError(
            f"'{name}' may not be executed",
            hint=f"make it executable: chmod +x {name}",
        )
    return CommandError(f"'{name}' cannot be started: {reason}")
