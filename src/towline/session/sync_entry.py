"""A sync entry made ready: what it names on the laptop, read before anything is touched."""

from __future__ import annotations

import os
from dataclasses import replace

from towline.environ.dotenv import assignments_of
from towline.errors import ManifestError
from towline.manifest import check_files
from towline.manifest.model import Command, Entry, SecretFile, Variable
from towline.plan.folders import secret_key, variable_key

# A Secret holds 1 MiB in all, the session's keys included.
_SECRETS_BYTES = 1_000_000
DEFAULT_COMMAND = Command(shell="sh")


def has_default_command(entry: Entry) -> bool:
    """Whether the manifest and the command line name no command."""
    return entry.command == DEFAULT_COMMAND and "command" not in entry.places


def with_all_variables(entry: Entry, options: tuple[tuple[str, str], ...] = ()) -> Entry:
    """The entry with `envFiles` and `-e` in its `environment`: all are the container's.

    Raises:
        ManifestError: an envFile is missing or broken, or has what no pod can.
    """
    found: dict[str, Variable] = {}
    for line in assignments_of(entry.env_files, environ=os.environ):
        found[line.name] = Variable(name=line.name, value=line.value or "", place=line.place)
    found |= {each.name: each for each in entry.environment}
    found |= {n: Variable(name=n, value=value, place=entry.place) for n, value in options}
    for each in found.values():
        try:
            each.value.encode()
        except UnicodeEncodeError:
            raise ManifestError(
                f"{each.place}: the value of '{each.name}' is not UTF-8, and a pod's must be"
            ) from None
    return replace(entry, environment=tuple(found.values()))


def secret_files(entry: Entry) -> dict[str, bytes]:
    """The files of `secrets` and the variables, by their keys in the session's Secret.

    Raises:
        ManifestError: one cannot be read, or all of them are too large.
    """
    files = {secret_key(n): _content(each) for n, each in enumerate(entry.secrets)}
    files |= {variable_key(n): each.value.encode() for n, each in enumerate(entry.environment)}
    size = sum(map(len, files.values()))
    if size > _SECRETS_BYTES:
        raise ManifestError(
            f"{entry.place}: {entry.name}: secrets and variables are {size:,} bytes, and "
            f"{_SECRETS_BYTES:,} fit",
            hint="put what is larger in a synced folder, or in a Secret of your own",
        )
    return files


def _content(each: SecretFile) -> bytes:
    try:
        return each.local.read_bytes()
    except OSError as error:
        text = f"{each.place}: {each.local} cannot be read: {error.strerror or error}"
        raise ManifestError(text) from error


def sync_entry(entry: Entry, options: tuple[tuple[str, str], ...] = ()) -> Entry:
    """As it is run: its files seen to exist, its variables together."""
    check_files(entry)
    return with_all_variables(entry, options)
