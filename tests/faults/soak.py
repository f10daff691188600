"""Builds on the real local cluster while everything around them is killed at random.

    python -m tests.faults.soak [--builds N] [--seed N] [--write]

The operator, nodes, buildkitds, the registry and the API server go away and come back; tenants edit, cancel, rebuild
and delete. Every build has to end as its tenant meant it to. `--write` puts the figures into docs/reliability.md.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp

from hack.install import NAMESPACE as OPERATOR
from hack.target import CommandError, Target, from_environment
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import BuilderUse
from tests.cluster import cgroups, lifecycle
from tests.cluster.errors import ClusterError
from tests.cluster.fixture import Cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.layout import Layout
from tests.support.images import Images

from .faults import kill_buildkitd, registry_refuses
from .rig.api import Api, ApiError, Object, T, upstream
from .rig.api import insist as insist_on
from .rig.kubelet import Place
from .rig.scenarios import BUILDS, Case

AT_ONCE: Final = 4
TENANTS: Final = 4
QUIET_SECONDS: Final = (6, 15)
"""Least and most seconds between two faults."""
AWAY_SECONDS: Final = 15
"""How long a node or the registry is away."""
SECONDS: Final = 240.0
"""Time without any change of a build after which it is given up."""
LEFT_SECONDS: Final = 180.0
"""Time after the end until nothing is left."""
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN: Final = "<!-- soak -->"
END: Final = "<!-- /soak -->"
_USERS: Final = {"Cancelled", "Superseded", "Succeeded", str(Reason.BUILD_FAILED)}
"""Reasons for which a run ends here that are no failure, or the user's."""
_NOT_DONE: Final = (
    CommandError,
    ClusterError,
    ApiError,
    aiohttp.ClientError,
    subprocess.SubprocessError,
    OSError,
    TimeoutError,
    AssertionError,
)
"""What a fault ends with that cannot be brought about just now: its pod is gone, or what it needs is away itself."""
_BOTH: Final = ["linux/amd64", "linux/arm64"]
_CROSS: Final = (
    "FROM --platform=$BUILDPLATFORM busybox:1.36 AS build\nARG VERSION\nRUN sleep {} && echo hello > /hello\n"
    "FROM scratch\nCOPY --from=build /hello /hello\n"
)
_PLAIN: Final = "FROM busybox:1.36\nARG VERSION\nRUN sleep {} && uname -m > /machine\n"
_BROKEN: Final = "FROM busybox:1.36\nRUN sleep {} && false\n"
KINDS: Final = {
    "plain": 40, "single": 10, "cross": 10, "broken": 8, "edited": 8, "cancelled": 8, "rebuilt": 8, "deleted": 8
}  # fmt: skip
"""What tenants do, and how often."""
_TWICE: Final = {"edited", "rebuilt"}
"""Those that have two runs."""


@dataclass
class Tally:
    """What came of it all."""

    seed: int
    builds: int
    ended: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    """Each failure that was not the user's."""
    retried: int = 0
    """Runs that ended well although a try of a step had failed."""
    kept: int = 0
    """Runs that ended well in builders that an earlier one had left."""
    leaks: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Soak:
    """One soak."""

    def __init__(self, api: Api, target: Target, cluster: Cluster, tally: Tally) -> None:
        """Prepare."""
        self._api, self._target, self._cluster, self._tally = api, target, cluster, tally
        self._rng = random.Random(f"soak {tally.seed}")
        self._prefix = f"soak-{tally.seed}-{int(time.time()) % 100_000}"
        self.cases: dict[tuple[str, str], Case] = {}

    async def run(self) -> None:
        """Build while things break, and look at what is left."""
        started = time.monotonic()
        for number in range(TENANTS):
            await insist(lambda name=f"{self._prefix}-{number}": self._namespace(name))  # type: ignore[misc]
        following = asyncio.ensure_future(self._follow())
        breaking = asyncio.ensure_future(self._break())
        room = asyncio.Semaphore(AT_ONCE)
        kinds = self._rng.choices(list(KINDS), list(KINDS.values()), k=self._tally.builds)
        pauses = [self._rng.randint(1, 4) for _ in kinds]

        async def one(number: int) -> None:
            async with room:
                await self._build(number, kinds[number], pauses[number])

        building = asyncio.gather(*(one(number) for number in range(self._tally.builds)))
        try:
            # Without faults it is no soak: what ends them, which is a mistake in here, ends all of it.
            both: set[asyncio.Future[Any]] = {building, breaking}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await (breaking if breaking.done() else building)
        finally:
            for task in (building, breaking):
                task.cancel()
            await asyncio.gather(building, breaking, return_exceptions=True)
        try:
            await self._look_for_leaks()
        finally:
            following.cancel()
            for number in range(TENANTS):
                path = f"/api/v1/namespaces/{self._prefix}-{number}"
                await insist(lambda path=path: self._api.delete(path))  # type: ignore[misc]
        self._tally.seconds = time.monotonic() - started

    async def _namespace(self, name: str) -> None:
        await self._api.create("/api/v1/namespaces", {"metadata": {"name": name}}, exists_ok=True)

    async def _follow(self) -> None:
        while True:
            with suppress(aiohttp.ClientError, ApiError, TimeoutError, OSError):
                async for kind, build in self._api.watch("/apis/multiarch.build/v1alpha1/multiarchbuilds"):
                    meta = build["metadata"]
                    if case := self.cases.get((meta["namespace"], meta["name"])):
                        case.seen(kind, build)
            await asyncio.sleep(1)

    async def _build(self, number: int, kind: str, pause: int) -> None:
        namespace, name = f"{self._prefix}-{number % TENANTS}", f"b-{number}"
        case = self.cases[namespace, name] = Case(self._api, namespace, Place(), SECONDS, name=name)
        spec = _spec(kind, pause, f"{self._target.facts.registry}/{namespace}/{name}")
        manifest = {"apiVersion": "multiarch.build/v1alpha1", "kind": "MultiArchBuild", "metadata": {"name": name}}
        path = BUILDS.format(namespace)
        await insist(lambda: self._api.create(path, {**manifest, "spec": spec}, exists_ok=True))
        try:
            await self._live(case, kind)
        except TimeoutError:
            self._tally.failures.append(f"{name} ({kind}): nothing happens any more: {json.dumps(case.status)[:1500]}")
        else:
            await self._judge(case, kind)
        print(f"{name} {kind}: {case.results} {sum(self._tally.faults.values())} faults so far", flush=True)

    async def _live(self, case: Case, kind: str) -> None:
        """Do what a tenant does with a build, until it has come to rest."""
        if kind in {"edited", "cancelled", "deleted"}:
            await case.until(lambda: case.run("result") or "Running" in _phases(case))
        match kind:
            case "edited":
                await insist(lambda: case.edit(build={"args": {"VERSION": "2"}}))
            case "cancelled":
                await insist(lambda: case.annotate(cancel=case.run()))
            case "rebuilt":
                await case.until(case.ended())
                now = datetime.now(UTC).isoformat()
                await insist(lambda: case.annotate(rebuild_requested_at=now))
            case "deleted":
                await insist(lambda: case.api.delete(case.path, {"propagationPolicy": "Background"}))
        if kind == "deleted":
            await case.until(lambda: case.uid and not case.build)
            return
        runs = 2 if kind in _TWICE else 1
        await case.until(case.ended(runs))

    async def _judge(self, case: Case, kind: str) -> None:
        if kind == "deleted":
            self._tally.ended["deleted"] += 1
            return
        for result, reason in case.results:
            self._tally.ended[f"{result}: {reason}" if result == "Failed" else result] += 1
            if reason not in _USERS or (reason == Reason.BUILD_FAILED and kind != "broken"):
                self._tally.failures.append(f"{case.name} ({kind}): {reason}: {case.run('message')}")
        last = case.results[-1][0]
        if kind not in {"broken", "cancelled"} and last != "Succeeded":
            return
        if last == "Succeeded":
            self._tally.retried += any(entry.get("failedAttempts") for entry in case.run("platforms"))
            self._tally.kept += any(entry.get("builder") == BuilderUse.KEPT for entry in case.run("platforms"))
            image = f"{self._target.facts.registry}/{case.namespace}/{case.name}:latest"
            digest = await insist(lambda: asyncio.to_thread(Images(self._target).digest, image))
            if digest != case.status["image"]["digest"]:
                self._tally.failures.append(f"{case.name} ({kind}): latest is {digest}, not {case.status['image']}")

    async def _break(self) -> None:
        """Break something, again and again."""
        ways: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "operator killed": (5, self._kill_operator),
            "buildkitd killed": (6, self._kill_buildkitd),
            "pod deleted": (3, self._delete_pod),
            "registry away": (3, self._registry_away),
            "API server killed": (3, self._kill_api_server),
            "node lost": (2, self._lose_node),
        }
        while True:
            await asyncio.sleep(self._rng.uniform(*QUIET_SECONDS))
            name = self._rng.choices(list(ways), [weight for weight, _ in ways.values()])[0]
            try:
                await ways[name][1]()
            except _NOT_DONE as error:
                print(f"not done: {name}: {str(error)[:200]}", flush=True)
            else:
                self._tally.faults[name] += 1

    async def _kill_operator(self) -> None:
        path = f"/api/v1/namespaces/{OPERATOR}/pods"
        pods = await self._api.get(f"{path}?labelSelector=app.kubernetes.io/instance%3Dmultiarchbuild")
        for pod in pods["items"]:
            await self._api.delete(f"{path}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})

    async def _going(self, role: str) -> Object:
        """Return a pod of ours that runs."""
        selector = f"multiarch.build/role%3D{role}"
        pods = (await self._api.get(f"/api/v1/pods?labelSelector={selector}"))["items"]
        own = [pod for pod in pods if pod["metadata"]["namespace"].startswith(self._prefix)]
        running = [pod for pod in own if pod["status"].get("phase") == "Running"]
        assert running, f"no {role} pod runs"
        return self._rng.choice(running)

    async def _kill_buildkitd(self) -> None:
        pod = await self._going("build")
        await asyncio.to_thread(kill_buildkitd, self._cluster, pod)

    async def _delete_pod(self) -> None:
        meta = (await self._going(self._rng.choice(("build", "publish"))))["metadata"]
        await self._api.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", {"gracePeriodSeconds": 0})

    async def _registry_away(self) -> None:
        with registry_refuses(self._cluster, 5000):
            await asyncio.sleep(AWAY_SECONDS)

    async def _kill_api_server(self) -> None:
        killed = [pid for pid in _pids(self._cluster.local, "control") if _program(pid) == "kube-apiserver"]
        assert killed, "it is not running"
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    async def _lose_node(self) -> None:
        await asyncio.to_thread(self._cluster.stop_node, "n-arm64")
        try:
            await asyncio.sleep(AWAY_SECONDS)
        finally:
            await asyncio.to_thread(self._cluster.start_node, "n-arm64")

    async def _look_for_leaks(self) -> None:
        """Delete what is left of the builds, and see what does not go with them."""
        for case in self.cases.values():
            if case.build:
                await insist(lambda case=case: self._api.delete(case.path, {"propagationPolicy": "Background"}))  # type: ignore[misc]
        end = time.monotonic() + LEFT_SECONDS
        while leaks := await insist(self._leaks):
            if time.monotonic() > end:
                self._tally.leaks += leaks
                return
            await asyncio.sleep(3)

    async def _leaks(self) -> list[str]:
        leaks = []
        managed = "labelSelector=app.kubernetes.io/managed-by%3Dmultiarchbuild"
        uids = set()
        for kind in ("pods", "configmaps"):
            listed = (await self._api.get(f"/api/v1/{kind}?{managed}"))["items"]
            uids |= {each["metadata"]["uid"] for each in listed}
            own = (each["metadata"] for each in listed if each["metadata"]["namespace"].startswith(self._prefix))
            leaks += [f"{kind} {meta['namespace']}/{meta['name']}" for meta in own]
        for pid in cgroups.processes(self._cluster.local.instance):
            pod = _pod_of(pid)
            if _program(pid) == "buildkitd" and pod and pod not in uids:
                leaks.append(f"buildkitd {pid} of pod {pod}")
        return leaks


def _spec(kind: str, pause: int, image: str) -> Object:
    dockerfile = {"cross": _CROSS, "broken": _BROKEN}.get(kind, _PLAIN).format(pause)
    return {
        "platforms": ["linux/amd64"] if kind == "single" else _BOTH,
        "source": {"inline": {"files": {"Dockerfile": dockerfile}}},
        "output": {"image": image},
        # Builders stay where there is a cache: second runs are handed to those of the first, if they still live.
        "cache": {"mode": "Min" if kind in _TWICE else "Disabled"},
        "retries": 4,
        "scheduling": {"strategy": "Cross" if kind == "cross" else "Auto", "nativeWait": "5m"},
        "timeout": "20m",
    }


def _phases(case: Case) -> set[str]:
    return {entry.get("phase", "") for entry in case.run("platforms") or ()}


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Return what `call` does, tried again while the API server or the registry is away."""
    return await insist_on(call, statuses=(409, 429), errors=(CommandError,))


def _pids(layout: Layout, machine: str) -> frozenset[int]:
    return cgroups.processes(layout.instance, machine)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _pod_of(pid: int) -> str:
    """Return the uid of the pod that a process is in, by its cgroup."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    match = re.search(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})", text)
    return match[1].replace("_", "-") if match else ""


def document(tally: Tally) -> str:
    """Return the figures as Markdown."""
    runs = sum(count for name, count in tally.ended.items() if name != "deleted")
    rate = 100 * len(tally.failures) / max(runs, 1)
    rows = [
        ("builds", str(tally.builds)),
        ("runs that ended", str(runs)),
        ("how", ", ".join(f"{name} {count}" for name, count in sorted(tally.ended.items()))),
        ("faults", ", ".join(f"{name} {count}" for name, count in sorted(tally.faults.items()))),
        ("runs that succeeded on a further try", str(tally.retried)),
        ("runs that succeeded in kept builders", str(tally.kept)),
        ("failures that were not the user's", f"{len(tally.failures)} ({rate:.1f} %)"),
        ("left over: pods, ConfigMaps, processes", str(len(tally.leaks))),
        ("time", f"{tally.seconds / 60:.0f} min"),
        ("seed", str(tally.seed)),
        ("date", f"{datetime.now(UTC):%Y-%m-%d}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def write(tally: Tally) -> None:
    """Put the figures into the page about reliability."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{document(tally)}\n{END}{after}", encoding="utf-8")


async def soak(target: Target, cluster: Cluster, tally: Tally) -> None:
    """Run one soak."""
    async with Api(upstream(Path(target.facts.kubeconfig))) as api:
        await Soak(api, target, cluster, tally).run()


def main(argv: list[str] | None = None) -> int:
    """See the module; return 1 where a build failed that should not have, or something is left over."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000)
    parser.add_argument("--write", action="store_true", help="put the figures into docs/reliability.md")
    options = parser.parse_args(argv)
    target, layout = from_environment(), lifecycle.find()
    cluster = Cluster(target.facts, Kubectl(layout.bin / "kubectl", layout.kubeconfig), layout)
    tally = Tally(options.seed, options.builds)
    print(f"seed {tally.seed}, {tally.builds} builds", flush=True)
    asyncio.run(soak(target, cluster, tally))
    print(document(tally))
    for line in (*tally.failures, *tally.leaks):
        print(line)
    if options.write:
        write(tally)
    return int(bool(tally.failures or tally.leaks))


if __name__ == "__main__":
    sys.exit(main())
