from datetime import UTC, datetime, timedelta
from typing import Any

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import REBUILD_ANNOTATION
from multiarchbuild.api.status import Result, RunStatus, StepStatus, Trigger
from multiarchbuild.plan.children import RECORD_KEY, ROLE_LABEL
from multiarchbuild.plan.recorded import run_phases
from tests.unit.plan.world import World, manifest, timestamp

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(**fields: object) -> RunStatus:
    known = RunStatus(id="12345678", trigger=Trigger.REQUESTED, inputs="i", started_at=NOW)
    return known.model_copy(update=fields)


def test_a_run_that_waited_for_nothing_says_nothing() -> None:
    assert run_phases(run()) == {}


def test_a_run_says_how_long_it_waited_for_its_turn_and_its_source() -> None:
    resolve = StepStatus(attempt=1, finished_at=NOW + timedelta(seconds=3))
    waited = run(queued_at=NOW - timedelta(seconds=60), resolve=resolve)
    assert run_phases(waited) == {"queue": 60.0, "resolve": 3.0}


def test_clocks_that_disagree_make_no_negative_time() -> None:
    assert run_phases(run(queued_at=NOW + timedelta(seconds=5))) == {"queue": 0.0}


AMD64, ARM64 = "linux/amd64", "linux/arm64"


def world(**fields: Any) -> World:
    w = World(manifest(**fields))
    w.settle()
    return w


def fail(w: World, platform: str, reason: Reason = Reason.BUILD_FAILED) -> None:
    """Let a builder print its record and fail."""
    pod = w.pod(platform=platform)
    w.records[pod["metadata"]["name"]] = f"record of {platform}"
    w.fail(pod, reason)
    w.settle()


def kept(w: World) -> dict[str, str]:
    """Return what is kept, by the name of its ConfigMap."""
    known = w.config_maps.items()
    return {
        name: each["data"][RECORD_KEY] for name, each in known if each["metadata"]["labels"].get(ROLE_LABEL) == "record"
    }


def test_what_a_builder_recorded_is_kept_once_it_has_failed_for_good() -> None:
    w = world()
    fail(w, AMD64)
    assert list(kept(w).values()) == ["record of linux/amd64"], "also while another goes on"
    w.succeed(w.pod(platform=ARM64))
    w.settle()
    run = w.status.run
    assert run is not None
    assert run.result is Result.FAILED
    assert list(kept(w)) == [f"app-{run.id}-amd64-record"]
    w.records.clear()
    w.pods.clear()
    w.settle()
    assert kept(w), "it outlives its pod, and the operator"


def test_nothing_is_kept_of_a_try_that_is_followed_by_another() -> None:
    w = world(retries=1)
    fail(w, AMD64, Reason.REGISTRY_ERROR)
    assert kept(w) == {}


def test_a_record_goes_when_history_forgets_its_run() -> None:
    w = world(history={"failed": 1})
    for number in range(3):
        if number:
            w.annotate(REBUILD_ANNOTATION, timestamp(w.now))
            w.settle()
        for platform in (AMD64, ARM64):
            fail(w, platform)
        w.advance(60)
    w.settle()
    run = w.status.run
    assert run is not None
    assert sorted(kept(w)) == [f"app-{run.id}-amd64-record", f"app-{run.id}-arm64-record"]


def test_the_inputs_of_a_run_are_not_taken_for_a_record_nor_the_other_way_round() -> None:
    w = world()
    fail(w, AMD64)
    names = set(w.config_maps)
    w.settle()
    assert set(w.config_maps) == names
    assert len(names) == 2
