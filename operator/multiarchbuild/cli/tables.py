"""What list and status print."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.text import Text

from multiarchbuild.api.progress import StepCount

from .console import coloured, span, table
from .resource import Build, Platform


def builds(found: Sequence[Build], now: datetime, *, everywhere: bool, wide: bool) -> list[Text]:
    """Return the table of builds: the columns of `kubectl get mab`, and how the last run went."""
    headers = ["NAME", "READY", "REASON", "PLATFORMS", "DIGEST", "RUN", "AGE"]
    headers = ["NAMESPACE", *headers] if everywhere else headers
    headers += ["IMAGE", "COMMIT", "MODES"] if wide else []
    return table(headers, [_row(build, now, everywhere=everywhere, wide=wide) for build in found])


def _row(build: Build, now: datetime, *, everywhere: bool, wide: bool) -> list[str | Text]:
    ready, run, status = build.condition("Ready"), build.run, build.status
    age = (now - datetime.fromisoformat(build.document["metadata"]["creationTimestamp"])).total_seconds()
    row: list[str | Text] = [build.namespace] if everywhere else []
    row += [
        build.name,
        coloured(ready.get("status", "-")),
        str(ready.get("reason", "-")),
        str(status.get("platforms", "-")),
        str(status.get("shortDigest", "-")),
        span(run.elapsed(now)) if run else "-",
        span(age),
    ]
    if wide:
        commit = run.document.get("source", {}).get("commit", "") if run else ""
        modes = sorted({platform.text("mode") for platform in run.platforms} - {""}) if run else []
        row += [str(build.spec["output"]["image"]), commit[:12] or "-", ",".join(modes) or "-"]
    return row


def status(build: Build, counts: Mapping[str, StepCount], now: datetime) -> list[Text]:
    """Return everything about one build; `counts` tell how far the pods that still run are."""
    lines = table(["", ""], list(_facts(build, now)))[1:]
    if build.run and build.run.platforms:
        lines += [Text(), *platforms(build.run.platforms, counts, now)]
    if conditions := build.status.get("conditions"):
        rows = [[entry["type"], coloured(entry["status"]), entry["reason"], entry["message"]] for entry in conditions]
        lines += [Text(), *table(["CONDITION", "STATUS", "REASON", "MESSAGE"], rows)]
    for platform in build.run.platforms if build.run else ():
        if said := platform.text("message"):
            lines += [Text(), Text(f"{platform.name}: {said}")]
        if tail := platform.text("logTail"):
            lines += [Text(f"  {line}") for line in tail.splitlines()]
    return lines


def _facts(build: Build, now: datetime) -> "list[tuple[str, str | Text]]":
    facts: list[tuple[str, str | Text]] = [("Name:", f"{build.namespace}/{build.name}")]
    if build.ref:
        facts.append(("Image:", build.ref))
        facts.append(("Tags:", ", ".join(build.status["image"].get("tags", ())) or "none"))
        if signature := build.status["image"].get("signature"):
            facts.append(("Signature:", signature))
    if run := build.run:
        state = run.result or ("Cancelling" if build.cancelling else "Running")
        facts.append(("Run:", f"{run.id} {state} ({run.document.get('trigger', '')}, {span(run.elapsed(now))})"))
        if run.source:
            facts.append(("Source:", run.source))
    if build.spec.get("suspend"):
        facts.append(("Suspended:", "no new run is started until kubectl mab resume"))
    return facts


def platforms(entries: Sequence[Platform], counts: Mapping[str, StepCount], now: datetime) -> list[Text]:
    """Return the table of a run's platforms."""
    headers = ["PLATFORM", "MODE", "NODE", "PHASE", "STEP", "CACHED", "TRY", "ELAPSED", "DIGEST"]
    rows: list[list[str | Text]] = []
    for entry in entries:
        steps, cached = steps_of(entry, counts.get(entry.name))
        rows.append(
            [
                entry.name,
                coloured(entry.text("mode") or "-"),
                entry.text("node") or "-",
                coloured(entry.state),
                steps,
                cached,
                entry.text("attempt") or "-",
                span(entry.elapsed(now)),
                entry.text("digest").removeprefix("sha256:")[:12] or "-",
            ]
        )
    return table(headers, rows)


def steps_of(platform: Platform, count: StepCount | None) -> tuple[str, str]:
    """Return `n/m` and how many of the steps came from the cache."""
    if platform.cache is not None:
        hits, total = platform.cache
        return f"{total}/{total}", str(hits)
    return (f"{count.done}/{count.total}", str(count.cached)) if count else ("-", "-")
