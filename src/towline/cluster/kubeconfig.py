"""kubeconfig files → one cluster, one user, one namespace.

Merging and precedence as in the Kubernetes documentation ("Organizing Cluster
Access Using kubeconfig Files"): of several files the first that sets a name wins,
relative paths are relative to the file that holds them.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import yaml

from towline.errors import ClusterError, NotFound

# A file and what it holds.
_Document: TypeAlias = tuple[Path, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where an API server is, and how it proves that it is the one.

    Attributes:
        ca_pem: certificates to trust, or None for the system's.
        server_name: the name expected in the server's certificate, when not the host's.
        proxy_url: the cluster's own `proxy-url`, or None.
    """

    server: str
    ca_pem: str | None
    insecure: bool
    server_name: str | None
    proxy_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """How the user proves who they are: what the kubeconfig says, not yet run or read.

    Attributes:
        impersonation: request headers that say as whom to act (`as`, `as-groups`, …).
    """

    token: str | None
    token_file: Path | None
    basic: tuple[str, str] | None
    certificate_pem: bytes | None
    key_pem: bytes | None
    exec_plugin: Mapping[str, Any] | None
    folder: Path
    impersonation: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A context: a cluster, a user and a namespace, under the context's name.

    Attributes:
        files: where it was read, the first that sets a name wins.
    """

    files: tuple[Path, ...]
    context: str
    cluster_name: str
    cluster: Cluster
    user: User
    namespace: str


def kubeconfig_paths(*, explicit: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """The files to read, in order: `--kubeconfig`, else KUBECONFIG's list, else the default."""
    if explicit is not None:
        return [explicit]
    listed = [Path(p) for p in environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return listed or [Path(environ.get("HOME", "~")).expanduser() / ".kube" / "config"]


def read_target(
    *,
    environ: Mapping[str, str],
    kubeconfig: Path | None = None,
    context: str | None = None,
    namespace: str | None = None,
) -> Target:
    """Read the kubeconfig files and pick a context.

    Raises:
        ClusterError: no file, a broken one, or no such context.
    """
    paths = kubeconfig_paths(explicit=kubeconfig, environ=environ)
    documents = _documents(paths)
    if not documents:
        raise ClusterError(
            f"there is no kubeconfig: looked for {', '.join(str(p) for p in paths)}",
            hint="set KUBECONFIG, or start a local cluster: `towline sandbox up`",
        )
    current = context or next(
        (d["current-context"] for _, d in documents if d.get("current-context")), None
    )
    if not current:
        names = ", ".join(_names(documents, "contexts")) or "none"
        raise ClusterError(
            f"no current context in {paths[0]} (contexts: {names})",
            hint="choose one with `--context NAME` or `kubectl config use-context NAME`",
        )
    _, chosen = _named(documents, "contexts", "context", current)
    cluster_name = str(chosen.get("cluster", ""))
    cluster_folder, cluster = _named(documents, "clusters", "cluster", cluster_name)
    return Target(
        files=tuple(path.absolute() for path in paths),
        context=str(current),
        cluster_name=cluster_name,
        cluster=_cluster(cluster, folder=cluster_folder, name=cluster_name),
        user=_user_of(chosen, documents),
        namespace=namespace or str(chosen.get("namespace") or "default"),
    )


def read_user_again(target: Target) -> User:
    """The user of the same context, as the same files have it by now.

    Raises:
        ClusterError: they are not there, are broken, have no such context, or have it for
            another API server, whose credentials are none of this one's business.
    """
    # A pipe has been read; one with a name would be waited at.
    documents = _documents([path for path in target.files if path.is_file()])
    _, chosen = _named(documents, "contexts", "context", target.context)
    name = str(chosen.get("cluster", ""))
    folder, source = _named(documents, "clusters", "cluster", name)
    cluster = _cluster(source, folder=folder, name=name)
    if cluster.server != target.cluster.server:
        raise ClusterError(f"context {target.context!r} leads to {cluster.server} now")
    return _user_of(chosen, documents)


def _documents(paths: Sequence[Path]) -> list[_Document]:
    return [(path, _read(path)) for path in paths if path.exists()]


def _user_of(context: Mapping[str, Any], documents: list[_Document]) -> User:
    if not context.get("user"):
        return _user({}, folder=Path())
    folder, user = _named(documents, "users", "user", str(context["user"]))
    return _user(user, folder=folder)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_bytes(), Loader=_LOADER) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: not a kubeconfig: {_one_line(error)}") from error
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}") from error
    if not isinstance(document, dict):
        raise ClusterError(f"{path}: not a kubeconfig: a mapping is expected")
    for section, key in (("contexts", "context"), ("clusters", "cluster"), ("users", "user")):
        _check_section(path, section, key, document.get(section) or [])
    return document


def _check_section(path: Path, section: str, key: str, items: object) -> None:
    if not isinstance(items, list):
        raise ClusterError(f"{path}: not a kubeconfig: {section} is not a list")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get(key) or {}, dict):
            raise ClusterError(
                f"{path}: not a kubeconfig: {section} holds something without a {key}"
            )


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _names(documents: list[_Document], section: str) -> list[str]:
    return [
        str(item.get("name"))
        for _, document in documents
        for item in document.get(section) or []
        if isinstance(item, dict)
    ]


def _named(
    documents: list[_Document], section: str, key: str, name: str
) -> tuple[Path, dict[str, Any]]:
    for path, document in documents:
        for item in document.get(section) or []:
            if isinstance(item, dict) and item.get("name") == name:
                return path.parent.absolute(), item.get(key) or {}
    known = ", ".join(_names(documents, section)) or "none"
    raise NotFound(
        f"{key} {name!r} is not in the kubeconfig (there: {known})",
        hint="see `kubectl config get-contexts`; choose with `--context NAME`",
    )


def _bytes(source: Mapping[str, Any], key: str, folder: Path) -> bytes | None:
    """The content of `key-data` (base64) or of the file that `key` names; data wins."""
    data = source.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=False)
        except ValueError as error:  # binascii.Error is one; so is what is not ASCII
            raise ClusterError(f"{key}-data in the kubeconfig is not base64: {error}") from error
    name = source.get(key)
    if not name:
        return None
    path = folder / Path(str(name)).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClusterError(f"{key} {path}: {error.strerror}") from error


def _cluster(source: Mapping[str, Any], *, folder: Path, name: str) -> Cluster:
    server = str(source.get("server") or "")
    if not server.startswith(("https://", "http://")):
        raise ClusterError(f"cluster {name!r} in the kubeconfig has no server address")
    ca = _bytes(source, "certificate-authority", folder)
    return Cluster(
        server=server.rstrip("/"),
        ca_pem=ca.decode("ascii", "replace") if ca else None,
        insecure=bool(source.get("insecure-skip-tls-verify")),
        server_name=source.get("tls-server-name"),
        proxy_url=source.get("proxy-url"),
    )


def _user(source: Mapping[str, Any], *, folder: Path) -> User:
    token_file = source.get("tokenFile")
    basic = (
        (str(source["username"]), str(source.get("password") or ""))
        if source.get("username")
        else None
    )
    if source.get("auth-provider"):
        raise ClusterError(
            "the kubeconfig uses an auth-provider, which Kubernetes 1.26 removed",
            hint="use the exec plugin of your provider instead",
        )
    return User(
        token=source.get("token"),
        token_file=folder / Path(str(token_file)).expanduser() if token_file else None,
        basic=basic,
        certificate_pem=_bytes(source, "client-certificate", folder),
        key_pem=_bytes(source, "client-key", folder),
        exec_plugin=source.get("exec"),
        folder=folder,
        impersonation=_impersonation(source),
    )


def _impersonation(source: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Kubernetes documentation, "User impersonation": extra keys are escaped as in a URL."""
    if not source.get("as"):
        return ()
    headers = [("Impersonate-User", str(source["as"]))]
    if source.get("as-uid"):
        headers.append(("Impersonate-Uid", str(source["as-uid"])))
    headers += [("Impersonate-Group", str(group)) for group in source.get("as-groups") or []]
    for key, values in (source.get("as-user-extra") or {}).items():
        name = f"Impersonate-Extra-{quote(str(key), safe='')}"
        headers += [(name, str(value)) for value in values]
    return tuple(headers)
