"""The port over `kubernetes.aio`: the official client connects and signs in, objects stay JSON."""

import contextlib
import json
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from mesh.kube.kinds import EVENT, KINDS
from mesh.kube.port import (
    FIELD_MANAGER,
    REFUSALS,
    Gone,
    Json,
    Kind,
    KubeEvent,
    KubeFailed,
    Listing,
)

log = logging.getLogger(__name__)

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
PAGE = 500
CALL_S = 30.0
# The API server ends a watch after that; one that went silent is not trusted for longer.
WATCH_S = 240
SLACK_S = 15
EVENTS_KEPT = 1_000
MAX_MESSAGE = 1_024
NOT_FOUND, GONE = 404, 410

Query = Mapping[str, str]


class NoCluster(Exception):
    """There is nothing to connect to, or no way to."""


async def api_client(kubeconfig: Path | None) -> Any:
    """A `kubernetes.aio` client of this pod's cluster, or of a kubeconfig; close it.

    Raises NoCluster.
    """
    try:
        from kubernetes.aio import client, config
    except ImportError as error:
        raise NoCluster("the extra `kubernetes` of wml-serving is not installed") from error
    # Made anew: the default one may carry somebody else's token.
    configuration: Any = client.Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                str(kubeconfig), client_configuration=configuration
            )
    except config.ConfigException as error:
        raise NoCluster(str(error)) from error
    return client.ApiClient(configuration)


class KubeClient:
    """A Kube over an API server. `called` is told the verb of each call, for metrics."""

    def __init__(
        self,
        api: Any,
        clock: Callable[[], float],
        called: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._api = api
        self._clock = clock
        self._called = called
        self._events: OrderedDict[tuple[str, ...], tuple[str, int]] = OrderedDict()

    async def list(self, kind: Kind, namespace: str = "", name: str = "") -> Listing:
        items: list[Json] = []
        page: dict[str, str] = {"limit": str(PAGE), **_only(name)}
        while True:
            answer = await self._call("GET", _path(kind, namespace), page)
            # Items of a list lack what every object has.
            head = {"apiVersion": kind.api_version, "kind": kind.kind}
            items += [{**head, **item} for item in answer.get("items") or ()]
            more = answer["metadata"].get("continue")
            if not more:
                return Listing(tuple(items), answer["metadata"]["resourceVersion"])
            page["continue"] = more

    async def watch(
        self, kind: Kind, namespace: str = "", after: str = "", name: str = ""
    ) -> AsyncGenerator[KubeEvent, None]:
        query = {
            **_only(name),
            "watch": "1",
            "resourceVersion": after,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        with _failures():
            response = await self._open("GET", _path(kind, namespace), query, WATCH_S + SLACK_S)
            with contextlib.closing(response):
                await _check(response)
                async for line in response.content:
                    event = _event(json.loads(line))
                    yield event

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        with _absent():
            return await self._call("GET", _path(kind, namespace, name))
        return None

    async def apply(
        self, obj: Json, *, manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Json:
        query = {"fieldManager": manager, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
        return await self._call("PATCH", _path_of(obj), query, obj, APPLY)

    async def apply_status(self, obj: Json) -> Json | None:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        with _absent():
            return await self._call("PATCH", f"{_path_of(obj)}/status", query, obj, APPLY)
        return None

    async def create(self, obj: Json) -> Json:
        """Raises KubeFailed with 409 where it exists."""
        path = _path_of(obj).rpartition("/")[0]
        return await self._call("POST", path, {}, obj)

    async def replace(self, obj: Json) -> Json:
        """Raises KubeFailed with 409 where it is not at its resourceVersion any more."""
        return await self._call("PUT", _path_of(obj), {}, obj)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        with _absent():
            query = {"propagationPolicy": "Background"}
            await self._call("DELETE", _path(kind, namespace, name), query)

    async def event(
        self, about: Json, reason: str, message: str, *, is_warning: bool = False
    ) -> None:
        try:
            await self._write_event(about, reason, message, is_warning=is_warning)
        except KubeFailed as error:
            if error.status not in REFUSALS:
                raise
            fields = {"about": about["metadata"]["name"], "reason": reason, "problem": str(error)}
            log.warning("event refused", extra=fields)

    async def _write_event(
        self, about: Json, reason: str, message: str, *, is_warning: bool
    ) -> None:
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        key = (namespace, meta.get("uid", meta["name"]), reason, message)
        now = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name, count = self._events.pop(key, ("", 0))
        if name:
            patch = {"count": count + 1, "lastTimestamp": now}
            with _absent():
                path = _path(EVENT, namespace, name)
                await self._call("PATCH", path, {}, patch, MERGE)
                self._remember(key, name, count + 1)
                return
        name = f"{meta['name']}.{secrets.token_hex(8)}"
        place = {"namespace": namespace}
        same = ("uid", "name", "namespace", "resourceVersion")
        body = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, **place},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                **{field: meta[field] for field in same if field in meta},
            },
            "type": "Warning" if is_warning else "Normal",
            "reason": reason,
            "message": message[:MAX_MESSAGE],
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._call("POST", _path(EVENT, namespace), {}, body)
        self._remember(key, name, 1)

    def _remember(self, key: tuple[str, ...], name: str, count: int) -> None:
        self._events[key] = (name, count)
        while len(self._events) > EVENTS_KEPT:
            self._events.popitem(last=False)

    async def _call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Json | None = None,
        content_type: str = JSON,
    ) -> Json:
        with _failures():
            response = await self._open(method, path, query or {}, CALL_S, body, content_type)
            with contextlib.closing(response):
                await _check(response)
                answer: Json = await response.json()
                return answer

    async def _open(
        self,
        method: str,
        path: str,
        query: Query,
        limit_s: float,
        body: Json | None = None,
        content_type: str = JSON,
    ) -> aiohttp.ClientResponse:
        self._called(method)
        prepared = await self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": JSON, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(*prepared, _request_timeout=limit_s)
        response: aiohttp.ClientResponse = answer.response
        return response


def _only(name: str) -> Query:
    """RBAC for one named object admits a list and a watch of that name alone."""
    return {"fieldSelector": f"metadata.name={name}"} if name else {}


def _path(kind: Kind, namespace: str, name: str = "") -> str:
    root = "/api" if "/" not in kind.api_version else "/apis"
    place = f"/namespaces/{namespace}" if kind.namespaced and namespace else ""
    return f"{root}/{kind.api_version}{place}/{kind.plural}" + (f"/{name}" if name else "")


def _path_of(obj: Json) -> str:
    kind = KINDS[obj["apiVersion"], obj["kind"]]
    return _path(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _event(line: Json) -> KubeEvent:
    if line["type"] == "ERROR":
        status = line["object"]
        if status.get("code") == GONE:
            raise Gone
        raise KubeFailed(int(status.get("code") or 0), str(status.get("message")))
    return KubeEvent(line["type"], line["object"])


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    try:
        message = (await response.json()).get("message") or response.reason
    except (ValueError, aiohttp.ClientError):
        message = response.reason
    if response.status == GONE:
        raise Gone
    raise KubeFailed(response.status, str(message))


@contextlib.contextmanager
def _failures() -> Any:
    """What can go wrong on the way, as KubeFailed without a status."""
    try:
        yield
    except (aiohttp.ClientError, OSError, EOFError, ValueError) as error:
        raise KubeFailed(0, str(error) or type(error).__name__) from error


@contextlib.contextmanager
def _absent() -> Any:
    """Passes over that the object is not there."""
    try:
        yield
    except KubeFailed as error:
        if error.status != NOT_FOUND:
            raise
