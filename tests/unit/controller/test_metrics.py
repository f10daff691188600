"""What a status write counts, and that it counts it once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

import pytest

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
from multiarchbuild.controller.memory import limit_bytes
from multiarchbuild.controller.metrics import Metrics
from multiarchbuild.plan.build_summary import BuildSummary
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.policy import Concurrency, Policy, PollingPolicy

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


def test_what_waits_within_the_limits_of_the_policy_is_told() -> None:
    metrics, view = Metrics(), ClusterView(Concurrency(cluster=1))
    metrics.show_waiting(view, Policy(polling=PollingPolicy(concurrent=7)))
    build = BuildSummary("ns", "a", "1", START, running=False, waiting_since=START, image="i", tags=frozenset())
    view.store(build)
    view.store(replace(build, name="b", uid="2"))
    view.store(replace(build, name="c", uid="3", waiting_since=None, polling=True))
    names = ("mab_builds_queued", "mab_source_checks", "mab_source_checks_limit")
    assert [value(metrics, name) for name in names] == [2, 1, 7]


def test_memory_is_told() -> None:
    used = value(Metrics(), "mab_memory_bytes")
    assert used is not None
    assert 2**20 < used < 2**34


@pytest.mark.parametrize(
    ("name", "text", "bytes_"),
    [
        ("memory.max", "536870912\n", 2**29),
        ("memory.max", "max\n", inf),
        ("memory/memory.limit_in_bytes", "536870912\n", 2**29),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", inf),
        ("something/else", "1", inf),
    ],
)
def test_the_limit_of_memory_is_that_of_the_container(tmp_path: Path, name: str, text: str, bytes_: float) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert limit_bytes(tmp_path) == bytes_
