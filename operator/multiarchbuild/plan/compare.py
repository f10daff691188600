"""Why one run was slower than another, or ran a step again: two build records side by side."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from multiarchbuild.api.record import BuilderRecord, BuildRecord, StepRecord, Why

_POSITION = re.compile(r"^\[(?P<stage>(?:[^\]\s]+ )?)\d+/\d+\] ")
"""`[stage-1 2/5] `: another instruction in front of it moves a step, and changes nothing about it."""
_BASE = re.compile(r"^\[(?:[^\]]*[^\]\d])?\d+/\d+\] FROM (?P<image>[^\s@]+)(?:@(?P<digest>\S+))?")
_LEAST = 0.5
"""Seconds below which nobody asks why."""
_MOST = 5
"""Steps that are told for each platform, those that cost most."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the second run did otherwise."""

    platform: str
    """Empty where it is of the run as a whole."""
    what: str
    before: float | None
    """Seconds in the first run; None where it did not have it."""
    after: float | None
    why: str = ""

    @property
    def seconds(self) -> float:
        """How much longer the second run took for it."""
        return (self.after or 0.0) - (self.before or 0.0)


def key(step: StepRecord) -> str:
    """Return what makes a step the same in two runs: its stage and its instruction, of a base image without digest."""
    name = _POSITION.sub(r"\g<stage>", step.name)
    return name.partition("@sha256:")[0] if _BASE.match(step.name) else name


def total(builder: BuilderRecord) -> float:
    """Return the seconds that a builder took in all."""
    return sum(builder.phases.values())


def differences(first: BuildRecord, second: BuildRecord) -> list[Difference]:
    """Return what took longer or ran again in `second`, what cost most first, each with why if that can be known."""
    found = list(_phases("", first.phases, second.phases))
    builders = {name: builder for builder in first.builders for name in builder.platforms}
    told = set[tuple[str, ...]]()
    for builder in second.builders:
        if builder.platforms in told:
            continue
        told.add(builder.platforms)
        name = ",".join(builder.platforms)
        before = next((builders[each] for each in builder.platforms if each in builders), None)
        if before is None:
            found.append(Difference(name, "platform", None, total(builder), "the first run did not build it"))
            continue
        found += _conditions(name, before, builder)
        found += _phases(name, before.phases, builder.phases, without={"build"})
        found += _steps(name, before, builder)
    return sorted(found, key=lambda each: -each.seconds)


def _phases(
    platform: str,
    first: Mapping[str, float],
    second: Mapping[str, float],
    without: Collection[str] = (),
) -> Iterator[Difference]:
    for name in dict.fromkeys([*first, *second]):
        before, after = first.get(name), second.get(name)
        if name not in without and (after or 0.0) - (before or 0.0) >= _LEAST:
            yield Difference(platform, f"phase {name}", before, after, _PHASES.get(name, ""))


_PHASES = {
    "queue": "it waited for its turn: the policy limits how many runs go on at once",
    "schedule": "it waited for a node with room",
    "pull": "the node had to pull images, or was busy",
    "start": "the source took longer, or BuildKit started later",
    "resolve": "the server of the source answered later",
    "publish": "the registry answered later, or there was more to copy or to sign",
}


def _conditions(platform: str, first: BuilderRecord, second: BuilderRecord) -> Iterator[Difference]:
    """Yield what was otherwise around the build, without a time of its own."""
    if first.mode != second.mode:
        yield Difference(platform, "mode", None, None, f"{second.mode or '?'} instead of {first.mode or '?'}")
    elif first.node_architecture != second.node_architecture:
        why = f"a node for {second.node_architecture or '?'} instead of {first.node_architecture or '?'}"
        yield Difference(platform, "node", None, None, why)
    if first.kept and not second.kept:
        yield Difference(platform, "builder", None, None, "a new builder instead of a kept one, which had the layers")
    if second.attempt > max(first.attempt, 1):
        yield Difference(platform, "tries", None, None, f"attempt {second.attempt} instead of {first.attempt}")


def _steps(platform: str, first: BuilderRecord, second: BuilderRecord) -> list[Difference]:
    known = {key(step): step for step in first.steps}
    found = []
    for step in second.steps:
        before = known.get(key(step))
        reran = step.why is not None and (before is None or before.cached)
        slower = step.seconds - (before.seconds if before else 0.0) >= _LEAST
        if reran or slower:
            why = _why(step, second.steps, before, known)
            found.append(Difference(platform, step.name, before.seconds if before else None, step.seconds, why))
    found.sort(key=lambda each: -each.seconds)
    return found[:_MOST]


def _why(
    step: StepRecord, steps: Sequence[StepRecord], before: StepRecord | None, known: Mapping[str, StepRecord]
) -> str:
    """Return why a step ran, as far as both records tell."""
    if step.why is None:
        return "" if before else "the first run did not have it"
    if before is not None and not before.cached and step.seconds > 0:
        return "it ran in both, and took longer"
    return _reason(step, steps, before, known)


def _reason(
    step: StepRecord, steps: Sequence[StepRecord], before: StepRecord | None, known: Mapping[str, StepRecord]
) -> str:
    if step.why == Why.INPUT_RAN and step.because is not None and step.because < len(steps):
        cause = _cause(step, steps)
        if cause.why == Why.INPUT_RAN:  # no record of ours ends in a circle
            return f"it builds on {cause.name}, which ran"
        return f"it builds on {cause.name}, which ran: {_reason(cause, steps, known.get(key(cause)), known)}"
    if moved := _moved_base(step, steps, known):
        return moved
    if before is None:
        return "the instruction is new or was changed"
    return _TOLD.get(step.why, step.why) if step.why else ""


_TOLD: Mapping[str, str] = {
    Why.CACHE_DISABLED: "cache.import is false",
    Why.NO_CACHE: "no cache could be read",
    Why.FILES_CHANGED: "files that it copies have changed",
    Why.NOT_CACHED: "its cache entry is gone, or something that it builds on was changed",
}


def _cause(step: StepRecord, steps: Sequence[StepRecord]) -> StepRecord:
    """Return the first step of the chain that made `step` necessary."""
    seen = set[int]()
    while step.because is not None and step.because < len(steps) and step.because not in seen:
        seen.add(step.because)
        if step.why != Why.INPUT_RAN:
            break
        step = steps[step.because]
    return step


def _moved_base(step: StepRecord, steps: Sequence[StepRecord], known: Mapping[str, StepRecord]) -> str:
    for at in step.inputs:
        base = _BASE.match(steps[at].name) if at < len(steps) else None
        before = known.get(key(steps[at])) if base else None
        if base and before and before.name != steps[at].name:
            return f"its base image {base['image']} has moved to {(base['digest'] or '?')[:19]}"
        if base and before is None:
            return f"its base image is {base['image']} now"
    return ""
