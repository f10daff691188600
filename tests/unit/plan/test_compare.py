from dataclasses import replace
from typing import Any

import pytest

from multiarchbuild.api.record import BuilderRecord, BuildRecord, StepRecord, Why
from multiarchbuild.plan.compare import Difference, differences, key

NODE = "docker.io/library/node:22"
BASE = f"[1/4] FROM {NODE}@sha256:"


def step(name: str, seconds: float = 0.0, **fields: Any) -> StepRecord:
    return StepRecord(name=name, seconds=seconds, **fields)


def record(*steps: StepRecord, phases: dict[str, float] | None = None, **fields: Any) -> BuildRecord:
    builder = BuilderRecord(platforms=("linux/amd64",), steps=steps, phases={"build": 9.0, **(phases or {})}, **fields)
    return BuildRecord(name="app", namespace="team", run="11111111", builders=(builder,))


BEFORE = record(
    step(BASE + "a" * 64),
    step("[internal] load build context", 0.1),
    step("[2/4] COPY package.json .", cached=True, inputs=(0, 1)),
    step("[3/4] RUN npm ci", cached=True, inputs=(2,)),
    step("[4/4] COPY . .", 0.4, inputs=(3, 1), why=Why.FILES_CHANGED),
)
COPY, RUN = "[2/4] COPY package.json .", "[3/4] RUN npm ci"


def after(copy: dict[str, Any], run: dict[str, Any], base: str = "a") -> BuildRecord:
    return record(
        step(BASE + base * 64),
        step("[internal] load build context", 0.1),
        step(COPY, inputs=(0, 1), **copy),
        step(RUN, inputs=(2,), **run),
        step("[4/4] COPY . .", 0.4, inputs=(3, 1), why=Why.INPUT_RAN, because=3),
    )


RAN: dict[str, Any] = {"seconds": 31.0, "why": Why.INPUT_RAN, "because": 2}


@pytest.mark.parametrize(
    ("now", "what", "why"),
    [
        (
            after({"seconds": 0.2, "why": Why.FILES_CHANGED}, RAN),
            RUN,
            f"it builds on {COPY}, which ran: files that it copies have changed",
        ),
        (
            after({"seconds": 0.2, "why": Why.NOT_CACHED}, RAN, base="b"),
            RUN,
            f"it builds on {COPY}, which ran: its base image {NODE} has moved to sha256:{'b' * 12}",
        ),
        (after({"cached": True}, {"seconds": 31.0, "why": Why.NO_CACHE}), RUN, "no cache could be read"),
        (after({"cached": True}, {"seconds": 31.0, "why": Why.CACHE_DISABLED}), RUN, "cache.import is false"),
        (
            after({"cached": True}, {"seconds": 31.0, "why": Why.NOT_CACHED}),
            RUN,
            "its cache entry is gone, or something that it builds on was changed",
        ),
    ],
)
def test_why_a_step_ran_again(now: BuildRecord, what: str, why: str) -> None:
    first = differences(BEFORE, now)[0]
    assert first == Difference("linux/amd64", what, 0.0, 31.0, why)


def test_files_that_change_in_every_run_are_named_as_the_cause() -> None:
    first = after({"seconds": 0.2, "why": Why.FILES_CHANGED}, {"cached": True})
    second = after({"seconds": 0.2, "why": Why.FILES_CHANGED}, RAN)
    assert differences(first, second)[0].why == f"it builds on {COPY}, which ran: files that it copies have changed"


def test_an_instruction_that_was_changed_is_new() -> None:
    now = record(step(BASE + "a" * 64), step("[2/4] RUN npm ci --omit=dev", 20.0, why=Why.NOT_CACHED, inputs=(0,)))
    (found,) = differences(BEFORE, now)
    assert found.why == "the instruction is new or was changed"
    assert found.before is None


def test_another_instruction_before_a_step_changes_nothing_about_it() -> None:
    assert key(step("[build 3/9] RUN make")) == key(step("[build 4/12] RUN make")) != key(step("[3/9] RUN make"))
    assert differences(BEFORE, BEFORE) == []


def test_what_was_waited_for_is_told_and_what_was_quicker_is_not() -> None:
    slower = record(phases={"schedule": 40.0, "pull": 1.0})
    quicker = record(phases={"schedule": 1.0, "pull": 9.0})
    (found,) = differences(quicker, slower)
    assert (found.what, found.before, found.after) == ("phase schedule", 1.0, 40.0)
    assert "waited for a node" in found.why


def test_another_mode_and_a_builder_that_was_not_kept_are_told() -> None:
    told = differences(record(mode="Native", kept=True), record(mode="Emulated"))
    assert [each.what for each in told] == ["mode", "builder"]
    assert told[0].why == "Emulated instead of Native"


def test_a_step_that_ran_in_both_is_told_where_it_took_longer() -> None:
    first = record(step("[2/2] RUN make", 10.0, why=Why.NO_CACHE))
    second = record(step("[2/2] RUN make", 25.0, why=Why.NO_CACHE))
    (found,) = differences(first, second)
    assert found.why == "it ran in both, and took longer"
    assert found.seconds == 15.0
    assert replace(found, before=None).seconds == 25.0


def test_records_that_refer_to_nothing_are_compared_all_the_same() -> None:
    odd = record(step("[2/2] RUN make", 9.0, why=Why.INPUT_RAN, because=7, inputs=(8,)))
    loop = record(step("[2/2] RUN make", 9.0, why=Why.INPUT_RAN, because=0))
    assert differences(BEFORE, odd)
    assert differences(BEFORE, loop)
