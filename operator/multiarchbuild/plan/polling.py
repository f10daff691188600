"""Looks at a source between runs: the resolve step, and nothing else.

There is one each `source.git.interval` or `source.oci.interval`, one when the annotation of Flux asks for it, and one
at each revision of a Flux object where only some of its files count (`source.paths`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from multiarchbuild.api.status import RunStatus, SourceCheck, SourceStatus

from . import looks, timed
from .actions import Action
from .children import Role
from .context import Context
from .looks import update
from .sources import changes_nothing, differ, needs_resolving, poll_interval, source_of, status_of

_REVISION_PAUSE = timedelta(minutes=1)
"""After a look at a revision of Flux that failed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a branch or tag means that has moved since the last run."""

    source: SourceStatus
    pod: str
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """Where the looks at the source stand after this decision."""

    status: SourceCheck | None = None
    found: Found | None = None
    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None


def poll(context: Context, run: RunStatus | None, status: SourceCheck | None, *, others: int = 0) -> Check:
    """Return where the looks at the source stand; there are none while a run goes on, and none before the first.

    `others` is how many other builds are looked at: where that is all that the policy allows, this one waits.
    """
    status = _asked(context, status)
    if status is None and poll_interval(context.build.spec) is None and not _by_revision(context):
        return Check()
    artifact = context.artifact.source if context.artifact else None
    look = looks.look(
        context,
        run,
        status or SourceCheck(),
        Role.CHECK,
        due=lambda status: _due(context, run, status) if run is not None else None,
        others=others,
        artifact=source_of(artifact) if artifact else None,
        paths=context.build.spec.source.paths,
    )
    if look.came is None or run is None:
        return Check(look.status, actions=look.actions, wake_at=look.wake_at)
    found = status_of(look.came.source)
    moved, same = differ(found, run.source), changes_nothing(found, run.source)
    ended = update(
        look.status, commit=found.commit, digest=found.digest, revision=found.revision, skipped=moved and same
    )
    news = Found(found, look.pod, context.now) if moved and not same else None
    return Check(ended, found=news, wake_at=_due(context, run, ended))


def restarted(check: Check) -> Check:
    """Return what is left of the looks when a run starts: they are counted anew."""
    return Check(update(check.status, checks=0, pod=None, skipped=False) if check.status else None)


def postponed(check: Check, before: SourceCheck | None) -> Check:
    """Return `check` as if the look had not ended, where it has found something for which no run may start yet.

    Its pod stays, and is read again when one may.
    """
    if check.found is None:
        return check
    return Check(update(before or SourceCheck(), pod=check.found.pod))


def skipped(status: SourceCheck | None) -> str:
    """Return what is to be said of a commit or revision for which no run was started, or nothing."""
    if status is None or not status.skipped:
        return ""
    return f"{status.revision or f'commit {status.commit}'} is not built: it changes no file that source.paths includes"


def _asked(context: Context, status: SourceCheck | None) -> SourceCheck | None:
    """Return `status` with the look that the annotation asks for, and None where nothing was ever looked for."""
    build = context.build
    if not looks.may_be_asked(build) or build.spec.source.flux or not needs_resolving(build.spec):
        # Flux itself is asked to look at its objects.
        return status if poll_interval(build.spec) is not None or _by_revision(context) else None
    if (request := looks.request(build)) is not None:
        return update(status or SourceCheck(), requested=request)
    return status


def _by_revision(context: Context) -> bool:
    """Return whether each revision of a Flux object is looked at before it is built."""
    return context.build.spec.source.flux is not None and context.build.spec.source.paths is not None


def _due(context: Context, run: RunStatus, status: SourceCheck) -> datetime | None:
    """Return when the next look is due: at once where it is asked for, else counted from when the last one ended."""
    last = max(run.started_at, status.last_checked_at or run.started_at)
    if status.requested is not None:
        return context.now
    if _by_revision(context):
        artifact = context.artifact.source if context.artifact else None
        seen = (status.revision, status.digest)
        if artifact is None or not differ(artifact, run.source) or (artifact.revision, artifact.digest) == seen:
            return None
        return timed.opens(context, last + _REVISION_PAUSE if status.reason else context.now)
    own = poll_interval(context.build.spec)
    return timed.opens(context, last + context.policy.polling.interval(own)) if own is not None else None
