"""The manifest's JSON Schema, made of the same shapes that read it."""

from __future__ import annotations

from towline.manifest.fields import MANIFEST_FIELDS
from towline.manifest.records import Record
from towline.manifest.shapes import Json

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> Json:
    """A JSON Schema (draft 2020-12) of a towline.yml.

    An okteto.yml fits it too, but for sections that only a later Okteto knows:
    `validate` lets those pass, an editor marks them.
    """
    return {
        "$schema": DIALECT,
        "title": "Towline manifest",
        "description": "What can be developed of an app on Kubernetes, and how.",
        **Record(MANIFEST_FIELDS).schema(),
    }
