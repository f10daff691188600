"""Every way a pod ends, from what the API server says of it to what that means."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, CacheUse, Failure, Published, Resolved, Source, dump
from multiarchbuild.plan.children import pod_from
from multiarchbuild.plan.outcome import SANDBOX_GRACE, START_GRACE, Going, Outcome, outcome
from tests.unit.plan.world import START, digest_of, timestamp

BUILT = Built(digest=digest_of("image"), cache=CacheUse(hits=1, total=2))
RESULTS: dict[str, Built | Resolved | Published | Failure] = {
    "built": BUILT,
    "resolved": Resolved(source=Source(commit="1" * 40, ref="main")),
    "published": Published(digest=digest_of("index"), tags=("latest",), platforms=()),
    "failure": Failure(reason=Reason.BUILD_FAILED, message="RUN false failed", log_tail="false"),
}
AT = timestamp(START)
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": AT}


def terminated(message: str = "", exit_code: int = 1, reason: str = "Error") -> dict[str, Any]:
    """Return the state of a container that has ended."""
    return {
        "terminated": {
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "startedAt": AT,
            "finishedAt": AT,
        }
    }


def ended(message: str = "", exit_code: int = 1, reason: str = "Error") -> dict[str, Any]:
    """Return the status of a pod whose step has ended; its phase comes later."""
    return {"phase": "Running", **containers(step=terminated(message, exit_code, reason))}


def containers(*, step: dict[str, Any] | None = None, daemon: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the status of the containers, by their states."""
    fields: dict[str, Any] = {}
    if step is not None:
        fields["containerStatuses"] = [{"name": "step", "state": step}]
    if daemon is not None:
        fields["initContainerStatuses"] = [{"name": "buildkitd", **daemon}]
    return fields


def waiting(reason: str, message: str = "words of the kubelet") -> dict[str, Any]:
    """Return the state of a container that has not started."""
    return {"waiting": {"reason": reason, "message": message}}


def seen(status: dict[str, Any], *, deleting: bool = False, after: timedelta = timedelta(), **spec: object) -> Outcome:
    """Return what comes of a pod with this status, so long after it was created and scheduled."""
    metadata = {
        "name": "app-b",
        "uid": "u",
        "creationTimestamp": AT,
        "labels": {"multiarch.build/role": "build", "multiarch.build/run": "r", "multiarch.build/attempt": "1"},
        **({"deletionTimestamp": AT} if deleting else {}),
    }
    return outcome(
        pod_from({"metadata": metadata, "spec": {"nodeName": "n1", **spec}, "status": status}), START + after
    )


OOM_DAEMON = {"state": {"running": {"startedAt": AT}}, "lastState": terminated(exit_code=137, reason="OOMKilled")}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_what_the_step_says_counts(result: Built | Resolved | Published | Failure) -> None:
    assert seen(ended(dump(result).decode(), exit_code=0, reason="Completed")) == result


OVERRULED: dict[str, dict[str, Any]] = {
    "the pod is evicted after it": {"phase": "Failed", "reason": "Evicted"},
    "the pod is disrupted after it": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "X"}]},
    "the node is lost after it": {"phase": "Unknown", "reason": "NodeLost"},
    "the deadline comes after it": {"phase": "Failed", "reason": "DeadlineExceeded"},
    "buildkitd was killed and came back": containers(daemon=OOM_DAEMON),
    "the pod has failed": {"phase": "Failed"},
}


@pytest.mark.parametrize("status", OVERRULED.values(), ids=OVERRULED)
@pytest.mark.parametrize("deleting", [False, True], ids=["", "being deleted"])
def test_what_was_built_stays_built_whatever_happens_to_the_pod(status: dict[str, Any], *, deleting: bool) -> None:
    assert seen({**ended(dump(BUILT).decode(), 0, "Completed"), **status}, deleting=deleting) == BUILT


ENDS: dict[str, tuple[dict[str, Any], bool, Reason, str]] = {
    "evicted by the kubelet": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
        False,
        Reason.BUILDER_EVICTED,
        "low on resource: memory",
    ),
    "evicted for what it wrote": (
        {
            "phase": "Failed",
            "reason": "Evicted",
            "message": 'Usage of EmptyDir volume "buildkitd-state" exceeds the limit "100Gi". ',
        },
        False,
        Reason.OUT_OF_DISK,
        "limits.ephemeral-storage",
    ),
    "evicted for what all its containers wrote": (
        {
            "phase": "Failed",
            "reason": "Evicted",
            "message": "Pod ephemeral local storage usage exceeds the total limit of containers 10Gi. ",
        },
        False,
        Reason.OUT_OF_DISK,
        "limits.ephemeral-storage",
    ),
    "evicted, its step killed": (
        {**ended(exit_code=137), "phase": "Failed", "reason": "Evicted", "message": "low on disk"},
        False,
        Reason.BUILDER_EVICTED,
        "low on disk",
    ),
    "evicted by the API (a drain)": (
        {
            "phase": "Running",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}],
        },
        True,
        Reason.BUILDER_EVICTED,
        "EvictionByEvictionAPI",
    ),
    "preempted": (
        {
            "phase": "Pending",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
        },
        False,
        Reason.BUILDER_EVICTED,
        "PreemptionByScheduler",
    ),
    "node gone": ({"phase": "Unknown", "reason": "NodeLost"}, False, Reason.BUILDER_LOST, "NodeLost"),
    "garbage-collected": (
        {"phase": "Failed", "message": "node was removed"},
        False,
        Reason.BUILDER_LOST,
        "node was removed",
    ),
    "failed, nobody says why": ({"phase": "Failed"}, False, Reason.BUILDER_LOST, "its phase is Failed"),
    "succeeded without its step": ({"phase": "Succeeded"}, False, Reason.BUILDER_LOST, "its phase is Succeeded"),
    "deleted by hand while it runs": (
        {"phase": "Running", **containers(step={"running": {"startedAt": AT}})},
        True,
        Reason.BUILDER_LOST,
        "was deleted",
    ),
    "deleted by hand before it ran": ({"phase": "Pending"}, True, Reason.BUILDER_LOST, "was deleted"),
    "deleted by hand, its step has ended": (ended(exit_code=1), True, Reason.BUILDER_LOST, "was killed"),
    "killed": (ended(exit_code=137), False, Reason.BUILDER_LOST, "was killed"),
    "its node shuts down": (ended(exit_code=143), False, Reason.BUILDER_LOST, "was killed"),
    "the kubelet lost it": (
        ended(exit_code=137, reason="ContainerStatusUnknown"),
        False,
        Reason.BUILDER_LOST,
        "ContainerStatusUnknown",
    ),
    "the runtime does not know its exit code": (
        ended(exit_code=0, reason="ContainerStatusUnknown"),
        False,
        Reason.BUILDER_LOST,
        "ContainerStatusUnknown",
    ),
    "the step ran out of memory": (
        ended(exit_code=137, reason="OOMKilled"),
        False,
        Reason.BUILDER_OUT_OF_MEMORY,
        "limits.memory",
    ),
    "buildkitd ran out of memory, its step lost it": (
        {
            **ended(dump(Failure(reason=Reason.BUILDER_LOST, message="EOF", log_tail="last")).decode()),
            **containers(daemon=OOM_DAEMON),
        },
        False,
        Reason.BUILDER_OUT_OF_MEMORY,
        "limits.memory",
    ),
    "buildkitd ran out of memory, its step says nothing": (
        {**ended(), **containers(daemon={"state": terminated(exit_code=137, reason="OOMKilled")})},
        False,
        Reason.BUILDER_OUT_OF_MEMORY,
        "limits.memory",
    ),
    "buildkitd runs out of memory again and again, its step waits": (
        {
            "phase": "Running",
            **containers(step={"running": {"startedAt": AT}}, daemon={**OOM_DAEMON, "restartCount": 2}),
        },
        False,
        Reason.BUILDER_OUT_OF_MEMORY,
        "limits.memory",
    ),
    "out of time": ({"phase": "Failed", "reason": "DeadlineExceeded"}, False, Reason.TIMED_OUT, "spec.timeout"),
    "out of time, its step killed": (
        {**ended(exit_code=137), "phase": "Failed", "reason": "DeadlineExceeded"},
        False,
        Reason.TIMED_OUT,
        "spec.timeout",
    ),
    "ended in silence": (ended(exit_code=3), False, Reason.STEP_FAILED, "exit code 3"),
    "ended well in silence": (ended(exit_code=0, reason="Completed"), False, Reason.STEP_FAILED, "left no result"),
    "ended with nonsense": (ended("Traceback …"), False, Reason.STEP_FAILED, "kubectl logs app-b -c step"),
    "ended with the result of a newer version": (
        ended('{"result":{"kind":"signed"}}'),
        False,
        Reason.STEP_FAILED,
        "left no result",
    ),
    "ended with a reason of a newer version": (
        ended('{"result":{"kind":"failure","reason":"Unheard","message":"it is new"}}'),
        False,
        Reason("Unheard"),
        "it is new",
    ),
}


@pytest.mark.parametrize(("status", "deleting", "reason", "said"), ENDS.values(), ids=ENDS)
def test_how_a_pod_ends(status: dict[str, Any], reason: Reason, said: str, *, deleting: bool) -> None:
    came = seen(status, deleting=deleting)
    assert isinstance(came, Failure)
    assert came.reason == reason
    assert said in came.message
    assert "None" not in came.message


def test_the_log_of_a_build_that_lost_its_daemon_for_memory_is_kept() -> None:
    said = Failure(reason=Reason.BUILDER_LOST, message="EOF", log_tail="last line")
    came = seen({**ended(dump(said).decode()), **containers(daemon=OOM_DAEMON)})
    assert isinstance(came, Failure)
    assert came.log_tail == "last line"


GOING: dict[str, dict[str, Any]] = {
    "starts": {"phase": "Pending", **containers(step=waiting("PodInitializing"))},
    "creates its containers": {"phase": "Pending", **containers(step=waiting("ContainerCreating"))},
    "runs": {"phase": "Running", **containers(step={"running": {"startedAt": AT}})},
    "runs, its daemon was restarted for memory": {
        "phase": "Running",
        **containers(step={"running": {"startedAt": AT}}, daemon=OOM_DAEMON),
    },
    "runs, its daemon waits to be restarted": {
        "phase": "Running",
        **containers(step={"running": {"startedAt": AT}}, daemon={"state": waiting("CrashLoopBackOff")}),
    },
    "a disruption was called off": {
        "phase": "Running",
        "startTime": AT,
        "conditions": [{"type": "DisruptionTarget", "status": "False"}],
    },
}


@pytest.mark.parametrize("status", GOING.values(), ids=GOING)
def test_a_pod_that_goes_on_is_waited_for_however_long(status: dict[str, Any]) -> None:
    assert seen(status, after=timedelta(hours=5)) == Going()


STUCK: dict[str, tuple[dict[str, Any], Reason]] = {
    "ErrImagePull": (containers(step=waiting("ErrImagePull")), Reason.IMAGE_PULL_FAILED),
    "ImagePullBackOff": (containers(step=waiting("ImagePullBackOff")), Reason.IMAGE_PULL_FAILED),
    "InvalidImageName": (containers(step=waiting("InvalidImageName")), Reason.IMAGE_PULL_FAILED),
    "ErrImageNeverPull": (containers(step=waiting("ErrImageNeverPull")), Reason.IMAGE_PULL_FAILED),
    "RegistryUnavailable": (containers(step=waiting("RegistryUnavailable")), Reason.IMAGE_PULL_FAILED),
    "ImagePullBackOff of buildkitd": (
        containers(step=waiting("PodInitializing"), daemon={"state": waiting("ImagePullBackOff")}),
        Reason.IMAGE_PULL_FAILED,
    ),
    "CreateContainerConfigError": (containers(step=waiting("CreateContainerConfigError")), Reason.STEP_FAILED),
    "CrashLoopBackOff of buildkitd": (
        containers(step=waiting("PodInitializing"), daemon={"state": waiting("CrashLoopBackOff")}),
        Reason.STEP_FAILED,
    ),
}


@pytest.mark.parametrize(("status", "reason"), STUCK.values(), ids=STUCK)
def test_a_pod_that_cannot_start_gets_some_time(status: dict[str, Any], reason: Reason) -> None:
    pending = {"phase": "Pending", "conditions": [SCHEDULED], **status}
    assert seen(pending, after=START_GRACE - timedelta(seconds=1)) == Going(look_again=START + START_GRACE)
    came = seen(pending, after=START_GRACE)
    assert isinstance(came, Failure)
    assert came.reason is reason
    assert "words of the kubelet" in came.message


def test_the_time_to_start_begins_when_the_pod_has_a_node() -> None:
    late = timestamp(START + timedelta(hours=1))
    pending = {
        "phase": "Pending",
        "conditions": [{**SCHEDULED, "lastTransitionTime": late}],
        **containers(step=waiting("ErrImagePull")),
    }
    look_again = START + timedelta(hours=1) + START_GRACE
    assert seen(pending, after=timedelta(hours=1)) == Going(look_again=look_again)


NO_SANDBOX = {
    "phase": "Pending",
    "conditions": [SCHEDULED, {"type": "PodReadyToStartContainers", "status": "False"}],
    **containers(step=waiting("PodInitializing")),
}
NO_IDMAP = {
    "phase": "Pending",
    "conditions": [SCHEDULED, {"type": "PodReadyToStartContainers", "status": "True"}],
    **containers(
        step=waiting("PodInitializing"),
        daemon={"state": waiting("RunContainerError", "failed to set MOUNT_ATTR_IDMAP")},
    ),
}


@pytest.mark.parametrize(
    ("status", "said"),
    [(NO_SANDBOX, "kubectl describe pod app-b tells why"), (NO_IDMAP, "failed to set MOUNT_ATTR_IDMAP")],
    ids=["no sandbox", "no shifted mount"],
)
def test_a_node_that_makes_no_user_namespace_is_named_with_the_remedies(status: dict[str, Any], said: str) -> None:
    before = seen(status, after=START_GRACE - timedelta(seconds=1), hostUsers=False)
    assert before == Going(look_again=START + START_GRACE)
    came = seen(status, after=START_GRACE, hostUsers=False)
    assert isinstance(came, Failure)
    assert came.reason is Reason.BUILDER_UNSUPPORTED
    told = ("node n1 cannot give pod app-b a user namespace", said, "scheduling.nodeSelector", "isolation: Rootless")
    for words in told:
        assert words in came.message


CLAIMED = [{"name": "buildkitd-state", "persistentVolumeClaim": {"claimName": "app-cache"}}]

NO_APP_ARMOR = {
    "phase": "Failed",
    "reason": "AppArmor",
    "message": "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host",
}


def not_created(reason: str, message: str) -> dict[str, Any]:
    """Return the status of a pod of which the runtime does not start buildkitd."""
    return {
        "phase": "Pending",
        "conditions": [SCHEDULED, {"type": "PodReadyToStartContainers", "status": "True"}],
        **containers(
            step=waiting("PodInitializing"),
            daemon={"state": waiting(reason, message), "restartCount": 4},
        ),
    }


NOT_USED = not_created("CreateContainerError", "apparmor is not supported")
NOT_LOADED = not_created("CreateContainerError", "failed to generate apparmor spec opts: apparmor profile not found x")
NOT_APPLIED = not_created("RunContainerError", "runc create failed: unable to apply apparmor profile: no such file")


@pytest.mark.parametrize("volumes", [[], CLAIMED], ids=["", "with a cache volume"])
@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (NO_APP_ARMOR, Reason.BUILDER_UNSUPPORTED, "AppArmor is not enabled on the host"),
        (NOT_USED, Reason.BUILDER_UNSUPPORTED, "apparmor is not supported"),
        (NOT_LOADED, Reason.STEP_FAILED, "apparmor profile not found x"),
        (NOT_APPLIED, Reason.STEP_FAILED, "unable to apply apparmor profile"),
    ],
    ids=["none in the kernel", "not used", "not loaded", "not applied"],
)
def test_a_node_without_the_app_armor_profile_is_named_with_the_remedies(
    status: dict[str, Any], reason: Reason, said: str, volumes: list[dict[str, Any]]
) -> None:
    came = seen(status, after=START_GRACE, volumes=volumes)
    assert isinstance(came, Failure)
    assert came.reason is reason
    told = (
        "node n1 cannot give pod app-b",
        said,
        "scheduling.nodeSelector",
        "profile.appArmor",
        "rootless.appArmorProfile",
    )
    for words in told:
        assert words in came.message


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (
            "CrashLoopBackOff",
            "back-off 1m20s restarting failed container=buildkitd pod=app-apparmor-1_apparmor-team(1-2)",
        ),
        ("CreateContainerError", 'failed to reserve container name "buildkitd_app-apparmor-1_team_uid_0"'),
    ],
)
def test_what_only_has_app_armor_in_its_name_does_not_lack_it(reason: str, message: str) -> None:
    came = seen(not_created(reason, message), after=START_GRACE)
    assert isinstance(came, Failure)
    assert came.reason is Reason.STEP_FAILED
    assert "scheduling.nodeSelector" not in came.message


NOT_ACKNOWLEDGED = {"phase": "Pending", "conditions": [SCHEDULED]}


@pytest.mark.parametrize("status", [NO_SANDBOX, NOT_ACKNOWLEDGED], ids=["no sandbox", "not acknowledged"])
@pytest.mark.parametrize(
    "spec", [{}, {"hostUsers": False}, {"volumes": CLAIMED}], ids=["plain", "own users", "cache volume"]
)
def test_a_kubelet_that_does_not_begin_to_start_a_pod_is_not_waited_for(
    status: dict[str, Any], spec: dict[str, Any]
) -> None:
    """One that says nothing at all is not blamed on what it has not come to, and costs no volume."""
    at_work = status is NO_SANDBOX
    grace = SANDBOX_GRACE if at_work and not spec else START_GRACE
    assert seen(status, after=grace - timedelta(seconds=1), **spec) == Going(look_again=START + grace)
    came = seen(status, after=grace, **spec)
    assert isinstance(came, Failure)
    if at_work and spec:
        assert came.reason in {Reason.BUILDER_UNSUPPORTED, Reason.CACHE_VOLUME_FAILED}
    else:
        assert came.reason is Reason.BUILDER_LOST
        minutes = 3 if at_work else 2
        assert came.message.startswith(
            f"node n1 has not begun to start pod app-b within {minutes} minutes: kubectl describe pod app-b"
        )


def test_a_node_is_waited_for_however_long() -> None:
    for status in {}, {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}:
        assert seen(status, after=timedelta(days=1), nodeName=None) == Going()
    assert seen({}, nodeName=None) == Going(look_again=START + START_GRACE), "its kubelet may say nothing then"


def test_what_the_runtime_says_of_a_step_that_it_cannot_start_is_told() -> None:
    came = seen(ended("unable to init seccomp", exit_code=128, reason="StartError"))
    assert came == Failure(
        reason=Reason.STEP_FAILED,
        message="the step of pod app-b on node n1 could not be started: unable to init seccomp",
    )


NONCE = {"name": "MAB_ANSWER_NONCE", "value": "0" * 32}


def answered(message: str, status: dict[str, Any] | None = None) -> Outcome:
    """Return what comes of a pod whose step has said this in its log, and that has this status."""
    metadata = {
        "name": "app-1-amd64-1",
        "uid": "u",
        "creationTimestamp": AT,
        "labels": {"multiarch.build/role": "build", "multiarch.build/run": "1", "multiarch.build/attempt": "1"},
    }
    running = {"phase": "Running", **containers(step={"running": {"startedAt": AT}})}
    pod = pod_from({"metadata": metadata, "status": status or running})
    return outcome(replace(pod, answer=message), START)


@pytest.mark.parametrize("kind", ["built", "resolved", "published"])
def test_a_success_in_the_log_counts_before_its_container_is_seen_to_end(kind: str) -> None:
    assert answered(dump(RESULTS[kind]).decode()) == RESULTS[kind]


def test_what_failed_is_known_when_the_container_has_ended() -> None:
    """Its log cannot say whether buildkitd was killed for memory."""
    assert answered(dump(RESULTS["failure"]).decode()) == Going()


@pytest.mark.parametrize("message", ["", "{}", "no JSON"])
def test_what_is_not_a_result_is_no_answer(message: str) -> None:
    assert answered(message) == Going()


def test_the_termination_message_wins_over_the_log() -> None:
    other = replace_digest(BUILT, "another")
    assert answered(dump(other).decode(), ended(dump(BUILT).decode(), 0, "Completed")) == BUILT
    killed = answered(dump(BUILT).decode(), ended("", 137))
    assert isinstance(killed, Failure)
    assert killed.reason is Reason.BUILDER_LOST


def replace_digest(built: Built, name: str) -> Built:
    return built.model_copy(update={"digest": digest_of(name)})


def test_the_nonce_is_read_from_the_step_of_the_manifest() -> None:
    metadata = {
        "name": "p",
        "uid": "u",
        "creationTimestamp": AT,
        "labels": {"multiarch.build/role": "build", "multiarch.build/run": "1", "multiarch.build/attempt": "1"},
    }
    spec = {"containers": [{"name": "sidecar", "env": [{"name": "MAB_ANSWER_NONCE", "value": "forged"}]}]}
    assert pod_from({"metadata": metadata, "spec": spec}).nonce == ""
    spec["containers"].append({"name": "step", "env": [{"name": "HOME", "value": "/"}, NONCE]})
    assert pod_from({"metadata": metadata, "spec": spec}).nonce == NONCE["value"]
