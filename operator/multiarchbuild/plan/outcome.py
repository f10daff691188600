"""How a pod ended: what its step said, or what its end says when the step could not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, Failure, Published, Resolved, load

from .children import Node, Pod
from .pod_policy import StepResources

START_GRACE = timedelta(minutes=2)
"""How long a pod that has a node may fail to start (sandbox, image pull, configuration) before the try has failed."""
SANDBOX_GRACE = timedelta(minutes=3)
"""Likewise, may one whose kubelet is at work on its sandbox: a network that has no address free may have one soon."""

_KILLED = frozenset({137, 143})
"""Exit codes of a container that got SIGKILL, or SIGTERM as from a node that shuts down."""
_TOO_MUCH_WRITTEN = re.compile(
    "Usage of EmptyDir volume|local ephemeral storage limit|ephemeral local storage usage exceeds"
)
"""What the kubelet says of a pod that it evicts for itself and not for its node (pkg/kubelet/eviction)."""
_STARTING = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "RegistryUnavailable", "ErrImageNeverPull"}
)
_NOT_CREATED = frozenset({"CreateContainerError", "RunContainerError", "CrashLoopBackOff"})
"""What the kubelet says of buildkitd where a kernel or file system can't shift the owners of a mount (idmap), and where
the kernel has no AppArmor profile of that name."""
_APP_ARMOR_UNUSED = "apparmor is not supported"
"""Words of a runtime that uses no AppArmor."""
_APP_ARMOR = (_APP_ARMOR_UNUSED, "apparmor profile")
"""Words of runtimes about AppArmor. Names of pods, which are quoted beside them, have no spaces."""


@dataclass(frozen=True, slots=True)
class Going:
    """The pod has not ended."""

    look_again: datetime | None = None
    """When waiting any longer makes no sense, if it makes no progress."""


Outcome = Resolved | Built | Published | Failure | Going


def outcome(pod: Pod, now: datetime) -> Outcome:
    """Return what came of `pod`. The step's `terminated` state counts, not the phase, which comes two seconds later."""
    if pod.ended is not None:
        result = load(pod.ended.message, pod.request)
        if isinstance(result, Failure) and pod.daemon_oom_killed:
            return _daemon_out_of_memory(result.log_tail)
        if result is not None:
            return result
    elif (answered := _answered(pod)) is not None:
        return answered
    if (failure := _unfinished(pod)) is not None:
        return failure
    return _waiting(pod, now)


def _answered(pod: Pod) -> Resolved | Built | Published | Failure | None:
    """Return the result that the step has told in its log.

    Why one failed may take the end of its containers to know: whether buildkitd was killed for memory. A kept builder
    goes on after a mistake in the Dockerfile, with the buildkitd that has found it.
    """
    result = load(pod.answer, pod.request)
    if not isinstance(result, Failure):
        return result
    goes_on = pod.template and result.reason.leaves_builder_usable and not pod.daemon_restarts
    return result if goes_on and not pod.daemon_oom_killed else None


def _unfinished(pod: Pod) -> Failure | None:
    where = f"pod {pod.name}" + (f" on node {pod.node}" if pod.node else "")
    if pod.status_reason == "Evicted" or pod.disrupted:
        why = pod.status_message or pod.disrupted
        if _TOO_MUCH_WRITTEN.search(why):
            return Failure(
                reason=Reason.OUT_OF_DISK,
                message=f"{where} used more disk than allowed: {why.strip()} Raise "
                "scheduling.resources.limits.ephemeral-storage (buildkitd), or ask an administrator to raise `volumes` "
                "in the operator's policy",
            )
        return Failure(reason=Reason.BUILDER_EVICTED, message=f"{where} was evicted: {why}")
    if pod.status_reason == "DeadlineExceeded":
        return Failure(reason=Reason.TIMED_OUT, message=f"{where} ran out of time: raise spec.timeout")
    # Killed once, its step will say what it lost. Killed again, it never starts, and the step would wait in vain.
    if pod.daemon_oom_killed and (pod.ended is not None or pod.daemon_restarts > 1):
        return _daemon_out_of_memory("")
    if pod.ended is not None:
        return _ended_silently(pod, where)
    if pod.status_reason == "AppArmor":
        return _no_app_armor(pod, pod.status_message, Reason.BUILDER_UNSUPPORTED)
    if pod.phase in {"Failed", "Succeeded", "Unknown"}:
        why = pod.status_message or pod.status_reason or f"its phase is {pod.phase}"
        return Failure(reason=Reason.BUILDER_LOST, message=f"{where} ended before its step did: {why}")
    if pod.deleting:
        return Failure(reason=Reason.BUILDER_LOST, message=f"{where} was deleted before its step ended")
    return None


def _ended_silently(pod: Pod, where: str) -> Failure:
    assert pod.ended is not None
    if pod.ended.reason == "OOMKilled":
        return Failure(
            reason=Reason.BUILDER_OUT_OF_MEMORY,
            message=f"container step of {where} ran out of memory: raise {StepResources.field(pod.role)} in the "
            "operator's policy; scheduling.resources is for buildkitd only",
        )
    if pod.ended.exit_code in _KILLED or pod.ended.reason == "ContainerStatusUnknown" or pod.deleting:
        return Failure(reason=Reason.BUILDER_LOST, message=f"the step of {where} was killed ({pod.ended.reason})")
    if pod.ended.reason == "StartError":
        # The runtime's words: the step itself has never run, and has no log.
        message = f"the step of {where} could not be started: {pod.ended.message}"
        return Failure(reason=Reason.STEP_FAILED, message=message)
    return Failure(
        reason=Reason.STEP_FAILED,
        message=f"the step of {where} ended with exit code {pod.ended.exit_code} and left no result: "
        f"see kubectl logs {pod.name} -c step",
    )


def refusal(pod: Pod, nodes: Sequence[Node]) -> Failure | None:
    """Return that the node of `pod` can't make its user namespace, if it says so: the kubelet tries again for ever."""
    if not pod.user_namespace or pod.sandboxed:
        return None
    if not any(node.name == pod.node and node.user_namespaces is False for node in nodes):
        return None
    return _no_user_namespace(pod, "its container runtime does not support them")


def _waiting(pod: Pod, now: datetime) -> Outcome:
    if pod.step_started_at is not None:
        return Going()
    if pod.node is None and not (pod.gates or pod.unschedulable):
        # It has one in a moment, and that a kubelet then says nothing is no event.
        known_by = pod.created_at + START_GRACE
        return Going(look_again=known_by if now < known_by else None)
    # Without a sandbox the status says nothing but this: why it is missing is in the kubelet's events.
    unknown = pod.node is not None and not pod.acknowledged
    missing = pod.node is not None and not pod.sandboxed
    if not (pod.waiting_reason or missing or unknown):
        return Going()
    if pod.claim and pod.daemon_restarts and pod.waiting_reason == "CrashLoopBackOff":
        return _volume_failed(pod, "buildkitd does not start with what is in it")
    since = pod.scheduled_at or pod.created_at
    at_work = missing and not (pod.claim or pod.user_namespace or pod.waiting_reason)
    patience = since + (SANDBOX_GRACE if at_work else START_GRACE)
    if now < patience:
        return Going(look_again=patience)
    said = pod.waiting_message.lower()
    if pod.waiting_reason in _NOT_CREATED and any(words in said for words in _APP_ARMOR):
        # A profile that is missing may be there in a moment: a DaemonSet loads it.
        reason = Reason.BUILDER_UNSUPPORTED if _APP_ARMOR_UNUSED in said else Reason.STEP_FAILED
        return _no_app_armor(pod, f"{pod.waiting_reason}: {pod.waiting_message}", reason)
    if pod.claim and (missing or pod.waiting_reason in _NOT_CREATED):
        why = f"{pod.waiting_reason}: {pod.waiting_message}" if pod.waiting_reason else "it is not mounted"
        return _volume_failed(pod, f"{why} (kubectl describe pod {pod.name})")
    if missing and pod.user_namespace:
        return _no_user_namespace(pod, f"kubectl describe pod {pod.name} tells why")
    if missing or unknown:
        return _not_set_up(pod, now - since)
    return _not_started(pod)


def _not_started(pod: Pod) -> Failure:
    why = f"{pod.waiting_reason}: {pod.waiting_message}"
    if pod.waiting_reason in _NOT_CREATED and pod.user_namespace:
        return _no_user_namespace(pod, why)
    reason = Reason.IMAGE_PULL_FAILED if pod.waiting_reason in _STARTING else Reason.STEP_FAILED
    return Failure(reason=reason, message=f"pod {pod.name} could not start: {why}")


def _volume_failed(pod: Pod, why: str) -> Failure:
    return Failure(
        reason=Reason.CACHE_VOLUME_FAILED,
        message=f"pod {pod.name} could not start with its cache volume (claim {pod.claim}): {why}. The next try has "
        "none, and the claim is deleted: the next run gets a new one",
    )


def _not_set_up(pod: Pod, waited: timedelta) -> Failure:
    """Return how the step fails whose kubelet has not come to start anything, as after its node has lost its power."""
    minutes = int(waited.total_seconds() // 60)
    return Failure(
        reason=Reason.BUILDER_LOST,
        message=f"node {pod.node} has not begun to start pod {pod.name} within {minutes} minutes: "
        f"kubectl describe pod {pod.name} tells what its kubelet waits for",
    )


def _no_user_namespace(pod: Pod, why: str) -> Failure:
    return Failure(
        reason=Reason.BUILDER_UNSUPPORTED,
        message=f"node {pod.node} cannot give pod {pod.name} a user namespace: {why}. Isolation UserNamespace in the "
        "operator's policy needs Linux 6.3 and containerd 2.0 with runc 1.2, or CRI-O with crun 1.9. Select "
        "nodes that have them with scheduling.nodeSelector, or ask an administrator to set isolation: Rootless",
    )


def _no_app_armor(pod: Pod, why: str, reason: Reason) -> Failure:
    return Failure(
        reason=reason,
        message=f"node {pod.node} cannot give pod {pod.name} the AppArmor profile that it names: {why}. Select nodes "
        "that have it with scheduling.nodeSelector, or ask an administrator to have it loaded there (profile.appArmor "
        "of the chart), or to correct rootless.appArmorProfile in the operator's policy",
    )


def _daemon_out_of_memory(log_tail: str) -> Failure:
    return Failure(
        reason=Reason.BUILDER_OUT_OF_MEMORY,
        message="container buildkitd, which executes the RUN instructions, ran out of memory: raise "
        "scheduling.resources.limits.memory",
        log_tail=log_tail,
    )
