"""What the operator takes beside running builds: many at rest, many that wait, large ones, many nodes."""

import asyncio
import copy
import time
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from multiarchbuild.api.spec import Spec
from multiarchbuild.plan.build_summary import BuildSummary
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.identity import fingerprint
from multiarchbuild.plan.policy import Concurrency
from tests.faults.rig.api import METADATA, Object

from . import audit
from .figures import Fact
from .objects import BUILDS, build
from .stage import Stage, together

REST_SECONDS: Final = 60
_IMAGES: Final = 50
"""Images that a node lists, which is most of what it is in bytes."""


async def at_rest(stage: Stage, count: int) -> Fact:
    """Have `count` builds that ended well long ago; start the operator, and look at what it does."""
    names = await stage.namespaces("rest", 50)
    await stage.operator.start()
    await stage.api.create(BUILDS.format(names[0]), build(names[0], "first"))
    await stage.until_ready({(names[0], "first")})
    status = (await stage.api.get(f"{BUILDS.format(names[0])}/first"))["status"]
    await stage.operator.stop()
    keys = [(names[number % len(names)], f"b-{number}") for number in range(count)]
    await together([partial(_ended, stage, key, status) for key in keys])
    stage.audit.counted()
    started = time.monotonic()
    await stage.operator.start()
    ready_seconds = time.monotonic() - started
    at_start = await stage.at_rest()
    cpu, started = stage.operator.cpu, time.monotonic()
    await asyncio.sleep(REST_SECONDS)
    asked, seconds = stage.audit.counted(), time.monotonic() - started
    numbers = {
        "ready_seconds": ready_seconds,
        "memory": stage.operator.memory(),
        "memory_peak": stage.operator.memory("VmHWM"),
        "writes": float(audit.writes(at_start) + audit.writes(asked)),
        "requests_per_second": asked.total() / seconds,
        "cpu_percent": 100 * (stage.operator.cpu - cpu) / seconds,
    }
    await stage.operator.stop()
    said = "operator ready {ready_seconds:.0f} s after its start; {memory:.0f} MiB, {memory_peak:.0f} at most"
    said += "; {writes:.0f} writes; {requests_per_second:.2f} requests/s; {cpu_percent:.1f} % of a CPU"
    return Fact(f"{count} builds at rest", said.format(**numbers), numbers)


async def _ended(stage: Stage, key: tuple[str, str], status: Object) -> None:
    """Create a build with a status as of one that has ended well."""
    manifest = build(*key)
    made = await stage.api.create(BUILDS.format(key[0]), manifest, accept=METADATA)
    wanted = fingerprint(Spec.model_validate(manifest["spec"]))
    own = copy.deepcopy(status)
    own["run"] |= {"inputs": wanted.inputs, "execution": wanted.execution}
    document = {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": {name: made["metadata"][name] for name in ("namespace", "name", "resourceVersion")},
        "status": own,
    }
    await stage.api.apply(f"{BUILDS.format(key[0])}/{key[1]}/status", document, accept=METADATA)


async def large(stage: Stage, count: int, size: int) -> Fact:
    """Run `count` builds, each with an inline file of `size` bytes."""
    names = await stage.namespaces("large", 20)
    await stage.operator.start()
    keys = [(names[number % len(names)], f"b-{number}") for number in range(count)]

    async def create(key: tuple[str, str]) -> None:
        await stage.api.create(BUILDS.format(key[0]), build(*key, size=size), accept=METADATA)

    await together([partial(create, key) for key in keys], 4)
    await stage.until_ready(set(keys))
    running = stage.operator.memory("VmHWM")
    await stage.operator.stop()
    await stage.operator.start()
    await stage.at_rest()
    numbers = {"memory_running": running, "memory_restarted": stage.operator.memory("VmHWM")}
    await stage.operator.stop()
    said = "{memory_running:.0f} MiB at most while they run, {memory_restarted:.0f} after a restart".format(**numbers)
    return Fact(f"{count} builds with {size // 1024} KiB of inline files", said, numbers)


async def nodes(stage: Stage, count: int, seconds: float = 30) -> Fact:
    """Have `count` nodes with a heartbeat each six seconds, and five labels a second that change."""
    await together([partial(_node, stage, number) for number in range(count)])
    await stage.operator.start()
    await stage.at_rest()
    before = stage.operator.cpu
    await asyncio.sleep(seconds)
    idle, before = stage.operator.cpu - before, stage.operator.cpu
    changes: Counter[str] = Counter()
    end = time.monotonic() + seconds

    async def heartbeats() -> None:
        number = 0
        while time.monotonic() < end:
            await _heartbeat(stage, number % count)
            changes["heartbeats"] += 1
            number += 1
            await asyncio.sleep(6 / count)

    async def labels() -> None:
        while time.monotonic() < end:
            number = changes["labels"] % count
            label = {"example.com/load": f"l-{changes['labels']}"}
            await stage.api.merge(f"/api/v1/nodes/churn-{number}", {"metadata": {"labels": label}})
            changes["labels"] += 1
            await asyncio.sleep(0.2)

    await asyncio.gather(heartbeats(), labels())
    numbers = {
        "added_cpu_percent": 100 * (stage.operator.cpu - before - idle) / seconds,
        "idle_cpu_percent": 100 * idle / seconds,
        "heartbeats_per_second": changes["heartbeats"] / seconds,
        "labels_per_second": changes["labels"] / seconds,
        "memory": stage.operator.memory(),
    }
    await stage.operator.stop()
    said = "{heartbeats_per_second:.0f} heartbeats and {labels_per_second:.0f} changed labels a second add "
    said += "{added_cpu_percent:.1f} % of a CPU ({idle_cpu_percent:.1f} % without)"
    return Fact(f"{count} nodes", said.format(**numbers), numbers)


async def _node(stage: Stage, number: int) -> None:
    name, arch = f"churn-{number}", ("amd64", "arm64")[number % 2]
    labels = {"kubernetes.io/arch": arch, "kubernetes.io/os": "linux", "kubernetes.io/hostname": name}
    labels |= {f"example.com/label-{each}": "x" * 20 for each in range(20)}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    # Nothing of other measurements runs there.
    node["spec"] = {"taints": [{"key": "example.com/churn", "effect": "NoSchedule"}]}
    await stage.api.create("/api/v1/nodes", node, exists_ok=True)
    await _heartbeat(stage, number)


async def _heartbeat(stage: Stage, number: int) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kinds = {"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False"}
    conditions = [
        {"type": kind, "status": value, "reason": "Played", "message": "played", "lastHeartbeatTime": now}
        for kind, value in kinds.items()
    ]
    images = [
        {"names": [f"registry.example.com/app-{each}@sha256:{'0' * 64}"], "sizeBytes": 1} for each in range(_IMAGES)
    ]
    status = {"conditions": conditions, "images": images, "capacity": {"cpu": "64", "pods": "250"}}
    await stage.api.merge(f"/api/v1/nodes/churn-{number}/status", {"status": status})


def queued(count: int, namespaces: int, rounds: int = 300) -> Fact:
    """Decide whose turn it is among `count` builds that wait, as runs end and builds start."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    most = 100
    view = ClusterView(Concurrency(namespace=4, cluster=most))
    builds = [
        BuildSummary(
            namespace=f"ns-{number % namespaces}",
            name=f"b-{number}",
            uid=f"{number:08}",
            created_at=began + timedelta(seconds=number),
            running=False,
            waiting_since=began + timedelta(seconds=number),
            image=f"registry.example.com/b-{number}",
            tags=frozenset({"v1"}),
        )
        for number in range(count)
    ]
    for each in builds:
        view.store(each)
    running: deque[BuildSummary] = deque()
    seconds = []
    for number in range(rounds):
        # One that runs ends; whose turn it is now starts; and one that waits asks whether it may.
        started = time.perf_counter()
        if len(running) == most:
            view.remove(running.popleft().uid)
        running.append(replace(view.turns.admitted()[0], running=True, waiting_since=None))
        view.store(running[-1])
        view.turns.blocked_by(builds[-1 - number], began + timedelta(days=1))
        seconds.append(time.perf_counter() - started)
    seconds.sort()
    numbers = {"median_ms": 1000 * seconds[rounds // 2], "most_ms": 1000 * seconds[-1]}
    said = "a decision after a change takes {median_ms:.2f} ms ({most_ms:.2f} at most)".format(**numbers)
    return Fact(f"{count} queued builds in {namespaces} namespaces", said, numbers)
