"""One look at one build: observe, decide, apply, one write to status. All state is in the cluster."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol

from structlog.contextvars import bound_contextvars

from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import Phase, Status
from multiarchbuild.api.stored import read_status, undeclared, without
from multiarchbuild.plan.actions import (
    Action,
    EnsureInputs,
    EventRecord,
    HandOver,
    Start,
    StartBuild,
    StartPublish,
    StartResolve,
)
from multiarchbuild.plan.children import Node, Pod
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.decide import Children, Decision
from multiarchbuild.plan.not_created import NotCreated
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.tracing import ended, has_ended

from .answers import Answers
from .apply import Applier, Gone, NameTaken, NotHanded, Rejected
from .build_index import BuildIndex
from .flux import Sources
from .kube import BUILDS, Conflict, Kube, KubeError, NotFound, Transient
from .logs import logger
from .metrics import Metrics
from .queue import KeyedQueue
from .refused import REFUSED_SECONDS, invalid_spec
from .seen import SeenBuild, see, version_of
from .traces import Traces
from .views import Views
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
        others: ClusterView,
        not_created: NotCreated,
    ) -> Decision:
        """Return what should happen next for `build`."""


LOOK_SECONDS: Final = 120.0
"""Time for one look at one build: a worker never hangs longer than this."""
LEAST_WAKE_SECONDS: Final = 1.0
"""Times are whole seconds: an earlier look would see the same."""
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
        views: Views,
        sources: Sources,
        index: BuildIndex,
        answers: Answers,
        policy: Policy,
        metrics: Metrics,
        traces: Traces,
        active: set[Key],
    ) -> None:
        """Keep no state but which builds have a run that is going on, in `active`."""
        self._kube, self._decide, self._applier = kube, decide, applier
        self._views, self._sources, self._policy, self._metrics = views, sources, policy, metrics
        self._index, self._answers, self._traces = index, answers, traces
        self.active = active
        self.waiting: set[Key] = set()
        """Those of them that wait for a node: what a change of nodes may concern."""

    async def look(self, key: Key) -> float | None:
        """Bring the build forward; return the seconds after which to look again if nothing happens before.

        Raises:
            KubeError: To be tried again.
            Exception: A bug; nothing of the build was changed after it.
        """
        now = datetime.now(UTC).replace(microsecond=0)  # as the API server writes times
        seen = self._index.latest(key) or await self._read(key, now)
        if seen is None or seen.build is None or seen.deleting:
            # Its children go with it (owner references); until then nothing new may start.
            self._leave(key)
            return None
        with bound_contextvars(**({"run": seen.build.status.run.id} if seen.build.status.run else {})):
            try:
                return await self._bring_forward(key, seen, seen.build, now)
            except Gone:
                self._leave(key)
                return None

    async def _read(self, key: Key, now: datetime) -> SeenBuild | None:
        """Return the build as it is now, None where it is gone; say in its status where its spec can't be read."""
        try:
            manifest = await self._kube.get(BUILDS, key.namespace, key.name)
        except NotFound:
            return None
        seen = see(manifest)
        if seen.build is None and not seen.deleting:
            await self._invalid(seen, manifest, now)
        else:
            self._index.seen("MODIFIED", manifest)
        return seen

    async def _whole(self, seen: SeenBuild) -> MultiArchBuild:
        """Return the build with the contents of its inline files, of which the index keeps the names only."""
        manifest = await self._kube.get(BUILDS, seen.namespace, seen.name)
        build = MultiArchBuild.model_validate(manifest)
        assert seen.build is not None
        if (build.metadata.uid, build.metadata.generation) != (seen.uid, seen.build.metadata.generation):
            self._index.rest(Key(seen.namespace, seen.name))
            raise Conflict("the spec has changed since it was looked at")
        return build

    async def _bring_forward(self, key: Key, seen: SeenBuild, build: MultiArchBuild, now: datetime) -> float | None:
        artifact = await self._sources.artifact_for(key, build)
        children = self._views.children_of(seen.uid)
        children = replace(children, artifact=artifact, pods=self._answers.known(key, children.pods))
        nodes = self._views.nodes.all
        errors: list[KubeError] = []
        decide = partial(self._decide, build, children, nodes, self._policy, now, others=self._index.view)
        decision = await self._start(seen, build, decide, errors)
        if any(isinstance(action, HandOver) for action in decision.before):
            # Its log is followed before it has anything to say.
            self._answers.known(key, self._views.children_of(seen.uid).pods)
        self._track(key, decision.status)
        self._traces.add(ended(build, build.status, decision.status, children.pods, now))
        await self._perform_all(seen, build, decision.after, errors)
        await self._post(build, decision.events)
        if errors:
            # Not before all else is done: what one request met is no reason to put off the others.
            raise errors[0]
        if decision.wake_after is None and not any(map(_goes_on, children.pods)):
            # Else there is one more look, when a pod whose log has told its result is seen to have ended.
            self._index.rest(key)
        return decision.wake_after.total_seconds() if decision.wake_after is not None else None

    async def _start(
        self,
        seen: SeenBuild,
        build: MultiArchBuild,
        decide: Callable[..., Decision],
        errors: list[KubeError],
        not_created: NotCreated = NotCreated(),  # noqa: B008 - immutable
        asked: tuple[Action, ...] = (),
    ) -> Decision:
        """Perform what comes before status, write status, and return the decision that it is of.

        Where something is not created, it is decided once more: status says so, and what has another name now is
        asked for, but nothing twice.
        """
        decision = decide(not_created=not_created)
        # Nothing is awaited between the two: what is decided counts for the next decision.
        with self._index.expecting(seen, decision.status):
            fresh = tuple(action for action in decision.before if action not in asked)
            if answer := await self._perform_all(seen, build, fresh, errors):
                return await self._start(seen, build, decide, errors, not_created | answer, asked + fresh)
            await self._write(seen, build.status, decision.status)
        return decision

    async def _perform_all(
        self, seen: SeenBuild, build: MultiArchBuild, actions: Sequence[Action], errors: list[KubeError]
    ) -> NotCreated:
        """Perform each of `actions`, whatever comes of the others; return what was not created.

        What may succeed when it is repeated is added to `errors`. Raises `Gone`.
        """
        answer = NotCreated()
        for action in actions:
            if isinstance(action, StartResolve | StartBuild | StartPublish) and action.inputs in answer:
                continue  # without its ConfigMap it could never start
            if isinstance(action, StartBuild) and action.claim in answer:
                continue  # nor without its volume
            try:
                whole = _needs_contents(action) and not seen.complete
                await self._applier.perform(await self._whole(seen) if whole else build, action)
            except Rejected as rejected:
                answer |= self._rejected(rejected)
            except NameTaken as taken:
                answer |= NotCreated(taken=frozenset({str(taken)}))
            except NotHanded as refused:
                answer |= NotCreated(not_handed=frozenset({str(refused)}))
            except KubeError as error:
                errors.append(error)
                if isinstance(action, Start):
                    answer |= NotCreated(failed=frozenset({action.name}))
                elif isinstance(action, HandOver):
                    # It may have been handed over all the same; then it is of a run that has another builder.
                    answer |= NotCreated(not_handed=frozenset({action.pod}))
        return answer

    def _rejected(self, rejected: Rejected) -> NotCreated:
        words = {rejected.name: str(rejected)}
        if rejected.awaited:
            return NotCreated(awaited=words)
        self._metrics.reconcile_errors.labels("terminal").inc()
        return NotCreated(refused=words)

    async def _write(self, seen: SeenBuild, old: Status, new: Status) -> None:
        if new == old or (document := _dump(new)) == _dump(old):
            return
        try:
            answer = await self._apply(seen, document)
        except NotFound as error:
            raise Gone(str(error)) from error
        except Conflict:
            # What we know of it is old: the next look reads it.
            self._index.rest(Key(seen.namespace, seen.name))
            raise
        if seen.build is not None:
            build = seen.build.model_copy(update={"status": new})
            self._index.written(replace(seen, version=version_of(answer), build=build))
        self._metrics.status_written(old, new)
        self._log_progress(old, new)

    async def _apply(self, seen: SeenBuild, status: Mapping[str, Any]) -> dict[str, Any]:
        """Write `status`, as far as the definition in the cluster has room for it: that may be of an older version."""
        while True:
            try:
                return await self._kube.apply_status(BUILDS, seen.identity, status)
            except KubeError as error:
                # It names some of the fields that are too many, not always all.
                known = without(dict(status), undeclared(str(error)))
                if known == status:
                    raise
            _LOG.warning("the CustomResourceDefinition is older than the operator: apply the one of this version")
            status = known

    async def _invalid(self, seen: SeenBuild, manifest: Mapping[str, Any], now: datetime) -> None:
        """Say in status that the spec can't be read. Anything else that can't be read is a bug."""
        error = seen.error
        assert error is not None
        if any(entry["loc"][:1] != ("spec",) for entry in error.errors()):
            raise error
        self._metrics.reconcile_errors.labels("terminal").inc()
        old, _ = read_status(manifest.get("status"))
        await self._write(seen, old, invalid_spec(old, error, manifest["metadata"]["generation"], now))

    async def _post(self, build: MultiArchBuild, events: Sequence[EventRecord]) -> None:
        """Post Events, as well as it goes: status has said it all, and nothing may wait for an Event."""
        for event in events:
            try:
                await self._applier.post(build, event)
            except KubeError as error:
                _LOG.warning("event not posted", reason=event.reason, error=str(error))

    def _track(self, key: Key, status: Status) -> None:
        run = status.run if status.run and not status.run.result else None
        waiting = run is not None and any(entry.phase is Phase.PENDING for entry in run.platforms)
        for keys, belongs in ((self.active, run is not None), (self.waiting, waiting)):
            if belongs:
                keys.add(key)
            else:
                keys.discard(key)
        self._metrics.builds_active.set(len(self.active))

    def set_aside(self, key: Key) -> None:
        """Let no other build wait for this one's turn."""
        self._index.set_aside(key)

    def _leave(self, key: Key) -> None:
        self._sources.forget(key)
        self._answers.forget(key)
        self._index.gone(key)
        self.active.discard(key)
        self.waiting.discard(key)
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
        if has_ended(old, new):
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


def _needs_contents(action: Action) -> bool:
    """Return whether `action` carries the contents of inline files."""
    return isinstance(action, EnsureInputs) or (isinstance(action, HandOver) and isinstance(action.wanted, StartBuild))


def _goes_on(pod: Pod) -> bool:
    return not pod.deleting and pod.phase not in {"Succeeded", "Failed"}


def _dump(status: Status) -> dict[str, Any]:
    dumped: dict[str, Any] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped
