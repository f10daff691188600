"""The publish step of a run: when it starts, in which pod, what it is handed, and what it has published."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published, Pushed, PushedImage
from multiarchbuild.api.status import (
    BuilderUse,
    HistoryEntry,
    ImagePlatform,
    ImageStatus,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    SourceStatus,
    StepStatus,
)

from . import attempts, expiry, kept, recorded, sources, steps
from .actions import AnnotateBuilt, HandOver, Keep, StartPublish
from .children import Pod, Role
from .context import Context, earliest
from .outcome import START_GRACE
from .placement import ARCH_LABEL
from .tags import expand

GRACE = timedelta(seconds=30)
"""How long a publish step may go on that has got all it needs, when its run is cancelled, superseded or out of time.

It takes a second or two, and nobody knows what it has done if it is killed: it may have moved the tags.
"""


_HANDED_OVER = "handed to the pod that was kept from the last run"


@dataclass(frozen=True, slots=True)
class PublishProgress:
    """Where the publish step stands after this decision."""

    status: StepStatus | None
    actions: tuple[StartPublish | HandOver | AnnotateBuilt, ...] = ()
    wake_at: datetime | None = None


def read(context: Context, run: RunStatus) -> attempts.Reading[StepStatus, Published]:
    """Return how the publish step of `run` stands by its pods."""
    before = run.publish or StepStatus()
    pods = context.pods_of(run.id, Role.PUBLISH)
    step, pods = _without_given_up(context, before, pods)
    reading = attempts.read(context, step, pods, Published)
    return replace(reading, step=_with_reuse(before, reading.step, pods))


def _without_given_up(context: Context, step: StepStatus, pods: Sequence[Pod]) -> tuple[StepStatus, tuple[Pod, ...]]:
    """Return `step` and its pods without kept ones that are given up: the same attempt goes on in a new pod."""
    reasons = {pod.name: kept.given_up(pod, context.now, begun=_has_begun(pod, step)) for pod in pods}
    counting = tuple(pod for pod in pods if reasons[pod.name] is None)
    # An older definition has no room for `reuse`: a pod that was handed the step says the same.
    handed = step.reuse is BuilderUse.KEPT or any(pod.name == step.pod and pod.handed is not None for pod in pods)
    going = handed and step.finished_at is None and not attempts.awaits_retry(step)
    if going and all(pod.name != step.pod for pod in counting):
        return StepStatus(reuse=reasons.get(step.pod or "") or BuilderUse.LOST), counting
    return step, counting


def _has_begun(pod: Pod, step: StepStatus) -> bool:
    """Return whether status says that `pod` has begun with what it was handed: the log that tells it may be cut."""
    return step.pod == pod.name and step.reason is not Reason.PENDING


def _with_reuse(before: StepStatus, step: StepStatus, pods: Sequence[Pod]) -> StepStatus:
    """Return `step` with what its pod is, which an operator that was killed has not said."""
    pod = next((pod for pod in pods if pod.name == step.pod), None)
    if pod is None or pod.handed is None:
        return step.model_copy(update={"reuse": BuilderUse.LOST}) if step.reuse is BuilderUse.KEPT else step
    fields: dict[str, object] = {"reuse": BuilderUse.KEPT}
    if kept.begins_until(pod, begun=_has_begun(pod, before)) is not None:
        fields |= {"reason": Reason.PENDING, "message": _HANDED_OVER}
    return step.model_copy(update=fields)


def proceed(context: Context, run: RunStatus) -> PublishProgress:
    """Return what is to do for the publish step of `run`, once that may start."""
    goes_on = run.publish is not None and attempts.next_due(context, run.publish) is None
    if not goes_on and not _is_nearly_built(context, run):
        return PublishProgress(run.publish)
    built = _pushed(context, run) if is_built(run) else None
    spec = context.build.spec

    def start(name: str, attempt: int) -> StartPublish:
        return StartPublish(
            name=name,
            run_id=run.id,
            attempt=attempt,
            inputs=context.inputs(run.id).name,
            deadline=context.seconds_left(run.started_at),
            tags=expand(spec.output.tags, run.source or SourceStatus(), run.started_at, run.id),
            built=built,
            # A node on which one try has failed is no better than others.
            near=_first_done(context, run) if attempt == 1 else "",
            keep=_keep(context),
            parents=run.parents,
        )

    step = steps.proceed(context, run, Role.PUBLISH, run.publish, start)
    if isinstance(step.action, StartPublish):
        return _start(context, run.publish or StepStatus(), step.status, step.action)
    pod = context.pod_named(step.status.pod)
    if pod is None or step.status.finished_at is not None:
        return PublishProgress(step.status, wake_at=step.wake_at)
    begins_until = kept.begins_until(pod, begun=_has_begun(pod, step.status))
    actions: tuple[AnnotateBuilt, ...] = ()
    if built is not None and not pod.built_annotation:
        actions = (AnnotateBuilt(pod.name, pod.uid, run.id, built, context.now),)
    return PublishProgress(step.status, actions, earliest(step.wake_at, begins_until))


def _keep(context: Context) -> Keep | None:
    """Return how long the pod stays after a run.

    Not at all where it has the signing key, which is in no idle pod, nor where it deletes what has expired: it does so
    once it has answered, and would not begin in time.
    """
    ends = context.build.spec.output.signing is not None or expiry.expires(context.build)
    if context.template is None or ends:
        return None
    return kept.keep(context.build, context.policy)


def _start(context: Context, before: StepStatus, started: StepStatus, action: StartPublish) -> PublishProgress:
    """Return where the step stands that is to start: handed to a pod that was kept, or in a new one."""
    if action.keep is None or context.template is None:
        return PublishProgress(started, (action,))
    if before.reuse is not None or action.attempt > 1:
        why = before.reuse if before.reuse is not BuilderUse.KEPT else BuilderUse.LOST
        return PublishProgress(started.model_copy(update={"reuse": why}), (action,))
    pod, use = kept.find(
        action,
        context.pods,
        context.template(action, context.build, context.policy),
        not_handed=context.not_created.not_handed,
        nodes=context.nodes,
        policy=context.policy,
        now=context.now,
    )
    if pod is None:
        return PublishProgress(started.model_copy(update={"reuse": use}), (action,))
    handed = {"pod": pod.name, "reuse": use, "reason": Reason.PENDING, "message": _HANDED_OVER}
    hand_over = kept.hand_over(pod, action, context.now)
    return PublishProgress(started.model_copy(update=handed), (hand_over,), context.now + kept.BEGIN)


def goes_on_until(context: Context, run: RunStatus) -> datetime | None:
    """Return until when the publish step of `run`, if it is moving tags, may go on whatever happens meanwhile."""
    pod = context.pod_named(run.publish.pod) if run.publish else None
    if pod is None or pod.step_started_at is None or pod.deleting or not pod.built_annotation or not is_built(run):
        return None
    if run.publish is None or run.publish.finished_at is not None:
        return None
    # When it started is by the clock of its node, which counts only as far as it is plausible.
    handed_over = pod.built_at or pod.created_at
    until = max(handed_over, min(pod.step_started_at, handed_over + START_GRACE)) + GRACE
    return until if context.now < until else None


def is_built(run: RunStatus) -> bool:
    return bool(run.platforms) and all(entry.phase is Phase.SUCCEEDED for entry in run.platforms)


def _is_nearly_built(context: Context, run: RunStatus) -> bool:
    """Return whether a publish pod may start: some platform is built or being pushed, and all others are being built.

    It waits as long as the slowest platform is behind the fastest, and not for the length of a build. Where a build may
    turn out to be what is published already, the end of one that is not has to be awaited.
    """
    phases = {entry.phase for entry in run.platforms}
    pods = (context.pod_named(entry.pod) for entry in run.platforms if run.comparison is None)
    begins = Phase.SUCCEEDED in phases or any(pod.exporting for pod in pods if pod is not None)
    ends = begins and phases <= {Phase.SUCCEEDED, Phase.RUNNING} and not _may_be_unchanged(run)
    return ends and sources.pinned(context.build.spec, run) is not None


def _may_be_unchanged(run: RunStatus) -> bool:
    """Return whether all that is known so far is that nothing has changed."""
    done = (entry.pushed for entry in run.platforms if entry.phase is Phase.SUCCEEDED)
    return run.comparison is not None and all(digest == run.comparison.digest for digest in done) and not is_built(run)


def _first_done(context: Context, run: RunStatus) -> str:
    """Return the node of a platform that is built or being pushed: it has the steps' image, and will be idle.

    The others may be busy for longer with their platforms, which the start of another pod would slow down.
    """
    for entry in run.platforms:
        pod = context.pod_named(entry.pod)
        if pod is not None and pod.node and (entry.phase is Phase.SUCCEEDED or pod.exporting):
            return pod.node
    return ""


def handed_to(pod: Pod) -> dict[str, str]:
    """Return what builders have pushed, by platform, as `pod` was told: it may have been told more than status was."""
    if not pod.built_annotation:
        return {}
    return {each.platform: each.digest for each in Pushed.model_validate_json(pod.built_annotation).images}


def late_images(context: Context, history: tuple[HistoryEntry, ...]) -> dict[str, ImageStatus]:
    """Return what runs of history have published, by their ids, that are not known to have succeeded."""
    found = {}
    for entry in history:
        if entry.result is not Result.SUCCEEDED:
            pods = _unread(context.pods_of(entry.id, Role.PUBLISH))
            reading = attempts.read(context, StepStatus(), pods, Published)
            if reading.result is not None and reading.pod is not None:
                found[entry.id] = image_of(context, reading.result, reading.pod)
    return found


def unknown_images(context: Context, history: tuple[HistoryEntry, ...]) -> list[ImageStatus]:
    """Return what runs have published that no status tells of, where it is newer than the image in status.

    The operator was killed before it wrote one, and then another run was requested.
    """
    run, image = context.build.status.run, context.build.status.image
    known = {entry.id for entry in history} | ({run.id} if run else set())
    found = []
    for run_id in sorted({pod.run_id for pod in context.pods if pod.role is Role.PUBLISH} - known):
        pods = _unread(context.pods_of(run_id, Role.PUBLISH))
        reading = attempts.read(context, StepStatus(), pods, Published)
        if reading.result is not None and reading.pod is not None:
            found.append(image_of(context, reading.result, reading.pod))
    since = image.published_at if image is not None else None
    return [each for each in found if since is None or (each.published_at is not None and each.published_at > since)]


def _unread(pods: Sequence[Pod]) -> tuple[Pod, ...]:
    """Return the pods whose results status may not have: those that wait for another run were told that it has."""
    return tuple(pod for pod in pods if not pod.idle)


def _pushed(context: Context, run: RunStatus) -> Pushed:
    """Return what the publish step makes the index of, and what signed provenance tells about it."""
    architectures = {node.name: node.labels.get(ARCH_LABEL) for node in context.nodes}

    def image(entry: PlatformStatus) -> PushedImage:
        assert entry.builder_output is not None, "a platform has succeeded with what its builder pushed"
        pod = context.pod_named(entry.pod)
        return PushedImage(
            platform=entry.platform,
            digest=entry.builder_output,
            mode=entry.mode,
            node_architecture=architectures.get(entry.node or ""),
            record=entry.record,
            attempt=entry.attempt,
            earlier_run=pod is None or pod.run_id != run.id,
            phases=recorded.platform_phases(run, entry, pod),
        )

    images = tuple(map(image, run.platforms))
    return Pushed(
        images=images,
        source=sources.pinned(context.build.spec, run),
        trigger=run.trigger,
        started_at=run.started_at,
        handed_at=context.now if expiry.expires(context.build) else None,
        phases=recorded.run_phases(run),
    )


def image_of(context: Context, published: Published, pod: Pod) -> ImageStatus:
    """Return the image that `pod` has published. The spec may have been edited since it was started."""
    spec = context.build.spec
    return ImageStatus(
        ref=f"{pod.image or spec.output.image}@{published.digest}",
        digest=published.digest,
        tags=pod.tags or published.tags,
        destinations=pod.destinations,
        platforms=tuple(
            ImagePlatform(platform=image.platform, digest=image.digest, size=image.size)
            for image in published.platforms
        ),
        size=sum(image.size for image in published.platforms),
        signature=published.signature,
        signed_by=published.signed_by,
        record=published.record,
        # Which of two images is newer is decided by this.
        published_at=(pod.ended.reported_at or pod.ended.finished_at if pod.ended else None) or context.now,
    )
