"""Two nodes and their kubelet, played: pods are bound by the real scheduler, and end with real results of steps."""

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from multiarchbuild.api.answers import NONCE_ENV, TAKEN, answer_line, exporting_line
from multiarchbuild.api.mounts import REQUEST_ANNOTATION
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.requests import PublishRequest
from multiarchbuild.api.results import (
    Built,
    CacheUse,
    Failure,
    Published,
    PublishedPlatform,
    Pushed,
    Resolved,
    Source,
    dump,
)
from multiarchbuild.plan.children import Pod, Role, pod_from

from .api import Api, ApiError, insist

NODES: Final = {"faults-amd64": "amd64", "faults-arm64": "arm64"}
_ROOM = {"cpu": "10k", "memory": "64Ti", "pods": "20k", "ephemeral-storage": "64Ti"}
_LEASE_SECONDS = 6
_NOTED_SECONDS = 5.0
"""As `steps.kept.NOTED_SECONDS`."""
_Outcome = Failure | Resolved | Built | Published


@dataclass(frozen=True)
class Hang:
    """The step does not end, or not before something has happened."""

    until: asyncio.Event | None = None


Work = Callable[[], Awaitable[None]]
Behaviour = Callable[[Pod], Failure | Hang | None]
"""What a step does, where it does not simply succeed."""


Pace = Callable[[str], float]
"""Seconds that it takes until a pod starts, ends or is gone: `start`, `end` or `delete`."""


def at_once(_: str) -> float:
    """Let everything take a moment."""
    return 0.1


def succeeds(_: Pod) -> None:
    """Let every step succeed."""


def failure(reason: Reason) -> Failure:
    """Return a failure for `reason`."""
    return Failure(reason=reason, message=f"{reason} as the plan says", log_tail="the end of the log")


@dataclass
class Log:
    """What a container prints."""

    lines: list[str] = field(default_factory=lambda: ["#1 [internal] load build definition from Dockerfile"])
    ended: bool = False
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, *lines: str, last: bool = False) -> None:
        """Print `lines`, and nothing more after the last."""
        if not self.ended:
            self.lines += lines
            self.ended = last
            self._more.set()
            self._more = asyncio.Event()

    async def read(self) -> AsyncIterator[bytes]:
        """Yield it from the beginning, as it comes."""
        at = 0
        while True:
            more = self._more
            for line in self.lines[at:]:
                yield f"{line}\n".encode()
            at = len(self.lines)
            if self.ended:
                return
            await more.wait()


@dataclass
class Place:
    """What the kubelet knows of one namespace."""

    behaviour: Behaviour = succeeds
    head: str = "a" * 40
    """Commit of the branch."""
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last state of each pod that there ever was, by uid."""
    first: dict[str, dict[str, Any]] = field(default_factory=dict)
    """And the first one: a pod that is kept is of one run after the other."""
    asked: dict[str, list[str]] = field(default_factory=dict)
    """What each kept pod was asked for, by uid."""
    answered: set[tuple[str, str]] = field(default_factory=set)
    """What it has answered: uids, and names of requests."""
    problems: list[str] = field(default_factory=list)
    """What no pod should be asked for."""
    deleted: set[str] = field(default_factory=set)
    """Uids of pods that are gone."""
    published: dict[str, str] = field(default_factory=dict)
    """Digest of the index by run."""
    logs: defaultdict[str, Log] = field(default_factory=lambda: defaultdict(Log))
    """By the names of pods."""


class Kubelet:
    """See the module. One for all namespaces of the rig."""

    def __init__(self, api: Api, pace: Pace = at_once) -> None:
        """Play with `api`; `pace` says how long things take."""
        self.places: dict[str, Place] = {}
        self.endpoint: tuple[str, int] | None = None
        """Address and port at which the API server asks for logs, if it does; to be set before it runs."""
        self.answers: Callable[[Pod], bool] = lambda pod: bool(int(pod.uid[-1], 16) % 2)
        """Of which pods the log has the result: of half of them, so that both ways to learn of it are taken."""
        self._api, self._pace = api, pace
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def log(self, namespace: str, pod: str) -> AsyncIterator[bytes]:
        """Yield the log of a pod as it comes."""
        async for line in self.places[namespace].logs[pod].read():
            yield line

    async def run(self) -> None:
        """Be a kubelet, for ever."""
        for name, arch in NODES.items():
            await self._register(name, arch)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._heartbeat())
                group.create_task(self._follow())
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _register(self, name: str, arch: str) -> None:
        labels = {"kubernetes.io/arch": arch, "kubernetes.io/os": "linux", "kubernetes.io/hostname": name}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        await self._api.create("/api/v1/nodes", node, exists_ok=True)
        status: dict[str, Any] = {"conditions": _conditions(), "capacity": _ROOM, "allocatable": _ROOM}
        if self.endpoint is not None:
            address, port = self.endpoint
            status["addresses"] = [{"type": "InternalIP", "address": address}]
            status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
        await self._api.merge(f"/api/v1/nodes/{name}/status", {"status": status})
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
        await self._api.create("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease, exists_ok=True)

    async def _heartbeat(self) -> None:
        while True:
            for name in NODES:
                now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
                spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
                path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
                await insist(partial(self._api.merge, path, {"spec": spec}))
                # A node that was late once, on a busy machine, is not Ready until it says so.
                status = {"status": {"conditions": _conditions()}}
                await insist(partial(self._api.merge, f"/api/v1/nodes/{name}/status", status))
            await asyncio.sleep(_LEASE_SECONDS)

    async def _follow(self) -> None:
        async for kind, pod in self._api.watch("/api/v1/pods", "app.kubernetes.io/managed-by=multiarchbuild"):
            place = self.places.get(pod["metadata"]["namespace"])
            if place is None:
                continue
            uid = pod["metadata"]["uid"]
            place.pods[uid] = pod
            place.first.setdefault(uid, pod)
            if kind == "DELETED" or pod_from(pod).ended:
                place.logs[pod["metadata"]["name"]].say(last=True)
            if kind == "DELETED":
                place.deleted.add(uid)
            elif pod["spec"].get("nodeName") in NODES:
                self._look(place, pod)

    def _look(self, place: Place, pod: dict[str, Any]) -> None:
        """Do what a kubelet does next for a pod, once."""
        seen = pod_from(pod)
        if seen.deleting:
            self._start(seen, "delete", partial(self._remove, pod))
        elif seen.step_started_at is None:
            self._start(seen, "start", partial(self._begin, pod))
        elif seen.ended is not None:
            return
        elif seen.template:
            self._serve(place, pod)
        elif _has_what_it_needs(seen):
            self._start(seen, "end", partial(self._end, place, pod))

    def _serve(self, place: Place, pod: dict[str, Any]) -> None:
        """Do what a step does that is kept: take what it is asked for, and answer once it has what it needs."""
        seen = pod_from(pod)
        asked = place.asked.setdefault(seen.uid, [])
        if seen.request not in asked:
            place.problems += [
                f"{seen.name} is asked for {seen.request} before it has answered to {each}"
                for each in asked
                if (seen.uid, each) not in place.answered
            ]
            asked.append(seen.request)
            if seen.handed is not None:
                place.logs[seen.name].say(answer_line(_nonce(pod), seen.request, TAKEN.encode()))
        if _has_what_it_needs(seen):
            self._start(seen, "end", partial(self._answer, place, pod), seen.request)

    def _start(self, pod: Pod, what: str, work: Work, request: str = "") -> None:
        if (pod.uid, what + request) not in self._tasks:
            self._tasks[pod.uid, what + request] = asyncio.ensure_future(self._after_a_while(what, work))

    async def _after_a_while(self, what: str, work: Work) -> None:
        await asyncio.sleep(self._pace(what))
        try:
            await insist(partial(_once, work), errors=(_Conflict,))
        except ApiError as error:
            # It was deleted meanwhile, which a kubelet finds out in this way.
            if error.status not in {404, 409}:
                raise

    async def _begin(self, pod: dict[str, Any]) -> None:
        running = {"running": {"startedAt": _now()}}
        status: dict[str, Any] = {"phase": "Running", "startTime": _now()}
        status["containerStatuses"] = [_container(pod, "containers", running)]
        if pod["spec"].get("initContainers"):
            status["initContainerStatuses"] = [_container(pod, "initContainers", running)]
        await self._api.merge(_path(pod, "/status"), {"status": status, "metadata": {"uid": pod["metadata"]["uid"]}})

    async def _answer(self, place: Place, pod: dict[str, Any]) -> None:
        """Answer as a step does that stays."""
        seen, nonce = pod_from(pod), _nonce(pod)
        result = await _result(place, pod)
        if result is None:
            return
        if seen.role is Role.BUILD:
            place.logs[seen.name].say(exporting_line(nonce, seen.request))
            await asyncio.sleep(self._pace("push"))
        place.answered.add((seen.uid, seen.request))
        message = dump(result)
        place.logs[seen.name].say(answer_line(nonce, seen.request, message))
        await asyncio.sleep(_NOTED_SECONDS)
        now = pod_from(place.pods[seen.uid])
        if now.request == seen.request and not now.idle:
            # Nobody has taken note of it: it stands in the termination message.
            await self._terminate(pod, result, message)

    async def _end(self, place: Place, pod: dict[str, Any]) -> None:
        seen = pod_from(pod)
        result = await _result(place, pod)
        if result is None:
            return
        message = dump(result)
        nonce, log = _nonce(pod), place.logs[seen.name]
        if nonce and self.answers(seen) and not log.ended:
            if seen.role is Role.BUILD:
                log.say(exporting_line(nonce, seen.name))
                await asyncio.sleep(self._pace("push"))
            # The result is in the log before the end of the container is seen.
            log.say(answer_line(nonce, seen.name, message), last=True)
            await asyncio.sleep(self._pace("start"))
        await self._terminate(pod, result, message)

    async def _terminate(self, pod: dict[str, Any], result: _Outcome, message: bytes) -> None:
        terminated = {
            "exitCode": int(isinstance(result, Failure)),
            "reason": "Error" if isinstance(result, Failure) else "Completed",
            "message": message.decode(),
            "startedAt": _now(),
            "finishedAt": _now(),
        }
        status = {
            "phase": "Failed" if isinstance(result, Failure) else "Succeeded",
            "containerStatuses": [_container(pod, "containers", {"terminated": terminated})],
        }
        await self._api.merge(_path(pod, "/status"), {"status": status, "metadata": {"uid": pod["metadata"]["uid"]}})

    async def _remove(self, pod: dict[str, Any]) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
        await self._api.delete(_path(pod), options)


class _Conflict(Exception):  # noqa: N818 - as the API server calls it
    """Others have written the pod at the same time, more often than the API server tries again by itself."""


def _conditions() -> list[dict[str, str]]:
    now = _now()
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played"}
    return [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}]


async def _once(work: Work) -> None:
    try:
        await work()
    except ApiError as error:
        # Another pod of this name is a conflict, too, and stays one.
        if error.status == 409 and "uid" not in error.message.lower():
            raise _Conflict(error.message) from error
        raise


async def _result(place: Place, manifest: dict[str, Any]) -> _Outcome | None:
    """Return what the step of a pod comes to, None where that is nothing."""
    pod = pod_from(manifest)
    match place.behaviour(pod):
        case Hang(until=None):
            return None
        case Hang(until=asyncio.Event() as happened):
            await happened.wait()
        case Failure() as failed:
            return failed
    return _success(place, pod, manifest)


def _success(place: Place, pod: Pod, manifest: dict[str, Any]) -> Resolved | Built | Published:
    match pod.role:
        case Role.RESOLVE | Role.CHECK:
            return Resolved(source=Source(commit=place.head, ref="main", author="Ada", time=1_700_000_000))
        case Role.CHECK_BASES:
            return Resolved()
        case Role.BUILD:
            return Built(digest=built_digest(pod), cache=CacheUse(hits=1, total=3))
        case Role.PUBLISH:
            arguments = manifest["spec"]["containers"][0]["args"]
            if pod.handed is not None:
                asked = manifest["metadata"]["annotations"][REQUEST_ANNOTATION]
                arguments = PublishRequest.model_validate_json(asked).arguments
            tags = tuple(each.removeprefix("--tag=") for each in arguments if each.startswith("--tag="))
            images = Pushed.model_validate_json(pod.built_annotation).images
            index = digest(*(image.digest for image in images))
            place.published[pod.run_id] = index
            platforms = tuple(PublishedPlatform(platform=each.platform, digest=each.digest, size=5) for each in images)
            return Published(digest=index, tags=tags, platforms=platforms)
        case Role.UNKNOWN:
            raise AssertionError(f"{pod.name} is of a role that nobody knows")


def built_digest(pod: Pod) -> str:
    """Return the digest that a builder pushes: of what it was told to build."""
    return digest("built", pod.run_id, ",".join(map(str, pod.platforms)), pod.source_annotation)


def digest(*parts: str) -> str:
    """Return a digest of `parts`."""
    return "sha256:" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _has_what_it_needs(pod: Pod) -> bool:
    """Return whether a step has been handed what it waits for: the source, or what was built."""
    if pod.role is Role.PUBLISH:
        return bool(pod.built_annotation)
    return pod.role is not Role.BUILD or bool(pod.source_annotation)


def _nonce(pod: dict[str, Any]) -> str:
    environment = pod["spec"]["containers"][0].get("env", ())
    return next((str(entry["value"]) for entry in environment if entry["name"] == NONCE_ENV), "")


def _container(pod: dict[str, Any], kind: str, state: dict[str, Any]) -> dict[str, Any]:
    spec = pod["spec"][kind][0]
    common = {"name": spec["name"], "image": spec["image"], "imageID": "", "restartCount": 0, "ready": False}
    return {**common, "state": state}


def _path(pod: dict[str, Any], subresource: str = "") -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}{subresource}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
