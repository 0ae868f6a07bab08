"""`towline validate`, `config`, `schema`: the manifest, without any cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from towline.cli.common import manifest_option, output_option, read_manifest
from towline.errors import UsageError

if TYPE_CHECKING:
    from towline.manifest import Manifest

_VALIDATE_EPILOG = """\b
Examples:
  towline validate                   the manifest here or above
  towline validate -f okteto.yml     this one
  towline validate -o json           the result for programs

Ends with 3 if there are problems: one line each, FILE:LINE:COLUMN: message.
"""

_CONFIG_EPILOG = """\b
Examples:
  towline config                     all entries, as a towline.yml
  towline config frontend            only this one
  towline config -o json             for programs; every field is there, null or empty

The values of `environment` are printed as they are, secrets too.
"""

_SCHEMA_EPILOG = """\b
Example:
  towline schema > .towline.schema.json

and in the first line of towline.yml, for editors with the YAML language server:
  # yaml-language-server: $schema=.towline.schema.json
"""


@click.command(epilog=_VALIDATE_EPILOG)
@manifest_option
@output_option
def validate(file: Path | None, output: str) -> None:
    """Check the manifest: every problem at once, each with its place."""
    from towline.errors import ManifestError

    try:
        manifest = read_manifest(file)
    except ManifestError as error:
        if output == "json":
            _print({"valid": False, "problems": error.message.splitlines(), "notices": []})
            raise click.exceptions.Exit(error.exit_code) from error
        raise
    notices = [*manifest.notices, *_missing(manifest)]
    if output == "json":
        _print({"valid": True, "problems": [], "notices": notices})
        return
    for notice in notices:
        click.echo(notice, err=True)
    names = ", ".join(f"{e.name} ({e.mode})" for e in manifest.entries.values())
    click.echo(f"{manifest.path.name} is good: {names}")


@click.command(epilog=_CONFIG_EPILOG)
@click.argument("service", required=False)
@manifest_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json", "text"]),
    default="yaml",
    help="A manifest (yaml; text is the same), or JSON for programs.",
)
def config(service: str | None, file: Path | None, output: str) -> None:
    """Print the manifest with everything filled in.

    Defaults, variables, the file it extends, settings and top-level forwards: as
    `up` takes it.
    """
    from towline.manifest.plain import as_manifest, as_plain

    manifest = read_manifest(file)
    plain = as_plain(manifest)
    if service is not None:
        if service not in manifest.entries:
            names = ", ".join(manifest.entries)
            raise UsageError(f"{manifest.path.name} has no entry '{service}'; there are {names}")
        plain["dev"] = {service: plain["dev"][service]}
    if output == "json":
        _print(plain)
        return
    import yaml

    for notice in manifest.notices:
        click.echo(notice, err=True)
    text = yaml.safe_dump(as_manifest(plain), sort_keys=False, allow_unicode=True)
    click.echo(text, nl=False)


@click.command(epilog=_SCHEMA_EPILOG)
@output_option
def schema(output: str) -> None:
    """Print the manifest's JSON Schema, for editors.

    It is JSON in any case.
    """
    from towline.manifest.schema import json_schema

    _print(json_schema())


def _missing(manifest: Manifest) -> list[str]:
    """What entries name on this laptop and is not there.

    Worth telling, but the manifest is good: on another laptop it may be there,
    and `up` is stopped by it for the entry that it takes.
    """
    from towline.errors import ManifestError
    from towline.manifest import check_files

    missing: list[str] = []
    for entry in manifest.entries.values():
        try:
            check_files(entry)
        except ManifestError as error:
            missing += error.message.splitlines()
    return list(dict.fromkeys(missing))


def _print(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
