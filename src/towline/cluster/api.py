"""The Kubernetes API: objects in, objects out, errors mapped to the tree in `errors`.

Objects are the API's own JSON. What is read from them is parsed into frozen values
by `plan`; nothing here knows what a session is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

from towline._kit.objects import JsonObject
from towline.cluster.access import Access
from towline.cluster.http import Answer, ConnectionEnded, Dialler, HttpPool
from towline.errors import (
    ClusterError,
    Conflict,
    CredentialsEnded,
    Forbidden,
    NotFound,
    Refused,
    Unauthorized,
    Unreachable,
)

FIELD_MANAGER = "towline"
_PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
PatchKind = Literal["merge", "strategic", "json"]
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

# The groups of what Towline touches; a table and not discovery, which would be two
# more round trips before the first useful one.
_GROUPS = {
    "configmaps": "api/v1",
    "secrets": "api/v1",
    "services": "api/v1",
    "pods": "api/v1",
    "events": "api/v1",
    "nodes": "api/v1",
    "namespaces": "api/v1",
    "resourcequotas": "api/v1",
    "limitranges": "api/v1",
    "serviceaccounts": "api/v1",
    "persistentvolumeclaims": "api/v1",
    "deployments": "apis/apps/v1",
    "statefulsets": "apis/apps/v1",
    "replicasets": "apis/apps/v1",
    "daemonsets": "apis/apps/v1",
    "endpointslices": "apis/discovery.k8s.io/v1",
    "horizontalpodautoscalers": "apis/autoscaling/v2",
    "networkpolicies": "apis/networking.k8s.io/v1",
    "roles": "apis/rbac.authorization.k8s.io/v1",
    "leases": "apis/coordination.k8s.io/v1",
    "rolebindings": "apis/rbac.authorization.k8s.io/v1",
    "selfsubjectaccessreviews": "apis/authorization.k8s.io/v1",
    "cronjobs": "apis/batch/v1",
    "jobs": "apis/batch/v1",
}
_CLUSTER_WIDE = {"nodes", "namespaces", "selfsubjectaccessreviews"}
# Asked to slow down or told that a part is away: again, by the server's own advice
# or after this long, at most this often.
_RETRY_STATUSES = {429, 500, 502, 503, 504}
_RETRIES = 5
_RETRY_AFTER_S = 1.0


def resource_path(
    resource: str, *, namespace: str, name: str | None = None, subresource: str | None = None
) -> str:
    """The path of a resource: the collection, an object, or its subresource."""
    parts = [_GROUPS[resource]]
    if resource not in _CLUSTER_WIDE:
        parts += ["namespaces", namespace]
    parts.append(resource)
    parts += [part for part in (name, subresource) if part]
    return "/" + "/".join(parts)


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change: ADDED, MODIFIED or DELETED, and the object as it is (or was)."""

    kind: str
    object: JsonObject


class Api:
    """Requests in one namespace with one context's credentials.

    Use as `async with Api(…) as api`; its connections close with it. Safe to use from
    several tasks at once. Every method raises ClusterError or one of its children.
    """

    def __init__(self, access: Access, *, namespace: str, environ: Mapping[str, str]) -> None:
        self.access = access
        self.namespace = namespace
        self.dialler = Dialler(access, environ=environ)
        self._pool = HttpPool(self.dialler)

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()

    async def get(
        self,
        resource: str,
        name: str,
        *,
        subresource: str | None = None,
        metadata_only: bool = False,
    ) -> JsonObject:
        """Read one object, or its metadata alone. Raises NotFound when there is none."""
        accept = _METADATA if metadata_only else _JSON
        return await self.request("GET", self._path(resource, name, subresource), accept=accept)

    async def find(self, resource: str, name: str) -> JsonObject | None:
        """Read one object, or None when there is none."""
        try:
            return await self.get(resource, name)
        except NotFound:
            return None

    async def list_(
        self, resource: str, *, labels: str | None = None, fields: str | None = None
    ) -> JsonObject:
        """Read a list object: `items`, and `metadata.resourceVersion` to watch from."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        return await self.request("GET", self._path(resource, None, None), query=query)

    async def create(
        self, resource: str, body: JsonObject, *, dry_run: bool = False, metadata_only: bool = False
    ) -> JsonObject:
        """Create an object. Raises Conflict when the name is taken, Refused, Forbidden.

        With `metadata_only` the answer is the object's metadata: for large ones.
        """
        query = {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else None}
        path = self._path(resource, None, None)
        accept = _METADATA if metadata_only else _JSON
        return await self.request("POST", path, query=query, body=body, accept=accept)

    async def patch(
        self,
        resource: str,
        name: str,
        body: Any,
        *,
        kind: PatchKind = "merge",
        subresource: str | None = None,
        dry_run: bool = False,
        metadata_only: bool = False,
    ) -> JsonObject:
        """Patch an object. With `metadata.resourceVersion` in the patch, Conflict if it moved.

        With `metadata_only` the answer is the object's metadata: for large ones.
        """
        query = {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else None}
        path = self._path(resource, name, subresource)
        accept = _METADATA if metadata_only else _JSON
        return await self.request("PATCH", path, query=query, body=body, patch=kind, accept=accept)

    async def delete(
        self, resource: str, name: str, *, uid: str | None = None, grace_s: int | None = None
    ) -> bool:
        """Delete an object, and by garbage collection what it owns; False if it was not there.

        With `uid`, only that very object: another of the same name is left (Conflict).
        """
        body: JsonObject = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            await self.request("DELETE", self._path(resource, name, None), body=body)
        except NotFound:
            return False
        return True

    async def text(self, resource: str, name: str, subresource: str, query: dict[str, str]) -> str:
        """Read a subresource that is not JSON: a pod's log."""
        answer = await self._send("GET", self._path(resource, name, subresource), query, b"", [])
        return answer.body.decode(errors="replace")

    async def follow(
        self, resource: str, name: str, subresource: str, query: dict[str, str]
    ) -> AsyncIterator[bytes]:
        """The same as it grows, until there is no more of it.

        Raises:
            Unreachable: the network went away meanwhile.
        """
        path = self._path(resource, name, subresource)
        target = f"{self.dialler.base_path}{path}?{urlencode({**query, 'follow': 'true'})}"
        headers = await self.access.headers()
        async with self._pool.stream(target, headers=headers) as (refused, chunks):
            if refused is not None:
                raise _error(refused, method="GET", path=path, access=self.access)
            try:
                async for chunk in chunks:
                    yield chunk
            except ConnectionEnded as error:
                raise Unreachable(f"the API server ended the connection: {error}") from error

    def _path(self, resource: str, name: str | None, subresource: str | None) -> str:
        return resource_path(resource, namespace=self.namespace, name=name, subresource=subresource)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: Any = None,
        patch: PatchKind = "merge",
        accept: str = _JSON,
    ) -> JsonObject:
        """Send one request and return the object that answers it."""
        content = _PATCH_TYPES[patch] if method == "PATCH" else "application/json"
        headers = [("Accept", accept), ("Content-Type", content)]
        data = json.dumps(body, separators=(",", ":")).encode() if body is not None else b""
        answer = await self._send(method, path, query or {}, data, headers)
        try:
            parsed = json.loads(answer.body)
        except ValueError as error:
            raise ClusterError(
                f"{self.dialler.host_header} answered {method} {path} with something that is "
                "not JSON: is it a Kubernetes API server?"
            ) from error
        assert isinstance(parsed, dict)
        return parsed

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None],
        data: bytes,
        headers: list[tuple[str, str]],
    ) -> Answer:
        wanted = {k: v for k, v in query.items() if v is not None}
        target = self.dialler.base_path + path + (f"?{urlencode(wanted)}" if wanted else "")
        renewed = False
        for attempt in range(_RETRIES + 1):
            credentials = await self.access.headers()
            answer = await self._pool.request(
                method, target, headers=[*headers, *credentials], body=data
            )
            if answer.status == 401 and not renewed:
                renewed = True
                self.access.forget()
                continue
            # 429 says that nothing was done. The others do not; but whoever writes counts on
            # lost answers anyway: what was made already is a conflict with one's own object.
            if answer.status in _RETRY_STATUSES and attempt < _RETRIES:
                await asyncio.sleep(answer.retry_after_s(_RETRY_AFTER_S))
                continue
            break
        if answer.status != 401:
            self.access.accepted()
        if answer.status >= 300:
            raise _error(answer, method=method, path=path, access=self.access)
        return answer

    async def watch(
        self,
        resource: str,
        *,
        resource_version: str,
        labels: str | None = None,
        fields: str | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes since `resource_version` until the server ends the watch.

        It ends without an error when the server's time for it is over, the connection
        breaks, or the version is too old: list again and watch from there
        (`continuous_watch` in `cluster.watch` does). A server that throttles or fails is
        given the time that it asks for before this raises.
        """
        query = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
        }
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        target = f"{self.dialler.base_path}{self._path(resource, None, None)}?{urlencode(query)}"
        headers = [("Accept", "application/json"), *await self.access.headers()]
        async with self._pool.stream(target, headers=headers) as (refused, chunks):
            if refused is not None:
                if refused.status in _RETRY_STATUSES:
                    await asyncio.sleep(refused.retry_after_s(_RETRY_AFTER_S))
                if refused.status == 401:
                    # Whoever lists again does it with fresh ones, and hears if they are no better.
                    self.access.forget()
                    raise CredentialsEnded("a watch's credentials are not accepted any more")
                raise _error(refused, method="WATCH", path=resource, access=self.access)
            buffer = b""
            with suppress(ConnectionEnded):
                async for chunk in chunks:
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            return
                        yield WatchEvent(event["type"], event["object"])


# Answered with 403, as missing rights are, but no right would help.
_REFUSALS = (
    "exceeded quota",
    "PodSecurity",
    "admission webhook",
    "ValidatingAdmissionPolicy",
    "is being terminated",
)


def _error(answer: Answer, *, method: str, path: str, access: Access) -> ClusterError:
    try:
        status = json.loads(answer.body)
        message = str(status["message"])
        reason = str(status.get("reason") or "")
    except (ValueError, KeyError, TypeError):
        text = " ".join(answer.body[:300].decode(errors="replace").split())
        message, reason = text or f"HTTP {answer.status} to {method} {path}", ""
    code = answer.status
    if code == 401:
        return access.refused(
            Unauthorized(
                f"context {access.target.context!r} is not accepted by its API server: {message}",
                hint="log in again, or choose another context with `--context NAME`",
            )
        )
    if any(word in message for word in _REFUSALS):
        return Refused(message, hint=_refused_hint(message))
    if code == 403:
        return Forbidden(
            message, hint="`towline doctor` lists the rights it needs; docs/rights.yaml grants them"
        )
    if code == 404:
        return NotFound(message)
    if code == 409:
        return Conflict(message)
    if code in (400, 422):
        return Refused(message)
    if code in _RETRY_STATUSES or code >= 500:
        return Unreachable(f"the API server failed ({code} {reason}): {message}".replace(" )", ")"))
    return ClusterError(message)


def _refused_hint(message: str) -> str:
    if "exceeded quota" in message:
        return "the quota leaves no room: `towline up --handover exclusive`, or ask for more"
    if "PodSecurity" in message:
        return "the original's own pod template does not meet the namespace's Pod Security level"
    if "is being terminated" in message:
        return "the namespace is being deleted"
    return "whoever set up this check in the cluster can say what it wants"
