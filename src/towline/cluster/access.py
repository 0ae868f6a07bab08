"""Credentials that stay fresh: the headers and the TLS settings of each connection.

Exec plugins speak client.authentication.k8s.io (v1, v1beta1): the Kubernetes
documentation, "client-go credential plugins".
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from towline.cluster.kubeconfig import Target, User, read_user_again
from towline.errors import ClusterError, CredentialsEnded, Unauthorized

# Tokens in files are short-lived (projected tokens live an hour and change long
# before); client-go reads such a file again after a minute as well.
_TOKEN_FILE_FRESH = timedelta(minutes=1)
# A credential is renewed a little before it ends, so that no request is sent with
# one that ends on the way.
_EXPIRY_MARGIN = timedelta(seconds=10)
_EXEC_TIMEOUT_S = 60.0
# A plugin may take a second of CPU, and all who need fresh credentials ask again and again.
_FAILED_FOR_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Credential:
    token: str | None
    certificate: tuple[bytes, bytes] | None
    expires: datetime | None

    @property
    def stale(self) -> bool:
        return self.expires is not None and datetime.now(UTC) + _EXPIRY_MARGIN >= self.expires


class Access:
    """One context's credentials, run and read when needed and kept while they are good.

    After a 401 the kubeconfig itself is read again: `oc login`, or a local cluster that was
    made anew, leave what is good from then on there. Safe to use from several tasks: one of
    them renews, the others wait for it.

    Attributes:
        ended: told once when credentials that were good cannot be renewed.
    """

    def __init__(self, target: Target, *, environ: Mapping[str, str]) -> None:
        self.target = target
        self._user = target.user
        self._environ = environ
        self._credential: _Credential | None = None
        self._tls: ssl.SSLContext | None = None
        self._tls_certificate: tuple[bytes, bytes] | None = None
        self._lock = asyncio.Lock()
        self._is_doubted = False
        self._were_accepted = False
        self._failed: tuple[float, CredentialsEnded] | None = None
        self.ended: Callable[[CredentialsEnded], None] = lambda error: None

    async def headers(self) -> list[tuple[str, str]]:
        """The request headers that carry the credentials.

        Raises:
            CredentialsEnded: they were good before, and cannot be renewed now.
            ClusterError: the exec plugin or the token file failed.
        """
        credential = await self._fresh()
        user = self._user
        if credential.token:
            return [("Authorization", f"Bearer {credential.token}"), *user.impersonation]
        if user.basic:
            pair = base64.b64encode(":".join(user.basic).encode()).decode("ascii")
            return [("Authorization", f"Basic {pair}"), *user.impersonation]
        return [*user.impersonation]

    async def tls(self) -> ssl.SSLContext | None:
        """The TLS settings of a new connection, or None for plain http."""
        if self.target.cluster.server.startswith("http://"):
            return None
        credential = await self._fresh()
        if self._tls is None:
            self._tls = self._make_tls(credential.certificate)
            self._tls_certificate = credential.certificate
        return self._tls

    def forget(self) -> None:
        """Drop what is kept: the API server answered 401. The next use renews it."""
        self._credential = None
        self._is_doubted = True

    def accepted(self) -> None:
        """The API server answered something else than 401."""
        self._were_accepted, self._failed = True, None

    def refused(self, error: Unauthorized) -> ClusterError:
        """What a 401 is to whoever asked, when renewing did not help.

        Returns:
            `error`; of credentials that were good before, a CredentialsEnded.
        """
        self.forget()
        if not self._were_accepted:
            return error
        return self._ended(error, hint="log in again: the kubeconfig is read anew")

    def _ended(self, error: ClusterError, *, hint: str | None) -> CredentialsEnded:
        # On a laptop that wakes up the plugin's own network, or a login, comes later.
        is_first = self._failed is None
        ended = CredentialsEnded(error.message, hint=hint)
        self._failed = (asyncio.get_running_loop().time(), ended)
        if is_first:
            self.ended(ended)
        return ended

    async def _fresh(self) -> _Credential:
        if self._credential is not None and not self._credential.stale:
            return self._credential
        async with self._lock:
            if self._credential is None or self._credential.stale:
                self._credential = await self._renewed()
                if self._credential.certificate != self._tls_certificate:
                    self._tls = None
            return self._credential

    async def _renewed(self) -> _Credential:
        now = asyncio.get_running_loop().time()
        if self._failed is not None and now - self._failed[0] < _FAILED_FOR_S:
            raise self._failed[1]
        if self._is_doubted:
            # What cannot be read any more, a pipe for example, stays as it was.
            with suppress(ClusterError):
                self._user = read_user_again(self.target)
            self._is_doubted = False
        try:
            return await self._obtain(self._user)
        except ClusterError as error:
            if not self._were_accepted:
                raise
            raise self._ended(error, hint=error.hint) from error

    async def _obtain(self, user: User) -> _Credential:
        certificate = (
            (user.certificate_pem, user.key_pem) if user.certificate_pem and user.key_pem else None
        )
        if user.exec_plugin is not None:
            return await self._run_plugin(user.exec_plugin, folder=user.folder)
        if user.token_file is not None:
            try:
                token = user.token_file.read_text().strip()
            except OSError as error:
                raise ClusterError(f"tokenFile {user.token_file}: {error.strerror}") from error
            expires = datetime.now(UTC) + _TOKEN_FILE_FRESH
            return _Credential(token=token, certificate=certificate, expires=expires)
        return _Credential(token=user.token, certificate=certificate, expires=None)

    async def _run_plugin(self, plugin: Mapping[str, Any], *, folder: Path) -> _Credential:
        command = str(plugin.get("command") or "")
        if os.sep in command and not Path(command).is_absolute():
            command = str(folder / command)
        version = str(plugin.get("apiVersion") or "client.authentication.k8s.io/v1")
        extra = {str(e["name"]): str(e["value"]) for e in plugin.get("env") or []}
        spec: dict[str, Any] = {"interactive": False}
        if plugin.get("provideClusterInfo"):
            spec["cluster"] = self._cluster_info()
        request = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
        environ = {**self._environ, **extra, "KUBERNETES_EXEC_INFO": json.dumps(request)}
        try:
            process = await asyncio.create_subprocess_exec(
                command,
                *[str(a) for a in plugin.get("args") or []],
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = plugin.get("installHint") or "install it, or choose another context"
            raise ClusterError(
                f"credential plugin {command!r} cannot be run: {error.strerror}", hint=str(hint)
            ) from error
        try:
            out, err = await asyncio.wait_for(process.communicate(), _EXEC_TIMEOUT_S)
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise ClusterError(
                f"credential plugin {command!r} did not answer in {_EXEC_TIMEOUT_S:.0f} s",
                hint="run it by hand: it may want to ask something",
            ) from error
        if process.returncode != 0:
            said = err.decode(errors="replace").strip() or "nothing"
            raise Unauthorized(
                f"credential plugin {command!r} ended with {process.returncode} and said: {said}",
                hint="log in again with your provider's own tool",
            )
        return _plugin_credential(out, command=command)

    def _cluster_info(self) -> dict[str, Any]:
        cluster = self.target.cluster
        info: dict[str, Any] = {"server": cluster.server}
        if cluster.ca_pem:
            info["certificate-authority-data"] = base64.b64encode(cluster.ca_pem.encode()).decode()
        if cluster.server_name:
            info["tls-server-name"] = cluster.server_name
        return info

    def _make_tls(self, certificate: tuple[bytes, bytes] | None) -> ssl.SSLContext:
        cluster = self.target.cluster
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if cluster.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif cluster.ca_pem:
            try:
                context.load_verify_locations(cadata=cluster.ca_pem)
            except ssl.SSLError as error:
                raise ClusterError(f"the cluster's certificate authority: {error}") from error
        else:
            context.load_default_certs()
        if certificate is not None:
            _load_certificate(context, certificate)
        return context


def _load_certificate(context: ssl.SSLContext, certificate: tuple[bytes, bytes]) -> None:
    # The ssl module reads certificates from files only. The file is the user's
    # alone (mkstemp: 0600) and gone before this returns.
    handle, name = tempfile.mkstemp(prefix="towline-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate[0] + b"\n" + certificate[1])
        context.load_cert_chain(name)
    except ssl.SSLError as error:
        raise ClusterError(f"the client certificate in the kubeconfig: {error}") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _plugin_credential(out: bytes, *, command: str) -> _Credential:
    try:
        status = json.loads(out)["status"]
        token = status.get("token")
        pair = (status.get("clientCertificateData"), status.get("clientKeyData"))
        expires = status.get("expirationTimestamp")
        when = datetime.fromisoformat(expires.replace("Z", "+00:00")) if expires else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterError(
            f"credential plugin {command!r} printed no ExecCredential with a status"
        ) from error
    certificate = (pair[0].encode(), pair[1].encode()) if pair[0] and pair[1] else None
    return _Credential(token=token, certificate=certificate, expires=when)
