"""A build as the API server has it, read leniently: an operator of a newer version may say what this one cannot."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION
from multiarchbuild.api.status import Result
from multiarchbuild.plan.children import RUN_LABEL, UID_LABEL

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform of a run."""

    document: Document

    @property
    def name(self) -> str:
        """Such as linux/arm64."""
        return str(self.document["platform"])

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded or Failed."""
        return str(self.document.get("phase", "Pending"))

    @property
    def state(self) -> str:
        """The phase, or why it has not got further."""
        reason = self.document.get("reason")
        told = self.phase in {"Running", "Succeeded"} or reason in {None, self.phase}
        return self.phase if told else f"{self.phase}: {reason}"

    def text(self, field: str) -> str:
        """Return a field, empty where it is not set."""
        return str(self.document.get(field) or "")

    def elapsed(self, now: datetime) -> float | None:
        """Return the seconds since the step has started, until now or until it ended."""
        return seconds(self.document, now)

    @property
    def cache(self) -> tuple[int, int] | None:
        """Steps from the cache and steps at all, once it is known."""
        cache = self.document.get("cache")
        return (cache["hits"], cache["total"]) if cache else None


@dataclass(frozen=True, slots=True)
class Run:
    """The current or the last run of a build."""

    document: Document

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.document["id"])

    @property
    def result(self) -> str:
        """How it ended; empty while it goes on."""
        return str(self.document.get("result") or "")

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """One for each platform."""
        return tuple(map(Platform, self.document.get("platforms", ())))

    @property
    def source(self) -> str:
        """What it builds, in a few characters: ref and commit, or the digest."""
        source = self.document.get("source") or {}
        commit, ref, digest = (str(source.get(key) or "") for key in ("commit", "ref", "digest"))
        if commit:
            return f"{ref}@{commit[:12]}" if ref and ref != commit else commit[:12]
        return digest.removeprefix("sha256:")[:12]

    def elapsed(self, now: datetime) -> float | None:
        """Return how many seconds it has taken."""
        return seconds(self.document, now)


@dataclass(frozen=True, slots=True)
class Build:
    """A MultiArchBuild."""

    document: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.document["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.document["metadata"]["namespace"])

    @property
    def generation(self) -> int:
        """Generation of its spec."""
        return int(self.document["metadata"]["generation"])

    @property
    def annotations(self) -> Mapping[str, str]:
        """Its annotations."""
        return dict(self.document["metadata"].get("annotations") or {})

    @property
    def spec(self) -> Document:
        """Its spec."""
        return dict(self.document["spec"])

    @property
    def status(self) -> Document:
        """Its status, empty before the operator has seen it."""
        return dict(self.document.get("status") or {})

    @property
    def observed(self) -> bool:
        """Whether its status speaks of its present spec."""
        return int(self.status.get("observedGeneration", -1)) >= self.generation

    @property
    def run(self) -> Run | None:
        """The current or the last run."""
        run = self.status.get("run")
        return Run(run) if run else None

    def condition(self, kind: str) -> Document:
        """Return the condition of this type, empty where there is none."""
        return next((entry for entry in self.status.get("conditions", ()) if entry["type"] == kind), {})

    @property
    def ref(self) -> str:
        """The last image that was published, by digest."""
        return str(self.status.get("image", {}).get("ref", ""))

    @property
    def destinations(self) -> tuple[str, ...]:
        """Further repositories that have this image."""
        return tuple(map(str, self.status.get("image", {}).get("destinations", ())))

    @property
    def cancelling(self) -> bool:
        """Whether its run has been asked to end."""
        return self.run is not None and self.annotations.get(CANCEL_ANNOTATION) == self.run.id

    def selector(self, run: str | None = None) -> str:
        """Return the label selector of its pods, or of those of one run."""
        own = f"{UID_LABEL}={self.document['metadata']['uid']}"
        return f"{own},{RUN_LABEL}={run}" if run else own


@dataclass(frozen=True, slots=True)
class Verdict:
    """How what was asked for has ended."""

    succeeded: bool
    message: str


def verdict(build: Build, run: str | None, request: str | None) -> Verdict | None:
    """Return how `run` has ended, or None while it goes on.

    Without `run` it is the one that answers the present spec, and `request` (the rebuild annotation) where there is
    one. Once the status speaks of the present spec, the run in it is that one.
    """
    current = build.run
    if run is not None and (current is None or current.id != run):
        entry = next((entry for entry in build.status.get("history", ()) if entry["id"] == run), None)
        result = str(entry["result"]) if entry else str(Result.SUPERSEDED)
        other = f" by run {current.id}" if current else ""
        superseded = result == Result.SUPERSEDED
        return Verdict(result == Result.SUCCEEDED, f"run {run} ended as {result}{other if superseded else ''}")
    if run is None:
        if not build.observed:
            return None
        if said := _refusal(build, request):
            return Verdict(succeeded=False, message=said)
    if current is None or (run is None and not answers(current, request)):
        return None
    if not current.result:
        return None
    said = f"{current.document.get('reason', '')}: {current.document.get('message', '')}"
    return Verdict(current.result == Result.SUCCEEDED, said)


def _refusal(build: Build, request: str | None) -> str:
    """Return why no run answers the present spec nor ever will, or nothing."""
    current, stalled = build.run, build.condition("Stalled")
    answered = current is not None and answers(current, request)
    if stalled.get("status") == "True":
        # A failed run is Stalled too, until the one that was just asked for begins.
        own = not answered if request is None else stalled["reason"] == Reason.INVALID_SPEC
        if own or (current is not None and answered and current.result == Result.SUCCEEDED):
            return f"{stalled['reason']}: {stalled['message']}"
    if not answered and build.spec.get("suspend"):
        return f"spec.suspend is true, no run is started: kubectl mab resume {build.name}"
    return ""


def answers(run: Run, request: str | None) -> bool:
    """Return whether `run` was started for this request, or there is none."""
    return request is None or run.document.get("request") == request


def seconds(document: Document, now: datetime) -> float | None:
    """Return the seconds from `startedAt` to `finishedAt`, or to now."""
    started, finished = document.get("startedAt"), document.get("finishedAt")
    if not started:
        return None
    end = datetime.fromisoformat(finished) if finished else now
    return max((end - datetime.fromisoformat(started)).total_seconds(), 0.0)
