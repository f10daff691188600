"""The trace of a run: what it waited for, and for how long. BuildKit's own spans are below those of the builders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import Field, field_validator

from multiarchbuild.api.base import Model
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import ImageStatus, Phase, Result, RunStatus, Status
from multiarchbuild.api.traces import build_span_id, span_id, trace_id

from .children import Pod, Role, platform_of

_URL = r"^(https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?)?$"


class Tracing(Model):
    """Where traces go."""

    endpoint: Annotated[str, Field(max_length=512, pattern=_URL)] = ""
    """Base URL of a receiver of OTLP over HTTP, such as http://collector.observability.svc:4318; empty: no traces."""

    @field_validator("endpoint")
    @classmethod
    def _has_no_end(cls, url: str) -> str:
        return url.rstrip("/").removesuffix("/v1/traces")

    @property
    def enabled(self) -> bool:
        """Whether runs are traced."""
        return bool(self.endpoint)

    @property
    def url(self) -> str:
        """Where traces are posted to."""
        return f"{self.endpoint}/v1/traces"


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a run."""

    name: str
    trace: str
    """Id of the trace, in hexadecimal digits."""
    id: str
    parent: str
    """Id of the span that it is a part of; empty of the whole run."""
    start: datetime
    end: datetime
    attributes: dict[str, str | int] = field(default_factory=dict)
    error: str = ""
    """Why it failed."""


def trace_of(build: MultiArchBuild, run: str) -> str:
    """Return the id of the trace of a run."""
    return trace_id(build.metadata.namespace, build.metadata.name, run)


def has_ended(old: Status, new: Status) -> bool:
    """Return whether the run in `new` has ended since `old`."""
    run, before = new.run, old.run
    return bool(run and run.result and (before is None or (before.id, before.result) != (run.id, run.result)))


def ended(build: MultiArchBuild, old: Status, new: Status, pods: Sequence[Pod], now: datetime) -> tuple[Span, ...]:
    """Return the traces of what has ended between two statuses: a run, and one that another has taken the place of."""
    found: tuple[Span, ...] = ()
    before, run = old.run, new.run
    if before is not None and before.result is None and run is not None and run.id != before.id:
        given_up = {"finished_at": now, "reason": Reason.SUPERSEDED, "message": f"run {run.id} took its place"}
        found = _spans(build, before.model_copy(update=given_up), None, pods)
    if run is not None and has_ended(old, new):
        found += _spans(build, run, new.image, pods)
    return found


def _spans(build: MultiArchBuild, run: RunStatus, image: ImageStatus | None, pods: Sequence[Pod]) -> tuple[Span, ...]:
    if run.finished_at is None or run.trace_id is None:
        return ()
    began = min(run.queued_at or run.started_at, run.started_at)
    root = Span(
        f"run {build.metadata.namespace}/{build.metadata.name}",
        run.trace_id,
        span_id(run.trace_id, "run"),
        "",
        began,
        max(run.finished_at, began),
        _attributes(build, run, image),
        "" if run.result is Result.SUCCEEDED else f"{run.reason}: {run.message or ''}",
    )
    own = [pod for pod in pods if pod.run_id == run.id and pod.role is not Role.CHECK]
    parts = [*_queue(run, root), *_builds(run, root, own), *_steps(run, root, own)]
    return (root, *parts)


def _attributes(build: MultiArchBuild, run: RunStatus, image: ImageStatus | None) -> dict[str, str | int]:
    found: dict[str, str | int | None] = {
        "k8s.namespace.name": build.metadata.namespace,
        "multiarchbuild.name": build.metadata.name,
        "multiarchbuild.run": run.id,
        "multiarchbuild.trigger": run.trigger,
        "multiarchbuild.result": run.result,
        "multiarchbuild.reason": run.reason,
        "multiarchbuild.image": image.ref if image and run.result is Result.SUCCEEDED else None,
        "vcs.ref.head.revision": run.source.commit if run.source else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _queue(run: RunStatus, root: Span) -> Iterator[Span]:
    if run.queued_at is not None:
        yield _part(root, root, ("queue",), "wait for a turn", run.queued_at, run.started_at)


def _builds(run: RunStatus, root: Span, pods: Sequence[Pod]) -> Iterator[Span]:
    entries = {str(platform_of(entry.platform)): entry for entry in run.platforms}
    builders = {tuple(map(str, pod.platforms)) for pod in pods if pod.role is Role.BUILD}
    for platforms in sorted(builders):
        entry = next((entries[name] for name in platforms if name in entries), None)
        if entry is None:
            continue
        own = [pod for pod in pods if tuple(map(str, pod.platforms)) == platforms]
        own.sort(key=lambda pod: (pod.attempt, pod.name))
        begun = min(_asked(pod) for pod in own)
        attributes: dict[str, str | int | None] = {
            "multiarchbuild.platforms": ",".join(platforms),
            "multiarchbuild.mode": entry.mode,
            "multiarchbuild.builder": entry.builder,
            "multiarchbuild.attempts": entry.attempt,
            "multiarchbuild.cache.hits": entry.cache.hits if entry.cache else None,
            "multiarchbuild.cache.total": entry.cache.total if entry.cache else None,
            "k8s.node.name": entry.node,
        }
        whole = Span(
            f"build {', '.join(platforms)}",
            root.trace,
            build_span_id(root.trace, platforms),
            root.id,
            begun,
            max(entry.finished_at or root.end, begun),
            {name: value for name, value in attributes.items() if value is not None},
            f"{entry.reason}: {entry.message or ''}" if entry.phase is Phase.FAILED else "",
        )
        yield whole
        for pod in own:
            yield from _pod(root, whole, pod)


def _steps(run: RunStatus, root: Span, pods: Sequence[Pod]) -> Iterator[Span]:
    for name, role, step in (("resolve", Role.RESOLVE, run.resolve), ("publish", Role.PUBLISH, run.publish)):
        own = sorted((pod for pod in pods if pod.role is role), key=lambda pod: pod.attempt)
        if step is None or not own:
            continue
        begun, end = min(_asked(pod) for pod in own), step.finished_at or root.end
        whole = _part(root, root, (name,), name, begun, end, {"multiarchbuild.attempts": step.attempt})
        yield whole
        for pod in own:
            yield from _pod(root, whole, pod)


def _pod(root: Span, whole: Span, pod: Pod) -> Iterator[Span]:
    """Yield what a pod waited for, as far as the API server says it."""
    attributes: dict[str, str | int] = {"k8s.pod.name": pod.name, "multiarchbuild.attempt": pod.attempt}
    if pod.handed is not None:
        return  # it was there
    if pod.scheduled_at is not None:
        yield _part(root, whole, (pod.name, "schedule"), "schedule", pod.created_at, pod.scheduled_at, attributes)
        if pod.step_started_at is not None:
            yield _part(root, whole, (pod.name, "start"), "start", pod.scheduled_at, pod.step_started_at, attributes)


def _asked(pod: Pod) -> datetime:
    """Return when a pod was asked for its part of the run."""
    return pod.handed.at if pod.handed else pod.built_at or pod.created_at


def _part(
    root: Span,
    whole: Span,
    key: tuple[str, ...],
    name: str,
    start: datetime,
    end: datetime,
    attributes: dict[str, str | int] | None = None,
) -> Span:
    # Clocks of nodes differ: a part never ends before it begins.
    return Span(name, root.trace, span_id(root.trace, *key), whole.id, start, max(start, end), attributes or {})
