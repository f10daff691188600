"""Which ended runs are kept, and which children go."""

from dataclasses import replace
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import History
from multiarchbuild.api.status import (
    FailedAttempt,
    HistoryEntry,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    StepStatus,
    Trigger,
)
from multiarchbuild.plan.actions import DeleteConfigMap, DeletePod
from multiarchbuild.plan.children import ConfigMap, Pod, Role, pod_from
from multiarchbuild.plan.retention import deletions, prune
from tests.unit.plan.world import START, World, manifest, timestamp

TRIED = FailedAttempt(attempt=1, reason=Reason.BUILDER_LOST, finished_at=START)
OTHER = (Result.FAILED, Result.CANCELLED, Result.SUPERSEDED)


def ended(run: str, result: Result = Result.SUCCEEDED) -> HistoryEntry:
    """Return the line of history of a run."""
    return HistoryEntry(id=run, result=result, reason=Reason.SUCCEEDED, started_at=START, finished_at=START)


@pytest.mark.parametrize(
    ("results", "successful", "failed", "kept"),
    [
        ("", 3, 3, ""),
        ("SSSS", 3, 3, "012"),
        ("FFFF", 3, 3, "012"),
        ("SFSFSF", 1, 2, "013"),
        ("FCUF", 0, 3, "012"),
        ("SFS", 0, 0, ""),
        ("FFS", 1, 0, "2"),
        ("SCS", 2, 0, "02"),
        ("S" * 12 + "F" * 12, 10, 10, None),
    ],
)
def test_the_newest_of_each_kind_are_kept(results: str, successful: int, failed: int, kept: str | None) -> None:
    kinds = {"S": Result.SUCCEEDED, "F": Result.FAILED, "C": Result.CANCELLED, "U": Result.SUPERSEDED}
    history = tuple(ended(f"{number}", kinds[letter]) for number, letter in enumerate(results))
    pruned = prune(history, History(successful=successful, failed=failed))
    if kept is None:
        assert len(pruned) == 20
    else:
        assert "".join(entry.id for entry in pruned) == kept


def pod(name: str, run: str, *, state: str = "running", deleting: bool = False) -> Pod:
    """Return a pod of this run that runs, has ended, or whose pod has failed."""
    status: dict[str, Any] = {"phase": "Running"}
    if state == "ended":
        terminated = {"exitCode": 0, "reason": "Completed"}
        status = {"phase": "Running", "containerStatuses": [{"name": "step", "state": {"terminated": terminated}}]}
    if state in {"Failed", "Succeeded", "Pending"}:
        status = {"phase": state}
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "creationTimestamp": timestamp(START),
        "labels": {"multiarch.build/role": "build", "multiarch.build/run": run, "multiarch.build/attempt": "1"},
        **({"deletionTimestamp": timestamp(START)} if deleting else {}),
    }
    return pod_from({"metadata": metadata, "status": status})


def run(result: Result | None = None, **fields: Any) -> RunStatus:
    """Return a run with a builder in pod `mine`."""
    platforms = (PlatformStatus(platform="linux/amd64", phase=Phase.RUNNING, pod="mine"),)
    base = {"id": "now", "trigger": Trigger.SPEC_CHANGED, "inputs": "i", "started_at": START, "result": result}
    return RunStatus.model_validate({**base, "platforms": platforms, **fields})


def gone(*pods: Pod, of: RunStatus | None = None, history: tuple[HistoryEntry, ...] = ()) -> set[str]:
    """Return the names of the pods that go."""
    return {each.name for each in deletions(pods, (), of, history, now=START) if isinstance(each, DeletePod)}


def test_a_pod_that_its_run_needs_stays() -> None:
    assert gone(pod("mine", "now"), of=run()) == set()


@pytest.mark.parametrize("state", ["running", "Pending"])
def test_a_live_pod_that_its_run_does_not_need_goes(state: str) -> None:
    assert gone(pod("qemu-took-its-place", "now", state=state), of=run()) == {"qemu-took-its-place"}


@pytest.mark.parametrize("state", ["ended", "Failed", "Succeeded"])
def test_an_ended_pod_of_a_kept_run_stays_for_its_log(state: str) -> None:
    assert gone(pod("first-try", "now", state=state), of=run()) == set()
    assert gone(pod("old", "before", state=state), of=run(), history=(ended("before"),)) == set()


def test_a_pod_that_has_answered_stays_for_its_log_though_its_end_is_not_seen_yet() -> None:
    answered = replace(pod("old", "before"), answer="{}")
    assert gone(answered, of=run(), history=(ended("before"),)) == set()


@pytest.mark.parametrize("state", ["running", "Pending", "ended", "Failed", "Succeeded"])
def test_every_pod_of_a_run_that_is_not_kept_goes(state: str) -> None:
    assert gone(pod("old", "before", state=state), of=run(), history=(ended("another"),)) == {"old"}
    assert gone(pod("old", "before", state=state)) == {"old"}


@pytest.mark.parametrize("result", [Result.SUCCEEDED, *OTHER])
def test_what_still_runs_when_its_run_has_ended_goes(result: Result) -> None:
    pods = (pod("mine", "now"), pod("done", "now", state="ended"))
    assert gone(*pods, of=run(result), history=(ended("now", result),)) == {"mine"}


def test_a_live_pod_of_an_earlier_run_goes_though_its_run_is_kept() -> None:
    assert gone(pod("old", "before"), of=run(), history=(ended("before", Result.SUPERSEDED),)) == {"old"}


def test_a_pod_that_is_being_deleted_is_not_deleted_again() -> None:
    assert gone(pod("old", "before", deleting=True), of=run()) == set()


@pytest.mark.parametrize("step", ["resolve", "publish"])
def test_the_pod_of_a_step_stays_until_it_has_ended(step: str) -> None:
    going = run().model_copy(update={step: StepStatus(pod="step", attempt=1)})
    over = run().model_copy(update={step: StepStatus(pod="step", attempt=1, finished_at=START)})
    failed = over.model_copy(update={step: getattr(over, step).model_copy(update={"reason": Reason.STEP_FAILED})})
    assert gone(pod("step", "now"), of=going) == set()
    assert gone(pod("step", "now"), of=over) == set(), "its success was read from its log: it is about to end"
    assert gone(pod("step", "now"), of=failed) == {"step"}


@pytest.mark.parametrize(
    ("entry", "goes"),
    [
        ({"phase": Phase.PENDING}, False),
        ({"phase": Phase.RUNNING}, False),
        ({"phase": Phase.SUCCEEDED}, False),
        ({"phase": Phase.FAILED}, True),
        ({"phase": Phase.PENDING, "reason": Reason.RETRYING, "attempt": 1, "failed_attempts": (TRIED,)}, True),
        ({"phase": Phase.PENDING, "reason": Reason.POD_REJECTED, "attempt": 1, "failed_attempts": (TRIED,)}, True),
    ],
    ids=["pending", "running", "succeeded", "failed", "to be tried again", "refused to be tried again"],
)
def test_a_builder_stays_while_its_platform_needs_it(entry: dict[str, Any], *, goes: bool) -> None:
    going = run(platforms=(PlatformStatus(platform="linux/amd64", pod="mine", **entry),))
    assert gone(pod("mine", "now"), of=going) == ({"mine"} if goes else set())


@pytest.mark.parametrize(("of", "goes"), [("now", False), ("kept", False), ("before", True), ("", True)])
def test_the_config_map_of_a_run_goes_with_its_run(of: str, *, goes: bool) -> None:
    found = list(deletions((), (ConfigMap("inputs", "u", of),), run(), (ended("kept"),), now=START))
    assert found == ([DeleteConfigMap("inputs", "u")] if goes else [])


def test_a_deletion_names_the_very_object() -> None:
    assert list(deletions((pod("old", "before"),), (), None, (), now=START)) == [DeletePod("old", "uid-old")]


def test_a_pod_that_a_foreign_sidecar_keeps_goes_half_a_minute_after_its_step() -> None:
    world = World(manifest(platforms=["linux/amd64"]))
    world.sidecars = True
    world.settle()
    world.fail(world.pod(), Reason.REGISTRY_ERROR)
    world.settle()
    (name,) = world.pods
    world.advance(29)
    assert DeletePod(name, "uid-2") not in world.settle().after
    assert name in world.pods, "its log can be read for a moment"
    world.advance(1)
    world.settle()
    assert name not in world.pods
    run = world.status.run
    assert run is not None
    assert [each.reason for each in run.platforms[0].failed_attempts] == [Reason.REGISTRY_ERROR]


def test_it_is_looked_at_when_it_is_due() -> None:
    world = World(manifest(platforms=["linux/amd64"]))
    world.sidecars = True
    world.settle()
    for role in (Role.BUILD, Role.PUBLISH):
        world.succeed_all(role)
        world.settle()
    assert len(world.pods) == 2
    wake_after = world.decide().wake_after
    assert wake_after is not None
    world.advance(wake_after.total_seconds())
    world.settle()
    assert world.pods == {}
    assert world.decide().wake_after is None
