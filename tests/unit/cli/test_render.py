"""What a person sees, at a fixed width."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.resource import GROUP
from multiarchbuild.cli import tables
from multiarchbuild.cli.console import size, span
from multiarchbuild.cli.follow import Board
from multiarchbuild.cli.resource import Build
from multiarchbuild.cli.steplog import StepLog
from multiarchbuild.cli.view import Lines, frame
from multiarchbuild.plan.children import Pod, pod_from

NOW = datetime(2026, 1, 1, 0, 2, 5, tzinfo=UTC)


def running() -> dict[str, Any]:
    return {
        "metadata": {
            "name": "app",
            "namespace": "team",
            "generation": 1,
            "uid": "u",
            "creationTimestamp": "2025-12-28T00:00:00Z",
        },
        "spec": {"output": {"image": "r.test/team/app"}},
        "status": {
            "observedGeneration": 1,
            "columns": {"platforms": "1/2", "digest": "0123456789ab"},
            "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Building", "message": "1/2 built"}],
            "run": {
                "id": "7c1f09ab",
                "trigger": "SpecChanged",
                "startedAt": "2026-01-01T00:00:00Z",
                "source": {"commit": "4f2a1c0d" * 5, "ref": "main"},
                "platforms": [
                    {
                        "platform": "linux/amd64",
                        "phase": "Succeeded",
                        "mode": "Native",
                        "node": "n-amd64",
                        "attempt": 1,
                        "startedAt": "2026-01-01T00:00:05Z",
                        "finishedAt": "2026-01-01T00:00:17Z",
                        "digest": f"sha256:{'ab' * 32}",
                        "cache": {"hits": 2, "total": 5},
                    },
                    {
                        "platform": "linux/arm64",
                        "phase": "Running",
                        "mode": "Emulated",
                        "node": "n-amd64",
                        "attempt": 2,
                        "startedAt": "2026-01-01T00:01:00Z",
                    },
                ],
            },
        },
    }


def builder(platform: str = "linux/arm64", attempt: int = 1) -> Pod:
    meta = {
        "name": f"app-{platform.replace('/', '-')}-{attempt}",
        "uid": "p",
        "creationTimestamp": f"2026-01-01T00:00:0{attempt}Z",
        "labels": {f"{GROUP}/role": "build", f"{GROUP}/run": "7c1f09ab", f"{GROUP}/attempt": str(attempt)},
        "annotations": {f"{GROUP}/platforms": platform},
    }
    return pod_from({"metadata": meta})


def board(*lines: str) -> Board:
    pod, steps = builder(), StepLog()
    for line in lines:
        steps.feed(line)
    return Board(Build(running()), {pod.name: pod}, {pod.name: steps})


def text(lines: list[Any]) -> list[str]:
    return [line.plain for line in lines]


def test_list_has_the_columns_of_kubectl_get_and_how_the_run_goes() -> None:
    build = Build(running())
    assert text(tables.builds([build], NOW, everywhere=False, wide=False)) == [
        "NAME   READY     REASON     PLATFORMS   DIGEST         RUN     AGE",
        "app    Unknown   Building   1/2         0123456789ab   2m05s   4d",
    ]
    wide = text(tables.builds([build], NOW, everywhere=True, wide=True))
    assert wide[0].split()[0] == "NAMESPACE"
    assert wide[1].split()[-3:] == ["r.test/team/app", "4f2a1c0d4f2a", "Emulated,Native"]


def test_a_build_that_nobody_has_seen_yet_has_dashes() -> None:
    document = {**running(), "status": {}}
    assert text(tables.builds([Build(document)], NOW, everywhere=False, wide=False))[1].split() == [
        *("app", "-", "-", "-", "-", "-", "4d")
    ]


def test_status_has_a_row_for_each_platform_then_conditions() -> None:
    counts = {"linux/arm64": StepCount(3, 5, 1)}
    assert text(tables.status(Build(running()), counts, NOW)) == [
        "Name:     team/app",
        "Run:      7c1f09ab Running (SpecChanged, 2m05s)",
        "Source:   main@4f2a1c0d4f2a",
        "",
        "PLATFORM      MODE       NODE      PHASE       STEP   CACHED   TRY   ELAPSED   DIGEST",
        "linux/amd64   Native     n-amd64   Succeeded   5/5    2        1     12s       abababababab",
        "linux/arm64   Emulated   n-amd64   Running     3/5    1        2     1m05s     -",
        "",
        "CONDITION   STATUS    REASON     MESSAGE",
        "Ready       Unknown   Building   1/2 built",
    ]


def test_status_says_whether_kept_builders_were_used_and_what_has_changed() -> None:
    document = running()
    run = document["status"]["run"]
    run["comparison"] = {"digest": "sha256:1", "changed": "busybox:1.36 is another"}
    run["platforms"][0]["builder"] = "Kept"
    shown = text(tables.status(Build(document), {}, NOW))
    assert "Changed:   busybox:1.36 is another" in shown
    rows = [line.split()[-1] for line in shown if line.startswith(("linux/", "PLATFORM"))]
    assert rows == ["BUILDER", "Kept", "-"]
    run["platforms"][1]["volume"] = "InUse"
    both = [line.split()[-2:] for line in text(tables.status(Build(document), {}, NOW)) if line.startswith("linux/")]
    assert both == [["Kept", "-"], ["-", "InUse"]]


def test_status_says_what_started_a_run_and_what_the_image_is_built_from() -> None:
    document = running()
    cause = "MultiArchBuild base has published another image"
    parents = [{"name": "base", "ref": "r.test/team/base@sha256:1"}]
    document["status"]["run"] |= {"trigger": "ParentPublished", "cause": cause, "parents": parents}
    document["status"]["image"] = {
        "ref": "r.test/team/app@sha256:2",
        "digest": "sha256:2",
        "bases": ["docker.io/library/busybox:1.36@sha256:3"],
    }
    shown = text(tables.status(Build(document), {}, NOW))
    assert f"Cause:         {cause}" in shown
    assert "Built from:    base, r.test/team/base@sha256:1" in shown
    assert "Base images:   docker.io/library/busybox:1.36@sha256:3" in shown


def test_who_has_signed_an_image_is_shown() -> None:
    document = running()
    identity = "https://kubernetes.io/namespaces/team-a/serviceaccounts/builder"
    signed = {"identity": identity, "issuer": "https://kubernetes.default.svc"}
    document["status"]["image"] = {"ref": "r.test/team/app@sha256:1", "digest": "sha256:1", "signedBy": signed}
    shown = text(tables.status(Build(document), {}, NOW))
    assert f"Signed by:   {identity} (issuer https://kubernetes.default.svc)" in shown


def test_what_a_failed_platform_said_last_is_shown() -> None:
    document = running()
    document["status"]["run"] |= {"result": "Failed", "finishedAt": "2026-01-01T00:02:00Z"}
    document["status"]["run"]["platforms"][1] |= {
        "phase": "Failed",
        "reason": "BuildFailed",
        "message": "make failed",
        "logTail": "one\ntwo",
    }
    shown = text(tables.status(Build(document), {}, NOW))
    assert "7c1f09ab Failed (SpecChanged, 2m00s)" in shown[1]
    assert any("Failed: BuildFailed" in line for line in shown)
    assert shown[-3:] == ["linux/arm64: make failed", "  one", "  two"]


def test_a_warning_is_shown_once_for_all_platforms() -> None:
    document = running()
    document["status"]["run"]["platforms"][0]["warnings"] = ["A: x (line 2)", "B: y (line 3)"]
    document["status"]["run"]["platforms"][1]["warnings"] = ["A: x (line 2)"]
    assert text(tables.status(Build(document), {}, NOW))[-3:] == [
        "",
        "Warning: A: x (line 2) (linux/amd64, linux/arm64)",
        "Warning: B: y (line 3) (linux/amd64)",
    ]


@pytest.mark.parametrize("width", [60, 100])
def test_the_bars_never_leave_the_terminal(width: int) -> None:
    seen = board(
        "#4 [2/5] RUN make -j with a name that is much longer than any terminal is wide, and then some",
        "==> 3/5 steps done, 1 cached",
    )
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    console.print(frame(seen, NOW, width))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 4
    assert all(len(line) <= width for line in lines)
    amd64, arm64, index = lines[1:]
    assert lines[0].startswith("team/app  run 7c1f09ab")
    assert "5/5" in amd64
    assert "3/5 1 cached" in arm64
    assert "waits" in index


def test_bars_say_what_is_being_done() -> None:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(frame(board("#4 [2/5] RUN make", "#5 [3/5] COPY a b", "#5 DONE 0.1s"), NOW, 120))
    assert isinstance(console.file, io.StringIO)
    assert "[2/5] RUN make" in console.file.getvalue()


def test_before_there_is_a_run_one_waits() -> None:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(frame(Board(), NOW, 120))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().startswith("waiting for a run")


def test_lines_are_printed_once_for_each_change() -> None:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    lines, seen = Lines(console), board("==> 3/5 steps done, 1 cached")
    for _ in range(2):
        lines.update(seen)
    lines.line(builder(), "#1 [1/2] RUN make")
    assert isinstance(console.file, io.StringIO)
    shown = [line[9:] if line.startswith(" ") else line for line in console.file.getvalue().splitlines()]
    assert shown == [
        "run: 7c1f09ab main@4f2a1c0d4f2a",
        "linux/amd64: Succeeded (Native on n-amd64), 2/5 steps cached",
        "linux/arm64: Running (Emulated on n-amd64) (try 2)",
        "linux/arm64: 3/5 steps, 1 cached",
        "linux/arm64 | #1 [1/2] RUN make",
    ]


def test_the_newest_try_counts() -> None:
    first, second = builder(attempt=1), builder(attempt=2)
    seen = Board(Build(running()), {pod.name: pod for pod in (second, first)})
    assert seen.pod_of("linux/arm64/v8") == second
    assert seen.pod_of("linux/s390x") is None


def test_step_logs_tell_counts_and_what_runs() -> None:
    steps = StepLog()
    fed = [
        steps.feed(line)
        for line in (
            "#3 [build 2/3] RUN make",
            "#3 0.120 #9 [x] what a program prints",
            "#4 [build 3/3] COPY . .",
            "#3 DONE 1.0s",
            "==> 1/2 steps done, 0 cached",
        )
    ]
    assert fed == [False, False, False, False, True]
    assert (steps.count, steps.current) == (StepCount(1, 2, 0), "[build 3/3] COPY . .")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-"), (0.9, "0s"), (59, "59s"), (65, "1m05s"), (3600, "1h00m"), (90000, "1d")],
)
def test_spans(seconds: float | None, expected: str) -> None:
    assert span(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (999_900, "1 MB")]
)
def test_sizes(count: int, expected: str) -> None:
    assert size(count) == expected
