"""What a run builds: known from the spec or from Flux when it starts, or found by the resolve step."""

from datetime import UTC, datetime, timedelta

from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.results import Source
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import RunStatus, SourceStatus, StepStatus

from .flux import Artifact
from .identity import digest, is_commit


def needs_resolving(spec: Spec) -> bool:
    """Return whether a pod has to look first: where a branch or tag points to, or what source.paths names."""
    source = spec.source
    if source.git is not None:
        return not is_commit(source.git.ref)
    if source.flux is not None:
        # Flux tells what is built; what it changes only the files say.
        return source.paths is not None
    return source.oci is not None and "@" not in source.oci.image


def at_start(spec: Spec, artifact: Artifact | None) -> SourceStatus | None:
    """Return what a run that starts now builds, or None where it has to be resolved first."""
    source = spec.source
    if source.inline is not None:
        files = sorted(source.inline.files.items())
        return SourceStatus(digest=f"sha256:{digest(*(part for file in files for part in file))}")
    if source.http is not None:
        return SourceStatus(digest=source.http.checksum)
    if source.flux is not None:
        assert artifact is not None, "no run of a Flux source starts without its artifact"
        return artifact.source
    if needs_resolving(spec):
        return None
    if source.oci is not None:
        return SourceStatus(digest=source.oci.image.partition("@")[2])
    assert source.git is not None
    return SourceStatus(commit=source.git.ref, ref=source.git.ref)


def is_resolved(run: RunStatus) -> bool:
    """Return whether the resolve step of `run` has pinned its source."""
    return run.resolve is not None and run.resolve.finished_at is not None and run.resolve.reason is None


def pinned(spec: Spec, run: RunStatus) -> Source | None:
    """Return the source that all platforms agree on, or None while it is being resolved."""
    if spec.source.inline is not None:
        return Source()
    if run.source is None or (needs_resolving(spec) and not is_resolved(run)):
        return None
    return source_of(run.source)


def source_of(known: SourceStatus) -> Source:
    """Return a source of status as steps are told of it."""
    return Source(
        commit=known.commit,
        ref=known.ref,
        author=known.author,
        time=int(known.time.timestamp()) if known.time else None,
        digest=known.digest,
        revision=known.revision,
        url=known.url,
        paths=known.paths,
    )


def status_of(source: Source) -> SourceStatus:
    """Return what status says of a source that a step has found."""
    return SourceStatus(
        commit=source.commit,
        ref=source.ref,
        author=source.author,
        time=datetime.fromtimestamp(source.time, UTC) if source.time is not None else None,
        digest=source.digest,
        revision=source.revision,
        url=source.url,
        paths=source.paths,
    )


def differ(one: SourceStatus | None, other: SourceStatus | None) -> bool:
    """Return whether two runs build different things: another commit counts even where the files are equal."""
    return _identity(one) != _identity(other)


def changes_nothing(found: SourceStatus, built: SourceStatus | None) -> bool:
    """Return whether `found` is known to have the same files as `built`, as far as source.paths names them."""
    return built is not None and found.paths is not None and found.paths == built.paths


def _identity(source: SourceStatus | None) -> tuple[str | None, ...]:
    return (source.commit, source.revision, source.digest) if source else ()


def poll_interval(spec: Spec) -> timedelta | None:
    """Return how often it is looked between runs whether the source has moved, or None where it never is."""
    watched = spec.source.git or spec.source.oci
    if watched is None or watched.interval is None or not needs_resolving(spec):
        return None
    return parse_duration(watched.interval)


def found_by(pod: str, finished_at: datetime) -> StepStatus:
    """Return the resolve step of a run whose source was found before it started, by `pod`."""
    return StepStatus(pod=pod, attempt=1, finished_at=finished_at)
