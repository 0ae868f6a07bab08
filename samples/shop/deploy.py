"""Print the shop's Kubernetes objects, for `kubectl apply -f -`; the standard library only.

    python3 deploy.py render --namespace shop            images built for the sandbox
    python3 deploy.py render --namespace shop --public   public images, source from ConfigMaps
    python3 deploy.py tags                               the public images' names, as flags
                                                         for `sandbox image`

The files in k8s/ are whole as they are (`kubectl apply -f k8s`). For the public
images the lines that begin with `#public` count too, and the images are others:
their names come from SHOP_NODE_IMAGE, SHOP_PYTHON_IMAGE and SHOP_REDIS_IMAGE,
where a mirror has them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NAMESPACE = "shop"


@dataclass(frozen=True, slots=True)
class Public:
    """A public image that stands in for one of the shop's own."""

    runtime: str
    variable: str
    default: str
    instead_of: str

    @property
    def name(self) -> str:
        return os.environ.get(self.variable) or self.default


PUBLIC = (
    Public("node", "SHOP_NODE_IMAGE", "node:22-slim", "towline.local/shop-frontend:1"),
    Public("python", "SHOP_PYTHON_IMAGE", "python:3.12-slim", "towline.local/shop-api:1"),
    Public("redis", "SHOP_REDIS_IMAGE", "redis:7", "towline.local/shop-db:1"),
)
SOURCES = {
    "api": ("server.py",),
    "frontend": ("package.json", "server.js"),
}


def render(*, namespace: str, public: bool) -> str:
    """The objects as a stream of YAML documents, the namespace first."""
    documents = [path.read_text() for path in sorted((FOLDER / "k8s").glob("*.yaml"))]
    if public:
        documents[1:1] = source_config_maps()
        documents = [with_public_images(document) for document in documents]
    return "---\n".join(in_namespace(document, namespace) for document in documents)


def source_config_maps() -> Iterator[str]:
    for name, files in SOURCES.items():
        yield (
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    # The key `namespace` is put in by `in_namespace`, as everywhere.
                    "metadata": {"name": f"{name}-source", "namespace": NAMESPACE},
                    "data": {file: (FOLDER / name / file).read_text() for file in files},
                }
            )
            + "\n"
        )


def with_public_images(document: str) -> str:
    document = re.sub(r"^( *)#public ", r"\1", document, flags=re.MULTILINE)
    for image in PUBLIC:
        document = document.replace(f"image: {image.instead_of}\n", f"image: {image.name}\n")
    return document


def in_namespace(document: str, namespace: str) -> str:
    document = document.replace(f"\n  namespace: {NAMESPACE}\n", f"\n  namespace: {namespace}\n")
    document = document.replace(f'"namespace": "{NAMESPACE}"', f'"namespace": "{namespace}"')
    return re.sub(
        rf"(kind: Namespace\nmetadata:\n  name: ){NAMESPACE}\n", rf"\g<1>{namespace}\n", document
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rendering = commands.add_parser("render", help="print the objects")
    rendering.add_argument("--namespace", default=NAMESPACE)
    rendering.add_argument("--public", action="store_true", help="public images")
    commands.add_parser("tags", help="print flags for `sandbox image`")
    arguments = parser.parse_args()
    if arguments.command == "tags":
        print(" ".join(f"--tag={image.runtime}={image.name}" for image in PUBLIC))
    else:
        sys.stdout.write(render(namespace=arguments.namespace, public=arguments.public))
    return 0


if __name__ == "__main__":
    sys.exit(main())
