"""The one error of this program: a sentence for the user, and the exit code."""

from __future__ import annotations


class Problem(Exception):
    """What went wrong, the value found and the next step, in one message."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
