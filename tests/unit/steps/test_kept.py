"""The step of a builder that stays: what it takes, what it says, and what is left between two builds."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.requests import BuildRequest, PublishRequest
from multiarchbuild.api.results import Built, Failure, Published, load
from multiarchbuild.steps import build_work, kept, main, publish_work
from multiarchbuild.steps.build import Request
from multiarchbuild.steps.build_work import building
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.kept import Keep, UncleanError, clean, empty, serve
from multiarchbuild.steps.mounts import Mounts

from .test_robust import spec

REQUEST = Request(("linux/amd64",))
DIGEST = f"sha256:{'1' * 64}"


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounts:
    """Return the mounts of a pod, `first`, that nothing was handed to yet."""
    found = Mounts(tmp_path)
    for folder in (paths.INPUTS, paths.WORK, paths.POD_INFO, paths.BUILDKIT, "/dev"):
        found.at(folder).mkdir(parents=True)
    for file in (paths.REQUEST_FILE, paths.IDLE_FILE):
        (found.at(paths.POD_INFO) / file).touch()
    (found.at(paths.INPUTS) / paths.INPUTS_FILE).write_text(inputs("first").model_dump_json(exclude_none=True))
    monkeypatch.setenv("MAB_REQUEST", "first")
    monkeypatch.setenv("MAB_ANSWER_NONCE", "0" * 32)
    monkeypatch.setattr(kept, "NOTED_SECONDS", 1.0)
    return found


class Clock:
    """Time as the step sees it: it passes as usual, and by an hour a look when nothing more comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_over, self._hours = False, 0
        monkeypatch.setattr(kept, "time", SimpleNamespace(monotonic=self._monotonic, sleep=time.sleep))
        monkeypatch.setattr(kept, "NOTED_SECONDS", 600.0)

    def _monotonic(self) -> float:
        self._hours += self.is_over
        return time.monotonic() + self._hours * 3600


def inputs(run: str) -> Inputs:
    return Inputs(namespace="team", name="app", run=run, spec=spec(), files={"Dockerfile": "file.0"})


def request(number: int) -> str:
    now = datetime.now(UTC)
    return BuildRequest(
        name=f"request-{number}",
        number=number,
        at=now,
        seconds=60,
        until=now + timedelta(hours=1),
        inputs=inputs(f"run-{number}"),
        contents={"file.0": f"FROM scratch {number}"},
    ).model_dump_json(by_alias=True, exclude_none=True)


def publish_request(number: int) -> str:
    return PublishRequest(
        name=f"request-{number}",
        number=number,
        at=datetime.now(UTC),
        inputs=inputs(f"run-{number}"),
        arguments=("--tag=two", "--tag=three"),
    ).model_dump_json(by_alias=True, exclude_none=True)


def put(mounts: Mounts, file: str, text: str) -> None:
    """Write a file as the kubelet does: whole, from one moment to the next."""
    target = mounts.at(paths.POD_INFO) / file
    target.with_suffix(".new").write_text(text)
    target.with_suffix(".new").rename(target)


def builds(monkeypatch: pytest.MonkeyPatch, job: Callable[[Mounts, Request], Built]) -> None:
    monkeypatch.setattr(build_work, "build", job)


class Operator:
    """Takes note of results and hands over requests, as they come."""

    def __init__(self, mounts: Mounts, requests: int, clock: Clock, request: Callable[[int], str] = request) -> None:
        self.mounts, self.requests, self.clock, self.request = mounts, requests, clock, request
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        name = "first"
        for number in range(2, 2 + self.requests + 1):
            self._until_answered(name)
            put(self.mounts, paths.IDLE_FILE, name)
            if number == 2 + self.requests:
                self.clock.is_over = True
                return
            put(self.mounts, paths.REQUEST_FILE, self.request(number))
            name = f"request-{number}"

    def _until_answered(self, name: str) -> None:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            log = self.mounts.termination_log
            if log.exists() and f'"request":"{name}"' in log.read_text():
                return
            time.sleep(0.01)


def test_each_build_is_a_process_of_its_own_in_an_empty_folder_with_the_inputs_of_its_run(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    left: list[str] = []

    def job(given: Mounts, _request: Request) -> Built:
        assert not left, "what a build remembers"
        left.append("secret")
        seen = sorted(path.name for path in given.work.iterdir())
        (given.work / "leftover").mkdir(mode=0o500)
        dockerfile = given.inputs_folder / "file.0"
        print("saw", given.inputs.run, seen, dockerfile.read_text() if dockerfile.exists() else "", os.getpid())
        return Built(digest=DIGEST)

    builds(monkeypatch, job)
    operator = Operator(mounts, requests=2, clock=Clock(monkeypatch))
    assert serve(mounts, building(mounts, REQUEST), Keep(600)) == 0
    operator.thread.join()
    lines = capfd.readouterr().out.splitlines()
    saw = [line.split()[1:] for line in lines if line.startswith("saw ")]
    assert [" ".join(each[:-1]) for each in saw] == [
        "first []",
        "run-2 ['request'] FROM scratch 2",
        "run-3 ['request'] FROM scratch 3",
    ]
    assert len({each[-1] for each in saw} | {str(os.getpid())}) == 4
    told = [line.split(" ", 3)[2:] for line in lines if line.startswith("multiarch.build/answer ")]
    assert [(name, "taken" in message) for name, message in told] == [
        ("first", False),
        ("request-2", True),
        ("request-2", False),
        ("request-3", True),
        ("request-3", False),
    ]
    message = mounts.termination_log.read_text()
    assert load(message, "request-3") == Built(digest=DIGEST)
    assert load(message, "request-2") is None, "never the result of another request"


def test_a_pod_that_publishes_stays_and_does_as_each_request_says(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def job(given: Mounts, tags: Sequence[str]) -> Published:
        print("saw", given.inputs.run, *tags)
        return Published(digest=DIGEST, tags=tuple(tags), platforms=())

    monkeypatch.setattr(publish_work, "publish", job)
    operator = Operator(mounts, requests=1, clock=Clock(monkeypatch), request=publish_request)
    assert main(["publish", "--stay=600", "--tag=one"], root=mounts.root) == 0
    operator.thread.join()
    saw = [line for line in capfd.readouterr().out.splitlines() if line.startswith("saw ")]
    assert saw == ["saw first one", "saw run-2 two three"]
    assert load(mounts.termination_log.read_text(), "request-2") == Published(
        digest=DIGEST, tags=("two", "three"), platforms=()
    )


def test_a_result_that_nobody_takes_note_of_ends_the_pod_and_stands_in_its_message(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds(monkeypatch, lambda *_: Built(digest=DIGEST))
    began = time.monotonic()
    assert serve(mounts, building(mounts, REQUEST), Keep(60)) == 0
    assert time.monotonic() - began < 60
    assert load(mounts.termination_log.read_text(), "first") == Built(digest=DIGEST)


def test_a_build_that_fails_ends_the_pod(mounts: Mounts, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(*_: Any) -> Built:
        raise StepError(Reason.REGISTRY_ERROR, "broken")

    builds(monkeypatch, job)
    assert serve(mounts, building(mounts, REQUEST), Keep(60)) == 1
    assert isinstance(load(mounts.termination_log.read_text(), "first"), Failure)


def test_after_a_mistake_in_the_dockerfile_it_waits_for_the_next_build(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(given: Mounts, _request: Request) -> Built:
        if given.inputs.run == "first":
            raise StepError(Reason.BUILD_FAILED, "RUN false failed")
        return Built(digest=DIGEST)

    builds(monkeypatch, job)
    operator = Operator(mounts, requests=1, clock=Clock(monkeypatch))
    assert serve(mounts, building(mounts, REQUEST), Keep(600)) == 0
    operator.thread.join()
    assert load(mounts.termination_log.read_text(), "request-2") == Built(digest=DIGEST)


def test_a_build_that_is_killed_ends_the_pod_as_it_ended(mounts: Mounts, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(*_: Any) -> Built:
        os.kill(os.getpid(), 9)
        raise AssertionError

    builds(monkeypatch, job)
    assert serve(mounts, building(mounts, REQUEST), Keep(60)) == 137


def test_processes_of_a_build_end_with_it(mounts: Mounts, monkeypatch: pytest.MonkeyPatch) -> None:
    started = mounts.root / "pid"

    def job(*_: Any) -> Built:
        started.write_text(str(subprocess.Popen(["sleep", "100"]).pid))
        return Built(digest=DIGEST)

    builds(monkeypatch, job)
    assert serve(mounts, building(mounts, REQUEST), Keep(60)) == 0
    stat = Path("/proc", started.read_text(), "stat")
    deadline = time.monotonic() + 60
    while stat.exists() and " Z " not in stat.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not stat.exists() or " Z " in stat.read_text()


def test_nothing_is_left_in_a_folder_whatever_its_modes_and_nothing_else_is_touched(tmp_path: Path) -> None:
    folder, beside = tmp_path / "work", tmp_path / "beside"
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "file").touch()
    beside.mkdir()
    (beside / "file").touch(mode=0o444)
    beside.chmod(0o500)
    (folder / "link").symlink_to(beside)
    (folder / "closed" / "link").symlink_to(beside)
    (folder / "closed" / "inner").chmod(0)
    (folder / "closed").chmod(0o500)
    empty(folder)
    assert list(folder.iterdir()) == []
    assert list(beside.iterdir()) == [beside / "file"]
    assert beside.stat().st_mode & 0o777 == 0o500


def test_a_builder_whose_supervisor_does_not_answer_is_not_used_again(
    mounts: Mounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_SWEEP_SECONDS", 0.2)
    with pytest.raises(UncleanError, match="processes of the last build"):
        clean(mounts, Keep(60, sweep=True))
    builds(monkeypatch, lambda *_: Built(digest=DIGEST))
    assert serve(mounts, building(mounts, REQUEST), Keep(60, sweep=True)) == 0
    assert load(mounts.termination_log.read_text(), "first") == Built(digest=DIGEST), "its result counts"
