"""The HTML: templates with what they are told, everything escaped."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from multiarchbuild import __version__
from multiarchbuild.api.record import BuildRecord, Why
from multiarchbuild.cli import explain, inspect, records
from multiarchbuild.cli.console import size, span, visible
from multiarchbuild.cli.records import exact
from multiarchbuild.cli.resource import Build
from multiarchbuild.plan.compare import differences

from . import shapes
from .reading import RunView

_BAD: Final = frozenset({"Failed", "Cancelled", "Superseded", "Stopped"})
TITLE: Final = "Multi-arch builds"


def asset(name: str) -> str:
    """Return a file of the folder `static`."""
    return resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    folder = resources.files(__package__).joinpath("templates")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever others wrote is shown, and acts in no way: also where it turns the direction of text.
        finalize=lambda value: visible(value) if type(value) is str else value,
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
    )
    environment.filters |= {
        "size": size,
        "span": span,
        "exact": exact,
        "step": step_name,
        "why": why,
        "visible": _text,
        "short": _short,
        "ago": _ago,
    }
    environment.globals |= {"version": __version__, "wide": shapes.WIDE, "tone": tone, "label": label}
    return environment


def _text(value: object) -> str:
    return visible(str(value))


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _ago(moment: str, now: datetime) -> str:
    try:
        return span((now - datetime.fromisoformat(moment)).total_seconds()) + " ago"
    except (ValueError, TypeError):
        return ""


def render(template: str, **values: Any) -> str:
    """Return a page or a part of one."""
    return _environment().get_template(template).render(now=datetime.now(UTC), **values)


def step_name(name: str) -> str:
    """Return the name of a step without the digest of its base image, which the title has."""
    return re.sub(r"@sha256:[0-9a-f]{64}", "", name)


def why(cell: shapes.Cell) -> str:
    """Return in a few words why a step was executed."""
    position = re.match(r"^\[([^\]]*)\]", cell.because)
    words = {
        Why.CACHE_DISABLED: "the cache is off",
        Why.NO_CACHE: "no cache to read",
        Why.INPUT_RAN: f"as {position[1]} ran" if position else "its input ran",
        Why.FILES_CHANGED: "files changed",
        Why.NOT_CACHED: "not in the cache",
    }
    told = dict(words).get(Why(cell.why), cell.why) if cell.why else ""
    return ", ".join(filter(None, (told, size(cell.bytes) if cell.bytes else "")))


def tone(state: str) -> str:
    """Return the class of a state: good, bad, busy or idle."""
    if state == "Succeeded":
        return "good"
    if state in _BAD:
        return "bad"
    return "busy" if state in {"Running", "Building", "Publishing", "Resolving"} else "idle"


def label(build: Build) -> str:
    """Return in one word where a build stands."""
    if build.run and not build.run.result:
        return "Running"
    ready = build.condition("Ready")
    if ready.get("status") == "True":
        return "Succeeded"
    if build.run and build.run.result not in {"", "Succeeded"}:
        return build.run.result
    return str(ready.get("reason") or "Pending")


def row(build: Build) -> str:
    """Return a build as a row of the list."""
    return render("_row.html", build=build, past=shapes.history(build, datetime.now(UTC))[-12:])


def listing(builds: Sequence[Build], version: int, *, everywhere: bool, where: str, error: str) -> str:
    """Return the list of builds."""
    rows = [row(build) for build in builds]
    return render(
        "list.html", rows=rows, version_of_rows=version, everywhere=everywhere, where=where, error=error, title=TITLE
    )


def advice(build: Build) -> list[Mapping[str, str]]:
    """Return the conditions of a build, each with what to do about it."""
    known = {entry.reason: entry for entry in explain.entries()}
    return [
        {
            "type": str(entry["type"]),
            "status": str(entry["status"]),
            "reason": str(entry["reason"]),
            "message": str(entry.get("message", "")),
            "meaning": known[entry["reason"]].meaning if entry["reason"] in known else "",
            "remedy": known[entry["reason"]].remedy if entry["reason"] in known else "",
        }
        for entry in build.status.get("conditions", ())
    ]


def _of_build(build: Build, view: RunView | None, *, static: bool) -> dict[str, Any]:
    now = datetime.now(UTC)
    run = view.run if view else ""
    return {
        "build": build,
        "view": view,
        "run": run,
        "entry": _entry(build, run),
        "current": bool(build.run and build.run.id == run),
        "matrix": shapes.matrix(view.record, view.running) if view else None,
        "lanes": shapes.lanes(view.record) if view else (),
        "past": shapes.history(build, now, run),
        "conditions": advice(build),
        "static": static,
        "pods_json": json.dumps([[pod.name, ", ".join(map(str, pod.platforms))] for pod in view.pods] if view else []),
    }


def _entry(build: Build, run: str) -> Mapping[str, Any]:
    if build.run and build.run.id == run:
        return build.run.document
    return next((dict(each) for each in build.status.get("history", ()) if each["id"] == run), {})


def details(build: Build, view: RunView | None) -> str:
    """Return what changes while a run goes on."""
    return render("details.html", **_of_build(build, view, static=False))


def page(build: Build, view: RunView | None) -> str:
    """Return the page of a build."""
    return render("build.html", title=f"{build.name} · {TITLE}", **_of_build(build, view, static=False))


def compared(pair: tuple[BuildRecord, BuildRecord] | None) -> str:
    """Return why a run took longer than the one before it; nothing where there is no such pair."""
    if pair is None:
        return render("_compare.html", differences=None)
    before, after = pair
    took = records.whole(after) - records.whole(before)
    return render("_compare.html", differences=differences(before, after), before=before, took=took)


def image(report: inspect.Report | None, error: str) -> str:
    """Return what the registry has, or why it cannot be read."""
    return render("_image.html", report=report, error=error)


def report(
    build: Build,
    view: RunView | None,
    logs: Sequence[tuple[str, Sequence[str]]],
    found: inspect.Report | None,
    error: str,
) -> str:
    """Return one run as one file that needs nothing else."""
    style = asset("style.css")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    values = _of_build(build, view, static=True)
    return render(
        "report.html",
        title=f"{build.name} · {TITLE}",
        style=style,
        style_digest=digest,
        logs=logs,
        report=found,
        error=error,
        **values,
    )


def failure(message: str) -> str:
    """Return the page of what cannot be shown."""
    return render("error.html", title=TITLE, message=message)
