"""The keys of one session: made for it, gone with it."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass

USER = "towline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A session's keys as text, so that they can be kept in a private file.

    Attributes:
        client_private: OpenSSH private key.
        host_public: the agent's host key, one line.
        line_key: 32 bytes.
    """

    client_private: str
    host_public: str
    line_key: bytes

    def to_json(self) -> str:
        return json.dumps(
            {
                "client_private": self.client_private,
                "host_public": self.host_public,
                "line_key": base64.b64encode(self.line_key).decode(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Keys:
        values = json.loads(text)
        return cls(
            client_private=values["client_private"],
            host_public=values["host_public"],
            line_key=base64.b64decode(values["line_key"]),
        )


def make_keys() -> tuple[Keys, dict[str, bytes]]:
    """Make a session's keys; returns the laptop's, and the agent's files by name.

    Takes some 30 ms, most of it the import: for a thread, beside the first requests.
    """
    # asyncssh makes keys as well, but takes 0.2 s to import: the keys are needed before
    # the dev pod is made, SSH only when it runs, so that import waits for the pod.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    def private(key: Ed25519PrivateKey) -> bytes:
        return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())

    def public(key: Ed25519PrivateKey) -> bytes:
        return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)

    client, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    line_key = secrets.token_bytes(32)
    keys = Keys(
        client_private=private(client).decode(),
        host_public=public(host).decode(),
        line_key=line_key,
    )
    files = {
        "host_key": private(host),
        "client_key": public(client) + b" " + USER.encode() + b"\n",
        "line_key": line_key,
    }
    return keys, files
