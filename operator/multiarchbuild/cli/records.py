"""Build records as the user of the command line finds them: in the registry, or in the logs of what failed."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from rich.text import Text

from multiarchbuild.api.answers import read_record, unpack_record
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.record import MEDIA_TYPE, BuilderRecord, BuildRecord, StepRecord
from multiarchbuild.oci import referrers
from multiarchbuild.plan.children import (
    MODE_ANNOTATION,
    PLATFORMS_ANNOTATION,
    RECORD_KEY,
    RECORD_ROLE,
    ROLE_LABEL,
    Pod,
    Role,
)
from multiarchbuild.plan.compare import Difference, total

from . import registry
from .console import size, span, table
from .docker import Logins
from .errors import CliError, NotFoundError, RefusedError, UsageError
from .follow import pods_of
from .kube import CORE, Cluster
from .resource import Build
from .watch import log

_LOG_LINES = 200
"""Of the end of a log: a record comes right before the answer."""
_SHOWN = 8
"""Steps that are shown for each builder, unless all are asked for."""


def find(cluster: Cluster, name: str, *, plain_http: bool) -> BuildRecord:
    """Return the record of `NAME`, the last run that has ended, of `NAME@RUN`, or of an image in a registry.

    Raises:
        CliError: there is none, or the registry or the API server says no.
    """
    if "/" in name:
        return attached(name, plain_http=plain_http)
    name, _, run = name.partition("@")
    return of_run(cluster, Build(cluster.get(name)), run, plain_http=plain_http)


def of_run(cluster: Cluster, build: Build, run: str, *, plain_http: bool) -> BuildRecord:
    """Return the record of a run of `build`, by default of the last one that has ended.

    Raises:
        CliError: there is none, or the registry or the API server says no.
    """
    entries = [dict(entry) for entry in build.status.get("history", ())]
    entry = next((each for each in entries if not run or each["id"] == run), None)
    if entry is None:
        known = ", ".join(each["id"] for each in entries) or "none"
        raise NotFoundError(f"{build.name} has no run {run or 'that has ended'}: history has {known}")
    if entry.get("record") and entry.get("digest"):
        image = str(build.ref.partition("@")[0] or build.spec["output"]["image"])
        return attached(f"{image}@{entry['digest']}", str(entry["record"]), plain_http=plain_http)
    if found := (*_kept(cluster, build, str(entry["id"])),) or (*_of_pods(cluster, build, str(entry["id"])),):
        return BuildRecord(name=build.name, namespace=build.namespace, run=entry["id"], builders=found)
    raise NotFoundError(
        f"run {entry['id']} of {build.name} has no record: it failed before it built anything, its pods are gone, or "
        "attestations.record is false"
    )


def attached(image: str, digest: str = "", *, plain_http: bool) -> BuildRecord:
    """Return the newest record that is attached to an image by tag or digest, or the one of this `digest`.

    Raises:
        CliError: there is none, or the registry says no.
    """
    config = Logins.load()
    client = registry.client(image, config, plain_http=plain_http)
    with registry.explained(config):
        subject = client.resolve(_reference(image)).digest
        entries = [{"digest": digest}] if digest else referrers.listed(client, subject, MEDIA_TYPE)
        for entry in reversed(entries):
            content = referrers.content(client, entry)
            with suppress(ValidationError):
                return BuildRecord.model_validate_json(content or b"")
    raise NotFoundError(f"{image} has no build record: it was built without one")


def _reference(image: str) -> str:
    name, _, digest = image.partition("@")
    return digest or name.rpartition("/")[2].partition(":")[2] or "latest"


def _kept(cluster: Cluster, build: Build, run: str) -> Iterator[BuilderRecord]:
    """Yield what the operator has kept of builders that failed; nothing where the user may not read ConfigMaps."""
    selector = f"{build.selector(run)},{ROLE_LABEL}={RECORD_ROLE}"
    with suppress(RefusedError):
        found = cluster.request("GET", cluster.path(CORE, "configmaps"), query=[("labelSelector", selector)])
        for manifest in found.get("items", ()):
            with suppress(ValidationError):
                packed = str((manifest.get("data") or {}).get(RECORD_KEY, ""))
                record = BuilderRecord.model_validate_json(unpack_record(packed))
                noted = manifest["metadata"].get("annotations") or {}
                names = tuple(filter(None, str(noted.get(PLATFORMS_ANNOTATION, "")).split(",")))
                yield record.model_copy(
                    update={"platforms": names or record.platforms, "mode": noted.get(MODE_ANNOTATION)}
                )


def _of_pods(cluster: Cluster, build: Build, run: str) -> Iterator[BuilderRecord]:
    """Yield what the newest builder of each platform has printed of its failure."""
    newest: dict[tuple[Platform, ...], Pod] = {}
    for pod, _ in pods_of(cluster, build, run):
        if pod.role is Role.BUILD and pod.step_started_at is not None:
            newest[pod.platforms] = pod
    for platforms, pod in newest.items():
        lines = list(log(cluster, pod.name, follow=False, tail=_LOG_LINES))
        with suppress(ValidationError):
            record = BuilderRecord.model_validate_json(read_record(lines, pod.nonce, pod.request))
            names = tuple(map(str, platforms))
            yield record.model_copy(update={"platforms": names, "mode": str(pod.mode), "attempt": pod.attempt})


def lines(record: BuildRecord, *, every: bool = False) -> list[Text]:
    """Return a record for people: where the time went, and which steps took it."""
    result = [Text(f"Record of run {record.run}: {_phases(record.phases)}".rstrip(": "))]
    for builder in record.builders:
        facts = [
            ", ".join(builder.platforms),
            builder.mode or "",
            f"on {builder.node_architecture}" if builder.node_architecture else "",
        ]
        facts += ["by a kept builder" if builder.kept else "", "built by an earlier run" if builder.earlier_run else ""]
        result += [
            Text(),
            Text(" ".join(filter(None, facts))),
            Text(f"  {_phases(builder.phases)}; {_amounts(builder)}"),
        ]
        steps = _shown(builder, every=every)
        rows = [[f"  {step.name}", _took(step), _told(step, builder.steps)] for step in steps]
        result += [Text(), *table(["  STEP", "TOOK", "WHY"], rows)] if rows else []
        left = len(builder.steps) + builder.left_out - len(steps)
        result += [Text(f"  and {left} shorter steps")] if left else []
        result += [
            Text(f"  Warning: {each.text}" + (f" ({each.file}:{each.line})" if each.line else ""))
            for each in builder.warnings
        ]
    return result


def _shown(builder: BuilderRecord, *, every: bool) -> list[StepRecord]:
    if every:
        return list(builder.steps)
    ranked = sorted(builder.steps, key=lambda step: (not step.error, -step.seconds))[:_SHOWN]
    return [step for step in builder.steps if any(step is each for each in ranked) and (step.seconds or step.error)]


def _phases(phases: Any) -> str:
    return ", ".join(f"{name} {exact(seconds)}" for name, seconds in phases.items())


def _amounts(builder: BuilderRecord) -> str:
    hits, of = builder.cache.hits, builder.cache.total
    return f"{hits} of {of} steps cached, {size(builder.transferred)} of source, {size(builder.pulled)} pulled"


def _took(step: StepRecord) -> str:
    return "cached" if step.cached else exact(step.seconds)


def _told(step: StepRecord, steps: Sequence[StepRecord]) -> str:
    if step.error:
        return f"failed: {step.error}"
    because = steps[step.because].name if step.because is not None and step.because < len(steps) else ""
    return f"{step.why}{f': {because}' if because else ''}" if step.why else ""


def exact(seconds: float) -> str:
    """Return seconds with a decimal below a minute, such as 0.3s, 12.0s or 3m05s."""
    return f"{seconds:.1f}s" if seconds < 60 else span(seconds)  # noqa: PLR2004 - a minute


def compared(first: BuildRecord, second: BuildRecord, found: Sequence[Difference]) -> list[Text]:
    """Return for people why `second` took longer than `first`, or ran a step again."""
    before, after = whole(first), whole(second)
    result = [
        Text(f"{first.name}@{first.run} took {exact(before)}, {second.name}@{second.run} took {exact(after)}: ").append(
            f"{exact(abs(after - before))} {'longer' if after >= before else 'shorter'}", style="bold"
        )
    ]
    if not found:
        return [*result, Text("no step ran again, and none took noticeably longer")]
    rows = [
        [
            each.platform or "run",
            each.what if len(each.what) <= _WIDTH else f"{each.what[: _WIDTH - 1]}…",
            exact(each.before) if each.before is not None else "-",
            exact(each.after) if each.after is not None else "-",
            each.why,
        ]
        for each in found
    ]
    return [*result, Text(), *table(["WHERE", "WHAT", "BEFORE", "NOW", "WHY"], rows)]


_WIDTH = 70
"""Characters of a step in a table of several columns."""


def whole(record: BuildRecord) -> float:
    """Return how long a run took by its record: its slowest builder, and what goes before and after."""
    return sum(record.phases.values()) + max(map(total, record.builders), default=0.0)


def pair(cluster: Cluster, first: str, second: str, *, plain_http: bool) -> tuple[BuildRecord, BuildRecord]:
    """Return the records of two runs; with one name only, of the two runs of it that have ended last.

    Raises:
        CliError: one of them has none.
    """
    if second:
        return find(cluster, first, plain_http=plain_http), find(cluster, second, plain_http=plain_http)
    if "/" in first or "@" in first:
        raise UsageError("name two runs (NAME@RUN) or images; one NAME alone means its last two runs")
    build = Build(cluster.get(first))
    found: list[BuildRecord] = []
    for entry in build.status.get("history", ()):
        with suppress(NotFoundError):
            found.append(of_run(cluster, build, str(entry["id"]), plain_http=plain_http))
        if len(found) == 2:  # noqa: PLR2004 - a pair
            return found[1], found[0]
    raise NotFoundError(f"{first} has fewer than two runs with a record: kubectl mab rebuild {first} makes another")


def lines_or_error(cluster: Cluster, build: Build, *, plain_http: bool) -> list[Text]:
    """Return the record of the last run for people, or why it cannot be read."""
    try:
        return lines(of_run(cluster, build, "", plain_http=plain_http), every=True)
    except CliError as error:
        return [Text(f"The record of the last run cannot be shown: {error}")]
