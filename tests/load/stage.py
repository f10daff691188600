"""A control plane with played nodes, on which an operator works: what every measurement needs."""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from multiarchbuild.api.crd import crd
from tests.cluster.layout import Layout
from tests.faults.rig.api import Api, ApiError, Object, upstream
from tests.faults.rig.campaign import served
from tests.faults.rig.kubelet import Kubelet, Place
from tests.support.tasks import beside

from .audit import AuditLog
from .logs import endpoint
from .objects import ALL_BUILDS, BUILDS, ready
from .operator import Operator, prepare

_SECONDS: Final = {"start": (0.3, 1.0), "end": (2.0, 6.0), "push": (0.3, 1.0), "delete": (0.1, 0.5)}
"""How long what a kubelet does takes: pods start within a second, steps run for some."""
AT_ONCE: Final = 16
"""Requests of the load itself at a time."""
PATIENCE: Final = 300.0
"""Seconds without any further Ready build after which a run is given up."""


@dataclass
class Stage:
    """See the module."""

    layout: Layout
    api: Api
    kubelet: Kubelet
    operator: Operator
    audit: AuditLog
    token: str = field(default_factory=lambda: secrets.token_hex(3))
    """Tells its namespaces from those of an earlier one."""
    ready: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each build was Ready first (monotonic seconds), by namespace and name."""

    async def namespaces(self, prefix: str, number: int) -> list[str]:
        """Return the names of namespaces, which are made where they are missing."""
        names = [f"{prefix}-{self.token}-{each}" for each in range(number)]
        for name in names:
            await self.api.create("/api/v1/namespaces", {"metadata": {"name": name}}, exists_ok=True)
            self.kubelet.places.setdefault(name, Place())
        for name in names:
            # What controllers put into a new namespace is there before anything is measured.
            await _until_there(self.api, f"/api/v1/namespaces/{name}/serviceaccounts/default")
            await _until_there(self.api, f"/api/v1/namespaces/{name}/configmaps/kube-root-ca.crt")
        return names

    async def until_ready(self, builds: set[tuple[str, str]]) -> None:
        """Return once all of these builds are Ready."""
        missing, since = len(builds), time.monotonic()
        while builds - self.ready.keys():
            await asyncio.sleep(0.1)
            self.operator.check()
            if (now := len(builds - self.ready.keys())) != missing:
                missing, since = now, time.monotonic()
            assert time.monotonic() - since < PATIENCE, f"{missing} of {len(builds)} builds are not Ready"

    async def follow(self) -> None:
        """Note when builds get Ready, for ever."""
        async for kind, build in self.api.watch(ALL_BUILDS):
            meta = build["metadata"]
            key = meta["namespace"], meta["name"]
            if kind != "DELETED" and key not in self.ready and ready(build):
                self.ready[key] = time.monotonic()

    async def at_rest(self) -> Counter[str]:
        """Return what the operator has asked for since the last call, once that has been nothing for two seconds."""
        asked, quiet = self.audit.counted(), 0
        while quiet < 4:
            await asyncio.sleep(0.5)
            further = self.audit.counted()
            asked += further
            quiet = 0 if further else quiet + 1
        return asked


@asynccontextmanager
async def stage(layout: Layout, folder: Path, *, seed: int = 1, profile: Path | None = None) -> AsyncIterator[Stage]:
    """Yield a stage on the control plane of `layout`; the operator is not started yet."""
    rng = random.Random(seed)
    kubeconfig = await asyncio.to_thread(prepare, layout, folder)
    server = upstream(layout.kubeconfig)
    async with Api(server) as api:
        definition = crd()
        name = definition["metadata"]["name"]
        await api.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}", definition)
        await served(api, BUILDS.format("default"))
        kubelet = Kubelet(api, lambda what: rng.uniform(*_SECONDS[what]))
        kubelet.answers = lambda _: True  # as every step does
        async with endpoint(layout, kubelet.log) as kubelet.endpoint:
            operator = Operator(kubeconfig, folder, profile)
            made = Stage(layout, api, kubelet, operator, AuditLog(layout))
            async with beside(kubelet.run(), made.follow()):
                try:
                    yield made
                finally:
                    await operator.stop()


async def together(works: list[Callable[[], Awaitable[None]]], at_once: int = AT_ONCE) -> None:
    """Do all of `works`, some at a time."""
    waiting = iter(works)

    async def worker() -> None:
        for work in waiting:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


async def _until_there(api: Api, path: str) -> Object:
    end = time.monotonic() + 60
    while True:
        try:
            return await api.get(path)
        except ApiError as error:
            if error.status != 404 or time.monotonic() > end:
                raise
        await asyncio.sleep(0.1)
