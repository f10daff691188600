"""One look at one build: observe, decide, apply, one write to status. All state is in the cluster."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from pydantic import ValidationError
from structlog.contextvars import bound_contextvars

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import Status
from multiarchbuild.plan.actions import EventRecord
from multiarchbuild.plan.children import Node
from multiarchbuild.plan.decide import Children, Decision
from multiarchbuild.plan.others import Other
from multiarchbuild.plan.policy import Policy

from .apply import Applier, Gone, Rejected
from .census import Census
from .flux import Sources
from .kube import BUILDS, Conflict, Kube, KubeError, NotFound, Transient
from .logs import logger
from .metrics import Metrics
from .observe import Nodes, children_of
from .queue import KeyedQueue
from .refused import invalid_spec, pod_rejected
from .watch import Key

_LOG = logger(__name__)


class Decide(Protocol):
    """`plan.decide.decide`."""

    def __call__(
        self,
        build: MultiArchBuild,
        children: Children,
        nodes: Sequence[Node],
        policy: Policy,
        now: datetime,
        /,
        *,
        others: Sequence[Other],
    ) -> Decision:
        """Return what should happen next for `build`."""


LOOK_SECONDS: Final = 120.0
"""Time for one look at one build: a worker never hangs longer than this."""
LEAST_WAKE_SECONDS: Final = 1.0
"""Times are whole seconds: an earlier look would see the same."""
REFUSED_SECONDS: Final = 60.0
"""When to ask again for what the API server refused."""
BUG_SECONDS: Final = 60.0
"""Least time between two looks at a build that the operator can't cope with."""


class Reconciler:
    """Looks at builds, one call each."""

    def __init__(
        self,
        *,
        kube: Kube,
        decide: Decide,
        applier: Applier,
        nodes: Nodes,
        sources: Sources,
        census: Census,
        policy: Policy,
        metrics: Metrics,
    ) -> None:
        """Keep no state but which builds have a run that is going on."""
        self._kube, self._decide, self._applier = kube, decide, applier
        self._nodes, self._sources, self._policy, self._metrics = nodes, sources, policy, metrics
        self._census = census
        self.active: set[Key] = set()
        """Builds with a run that is going on: what a change of nodes may concern."""

    async def look(self, key: Key) -> float | None:
        """Bring the build forward; return the seconds after which to look again if nothing happens before.

        Raises:
            KubeError: To be tried again.
            Exception: A bug; nothing of the build was changed after it.
        """
        try:
            manifest = await self._kube.get(BUILDS, key.namespace, key.name)
        except NotFound:
            self._leave(key)
            return None
        if "deletionTimestamp" in manifest["metadata"]:
            # Its children go with it (owner references); until then nothing new may start.
            self._leave(key)
            return None
        now = datetime.now(UTC).replace(microsecond=0)  # as the API server writes times
        try:
            build = MultiArchBuild.model_validate(manifest)
        except ValidationError as error:
            await self._invalid(manifest, error, now)
            self._leave(key)
            return None
        with bound_contextvars(**({"run": build.status.run.id} if build.status.run else {})):
            return await self._bring_forward(key, build, manifest, now)

    async def _bring_forward(
        self, key: Key, build: MultiArchBuild, manifest: Mapping[str, Any], now: datetime
    ) -> float | None:
        meta = build.metadata
        artifact = await self._sources.artifact_for(key, build)
        children = replace(await children_of(self._kube, meta.namespace, meta.uid), artifact=artifact)
        nodes = await self._nodes.get()
        decision = self._decide(build, children, nodes, self._policy, now, others=self._census.others)
        try:
            # Nothing is awaited between the two: what is decided counts for the next decision.
            with self._census.expecting(build, manifest, decision.status):
                for action in decision.before:
                    await self._applier.perform(build, action)
                await self._write(manifest, build.status, decision.status)
        except Rejected as rejected:
            return await self._rejected(build, manifest, rejected, now)
        except Gone:
            self._leave(key)
            return None
        self._track(key, decision.status)
        for action in decision.after:
            await self._applier.perform(build, action)
        await self._post(build, decision.events)
        return decision.wake_after.total_seconds() if decision.wake_after is not None else None

    async def _write(self, manifest: Mapping[str, Any], old: Status, new: Status) -> None:
        if _dump(new) == _dump(old):
            return
        meta = manifest["metadata"]
        identity = {field: meta[field] for field in ("name", "namespace", "resourceVersion")}
        await self._kube.apply_status(BUILDS, identity, _dump(new))
        self._metrics.status_written(old, new)
        self._log_progress(old, new)

    async def _rejected(
        self, build: MultiArchBuild, manifest: Mapping[str, Any], rejected: Rejected, now: datetime
    ) -> float:
        self._metrics.reconcile_errors.labels("terminal").inc()
        what, answer = rejected.action.name, str(rejected)
        status = pod_rejected(build.status, what, answer, build.metadata.generation, now)
        await self._write(manifest, build.status, status)
        message = status.conditions[0].message
        await self._post(build, [EventRecord(f"{what}/{Reason.POD_REJECTED}", "Warning", Reason.POD_REJECTED, message)])
        return REFUSED_SECONDS

    async def _invalid(self, manifest: Mapping[str, Any], error: ValidationError, now: datetime) -> None:
        """Say in status that the spec can't be read. Anything else that can't be read is a bug."""
        if any(entry["loc"][:1] != ("spec",) for entry in error.errors()):
            raise error
        self._metrics.reconcile_errors.labels("terminal").inc()
        old = Status.model_validate(manifest.get("status", {}))
        await self._write(manifest, old, invalid_spec(old, error, manifest["metadata"]["generation"], now))

    async def _post(self, build: MultiArchBuild, events: Sequence[EventRecord]) -> None:
        """Post Events, as well as it goes: status has said it all, and nothing may wait for an Event."""
        for event in events:
            try:
                await self._applier.post(build, event)
            except KubeError as error:
                _LOG.warning("event not posted", reason=event.reason, error=str(error))

    def _track(self, key: Key, status: Status) -> None:
        if status.run and not status.run.result:
            self.active.add(key)
        else:
            self.active.discard(key)
        self._metrics.builds_active.set(len(self.active))

    def set_aside(self, key: Key) -> None:
        """Let no other build wait for this one's turn."""
        self._census.set_aside(key)

    def _leave(self, key: Key) -> None:
        self._sources.forget(key)
        self._census.gone(key)
        self.active.discard(key)
        self._metrics.builds_active.set(len(self.active))

    def _log_progress(self, old: Status, new: Status) -> None:
        run = new.run
        if run is None:
            return
        before = {entry.platform: entry for entry in old.run.platforms} if old.run else {}
        for entry in run.platforms:
            was = before.get(entry.platform)
            if was is None or (was.phase, was.attempt, was.reason) != (
                entry.phase,
                entry.attempt,
                entry.reason,
            ):
                fields = entry.model_dump(
                    mode="json",
                    include={"platform", "phase", "mode", "reason", "node", "attempt"},
                    exclude_none=True,
                )
                _LOG.info("platform", run=run.id, **fields)
        if run.result and (old.run is None or (old.run.id, old.run.result) != (run.id, run.result)):
            digest = new.image.digest if new.image else None
            _LOG.info("run ended", run=run.id, result=run.result, reason=run.reason, digest=digest)


async def work(queue: KeyedQueue[Key], reconciler: Reconciler, metrics: Metrics) -> None:
    """Work off the queue, for ever. No build's trouble is another's."""
    while True:
        taken = await queue.get()
        metrics.queue_duration.observe(taken.waited)
        try:
            with bound_contextvars(build=str(taken.key)), metrics.reconcile_duration.time():
                await _attend(taken.key, queue, reconciler, metrics)
        finally:
            queue.done(taken.key)


async def _attend(key: Key, queue: KeyedQueue[Key], reconciler: Reconciler, metrics: Metrics) -> None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            wake_after = await reconciler.look(key)
    except Conflict:
        # Somebody changed it while we looked: look at what it is now.
        queue.retry(key)
    except (Transient, TimeoutError) as error:
        metrics.reconcile_errors.labels("transient").inc()
        delay = queue.retry(key, at_least=error.retry_after if isinstance(error, Transient) else 0.0)
        _LOG.warning("to be tried again", error=str(error) or "took too long", seconds=round(delay, 1))
    except KubeError as error:
        metrics.reconcile_errors.labels("terminal").inc()
        delay = queue.retry(key, at_least=REFUSED_SECONDS)
        reconciler.set_aside(key)
        _LOG.error("the API server refused", error=str(error), seconds=round(delay, 1))
    except Exception:  # noqa: BLE001 - the boundary that keeps one build from stopping the others
        metrics.reconcile_errors.labels("bug").inc()
        delay = queue.retry(key, at_least=BUG_SECONDS)
        reconciler.set_aside(key)
        _LOG.exception("bug: this build is left as it is", seconds=round(delay, 1))
    else:
        queue.forget(key)
        if wake_after is not None:
            queue.add_after(key, max(wake_after, LEAST_WAKE_SECONDS))


def _dump(status: Status) -> dict[str, Any]:
    dumped: dict[str, Any] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped
