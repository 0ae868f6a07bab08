"""Files of variables: the manifest's `envFiles`, and `-e` on the command line.

The reader itself is `towline.manifest.dotenv`, where its rules are written down:
the manifest needs it for the `.env` beside it, and imports go one way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from towline.errors import ManifestError, UsageError
from towline.manifest.dotenv import Assignment, read_dotenv
from towline.manifest.places import Findings

__all__ = ["Assignment", "from_files", "from_options", "read_dotenv"]


def from_files(paths: Iterable[Path], *, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of several files; a later file beats an earlier one.

    A name without a value takes the laptop's, and is left out where that is unset.

    Raises:
        ManifestError: a file is not there or has a line that cannot be read; one
            line for each problem of all the files.
    """
    findings = Findings()
    values: dict[str, str] = {}
    for path in paths:
        text = _text(path)
        read = read_dotenv(text, file=str(path), variables={**values, **environ}, findings=findings)
        for assignment in read:
            value = assignment.value
            if value is None:
                value = environ.get(assignment.name)
            if value is not None:
                values[assignment.name] = value
    findings.raise_errors()
    return values


def from_options(options: Iterable[str], *, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `-e NAME=value` and `-e NAME` (the laptop's value, if set).

    Raises:
        UsageError: an option has no name.
    """
    values: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not name or "\0" in option:
            raise UsageError(f"-e '{option}' names no variable", hint="write -e NAME=value")
        if equals:
            values[name] = value
        elif name in environ:
            values[name] = environ[name]
    return values


def _text(path: Path) -> str:
    try:
        # Bytes that are not UTF-8 come through to the process as they are.
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ManifestError(
            f"{path}:1:1: cannot be read: {error.strerror or error}",
            hint="change 'envFiles' in the manifest",
        ) from error
