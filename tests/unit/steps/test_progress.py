import base64
import json
from typing import Any

from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.results import CacheUse
from multiarchbuild.steps.progress import Progress


def at(seconds: float) -> str:
    return f"2026-01-01T00:00:{seconds:012.9f}Z"


def vertex(name: str, **fields: Any) -> str:
    return json.dumps({"vertexes": [{"digest": f"sha256:{name}", "name": name, **fields}]})


def log(name: str, text: str, seconds: float) -> str:
    data = base64.b64encode(text.encode()).decode()
    return json.dumps({"logs": [{"vertex": f"sha256:{name}", "data": data, "timestamp": at(seconds)}]})


def shown(*lines: str) -> list[str]:
    """Return the lines of the log but for those that count."""
    progress = Progress()
    return [line for fed in lines for line in progress.feed(fed) if StepCount.parse(line) is None]


def test_a_step_shows_its_name_its_output_and_its_time() -> None:
    run = "[2/2] RUN make"
    assert shown(
        vertex(run),
        vertex(run, started=at(1)),
        log(run, "first\nsec", 1.25),
        log(run, "ond\n", 1.5),
        vertex(run, started=at(1), completed=at(3.5)),
    ) == ["#1 [2/2] RUN make", "#1 0.250 first", "#1 0.500 second", "#1 DONE 2.5s"]


def test_a_last_line_without_a_line_break_is_shown() -> None:
    run = "[2/2] RUN printf x"
    lines = shown(vertex(run, started=at(1)), log(run, "x", 1), vertex(run, started=at(1), completed=at(1), error="no"))
    assert lines == ["#1 [2/2] RUN printf x", "#1 x", "#1 ERROR: no"]


def test_a_progress_bar_is_shown_by_its_last_state() -> None:
    run = "[2/2] RUN curl"
    assert shown(vertex(run, started=at(1)), log(run, "10%\r50%\r100%\n", 2))[-1] == "#1 1.000 100%"


def test_steps_are_numbered_in_the_order_in_which_they_begin() -> None:
    both = json.dumps({"vertexes": [{"digest": "b", "name": "[2/2] RUN b"}, {"digest": "a", "name": "[1/2] RUN a"}]})
    later = json.dumps({"vertexes": [{"digest": "a", "name": "[1/2] RUN a", "started": at(1)}]})
    last = json.dumps({"vertexes": [{"digest": "b", "name": "[2/2] RUN b", "started": at(2)}]})
    assert shown(both, later, last) == ["#1 [1/2] RUN a", "#2 [2/2] RUN b"]


def test_instructions_are_counted_and_pulls_are_not() -> None:
    progress = Progress()
    for line in (
        vertex("[internal] load build definition from Dockerfile", started=at(1), completed=at(1)),
        vertex("[linux/amd64 1/3] FROM docker.io/library/busybox", cached=True),
        vertex("[linux/amd64 2/3] COPY . .", cached=True),
        vertex("[linux/amd64 builder 3/3] RUN make", started=at(1), completed=at(2)),
        vertex("exporting to image", started=at(2), completed=at(3)),
    ):
        assert not progress.exporting
        list(progress.feed(line))
    assert progress.exporting
    assert progress.cache == CacheUse(hits=1, total=2)


def test_a_cache_that_fails_has_failed_nothing() -> None:
    progress = Progress()
    (_, line) = progress.feed(vertex("importing cache manifest from r/x:c", started=at(1), error="r/x:c: not found"))
    assert line == "#1 WARN: r/x:c: not found"
    assert progress.failed("r/x:c: not found") is None


def test_the_step_that_was_cancelled_is_not_the_one_that_failed() -> None:
    progress = Progress()
    list(progress.feed(vertex("[2/3] RUN a", started=at(1), error="context canceled: context canceled")))
    list(progress.feed(vertex("[3/3] RUN b", started=at(1), error="exit code: 1")))
    failed = progress.failed("exit code: 1")
    assert failed is not None
    assert failed.name == "[3/3] RUN b"


def test_a_line_that_is_no_progress_is_shown_as_it_is() -> None:
    assert shown("error: failed to solve: no", "{not json") == ["error: failed to solve: no", "{not json"]


def test_how_far_the_build_is_is_a_line_of_the_log_whenever_it_changes() -> None:
    both = json.dumps({"vertexes": [{"digest": "b", "name": "[3/3] RUN b"}, {"digest": "a", "name": "[2/3] RUN a"}]})
    feed = [
        vertex("[internal] load metadata", started=at(1), completed=at(1)),
        both,
        json.dumps({"vertexes": [{"digest": "a", "name": "[2/3] RUN a", "cached": True}]}),
        json.dumps({"vertexes": [{"digest": "b", "name": "[3/3] RUN b", "started": at(1)}]}),
        json.dumps({"vertexes": [{"digest": "b", "name": "[3/3] RUN b", "started": at(1), "completed": at(2)}]}),
    ]
    progress = Progress()
    lines = [line for fed in feed for line in progress.feed(fed)]
    assert [line for line in lines if line.startswith("==>")] == [
        "==> 0/2 steps done, 0 cached",
        "==> 1/2 steps done, 1 cached",
        "==> 2/2 steps done, 1 cached",
    ]
    assert StepCount.parse(lines[-1]) == StepCount(2, 2, 1)


def test_an_instruction_that_failed_is_not_done() -> None:
    progress = Progress()
    lines = list(progress.feed(vertex("[2/2] RUN a", started=at(1), completed=at(2), error="exit code: 1")))
    assert lines[-1] == "==> 0/1 steps done, 0 cached"
