"""What is known of all builds follows the watch, never goes back, and wakes whom a change concerns."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Result, RunStatus, Status, Trigger
from multiarchbuild.controller.build_index import BuildIndex
from multiarchbuild.controller.seen import see
from multiarchbuild.controller.watch import Key
from multiarchbuild.plan.policy import Concurrency
from tests.unit.plan.world import START, manifest, timestamp


def build(name: str, version: int = 1, state: str = "", *, since: int = 0, **output: Any) -> dict[str, Any]:
    """Return a build that is `running`, `queued` since so many seconds, `ended` or new."""
    document = manifest(name, output={"image": f"registry.example.com/{name}", **output})
    document["metadata"] |= {"uid": name, "resourceVersion": str(version)}
    at = timestamp(START + timedelta(seconds=since))
    run = {"id": "1", "trigger": "SpecChanged", "inputs": "1", "startedAt": timestamp(START)}
    ready = {"type": "Ready", "status": "Unknown", "observedGeneration": 1, "lastTransitionTime": at}
    match state:
        case "running":
            document["status"] = {"run": run}
        case "ended":
            document["status"] = {"run": {**run, "result": "Succeeded"}}
        case "queued":
            document["status"] = {"conditions": [{**ready, "reason": str(Reason.QUEUED)}]}
    return document


@dataclass
class Woken:
    keys: list[str] = field(default_factory=list)

    def __call__(self, key: Key) -> None:
        self.keys.append(key.name)

    def taken(self) -> list[str]:
        keys, self.keys = self.keys, []
        return keys


def index(*manifests: dict[str, Any], **limits: int) -> tuple[BuildIndex, Woken]:
    woken = Woken()
    made = BuildIndex(Concurrency(**limits), woken)
    for each in manifests:
        made.seen("ADDED", each)
    woken.taken()
    return made, woken


def running(made: BuildIndex) -> set[str]:
    return {other.name for other in made.view.builds.values() if other.running}


def test_an_older_state_is_not_taken_for_news() -> None:
    made, _ = index(build("a", 5, "running"))
    made.seen("MODIFIED", build("a", 4))
    assert running(made) == {"a"}
    made.seen("MODIFIED", build("a", 10, "ended"))
    assert running(made) == set()


@pytest.mark.parametrize("end", ["ended", "deleted", "deleting", "unreadable"])
def test_when_a_run_ends_the_next_is_woken_and_nobody_else(end: str) -> None:
    made, woken = index(
        build("a", state="running"), build("b", state="queued", since=2), build("c", state="queued", since=1), cluster=1
    )
    news = build("a", 2, "ended" if end == "ended" else "running")
    if end == "deleting":
        news["metadata"]["deletionTimestamp"] = timestamp(START)
    if end == "unreadable":
        news["spec"] = {"platforms": 1}
    made.seen("DELETED" if end == "deleted" else "MODIFIED", news)
    assert woken.taken() == ["c"]


def test_whoever_moves_the_same_tags_is_woken() -> None:
    same: dict[str, Any] = {"image": "registry.example.com/same"}
    # Made in the same second: the uid says which is the newer one, which is told.
    made, woken = index(build("a", **same), build("b", **same), build("c"))
    made.seen("MODIFIED", build("b", 2, **{**same, "tags": ["v2"]}))
    assert woken.taken() == []
    made.seen("MODIFIED", build("a", 2, **{**same, "tags": ["v1"]}))
    assert woken.taken() == ["b"]
    made.seen("MODIFIED", build("a", 3, "running", **{**same, "tags": ["v1"]}))
    assert woken.taken() == [], "nothing of it concerns others"
    made.gone(Key("team-a", "a"))
    assert woken.taken() == ["b"]


def started() -> Status:
    return Status(run=RunStatus(id="1", trigger=Trigger.SPEC_CHANGED, inputs="1", started_at=START))


def test_what_is_decided_counts_before_it_is_written() -> None:
    made, woken = index(build("a"), build("b", state="queued"), cluster=1)
    document = build("a")
    with made.expecting(see(document), started()):
        assert running(made) == {"a"}
    assert running(made) == {"a"}
    made.seen("MODIFIED", build("a"))
    assert running(made) == {"a"}, "the watch lags behind"
    made.seen("MODIFIED", build("a", 2, "running"))
    ended = build("a", 2, "running")
    over = started()
    assert over.run
    over = over.model_copy(update={"run": over.run.model_copy(update={"result": Result.SUCCEEDED})})
    with made.expecting(see(ended), over):
        assert woken.taken() == ["b"]


def test_what_is_decided_and_not_done_does_not_count() -> None:
    made, woken = index(build("a"), build("b", state="queued"), cluster=1)
    document = build("a")
    with (
        pytest.raises(ConnectionError),
        made.expecting(see(document), started()),
    ):
        raise ConnectionError
    assert running(made) == set()
    assert woken.taken() == ["b"], "its turn is free again"


def test_nobody_waits_behind_a_build_that_the_operator_cannot_cope_with() -> None:
    made, woken = index(build("a", state="queued"), build("b", state="queued", since=1), cluster=1)
    made.set_aside(Key("team-a", "a"))
    assert woken.taken() == ["b"]


def test_who_is_built_from_a_build_is_woken_when_it_publishes_and_nobody_else() -> None:
    def child(name: str, *parents: str) -> dict[str, Any]:
        document = build(name)
        document["spec"]["build"] = {"contexts": {each: f"multiarchbuild://{each}" for each in parents}}
        return document

    made, woken = index(build("base"), child("middle", "base"), child("top", "middle"), build("other"))
    published = build("base", 2, "ended")
    digest = f"sha256:{'1' * 64}"
    published["status"]["image"] = {"ref": f"registry.example.com/base@{digest}", "digest": digest}
    made.seen("MODIFIED", published)
    assert woken.taken() == ["middle"]
    made.seen("MODIFIED", {**published, "metadata": {**published["metadata"], "resourceVersion": "3"}})
    assert woken.taken() == []
    made.seen("DELETED", published)
    assert woken.taken() == ["middle", "top"], "also who may be in a cycle no longer"


def test_builds_of_one_name_in_two_namespaces_do_not_wake_each_others_children() -> None:
    def of(namespace: str, name: str, *parents: str, version: int = 1, uid: str = "") -> dict[str, Any]:
        document = build(name, version)
        document["metadata"] |= {"namespace": namespace, "uid": uid or f"{namespace}-{name}"}
        document["spec"]["output"]["image"] = f"registry.example.com/{namespace}/{name}"
        document["spec"]["build"] = {"contexts": {each: f"multiarchbuild://{each}" for each in parents}}
        return document

    woken: list[Key] = []
    made = BuildIndex(Concurrency(), woken.append)
    for namespace in ("a", "b"):
        made.seen("ADDED", of(namespace, "base"))
        made.seen("ADDED", of(namespace, "app", "base"))
    woken.clear()
    made.seen("DELETED", of("a", "base"))
    assert woken == [Key("a", "app")]
    made.seen("DELETED", of("a", "app", "base"))
    woken.clear()
    made.seen("DELETED", of("b", "base"))
    assert woken == [Key("b", "app")], "what is gone in one namespace is not forgotten in the other"
    woken.clear()
    made.seen("ADDED", of("b", "app", "base", version=9, uid="made anew"))
    made.seen("ADDED", of("b", "base", version=10))
    assert woken == [Key("b", "app")], "nor of a build that was made anew"
