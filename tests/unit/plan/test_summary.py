"""Status as a whole: conditions by kstatus, the columns of kubectl get, the limit of its size."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api import limits
from multiarchbuild.api.conditions import Condition, ConditionType
from multiarchbuild.api.platforms import SUPPORTED
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import (
    MAX_BYTES,
    FailedAttempt,
    HistoryEntry,
    ImagePlatform,
    ImageStatus,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    SourceStatus,
    Status,
    StepStatus,
    Trigger,
)
from multiarchbuild.plan.admission import Blocker
from multiarchbuild.plan.summary import (
    Wait,
    bounded,
    conditions,
    duration_column,
    fit,
    platforms_column,
    shorten,
    unreadable_spec,
    within,
)
from tests.unit.plan.world import COMMIT, START, digest_of, kstatus

GENERATION = 4
LATER = START + timedelta(minutes=5)
ENDED = [Result.FAILED, Result.CANCELLED, Result.SUPERSEDED]
HOSTILE = {
    "control characters": "\x1b",
    "quotes": '"',
    "backslashes": "\\",
    "emoji": "\N{PILE OF POO}",
    "line breaks": "\n",
    "letters": "x",
}


def run(result: Result | None = None, *platforms: PlatformStatus, **fields: Any) -> RunStatus:
    """Return a run that has ended so, or goes on."""
    base = {
        "id": "7c1f09ab",
        "trigger": Trigger.SPEC_CHANGED,
        "inputs": "i",
        "started_at": START,
        "result": result,
        "reason": Reason.BUILDING,
        "message": "1/2 platforms built",
        "platforms": platforms,
    }
    return RunStatus.model_validate({**base, **fields})


def platform(name: str = "linux/arm64", phase: Phase = Phase.FAILED, **fields: Any) -> PlatformStatus:
    """Return where a platform stands."""
    return PlatformStatus(platform=name, phase=phase, reason=Reason.BUILD_FAILED, message="RUN false failed", **fields)


def said(of: RunStatus | None, *, suspended: bool = False, current: bool = True) -> dict[str, Condition]:
    """Return the conditions by type."""
    made = conditions((), of, GENERATION, START, suspended=suspended, current=current)
    assert len({condition.type for condition in made}) == len(made)
    return {condition.type: condition for condition in made}


CONDITIONS: dict[str, tuple[RunStatus | None, dict[str, str], str]] = {
    "nothing has run": (None, {"Ready": "False"}, "InProgress"),
    "going on": (run(), {"Ready": "Unknown", "Reconciling": "True", "Succeeded": "Unknown"}, "InProgress"),
    "going on, one platform has failed": (
        run(None, platform()),
        {"Ready": "False", "Reconciling": "True", "Succeeded": "Unknown"},
        "InProgress",
    ),
    "succeeded": (run(Result.SUCCEEDED), {"Ready": "True", "Succeeded": "True"}, "Current"),
    **{
        f"{result}".lower(): (run(result), {"Ready": "False", "Stalled": "True", "Succeeded": "False"}, "Failed")
        for result in ENDED
    },
}


@pytest.mark.parametrize(("of", "statuses", "computed"), CONDITIONS.values(), ids=CONDITIONS)
def test_conditions_by_the_rules_of_kstatus(of: RunStatus | None, statuses: dict[str, str], computed: str) -> None:
    found = said(of)
    assert {name: condition.status for name, condition in found.items()} == statuses
    status = Status(observed_generation=GENERATION, conditions=tuple(found.values()), run=of)
    assert kstatus(status, GENERATION) == computed
    assert kstatus(status, GENERATION + 1) == "InProgress", "an edit that was not seen yet"


@pytest.mark.parametrize("of", [each for each, _, _ in CONDITIONS.values()], ids=CONDITIONS)
def test_every_condition_names_the_generation_it_was_observed_for(of: RunStatus | None) -> None:
    assert {condition.observed_generation for condition in said(of).values()} == {GENERATION}


@pytest.mark.parametrize("of", [run(), *map(run, [Result.SUCCEEDED, *ENDED])], ids=str)
def test_conditions_tell_why_in_the_words_of_the_run(of: RunStatus) -> None:
    assert {(each.reason, each.message) for each in said(of).values()} == {(Reason.BUILDING, "1/2 platforms built")}


def test_ready_tells_of_the_first_failure_while_the_others_go_on() -> None:
    found = said(run(None, platform("linux/amd64", Phase.RUNNING), platform("linux/arm64"), platform("linux/386")))
    assert (found["Ready"].reason, found["Ready"].message) == (Reason.BUILD_FAILED, "linux/arm64: RUN false failed")
    assert found["Reconciling"].message == "1/2 platforms built"


def test_a_new_build_that_is_suspended_says_so() -> None:
    ready = said(None, suspended=True)["Ready"]
    assert (ready.reason, ready.message) == (Reason.SUSPENDED, "spec.suspend is true: no run is started")


def test_an_image_of_an_earlier_spec_is_not_ready() -> None:
    found = said(run(Result.SUCCEEDED), suspended=True, current=False)
    assert (found["Ready"].status, found["Ready"].reason) == ("False", Reason.SUSPENDED)
    assert found["Succeeded"].status == "True", "the last run did"


WAITS: dict[str, dict[str, Any]] = {
    "denied": {"blocker": Blocker(Reason.POLICY_DENIED, "not allowed")},
    "queued": {"blocker": Blocker(Reason.QUEUED, "queued: 1 at a time")},
    "for a parent": {"waits_for": Wait(Reason.PARENT_NOT_READY, "base has no image")},
    "for the next look": {"run_follows": True},
    "suspended": {"suspended": True, "current": False},
}


@pytest.mark.parametrize("waits", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("result", [Result.SUCCEEDED, *ENDED])
def test_whatever_it_waits_for_succeeded_tells_how_the_last_run_has_ended(
    result: Result, waits: dict[str, Any]
) -> None:
    old = conditions((), run(message="0/2 platforms built; linux/arm64 Pending"), GENERATION - 1, START)
    ended = run(result, reason=Reason.SUPERSEDED, message="the end of it")
    (found,) = [
        each for each in conditions(old, ended, GENERATION, LATER, **waits) if each.type == ConditionType.SUCCEEDED
    ]
    status = "True" if result is Result.SUCCEEDED else "False"
    assert (found.status, found.reason, found.message) == (status, Reason.SUPERSEDED, "the end of it")
    assert (found.observed_generation, found.last_transition_time) == (GENERATION, LATER)


def test_of_a_spec_that_cannot_be_read_succeeded_stays_what_it_was() -> None:
    before = conditions((), run(Result.FAILED), GENERATION, START)
    status = unreadable_spec(Status(conditions=before), Reason.INVALID_SPEC, "no", GENERATION + 1, LATER)
    assert [each for each in status.conditions if each.type == ConditionType.SUCCEEDED] == [
        each for each in before if each.type == ConditionType.SUCCEEDED
    ]


def test_a_transition_time_stays_while_the_status_does() -> None:
    old = conditions((), run(), GENERATION, START, suspended=False)
    new = conditions(old, run(Result.SUCCEEDED), GENERATION, LATER, suspended=False)
    assert {each.type: each.last_transition_time for each in new} == {"Ready": LATER, "Succeeded": LATER}
    again = conditions(new, run(Result.SUCCEEDED), GENERATION, LATER + timedelta(hours=1), suspended=False)
    assert again == new


@pytest.mark.parametrize(
    ("of", "wanted", "column"),
    [
        (None, 2, "0/2"),
        (run(), 3, "0/3"),
        (run(None, platform(phase=Phase.SUCCEEDED), platform("linux/386", Phase.RUNNING)), 2, "1/2"),
        (run(None, *(platform(each, Phase.SUCCEEDED) for each in SUPPORTED)), 16, "16/16"),
    ],
)
def test_column_platforms(of: RunStatus | None, wanted: int, column: str) -> None:
    assert platforms_column(of, wanted) == column


@pytest.mark.parametrize(
    ("seconds", "column"),
    [
        (0, "0s"),
        (59, "59s"),
        (60, "1m0s"),
        (72.9, "1m12s"),
        (3600, "1h0m0s"),
        (3661, "1h1m1s"),
        (360_000, "100h0m0s"),
    ],
)
def test_column_duration(seconds: float, column: str) -> None:
    assert duration_column(run(Result.FAILED, finished_at=START + timedelta(seconds=seconds))) == column


def test_column_duration_is_of_ended_runs() -> None:
    assert duration_column(None) is None
    assert duration_column(run()) is None


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [("", 5, ""), ("exact", 5, "exact"), ("x" * 20, 10, "xxx… (cut)"), ("x" * 20, 3, "… ("), ("x", 0, "")],
)
def test_a_text_that_is_cut_says_so(text: str, limit: int, short: str) -> None:
    assert shorten(text, limit) == short


@given(st.text(max_size=60), st.integers(0, 50))
def test_a_text_is_never_longer_than_it_may_be(text: str, limit: int) -> None:
    assert len(shorten(text, limit)) <= limit


@given(st.text(max_size=60), st.integers(10, 200))
def test_a_text_has_no_more_bytes_in_json_than_it_may_have(text: str, room: int) -> None:
    short = within(text, room)
    size = len(StepStatus(message=short).model_dump_json(include={"message"}).encode()) - len('{"message":""}')
    assert size <= room
    assert short == text or (short.endswith("… (cut)") and text.startswith(short.removesuffix("… (cut)")))


@pytest.mark.parametrize("character", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("names", [("linux/amd64", "linux/arm64"), SUPPORTED], ids=["two platforms", "all platforms"])
def test_messages_within_bounds_leave_room_for_status(names: tuple[str, ...], character: str) -> None:
    """Then `fit` cuts the log tails only, which are not made anew at each look."""
    text = character * 10_000
    tries = tuple(
        FailedAttempt(
            attempt=number + 1,
            reason=Reason.BUILDER_OUT_OF_MEMORY,
            message=text[:256],
            node="n" * 63,
            finished_at=START,
        )
        for number in range(limits.FAILED_ATTEMPTS)
    )
    entries = tuple(
        platform(name, node="n" * 63, pod="p" * 63, digest=digest_of(name)).model_copy(
            update={"message": text, "failed_attempts": tries}
        )
        for name in names
    )
    status = largest(character)
    assert status.run is not None
    told = bounded(status.run.model_copy(update={"message": text, "platforms": entries}))
    made = conditions((), told, GENERATION, START, suspended=False)
    assert size(status.model_copy(update={"run": told, "conditions": made})) < MAX_BYTES


@pytest.mark.parametrize("character", HOSTILE.values(), ids=HOSTILE)
def test_what_steps_and_kubelets_say_is_cut_to_the_bounds_of_the_schema(character: str) -> None:
    text = character * 10_000
    step = StepStatus(pod="p", attempt=1).model_copy(update={"message": text})
    entry = platform().model_copy(update={"message": text, "log_tail": text})
    long = run().model_copy(update={"message": text, "platforms": (entry,), "resolve": step, "publish": step})
    cut = bounded(long)
    assert RunStatus.model_validate_json(cut.model_dump_json(by_alias=True)) == cut
    assert cut.platforms[0].log_tail == character * limits.LOG_TAIL
    assert (cut.message or "").endswith("(cut)")


def test_what_is_within_bounds_stays_as_it_is() -> None:
    kept = run(None, platform(log_tail="last lines"), resolve=StepStatus(message="words"))
    assert bounded(kept) == kept


def largest(character: str) -> Status:
    """Return the largest status that the schema lets be."""
    message, tail = character * limits.MESSAGE, character * limits.LOG_TAIL
    names = SUPPORTED[: limits.PLATFORMS]
    entries = tuple(
        platform(name, node="n" * 253, pod="p" * 253, digest=digest_of(name), log_tail=tail).model_copy(
            update={"message": message}
        )
        for name in names
    )
    image = ImageStatus(
        ref="r" * 384,
        digest=digest_of("index"),
        tags=tuple(f"{number:0128}" for number in range(limits.TAGS)),
        platforms=tuple(ImagePlatform(platform=name, digest=digest_of(name), size=2**40) for name in names),
    )
    step = StepStatus(pod="p" * 253, attempt=11, reason=Reason.BUILDER_OUT_OF_MEMORY, message=message)
    source = SourceStatus(commit=COMMIT, ref="r" * limits.REF, author=character * limits.AUTHOR, time=START)
    failed = run(Result.FAILED, *entries, message=message, resolve=step, publish=step, source=source)
    history = tuple(
        HistoryEntry(
            id=f"{number:032}",
            result=Result.FAILED,
            reason=Reason.BUILDER_OUT_OF_MEMORY,
            digest=digest_of(number),
            commit=COMMIT,
            started_at=START,
            finished_at=LATER,
        )
        for number in range(20)
    )
    made = conditions((), failed, GENERATION, START, suspended=False)
    return Status(observed_generation=GENERATION, conditions=made, image=image, run=failed, history=history)


def size(status: Status) -> int:
    """Return the bytes of the JSON that is written."""
    return len(status.model_dump_json(by_alias=True, exclude_none=True).encode())


@pytest.mark.parametrize("character", HOSTILE.values(), ids=HOSTILE)
def test_the_largest_status_stays_below_64_kib(character: str) -> None:
    status = largest(character)
    assert size(status) >= MAX_BYTES
    cut = fit(status)
    assert size(cut) < MAX_BYTES
    assert Status.model_validate_json(cut.model_dump_json(by_alias=True)) == cut
    assert cut.image == status.image
    assert cut.history == status.history
    assert cut.run is not None
    assert [entry.platform for entry in cut.run.platforms] == list(SUPPORTED)
    messages = [*(entry.message for entry in cut.run.platforms), *(condition.message for condition in cut.conditions)]
    assert min(len(message or "") for message in messages) >= 128, "a beginning of each message is left"


def test_log_tails_are_cut_before_messages_and_from_their_beginning() -> None:
    tail = "".join(f"{number:07}\n" for number in range(limits.LOG_TAIL // 8))
    entries = tuple(platform(name, log_tail=tail).model_copy(update={"message": "x" * 1500}) for name in SUPPORTED)
    filler = (
        Condition(
            type="X", status="True", reason="X", message="x" * 20_000, observed_generation=1, last_transition_time=START
        ),
    )
    cut = fit(Status(run=run(Result.FAILED, *entries), conditions=filler))
    assert cut.run is not None
    for entry in cut.run.platforms:
        assert entry.message == "x" * 1500
        assert entry.log_tail
        assert 256 < len(entry.log_tail) < len(tail)
        assert tail.endswith(entry.log_tail)


def test_a_status_that_is_small_enough_stays_as_it_is() -> None:
    status = Status(run=run(Result.FAILED, platform(log_tail="x" * limits.LOG_TAIL)))
    assert fit(status) == status
