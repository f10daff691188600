"""What a reconcile sees in manifests as the API server returns them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.status import Mode
from multiarchbuild.plan.children import Ended, Node, Pod, Role, config_map_from, node_from, pod_from

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = datetime(2026, 1, 31, 12, 5, tzinfo=UTC)


def pod(status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **metadata: Any) -> Pod:
    """Return what is seen of a build pod."""
    labels = {"multiarch.build/role": "build", "multiarch.build/run": "7c1f09ab", "multiarch.build/attempt": "2"}
    return pod_from(
        {
            "metadata": {
                "name": "app-b",
                "uid": "u1",
                "creationTimestamp": "2026-01-31T12:00:00Z",
                "labels": labels,
                **metadata,
            },
            **({"spec": spec} if spec else {}),
            **({"status": status} if status else {}),
        }
    )


def test_a_pod_that_was_just_created() -> None:
    assert pod() == Pod(
        name="app-b",
        uid="u1",
        role=Role.BUILD,
        run_id="7c1f09ab",
        attempt=2,
        platforms=(),
        mode=Mode("Unknown"),
        source_annotation="",
        built_annotation="",
        created_at=NOON,
        deleting=False,
        phase="Pending",
        node=None,
        placement="",
        step_started_at=None,
        ended=None,
        waiting_reason="",
        waiting_message="",
        scheduled_at=None,
        unschedulable="",
        status_reason="",
        status_message="",
        disrupted="",
        daemon_oom_killed=False,
        daemon_restarts=0,
        acknowledged=False,
    )


def test_what_a_build_pod_builds() -> None:
    annotations = {
        "multiarch.build/platforms": "linux/amd64,linux/arm/v7",
        "multiarch.build/mode": "Cross",
        "multiarch.build/placement": "on-arm",
        "multiarch.build/source": "{}",
    }
    seen = pod(annotations=annotations)
    assert seen.platforms == (Platform.parse("linux/amd64"), Platform.parse("linux/arm/v7"))
    assert (seen.mode, seen.placement, seen.source_annotation) == ("Cross", "on-arm", "{}")


def test_a_pod_with_a_node() -> None:
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-31T12:05:00Z"}
    seen = pod({"conditions": [scheduled]}, {"nodeName": "n1"})
    assert (seen.node, seen.scheduled_at, seen.unschedulable) == ("n1", LATER, "")


@pytest.mark.parametrize(
    ("reason", "unschedulable"), [("Unschedulable", "0/2 nodes"), ("SchedulingGated", ""), ("", "")]
)
def test_a_pod_without_a_node(reason: str, unschedulable: str) -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": "0/2 nodes",
        "lastTransitionTime": "2026-01-31T12:05:00Z",
    }
    seen = pod({"conditions": [condition]})
    assert (seen.unschedulable, seen.scheduled_at) == (unschedulable, None)


def test_a_step_that_runs() -> None:
    state = {"running": {"startedAt": "2026-01-31T12:05:00Z"}}
    seen = pod({"phase": "Running", "containerStatuses": [{"name": "step", "state": state}]})
    assert (seen.phase, seen.step_started_at, seen.ended) == ("Running", LATER, None)


def test_a_step_that_has_ended() -> None:
    terminated = {
        "exitCode": 3,
        "reason": "Error",
        "message": "words",
        "startedAt": "2026-01-31T12:00:00Z",
        "finishedAt": "2026-01-31T12:05:00Z",
    }
    seen = pod({"containerStatuses": [{"name": "step", "state": {"terminated": terminated}}]})
    assert seen.ended == Ended(3, "Error", "words", NOON, LATER)
    assert seen.step_started_at == NOON


def test_a_step_whose_end_the_kubelet_did_not_see() -> None:
    terminated = {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}
    seen = pod({"containerStatuses": [{"name": "step", "state": {"terminated": terminated}}]})
    assert seen.ended == Ended(137, "ContainerStatusUnknown", "", None, None)
    assert seen.step_started_at is None


def test_only_the_step_ends_a_pod() -> None:
    terminated = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    statuses = {
        "initContainerStatuses": [{"name": "buildkitd", "state": terminated}],
        "containerStatuses": [{"name": "istio-proxy", "state": terminated}],
    }
    assert pod(statuses).ended is None


@pytest.mark.parametrize(
    ("containers", "reason"),
    [
        ({"containerStatuses": [{"name": "step", "state": {"waiting": {"reason": "ErrImagePull"}}}]}, "ErrImagePull"),
        ({"containerStatuses": [{"name": "step", "state": {"waiting": {"reason": "PodInitializing"}}}]}, ""),
        ({"containerStatuses": [{"name": "step", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, ""),
        ({"containerStatuses": [{"name": "step", "state": {"waiting": {}}}]}, ""),
        (
            {
                "initContainerStatuses": [{"name": "buildkitd", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
                "containerStatuses": [{"name": "step", "state": {"waiting": {"reason": "PodInitializing"}}}],
            },
            "CrashLoopBackOff",
        ),
        (
            {
                "containerStatuses": [{"name": "step", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
                "initContainerStatuses": [{"name": "buildkitd", "state": {"waiting": {"reason": "ErrImagePull"}}}],
            },
            "ErrImagePull",
        ),
    ],
    ids=["pull", "initializing", "creating", "nothing said", "sidecar", "sidecar first"],
)
def test_why_a_pod_waits(containers: dict[str, Any], reason: str) -> None:
    assert pod(containers).waiting_reason == reason


@pytest.mark.parametrize("which", ["state", "lastState"])
def test_a_daemon_that_was_killed_for_memory(which: str) -> None:
    daemon = {"name": "buildkitd", "restartCount": 1, which: {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    seen = pod({"initContainerStatuses": [daemon]})
    assert (seen.daemon_oom_killed, seen.daemon_restarts) == (True, 1)


def test_a_daemon_that_ended_otherwise() -> None:
    daemon = {"name": "buildkitd", "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    assert not pod({"initContainerStatuses": [daemon]}).daemon_oom_killed


@pytest.mark.parametrize(("status", "disrupted"), [("True", "TerminationByKubelet"), ("False", "")])
def test_a_disruption(status: str, disrupted: str) -> None:
    condition = {"type": "DisruptionTarget", "status": status, "reason": "TerminationByKubelet"}
    assert pod({"conditions": [condition]}).disrupted == disrupted


def test_what_kueue_says_of_a_pod_that_it_takes_away() -> None:
    condition = {
        "type": "TerminationTarget",
        "status": "True",
        "reason": "WorkloadEvictedDueToPreempted",
        "message": "x",
    }
    assert pod({"conditions": [condition]}).disrupted == "WorkloadEvictedDueToPreempted: x"


def test_a_pod_that_is_being_deleted() -> None:
    assert pod(deletionTimestamp="2026-01-31T12:05:00Z").deleting


def test_a_config_map_without_our_labels_belongs_to_no_run() -> None:
    assert config_map_from({"metadata": {"name": "c", "uid": "u"}}).run_id == ""


NODES: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "ready": ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, True, True),
    "not ready": ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, False, True),
    "unknown": ({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, False, True),
    "says nothing yet": ({}, False, True),
    "other conditions": ({"status": {"conditions": [{"type": "MemoryPressure", "status": "True"}]}}, False, True),
    "cordoned": (
        {"spec": {"unschedulable": True}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        True,
        False,
    ),
}


@pytest.mark.parametrize(("manifest", "ready", "schedulable"), NODES.values(), ids=NODES)
def test_a_node(manifest: dict[str, Any], *, ready: bool, schedulable: bool) -> None:
    seen = node_from({"metadata": {"name": "n1"}, **manifest})
    assert (seen.ready, seen.schedulable) == (ready, schedulable)


@pytest.mark.parametrize(
    ("handlers", "said"),
    [
        (None, None),
        ([], None),
        ([{"name": "runc", "features": {"userNamespaces": True}}], None),
        ([{"name": ""}], None),
        ([{"features": {"userNamespaces": True}}, {"name": "runc", "features": {"userNamespaces": False}}], True),
        (
            [
                {"name": "runc", "features": {"userNamespaces": True}},
                {"name": "", "features": {"userNamespaces": False}},
            ],
            False,
        ),
    ],
)
def test_whether_a_node_makes_user_namespaces_is_what_its_default_handler_says(
    handlers: Any, *, said: bool | None
) -> None:
    assert node_from({"metadata": {"name": "n1"}, "status": {"runtimeHandlers": handlers}}).user_namespaces is said


def test_a_pod_that_waits_for_its_user_namespace() -> None:
    def sandbox(status: str) -> dict[str, Any]:
        return {"conditions": [{"type": "PodReadyToStartContainers", "status": status}]}

    assert pod(spec={"hostUsers": False}, status=sandbox("False")).user_namespace
    assert not pod(spec={"hostUsers": True}).user_namespace
    assert not pod(status=sandbox("False")).sandboxed
    assert pod(status=sandbox("True")).sandboxed


def test_whether_its_kubelet_knows_of_a_pod() -> None:
    assert not pod(status={"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}).acknowledged
    assert pod(status={"phase": "Pending", "startTime": "2026-01-31T12:00:00Z"}).acknowledged


def test_labels_and_taints_of_a_node() -> None:
    taints = [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "value": "c", "effect": "NoExecute"}]
    seen = node_from({"metadata": {"name": "n1", "labels": {"x": "y"}}, "spec": {"taints": taints}})
    assert seen == Node("n1", False, True, {"x": "y"}, (("a", "", "NoSchedule"), ("b", "c", "NoExecute")))  # noqa: FBT003
