from datetime import UTC, datetime

from multiarchbuild.api.answers import TAKEN, answer_line
from multiarchbuild.cli.livesteps import LiveSteps


def fed(*lines: str) -> LiveSteps:
    steps = LiveSteps()
    for number, line in enumerate(lines):
        steps.feed(f"2026-01-01T00:00:{number:02}.5Z", line)
    return steps


def test_steps_begin_end_come_from_the_cache_and_fail() -> None:
    steps = fed(
        "#1 [internal] load build definition from Dockerfile",
        "#2 [1/4] FROM docker.io/library/busybox",
        "#3 [2/4] RUN one",
        "#3 CACHED",
        "#4 [3/4] RUN two",
        "#4 0.100 #5 [9/9] RUN what a program prints",
        "#4 DONE 2.0s",
        "==> 2/3 steps done, 1 cached",
        "#5 [4/4] RUN three",
        "#5 ERROR: process did not complete successfully: exit code: 1",
    )
    record = steps.record(["linux/amd64"])
    assert [(step.name, step.cached, step.seconds, step.error[:7]) for step in record.steps] == [
        ("[internal] load build definition from Dockerfile", False, 1.0, ""),
        ("[1/4] FROM docker.io/library/busybox", False, 1.0, ""),
        ("[2/4] RUN one", True, 1.0, ""),
        ("[3/4] RUN two", False, 2.0, ""),
        ("[4/4] RUN three", False, 1.0, "process"),
    ]
    assert (record.cache.hits, record.cache.total) == (1, 3)


def test_what_goes_on_goes_on_until_now() -> None:
    steps = fed("#1 [2/2] RUN sleep")
    record = steps.record(["linux/amd64"], datetime(2026, 1, 1, 0, 1, 0, 500_000, tzinfo=UTC))
    assert record.steps[0].seconds == 60.0
    assert steps.running() == {"[2/2] RUN sleep"}


def test_of_a_kept_builder_only_the_last_build_counts() -> None:
    taken = answer_line("1" * 32, "app-2-amd64-1", TAKEN.encode())
    steps = fed("#1 [1/2] RUN old", "#2 [2/2] RUN older", "==> 2/2 steps done, 0 cached", taken, "#1 [1/1] RUN new")
    record = steps.record(["linux/amd64"])
    assert [step.name for step in record.steps] == ["[1/1] RUN new"]
    assert record.cache.total == 0


def test_lines_of_any_kind_do_no_harm() -> None:
    steps = fed(
        "", "#", "# 1", "#999999999 [1/2] RUN x", "#1", "#1 \x1b[31mDONE", "multiarch.build/answer x", "#1 DONE 1.0s"
    )
    assert steps.record([]).steps
