"""Requested runs for which there may be nothing to build: the last image is what they would make again.

A run that was requested, of a spec that the last run has built, is compared with the image of that: by the builders
that are kept, or else by one pod before anything is built (`steps.unchanged`). What can't be compared is built.
"""

from collections.abc import Iterator

from multiarchbuild.api import limits
from multiarchbuild.api.formats import Format
from multiarchbuild.api.provenance import Provenance
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.requests import LastImage
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Failure, Resolved
from multiarchbuild.api.spec import CacheMode, Spec
from multiarchbuild.api.status import (
    BuilderUse,
    Comparison,
    ImageStatus,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    SourceStatus,
)

from . import sources
from .children import platform_of
from .tags import expand

_OF_A_RUN = ("{run}", "{time}")
"""Placeholders of tags that no two runs have in common."""


def comparison(build: MultiArchBuild, run: RunStatus) -> Comparison | None:
    """Return with what `run`, which is to start because it was requested, is compared; None where it builds anyway."""
    last, image = build.status.run, build.status.image
    if last is None or image is None or last.result is not Result.SUCCEEDED or last.inputs != run.inputs:
        return None
    ended = next((entry for entry in build.status.history if entry.id == last.id), None)
    if ended is None or ended.digest != image.digest or builds_anyway(build.spec):
        return None
    if run.parents != last.parents or (run.source is not None and sources.differ(run.source, last.source)):
        return None
    return Comparison(digest=image.digest)


def builds_anyway(spec: Spec) -> str:
    """Return the field by which every run builds, whatever has changed, or nothing."""
    if not spec.cache.import_:
        return "cache.import"
    if spec.cache.mode is CacheMode.DISABLED:
        return "cache.mode"
    if spec.attestations.provenance is Provenance.DISABLED or spec.output.format is Format.MANIFEST:
        return "attestations.provenance"  # nothing says what the image was made from
    if spec.output.signing is not None:
        return "output.signing"  # the key may be another by now, and only the publish step may see it
    if spec.output.child_tags:
        return "output.childTags"
    return "output.tags" if any(word in tag for tag in spec.output.tags for word in _OF_A_RUN) else ""


def compares(run: RunStatus) -> bool:
    """Return whether it is still open if anything has changed."""
    return run.comparison is not None and run.comparison.changed is None and run.result is None


def has_begun(run: RunStatus) -> bool:
    """Return whether any builder was asked to build."""
    return any(entry.attempt or entry.builder for entry in run.platforms)


def last_image(spec: Spec, run: RunStatus) -> LastImage | None:
    """Return what a step compares with, None where nothing is to be compared."""
    if run.comparison is None or run.comparison.changed is not None:
        return None
    source = run.source or SourceStatus()
    return LastImage(
        digest=run.comparison.digest,
        tags=expand(spec.output.tags, source, run.started_at, run.id),
        source=sources.source_of(source),
    )


def compared(run: RunStatus, came: Resolved | Failure) -> RunStatus:
    """Return `run` with what its one pod has found, unless that is that nothing has changed."""
    if run.comparison is None or (isinstance(came, Resolved) and came.unchanged):
        return run
    why = came.message if isinstance(came, Failure) else came.changed or "it was not compared"
    changed = run.comparison.model_copy(update={"changed": why[: limits.CHANGED]})
    return run.model_copy(update={"comparison": changed})


def is_unchanged(run: RunStatus) -> bool:
    """Return whether every builder has found that it need not build."""
    digest = run.comparison.digest if run.comparison else None
    entries = run.platforms
    return bool(entries) and all(entry.phase is Phase.SUCCEEDED and entry.pushed == digest for entry in entries)


def entries(run: RunStatus, image: ImageStatus) -> Iterator[PlatformStatus]:
    """Yield what status says of each platform where nothing was built."""
    digests = {each.platform: each.digest for each in image.platforms}
    for entry in run.platforms:
        if entry.phase is Phase.SUCCEEDED:
            yield entry
            continue
        found = digests.get(str(platform_of(entry.platform)))
        yield PlatformStatus(
            platform=entry.platform,
            phase=Phase.SUCCEEDED,
            reason=Reason.SUCCEEDED,
            builder=BuilderUse.UNCHANGED,
            digest=found,
            pushed=image.digest,
        )
