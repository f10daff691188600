"""Bounds of kept builders over all builds: how many wait for work, and that they give way to what needs room."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Final, NoReturn

from multiarchbuild.plan.children import Pod
from multiarchbuild.plan.kept import finds_no_room, surplus
from multiarchbuild.plan.policy import KeptBuilders

from .kube import PODS, Kube, KubeError, NotFound
from .logs import logger
from .metrics import Metrics
from .views import Views

_LOG = logger(__name__)

TOGETHER_SECONDS: Final = 0.5
"""How long a change waits for others."""
MOST_GIVEN: Final = 5
"""How many builders go at most for one pod that finds no room: what it lacks is something else then."""
AGAIN_SECONDS: Final = 5.0
"""When it is looked at again after a request has failed."""


class KeptBounds:
    """Deletes builders that wait for work and may not, or that others need the room of. For one event loop."""

    def __init__(self, kube: Kube, views: Views, limits: KeptBuilders) -> None:
        """`views` shows the pods of all builds."""
        self._kube, self._views, self._limits = kube, views, limits
        self._changed = asyncio.Event()
        self._given: Counter[str] = Counter()
        """How often builders have gone, by uid of each pod that still finds no room."""

    def changed(self) -> None:
        """Have the pods looked at: one waits for work, is gone, or finds no room."""
        self._changed.set()

    async def run(self) -> NoReturn:
        """Keep the bounds until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(TOGETHER_SECONDS)
            self._changed.clear()
            if not await self.enforce():
                await asyncio.sleep(AGAIN_SECONDS)
                self.changed()

    async def enforce(self) -> bool:
        """Delete what has to go; return whether all requests went well."""
        pods = tuple(pod for _, pod in self._views.pods.all())
        done, full = True, dict(self._views.full)
        self._views.full.clear()  # it is said again when a pod is refused again
        short = {pod.uid: pod.namespace for pod in pods if finds_no_room(pod)}
        self._given = Counter({uid: given for uid, given in self._given.items() if uid in short})
        near = {namespace for uid, namespace in short.items() if self._given[uid] < MOST_GIVEN}
        going = surplus(pods, self._limits, short=bool(near), near=near, full=full)
        if going:
            self._given.update(short.keys())
        for pod in going:
            done = await self._delete(pod) and done
        return done

    async def _delete(self, pod: Pod) -> bool:
        owner = next(self._owners(pod), None)
        if owner is None:
            return True  # it was handed a build, or is gone
        # Before the request: from now on nothing is handed to it.
        self._views.deleted(PODS, owner, pod.name, pod.uid)
        try:
            await self._kube.delete(PODS, pod.namespace, pod.name, uid=pod.uid)
        except NotFound:
            pass
        except KubeError as error:
            self._views.not_deleted(owner, pod.name, pod.uid)
            _LOG.warning("a builder that waits for work is not deleted yet", pod=pod.name, error=str(error))
            return False
        _LOG.info("deleted a builder that waits for work", pod=pod.name, namespace=pod.namespace)
        return True

    def _owners(self, pod: Pod) -> Iterator[str]:
        """Yield the owner of `pod`, if it still waits."""
        return (owner for owner, known in self._views.pods.all() if known.uid == pod.uid and known.idle)


async def keep_bounds(kube: Kube, views: Views, limits: KeptBuilders, metrics: Metrics) -> NoReturn:
    """Keep the bounds for as long as the operator runs, and let `metrics` count what is kept."""
    bounds = KeptBounds(kube, views, limits)
    views.on_room_changed = bounds.changed
    metrics.count_kept(lambda: (pod for _, pod in views.pods.all()))
    await bounds.run()
