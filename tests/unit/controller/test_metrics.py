"""What a status write counts, and that it counts it once."""

from datetime import UTC, datetime, timedelta

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import (
    CacheStatus,
    HistoryEntry,
    Mode,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    Status,
    Trigger,
)
from multiarchbuild.controller.metrics import Metrics

START = datetime(2026, 1, 1, tzinfo=UTC)


def run(name: str, result: Result | None, phase: Phase) -> RunStatus:
    ended = phase is not Phase.RUNNING
    return RunStatus(
        id=name,
        trigger=Trigger.SPEC_CHANGED,
        inputs="i",
        started_at=START,
        finished_at=START + timedelta(seconds=100) if result else None,
        result=result,
        reason=Reason.SUCCEEDED if result else Reason.BUILDING,
        platforms=(
            PlatformStatus(
                platform="linux/amd64",
                phase=phase,
                mode=Mode.NATIVE,
                pod="p",
                attempt=1,
                started_at=START,
                finished_at=START + timedelta(seconds=40) if ended else None,
                cache=CacheStatus(hits=3, total=10) if ended else None,
            ),
        ),
    )


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_run_and_its_platforms_are_counted_when_they_end() -> None:
    metrics = Metrics()
    going = Status(run=run("a", None, Phase.RUNNING))
    built = Status(run=run("a", None, Phase.SUCCEEDED))
    ended = Status(run=run("a", Result.SUCCEEDED, Phase.SUCCEEDED))
    metrics.status_written(Status(), going)
    assert value(metrics, "mab_builds_total", result="Succeeded", reason="Succeeded") is None
    metrics.status_written(going, built)
    metrics.status_written(built, ended)
    metrics.status_written(ended, ended)
    labels = {"platform": "linux/amd64", "mode": "Native", "result": "Succeeded"}
    assert value(metrics, "mab_builds_total", result="Succeeded", reason="Succeeded") == 1
    assert value(metrics, "mab_platform_builds_total", **labels) == 1
    assert value(metrics, "mab_build_duration_seconds_sum", phase="run") == 100
    assert value(metrics, "mab_build_duration_seconds_sum", phase="build") == 40
    assert value(metrics, "mab_cache_steps_total", result="hit") == 3
    assert value(metrics, "mab_cache_steps_total", result="miss") == 7


def test_a_superseded_run_is_counted_from_the_history() -> None:
    metrics = Metrics()
    entry = HistoryEntry(
        id="a", result=Result.SUPERSEDED, reason=Reason.SUPERSEDED, started_at=START, finished_at=START
    )
    metrics.status_written(
        Status(run=run("a", None, Phase.RUNNING)),
        Status(run=run("b", None, Phase.RUNNING), history=(entry,)),
    )
    assert value(metrics, "mab_builds_total", result="Superseded", reason="Superseded") == 1


def test_a_run_that_moves_into_the_history_is_not_counted_twice() -> None:
    metrics = Metrics()
    ended = Status(run=run("a", Result.SUCCEEDED, Phase.SUCCEEDED))
    entry = HistoryEntry(id="a", result=Result.SUCCEEDED, reason=Reason.SUCCEEDED, started_at=START, finished_at=START)
    metrics.status_written(Status(run=run("a", None, Phase.SUCCEEDED)), ended)
    metrics.status_written(ended, Status(run=run("b", None, Phase.RUNNING), history=(entry,)))
    assert value(metrics, "mab_builds_total", result="Succeeded", reason="Succeeded") == 1
