"""What list and status print."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from rich.text import Text

from multiarchbuild.api.progress import StepCount

from .console import coloured, column_widths, span, table
from .resource import Build, Platform


def builds(found: Sequence[Build], now: datetime, *, everywhere: bool, wide: bool) -> list[Text]:
    """Return the table of builds: the columns of `kubectl get mab`, and how the last run went."""
    return growing(found, now, (), everywhere=everywhere, wide=wide)[0]


def growing(
    found: Sequence[Build], now: datetime, widths: tuple[int, ...], *, everywhere: bool, wide: bool
) -> tuple[list[Text], tuple[int, ...]]:
    """Return the same with columns at least `widths` wide, and the widths: lines that follow stay aligned with them."""
    headers = ["NAME", "READY", "REASON", "PLATFORMS", "DIGEST", "RUN", "AGE"]
    headers = ["NAMESPACE", *headers] if everywhere else headers
    headers += ["IMAGE", "COMMIT", "MODES"] if wide else []
    rows = [_row(build, now, everywhere=everywhere, wide=wide) for build in found]
    return table(headers, rows, widths), column_widths(headers, rows, widths)


def _row(build: Build, now: datetime, *, everywhere: bool, wide: bool) -> list[str | Text]:
    ready, run, columns = build.condition("Ready"), build.run, build.status.get("columns", {})
    age = (now - datetime.fromisoformat(build.document["metadata"]["creationTimestamp"])).total_seconds()
    row: list[str | Text] = [build.namespace] if everywhere else []
    row += [
        build.name,
        coloured(ready.get("status", "-")),
        str(ready.get("reason", "-")),
        str(columns.get("platforms", "-")),
        str(columns.get("digest", "-")),
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
    if build.run and (warnings := _warnings(build.run.platforms)):
        lines += [Text(), *warnings]
    return lines


def _warnings(entries: Sequence[Platform]) -> list[Text]:
    """Return a line for each warning, with the platforms that it is about."""
    about: dict[str, list[str]] = {}
    for platform in entries:
        for warning in platform.document.get("warnings", ()):
            about.setdefault(warning, []).append(platform.name)
    return [Text(f"Warning: {warning} ({', '.join(names)})") for warning, names in about.items()]


def _image(build: Build) -> Iterator[tuple[str, str]]:
    image = build.status["image"]
    yield "Image:", build.ref
    yield from (("Also in:", each) for each in build.destinations)
    yield "Tags:", ", ".join(image.get("tags", ())) or "none"
    if signature := image.get("signature"):
        yield "Signature:", signature
    if by := image.get("signedBy"):
        yield "Signed by:", f"{by['identity']} (issuer {by['issuer']})"
    if record := image.get("record"):
        yield "Record:", f"{record} (--steps shows it)"


def _facts(build: Build, now: datetime) -> "list[tuple[str, str | Text]]":
    facts: list[tuple[str, str | Text]] = [("Name:", f"{build.namespace}/{build.name}")]
    if build.ref:
        facts += _image(build)
    if run := build.run:
        state = run.result or ("Cancelling" if build.cancelling else "Running")
        facts.append(("Run:", f"{run.id} {state} ({run.document.get('trigger', '')}, {span(run.elapsed(now))})"))
        if cause := run.document.get("cause"):
            facts.append(("Cause:", cause))
        if run.source:
            facts.append(("Source:", run.source))
        if changed := run.document.get("comparison", {}).get("changed"):
            facts.append(("Changed:", changed))
        facts += [("Built from:", f"{each['name']}, {each['ref']}") for each in run.document.get("parents", ())]
    if bases := build.status.get("image", {}).get("bases"):
        facts.append(("Base images:", ", ".join(bases)))
    if build.spec.get("suspend"):
        facts.append(("Suspended:", "no new run is started until kubectl mab resume"))
    return facts


def platforms(entries: Sequence[Platform], counts: Mapping[str, StepCount], now: datetime) -> list[Text]:
    """Return the table of a run's platforms."""
    headers = ["PLATFORM", "MODE", "NODE", "PHASE", "STEP", "CACHED", "TRY", "ELAPSED", "DIGEST"]
    told = [name for name in ("builder", "volume") if any(entry.text(name) for entry in entries)]
    headers += [name.upper() for name in told]
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
                *(entry.text(name) or "-" for name in told),
            ]
        )
    return table(headers, rows)


def steps_of(platform: Platform, count: StepCount | None) -> tuple[str, str]:
    """Return `n/m` and how many of the steps came from the cache."""
    if platform.cache is not None:
        hits, total = platform.cache
        return f"{total}/{total}", str(hits)
    return (f"{count.done}/{count.total}", str(count.cached)) if count else ("-", "-")
