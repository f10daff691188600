"""What builds and people do while things go wrong, and how it has to end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from multiarchbuild.api.reasons import Reason
from multiarchbuild.plan.children import Pod, Role

from .api import Api, ApiError, Object
from .faults import Length
from .kubelet import Hang, Place, digest, failure

BUILDS: Final = "/apis/multiarch.build/v1alpha1/namespaces/{}/multiarchbuilds"
REPOSITORIES: Final = "/apis/source.toolkit.fluxcd.io/v1/namespaces/{}/gitrepositories"
NAME: Final = "app"


@dataclass
class Case:
    """One build, in a namespace of its own."""

    api: Api
    namespace: str
    place: Place
    seconds: float
    """Time without any activity after which nothing is waited for any more."""
    activity: Callable[[], Any] = tuple
    """Returns what is another value when something has happened, besides to the build."""
    build: Object = field(default_factory=dict)
    """As it was seen last; empty before it exists and once it is gone."""
    events: list[tuple[str, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    uid: str = ""
    name: str = NAME
    seen_times: int = 0

    @property
    def path(self) -> str:
        """Path of the build."""
        return f"{BUILDS.format(self.namespace)}/{self.name}"

    @property
    def status(self) -> Object:
        """Its status, as it was seen last."""
        return dict(self.build.get("status", {}))

    @property
    def results(self) -> list[tuple[str, str]]:
        """Result and reason of each run that has ended, the oldest first."""
        return [(entry["result"], entry["reason"]) for entry in reversed(self.status.get("history", ()))]

    def seen(self, kind: str, build: Object) -> None:
        """Take in what a watch of builds says."""
        self.build = {} if kind == "DELETED" else build
        self.seen_times += 1
        self.uid = build["metadata"]["uid"]
        self.changed.set()

    async def until(self, check: Callable[[], Any]) -> None:
        """Wait until `check` holds.

        Raises:
            TimeoutError: Nothing has happened for `seconds`, or not enough in five times of that. A machine that is
                slow is no fault.
        """
        started = idle_since = time.monotonic()
        last = self._activity()
        while not check():
            self.changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 1)
            if (now := self._activity()) != last:
                last, idle_since = now, time.monotonic()
            elif time.monotonic() - idle_since > self.seconds or idle_since - started > 5 * self.seconds:
                raise TimeoutError

    def _activity(self) -> object:
        return self.activity(), self.seen_times

    def run(self, key: str = "id") -> Any:
        """Return a field of the run in status."""
        return self.status.get("run", {}).get(key)

    def ended(self, runs: int = 1) -> Callable[[], bool]:
        """Return a check that so many runs have ended and none goes on."""
        return lambda: len(self.results) >= runs and self.run("result") is not None

    async def annotate(self, **annotations: str) -> None:
        """Set annotations of multiarch.build; '_' stands for '-'."""
        keys = {f"multiarch.build/{name.replace('_', '-')}": value for name, value in annotations.items()}
        await self.api.merge(self.path, {"metadata": {"annotations": keys}})

    async def edit(self, **spec: Any) -> None:
        """Edit the spec."""
        await self.api.merge(self.path, {"spec": spec})


async def nobody(_: Case) -> None:
    """Do nothing."""


def well(_case: Case, _pod: Pod) -> None:
    """Let every step succeed."""


@dataclass(frozen=True)
class Scenario:
    """See the module."""

    length: Length
    """About how many requests and events it takes, with an operator of its own: plans are made for those."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """What is other than in a build of one platform from an inline source."""
    runs: tuple[tuple[str, str], ...] = (("Succeeded", "Succeeded"),)
    """How each run ends, the first one first."""
    attempts: Mapping[str, int] = field(default_factory=dict)
    """Pods of a role in a run that takes more than one."""
    behaviour: Callable[[Case, Pod], Any] = well
    """What steps do."""
    people: Callable[[Case], Awaitable[None]] = nobody
    """What people do."""
    builders: int = 1
    """Pods that build, in each run that comes so far."""
    before: Callable[[Case], Awaitable[None]] = nobody
    """What is there before the build is."""
    deleted: bool = False
    """Whether the build is deleted in the end."""


GIT: Final = {"git": {"url": "https://git.example.com/app.git", "ref": "main"}}
BOTH: Final = ["linux/amd64", "linux/arm64"]
KEPT: Final = {"cache": {"mode": "Min"}, "scheduling": {"keepBuilder": "10m"}}


def _first_try_fails(_: Case, pod: Pod) -> object:
    if pod.attempt > 1:
        return None
    if pod.role is Role.BUILD:
        return failure(Reason.REGISTRY_UNREACHABLE)
    return failure(Reason.REGISTRY_ERROR) if pod.role is Role.PUBLISH else None


def _fails(_: Case, pod: Pod) -> object:
    return failure(Reason.BUILD_FAILED) if pod.role is Role.BUILD else None


def _hangs(_: Case, pod: Pod) -> object:
    return Hang() if pod.role is Role.BUILD else None


def _first_run_hangs(case: Case, pod: Pod) -> object:
    first = next(iter(case.place.pods.values()))["metadata"]["labels"]["multiarch.build/run"]
    return Hang() if pod.role is Role.BUILD and pod.run_id == first else None


def _first_try_hangs(_: Case, pod: Pod) -> object:
    return Hang() if pod.role is Role.BUILD and pod.attempt == 1 else None


def _kept_builder_hangs(_: Case, pod: Pod) -> object:
    return Hang() if pod.role is Role.BUILD and pod.handed is not None else None


def _is_running(case: Case) -> Callable[[], bool]:
    return lambda: any(entry.get("phase") == "Running" for entry in case.run("platforms") or ())


async def _cancel(case: Case) -> None:
    await case.until(_is_running(case))
    await case.annotate(cancel=case.run())


async def _lose(case: Case) -> None:
    await case.until(_is_running(case))
    pod = case.run("platforms")[0]["pod"]
    await case.api.delete(f"/api/v1/namespaces/{case.namespace}/pods/{pod}", {"gracePeriodSeconds": 0})


async def _supersede(case: Case) -> None:
    await case.until(_is_running(case))
    await case.edit(build={"args": {"VERSION": "2"}})


async def _rebuild(case: Case) -> None:
    await case.until(case.ended())
    await case.annotate(rebuild_requested_at=datetime.now(UTC).isoformat())


async def _edit_again(case: Case) -> None:
    await case.until(case.ended())
    await case.edit(build={"args": {"VERSION": "2"}})


async def _lose_kept(case: Case) -> None:
    await _edit_again(case)
    running = _is_running(case)
    await case.until(lambda: len(case.results) > 1 or (case.run("result") is None and running()))
    if len(case.results) == 1:
        pod = case.run("platforms")[0]["pod"]
        with suppress(ApiError):  # given up already
            await case.api.delete(f"/api/v1/namespaces/{case.namespace}/pods/{pod}", {"gracePeriodSeconds": 0})


async def _push(case: Case) -> None:
    await case.until(case.ended())
    case.place.head = "b" * 40


async def _artifact(case: Case, commit: str = "a" * 40) -> None:
    path = REPOSITORIES.format(case.namespace)
    kind = {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {"name": NAME}}
    await case.api.create(path, {**kind, "spec": {"url": "https://git.example.com/app.git"}}, exists_ok=True)
    artifact = {
        "digest": digest(commit),
        "path": f"{commit}.tar.gz",
        "revision": f"main@sha1:{commit}",
        "url": f"http://source-controller.flux-system.svc.cluster.local./gitrepository/app/{commit}.tar.gz",
        "lastUpdateTime": "2026-01-31T12:00:00Z",
    }
    ready = {"type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored"}
    status = {"artifact": artifact, "conditions": [{**ready, "lastTransitionTime": "2026-01-31T12:00:00Z"}]}
    await case.api.merge(f"{path}/{NAME}/status", {"status": status})


async def _flux_moves(case: Case) -> None:
    await case.until(case.ended())
    await _artifact(case, "b" * 40)


async def _delete(case: Case) -> None:
    await case.until(_is_running(case))
    await case.api.delete(case.path, {"propagationPolicy": "Background"})


SUCCEEDED: Final = ("Succeeded", "Succeeded")
SCENARIOS: Final[Mapping[str, Scenario]] = {
    "build": Scenario(Length(9, 12, 19)),
    "git": Scenario(Length(19, 25, 29), spec={"source": GIT, "platforms": BOTH}, builders=2),
    "retry": Scenario(
        Length(20, 26, 30), behaviour=_first_try_fails, attempts={"build": 2, "publish": 2}, spec={"retries": 2}
    ),
    "failed": Scenario(Length(7, 8, 17), behaviour=_fails, runs=(("Failed", "BuildFailed"),)),
    "cancelled": Scenario(Length(11, 11, 21), behaviour=_hangs, people=_cancel, runs=(("Cancelled", "Cancelled"),)),
    "superseded": Scenario(
        Length(19, 23, 29),
        behaviour=_first_run_hangs,
        people=_supersede,
        runs=(("Superseded", "Superseded"), SUCCEEDED),
    ),
    "cross": Scenario(Length(9, 12, 19), spec={"platforms": BOTH, "scheduling": {"strategy": "Cross"}}),
    "polled": Scenario(
        Length(28, 40, 38),
        spec={"source": {"git": {**GIT["git"], "interval": "10s"}}},
        people=_push,
        runs=(SUCCEEDED, SUCCEEDED),
    ),
    "flux": Scenario(
        Length(24, 27, 34),
        spec={"source": {"flux": {"kind": "GitRepository", "name": NAME}}},
        before=_artifact,
        people=_flux_moves,
        runs=(SUCCEEDED, SUCCEEDED),
    ),
    "lost": Scenario(Length(15, 20, 25), behaviour=_first_try_hangs, people=_lose, attempts={"build": 2}),
    "rebuilt": Scenario(Length(18, 25, 28), people=_rebuild, runs=(SUCCEEDED, SUCCEEDED)),
    "kept": Scenario(
        Length(42, 34, 45),
        spec={**KEPT, "platforms": BOTH},
        builders=2,
        people=_edit_again,
        runs=(SUCCEEDED, SUCCEEDED),
    ),
    "kept-lost": Scenario(
        Length(36, 31, 44),
        spec=KEPT,
        behaviour=_kept_builder_hangs,
        people=_lose_kept,
        runs=(SUCCEEDED, SUCCEEDED),
        attempts={"build": 2},
    ),
    "deleted": Scenario(Length(11, 11, 21), behaviour=_hangs, people=_delete, deleted=True, runs=()),
}


def manifest(scenario: Scenario, namespace: str) -> Object:
    """Return the build of a scenario."""
    spec = {
        "platforms": ["linux/amd64"],
        "source": {"inline": {"files": {"Dockerfile": "FROM scratch\nCOPY . /\n"}}},
        "output": {"image": f"registry.example.com/{namespace}/app", "tags": ["v1"]},
        "cache": {"mode": "Disabled"},
        "history": {"successful": 10, "failed": 10},
        **scenario.spec,
    }
    return {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "metadata": {"name": NAME},
        "spec": spec,
    }
