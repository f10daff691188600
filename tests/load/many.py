"""Many builds at once, and what merely writing the same objects takes."""

import copy
import time
from functools import partial

from tests.faults.rig.api import METADATA, Object

from . import audit
from .figures import Run
from .objects import BUILDS, Written, build, copy_of
from .stage import Stage, together

_LOOKS = "mab_reconcile_duration_seconds_count"


async def many(stage: Stage, *, builds: int, namespaces: int, source: str = "inline") -> Run:
    """Create `builds` at once, wait until all are Ready, and write the same once more without an operator."""
    names = await stage.namespaces("load", namespaces)
    await stage.operator.start()
    lone = await _lone(stage, names[0], source)
    await stage.at_rest()
    operator = stage.operator
    memory, cpu, looks = operator.memory(), operator.cpu, operator.metric(_LOOKS)
    keys = [(names[number % namespaces], f"b-{number}") for number in range(builds)]
    started = time.monotonic()
    await together([partial(_create, stage, key, source) for key in keys])
    created = time.monotonic() - started
    await stage.until_ready(set(keys))
    counted = await stage.at_rest()
    written = await _written(stage, keys[-1])
    run = partial(
        Run,
        builds=builds,
        namespaces=namespaces,
        source=source,
        lone_seconds=lone,
        created_seconds=created,
        ready_seconds=tuple(sorted(stage.ready[key] - started for key in keys)),
        requests=dict(counted),
        reads=audit.reads(counted),
        writes=audit.writes(counted),
        looks=int(operator.metric(_LOOKS) - looks),
        cpu_seconds=operator.cpu - cpu,
        memory_before=memory,
        memory_peak=operator.memory("VmHWM"),
        errors=tuple(str(line) for line in operator.lines("error")),
    )
    await operator.stop()
    each = {name: round(number / builds) for name, number in counted.items()}
    floor_names = await stage.namespaces("floor", namespaces)
    used, started = time.process_time(), time.monotonic()
    keys = [(floor_names[number % namespaces], f"b-{number}") for number in range(builds)]
    await together([partial(_write, stage, key, source, written, each) for key in keys])
    return run(floor_seconds=time.monotonic() - started, floor_cpu_seconds=time.process_time() - used)


async def _create(stage: Stage, key: tuple[str, str], source: str) -> None:
    await stage.api.create(BUILDS.format(key[0]), build(*key, source=source), accept=METADATA)


async def _lone(stage: Stage, namespace: str, source: str) -> float:
    """Return the seconds until a build that is alone is Ready: of two, as the first one has the operator warm up."""
    seconds = 0.0
    for name in ("first", "second"):
        started = time.monotonic()
        await _create(stage, (namespace, name), source)
        await stage.until_ready({(namespace, name)})
        seconds = stage.ready[namespace, name] - started
    return seconds


async def _written(stage: Stage, key: tuple[str, str]) -> Written:
    """Return what the operator has written of a build."""
    namespace, name = key
    found = await stage.api.get(f"{BUILDS.format(namespace)}/{name}")
    query = f"?labelSelector=multiarch.build/build-uid={found['metadata']['uid']}"
    root = f"/api/v1/namespaces/{namespace}"
    events = (await stage.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"))["items"]
    return Written(
        status=found["status"],
        config_maps=tuple(_typed("ConfigMap", (await stage.api.get(f"{root}/configmaps{query}"))["items"])),
        pods=tuple(_typed("Pod", (await stage.api.get(f"{root}/pods{query}"))["items"])),
        events=tuple(event for event in events if event["regarding"].get("uid") == found["metadata"]["uid"]),
    )


def _typed(kind: str, items: list[Object]) -> list[Object]:
    """Return the items of a list as objects of their own."""
    return [{"apiVersion": "v1", "kind": kind, **item} for item in items]


async def _write(stage: Stage, key: tuple[str, str], source: str, written: Written, each: dict[str, int]) -> None:
    """Write what the operator writes for a build, as often (`each`), and read nothing."""
    namespace, name = key
    api, root = stage.api, f"/api/v1/namespaces/{namespace}"
    owner = await api.create(BUILDS.format(namespace), build(namespace, name, source=source), accept=METADATA)
    for number, config_map in enumerate(written.config_maps):
        await api.create(f"{root}/configmaps", copy_of(config_map, owner, number), accept=METADATA)
    handed = each.get("patch pods", 0)
    for number, pod in enumerate(written.pods):
        made = await api.create(f"{root}/pods", copy_of(pod, owner, number), accept=METADATA)
        if number < handed:
            patch = {"metadata": {"annotations": {"multiarch.build/handed": "x" * 200}}}
            await api.merge(f"{root}/pods/{made['metadata']['name']}", patch)
    version = owner["metadata"]["resourceVersion"]
    for number in range(each["patch multiarchbuilds/status"]):
        status = copy.copy(written.status)
        status["columns"] = status.get("columns", {}) | {"duration": f"{number}s"}
        document = {
            "apiVersion": "multiarch.build/v1alpha1",
            "kind": "MultiArchBuild",
            "metadata": {"namespace": namespace, "name": name, "resourceVersion": version},
            "status": status,
        }
        answer = await api.apply(f"{BUILDS.format(namespace)}/{name}/status", document, accept=METADATA)
        version = answer["metadata"]["resourceVersion"]
    for number, event in enumerate(written.events):
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        await api.create(path, copy_of(event, owner, number), accept=METADATA)
