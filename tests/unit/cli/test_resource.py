"""Which run answers what was asked for, and how it ended."""

from typing import Any

import pytest

from multiarchbuild.cli.resource import Build, Verdict, verdict


def build(
    *,
    generation: int = 2,
    observed: int = 2,
    run: dict[str, Any] | None = None,
    stalled: tuple[str, str] | None = None,
    history: list[dict[str, Any]] | None = None,
    suspend: bool = False,
) -> Build:
    status: dict[str, Any] = {"observedGeneration": observed, "conditions": [], "history": history or []}
    if run:
        status["run"] = {"reason": "Why", "message": "so it is", **run}
    if stalled:
        reason, message = stalled
        status["conditions"].append({"type": "Stalled", "status": "True", "reason": reason, "message": message})
    meta = {"name": "app", "namespace": "team", "generation": generation, "uid": "u"}
    return Build({"metadata": meta, "spec": {"suspend": suspend}, "status": status})


GOING = {"id": "1"}
DONE = {"id": "1", "result": "Succeeded"}
FAILED = {"id": "1", "result": "Failed"}
NOT_YET = None
OLD_FAILURE = ("BuildFailed", "exit code 1")


@pytest.mark.parametrize(
    ("found", "run", "request_", "expected"),
    [
        (build(observed=1, run=DONE), None, None, NOT_YET),
        (build(), None, None, NOT_YET),
        (build(run=GOING), None, None, NOT_YET),
        (build(run=GOING), "1", None, NOT_YET),
        (build(run=DONE), None, None, Verdict(succeeded=True, message="Why: so it is")),
        (build(run=FAILED, stalled=OLD_FAILURE), None, None, Verdict(succeeded=False, message="Why: so it is")),
        (build(run=DONE, observed=1), "1", None, Verdict(succeeded=True, message="Why: so it is")),
        # A request is answered by its own run only; the failure of the one before says nothing.
        (build(run=DONE), None, "now", NOT_YET),
        (build(run=FAILED, stalled=OLD_FAILURE), None, "now", NOT_YET),
        (build(run={**DONE, "request": "now"}), None, "now", Verdict(succeeded=True, message="Why: so it is")),
        # No run at all will come of it.
        (
            build(run=DONE, stalled=("InvalidSpec", "no")),
            None,
            None,
            Verdict(succeeded=False, message="InvalidSpec: no"),
        ),
        (build(stalled=("PodRejected", "no")), None, None, Verdict(succeeded=False, message="PodRejected: no")),
        (
            build(run=DONE, stalled=("InvalidSpec", "no")),
            None,
            "now",
            Verdict(succeeded=False, message="InvalidSpec: no"),
        ),
        # A pod that is refused is tried again while its run goes on.
        (build(run=GOING, stalled=("PodRejected", "no")), "1", None, NOT_YET),
        # Another run took its place.
        (build(run={"id": "2"}), "1", None, Verdict(succeeded=False, message="run 1 ended as Superseded by run 2")),
        (
            build(run={"id": "2"}, history=[{"id": "1", "result": "Succeeded"}]),
            "1",
            None,
            Verdict(succeeded=True, message="run 1 ended as Succeeded"),
        ),
        (build(), "1", None, Verdict(succeeded=False, message="run 1 ended as Superseded")),
    ],
)
def test_the_verdict(found: Build, run: str | None, request_: str | None, expected: Verdict | None) -> None:
    assert verdict(found, run, request_) == expected


def test_a_suspended_build_says_how_to_resume_it() -> None:
    ended = verdict(build(suspend=True), None, None)
    assert ended is not None
    assert not ended.succeeded
    assert ended.message.endswith("kubectl mab resume app")
    assert verdict(build(suspend=True, run=GOING), "1", None) is None
