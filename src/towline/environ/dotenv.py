"""Files of variables: the manifest's `envFiles`, and `-e` on the command line.

The reader itself is `towline.manifest.dotenv`, where its rules are written down:
the manifest needs it for the `.env` beside it, and imports go one way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from towline.errors import ManifestError, UsageError
from towline.manifest.dotenv import Assignment, read_dotenv
from towline.manifest.places import Findings

__all__ = ["Assignment", "assignments_of", "from_files", "from_options", "read_dotenv"]


def from_files(paths: Iterable[Path], *, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of several files; a later file beats an earlier one.

    Raises:
        ManifestError: as `assignments_of`.
    """
    found = assignments_of(paths, environ=environ)
    return {each.name: each.value for each in found if each.value is not None}


def assignments_of(paths: Iterable[Path], *, environ: Mapping[str, str]) -> list[Assignment]:
    """Every variable of several files that has a value, in order: a later one is in force.

    A name without a value takes the laptop's, and is left out where that is unset.

    Raises:
        ManifestError: a file is not there or has a line that cannot be read; one
            line for each problem of all the files.
    """
    findings = Findings()
    made: list[Assignment] = []
    for path in paths:
        variables = {a.name: a.value or "" for a in made} | dict(environ)
        text = _text(path)
        for each in read_dotenv(text, file=str(path), variables=variables, findings=findings):
            value = environ.get(each.name) if each.value is None else each.value
            if value is not None:
                made.append(replace(each, value=value))
    findings.raise_errors()
    return made


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
