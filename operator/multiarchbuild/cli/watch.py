"""Lists and watches, and the logs of containers, each as one stream that survives a broken connection."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import urllib3
from urllib3.exceptions import HTTPError

from multiarchbuild.api.foreign import NonsenseError, parse_object
from multiarchbuild.plan.children import STEP_CONTAINER

from .errors import NotFoundError, UnreachableError
from .kube import CORE, Cluster, Object

_WATCH_SECONDS: Final = 240
_PATIENCE: Final = 60.0
"""Seconds without any answer after which the API server is given up."""
_PAUSE: Final = 1.0
"""Seconds between two tries."""
_MOMENT: Final = 0.2


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch says of one object."""

    type: Literal["SEEN", "DELETED"]
    object: Object


def watch(
    cluster: Cluster, path: str, *selectors: tuple[str, str], known: dict[str, Object] | None = None
) -> Iterator[Change]:
    """Yield each object below `path` as it is now and after each change, without end.

    `selectors` are `fieldSelector` and `labelSelector` with their values. `known`, objects by uid, is kept up to date:
    given to another watch after this one has failed, what was deleted in between is yielded too.

    Raises:
        UnreachableError: the API server does not answer for a minute.
        RefusedError: it says no.
    """
    known = {} if known is None else known
    version, patience = "", _Patience()
    while True:
        try:
            if not version:
                listed = cluster.request("GET", path, query=selectors)
                present = {entry["metadata"]["uid"]: entry for entry in listed["items"]}
                yield from [Change("DELETED", known.pop(uid)) for uid in known.keys() - present.keys()]
                known.update(present)
                yield from (Change("SEEN", entry) for entry in present.values())
                version = listed["metadata"]["resourceVersion"]
            for kind, entry in _stream(cluster, path, selectors, version):
                if kind == "ERROR":
                    # Most of them say that the version is too old (410), of none is it known that it is not.
                    version = ""
                    patience.wait(UnreachableError(f"the watch ended: {entry.get('message') or entry}"))
                    break
                patience.renew()
                version = entry["metadata"]["resourceVersion"]
                if kind == "BOOKMARK":
                    continue
                deleted = kind == "DELETED"
                known[entry["metadata"]["uid"]] = entry
                if deleted:
                    known.pop(entry["metadata"]["uid"])
                yield Change("DELETED" if deleted else "SEEN", entry)
        except UnreachableError as error:
            patience.wait(error)


class _Patience:
    """How long the API server may be away."""

    def __init__(self) -> None:
        self._since: float | None = None

    def renew(self) -> None:
        """It has answered."""
        self._since = None

    def wait(self, error: UnreachableError) -> None:
        """Wait for the next try, or raise `error` where there have been enough."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > _PATIENCE:
            raise error
        time.sleep(_PAUSE)


def _stream(
    cluster: Cluster, path: str, selectors: tuple[tuple[str, str], ...], version: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    query = [*selectors, ("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version)]
    query.append(("timeoutSeconds", str(_WATCH_SECONDS)))
    timeout = urllib3.Timeout(connect=10, read=_WATCH_SECONDS + 30)
    response = cluster.stream("GET", path, query=query, timeout=timeout)
    try:
        for line in _lines(response):
            change = parse_object(line, "the event", largest=None)
            yield change["type"], change["object"]
    except HTTPError as error:
        raise UnreachableError(f"the watch broke off: {error}") from error
    except NonsenseError as error:
        raise UnreachableError(f"the watch of the API server: {error}") from error
    finally:
        response.close()


def log(
    cluster: Cluster, pod: str, *, follow: bool, tail: int | None = None, container: str = STEP_CONTAINER
) -> Iterator[str]:
    """Yield the lines of a container's log; with `follow` until it ends, whatever breaks in between.

    The container must have been started. Nothing is yielded twice: each line comes with its time.
    """
    since, patience = "", _Patience()
    while True:
        query = [("container", container), ("timestamps", "true"), ("follow", str(follow).lower())]
        query += [("tailLines", str(tail))] if tail is not None and not since else []
        query += [("sinceTime", since)] if since else []
        before = since
        try:
            for line in _read_log(cluster, pod, query):
                patience.renew()
                stamp, _, text = line.partition(" ")
                if stamp > before:
                    since = stamp
                    yield text
            if not follow or not _runs(cluster, pod, container):
                return
            # The kubelet says so a moment after the log has ended.
            time.sleep(_MOMENT)
        except NotFoundError:
            return
        except UnreachableError as error:
            patience.wait(error)


def stamped_log(
    cluster: Cluster, pod: str, *, since: str = "", tail: int | None = None, container: str = STEP_CONTAINER
) -> Iterator[tuple[str, str]]:
    """Yield the lines that a log has now, after the time `since`, each with its own (RFC 3339, nanoseconds)."""
    query = [("container", container), ("timestamps", "true")]
    query += [("sinceTime", since)] if since else []
    query += [("tailLines", str(tail))] if tail is not None else []
    for line in _read_log(cluster, pod, query):
        stamp, _, text = line.partition(" ")
        if stamp > since:
            yield stamp, text


def _read_log(cluster: Cluster, pod: str, query: list[tuple[str, str]]) -> Iterator[str]:
    path = f"{cluster.path(CORE, 'pods', pod)}/log"
    # A build may be silent for as long as a compiler takes: keepalive notices a dead connection.
    response = cluster.stream("GET", path, query=query, timeout=urllib3.Timeout(connect=10, read=None))
    try:
        yield from _lines(response)
    except HTTPError as error:
        raise UnreachableError(f"the log of {pod} broke off: {error}") from error
    finally:
        response.close()


def _runs(cluster: Cluster, pod: str, container: str) -> bool:
    manifest = cluster.request("GET", cluster.path(CORE, "pods", pod))
    statuses = manifest.get("status", {}).get("containerStatuses", ())
    return any(entry["name"] == container and "running" in entry.get("state", {}) for entry in statuses)


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    """Yield the lines as they come, without waiting for more than is there."""
    rest = b""
    while chunk := response.read1(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
