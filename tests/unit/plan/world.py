"""A tiny cluster in memory: it performs what is decided, and keeps manifests as the API server and the kubelets do."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import (
    Built,
    CacheUse,
    Failure,
    Published,
    PublishedPlatform,
    Pushed,
    Resolved,
    Source,
    dump,
)
from multiarchbuild.api.status import Status
from multiarchbuild.plan.actions import (
    Action,
    AnnotateBuilt,
    AnnotateSource,
    DeleteConfigMap,
    DeletePod,
    EnsureInputs,
    StartBuild,
    StartPublish,
    StartResolve,
)
from multiarchbuild.plan.children import Node, Pod, Role, config_map_from, pod_from
from multiarchbuild.plan.decide import Children, Decision, decide
from multiarchbuild.plan.flux import Artifact, artifact_from
from multiarchbuild.plan.identity import is_commit
from multiarchbuild.plan.others import Other
from multiarchbuild.plan.policy import Policy
from multiarchbuild.pods import render

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
COMMIT = "1" * 40
GIT = {"git": {"url": "https://git.example.com/app.git", "ref": "main"}}
INLINE = {"inline": {"files": {"Dockerfile": "FROM scratch\n"}}}
POLLED = {"git": {**GIT["git"], "interval": "1m"}}
POLLED_TAG = {"oci": {"image": "registry.example.com/team-a/source:main", "interval": "1m"}}
FLUX = {"flux": {"kind": "GitRepository", "name": "app"}}
PINNED = {"git": {"url": "https://git.example.com/app.git", "ref": COMMIT}}


def spec(**fields: Any) -> dict[str, Any]:
    """Return a spec for two platforms from inline files, with `fields` replaced."""
    return {
        "platforms": ["linux/amd64", "linux/arm64"],
        "source": INLINE,
        "output": {"image": "registry.example.com/team-a/app"},
        **fields,
    }


def manifest(name: str = "app", **fields: Any) -> dict[str, Any]:
    """Return a MultiArchBuild as the API server returns it."""
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": "5f6c1f0e-5f3e-4a55-8a0b-6c1d1a1f0001",
            "generation": 1,
            "creationTimestamp": timestamp(START),
            "annotations": {},
        },
        "spec": spec(**fields),
    }


def build(name: str = "app", status: Status | None = None, **fields: Any) -> MultiArchBuild:
    """Return a MultiArchBuild with `fields` of its spec and this status."""
    parsed = MultiArchBuild.model_validate(manifest(name, **fields))
    return parsed.model_copy(update={"status": status}) if status else parsed


def node(
    architecture: str,
    *,
    name: str = "",
    ready: bool = True,
    schedulable: bool = True,
    taints: Sequence[tuple[str, str, str]] = (),
    labels: Mapping[str, str] | None = None,
) -> Node:
    """Return a Linux node of this architecture."""
    own = {"kubernetes.io/arch": architecture, "kubernetes.io/os": "linux", **(labels or {})}
    return Node(name or f"node-{architecture}", ready, schedulable, own, tuple(taints))


BOTH = (node("amd64"), node("arm64"))


def timestamp(moment: datetime) -> str:
    """Return `moment` as the API server writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def digest_of(*parts: object) -> str:
    """Return a digest for what `parts` say."""
    return "sha256:" + hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass
class World:
    """One build, its children, the nodes, the git server and the registry."""

    resource: dict[str, Any] = field(default_factory=manifest)
    nodes: tuple[Node, ...] = BOTH
    policy: Policy = field(default_factory=Policy)
    now: datetime = START
    head: str = "a" * 40
    served: bool = True
    """Whether Flux has an artifact: of `head`."""
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, Any]] = field(default_factory=dict)
    built: dict[str, tuple[frozenset[str], str | None]] = field(default_factory=dict)
    """What is in the registry, by digest: platforms, and the commit or artifact that they are of."""
    published: dict[str, str] = field(default_factory=dict)
    """Digest of the index by run."""
    uids: int = 0

    @property
    def build(self) -> MultiArchBuild:
        """The object as the API server has it now."""
        return MultiArchBuild.model_validate(self.resource)

    @property
    def status(self) -> Status:
        """Its status."""
        return self.build.status

    def decide(self, others: Sequence[Other] = ()) -> Decision:
        """Observe and decide, without performing anything."""
        children = Children(
            tuple(pod_from(pod) for pod in self.pods.values()),
            tuple(config_map_from(config_map) for config_map in self.config_maps.values()),
            self.artifact,
        )
        return decide(self.build, children, self.nodes, self.policy, self.now, others=others)

    @property
    def artifact(self) -> Artifact | None:
        """What Flux says, where the source is an object of Flux."""
        flux = self.build.spec.source.flux
        return artifact_from(flux_object(self.head) if self.served else {}, flux) if flux else None

    def reconcile(self, killed_after: int | None = None, others: Sequence[Other] = ()) -> Decision:
        """Decide and perform; killed after so many requests to the API server, else whole."""
        decision = self.decide(others)
        requests = (*decision.before, decision.status, *decision.after)
        for request in requests[:killed_after]:
            if isinstance(request, Status):
                self.write(request)
            else:
                self.perform(request)
        return decision

    def settle(self, others: Sequence[Other] = ()) -> Decision:
        """Reconcile until nothing changes any more at this moment."""
        decision = self.reconcile(others=others)
        while (following := self.reconcile(others=others)).status != decision.status:
            decision = following
        return following

    def write(self, status: Status) -> None:
        """Write status; the schema's bounds are checked when it is read."""
        self.resource["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)

    def perform(self, action: Action) -> None:
        """Perform one action as the API server does."""
        match action:
            case EnsureInputs():
                self._create(self.config_maps, render(action, self.build, self.policy))
            case StartResolve() | StartBuild() | StartPublish():
                self._create(self.pods, {**render(action, self.build, self.policy), "status": {"phase": "Pending"}})
            case AnnotateSource(pod=pod) | AnnotateBuilt(pod=pod):
                if pod in self.pods:
                    self.pods[pod]["metadata"].setdefault("annotations", {}).update(action.annotations)
            case DeletePod(name=name, uid=uid):
                self._delete(self.pods, name, uid)
            case DeleteConfigMap(name=name, uid=uid):
                self._delete(self.config_maps, name, uid)

    def _create(self, kind: dict[str, dict[str, Any]], created: dict[str, Any]) -> None:
        name = created["metadata"]["name"]
        if name in kind:
            return
        self.uids += 1
        created["metadata"] |= {"uid": f"uid-{self.uids}", "creationTimestamp": timestamp(self.now)}
        kind[name] = copy.deepcopy(created)

    def _delete(self, kind: dict[str, dict[str, Any]], name: str, uid: str) -> None:
        if name in kind and kind[name]["metadata"]["uid"] == uid:
            del kind[name]

    def pod(self, role: Role = Role.BUILD, platform: str = "", attempt: int = 0) -> dict[str, Any]:
        """Return the newest pod of a role, of a platform and an attempt where they are given."""
        found = [
            pod
            for pod in self.pods.values()
            if (seen := pod_from(pod)).role is role
            and (not platform or platform in map(str, seen.platforms))
            and (not attempt or seen.attempt == attempt)
        ]
        return found[-1]

    def schedule(self, pod: dict[str, Any], node_name: str = "node-amd64") -> None:
        """Give a pod a node."""
        pod["spec"]["nodeName"] = node_name
        pod["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(self.now)}
        ]

    def start(self, pod: dict[str, Any]) -> None:
        """Start the containers of a pod."""
        if "nodeName" not in pod["spec"]:
            self.schedule(pod)
        started = {"running": {"startedAt": timestamp(self.now)}}
        pod["status"]["phase"] = "Running"
        pod["status"]["containerStatuses"] = [{"name": "step", "restartCount": 0, "state": started}]
        if pod_from(pod).role is Role.BUILD:
            pod["status"]["initContainerStatuses"] = [{"name": "buildkitd", "restartCount": 0, "state": started}]

    def end(self, pod: dict[str, Any], message: bytes | str, exit_code: int = 0, reason: str = "Completed") -> None:
        """End the step of a pod with this termination message; the phase comes later."""
        if pod["status"]["phase"] == "Pending":
            self.start(pod)
        text = message if isinstance(message, str) else message.decode()
        terminated = {
            "exitCode": exit_code,
            "reason": reason,
            "message": text,
            "startedAt": timestamp(self.now),
            "finishedAt": timestamp(self.now),
        }
        pod["status"]["containerStatuses"] = [{"name": "step", "restartCount": 0, "state": {"terminated": terminated}}]

    def fail(self, pod: dict[str, Any], reason: Reason, message: str = "it broke", log_tail: str = "") -> None:
        """End the step of a pod with a failure."""
        failure = Failure(reason=reason, message=message, log_tail=log_tail)
        self.end(pod, dump(failure), exit_code=1, reason="Error")

    def succeed(self, pod: dict[str, Any]) -> None:
        """Let the step of a pod do its work and end."""
        self.end(pod, dump(self._result(pod_from(pod))))

    def succeed_all(self, *roles: Role) -> None:
        """Let every pod of these roles that has not ended do its work."""
        for pod in self.pods.values():
            seen = pod_from(pod)
            if seen.role in roles and seen.ended is None:
                self.succeed(pod)

    def _result(self, pod: Pod) -> Resolved | Built | Published:
        match pod.role:
            case Role.RESOLVE | Role.CHECK:
                if self.build.spec.source.oci:
                    return Resolved(source=Source(digest=digest_of(self.head), ref="main"))
                return Resolved(source=Source(commit=self.head, ref="main", author="Ada", time=1_700_000_000))
            case Role.BUILD:
                digest = digest_of(pod.run_id, pod.platforms, pod.attempt, pod.mode)
                self.built[digest] = (frozenset(map(str, pod.platforms)), self._commit(pod))
                return Built(digest=digest, cache=CacheUse(hits=1, total=3))
            case Role.PUBLISH:
                arguments = self.pods[pod.name]["spec"]["containers"][0]["args"]
                images = Pushed.model_validate_json(pod.built_annotation).images
                tags = tuple(arg.removeprefix("--tag=") for arg in arguments if arg.startswith("--tag="))
                digest = self.published[pod.run_id] = digest_of(*(image.digest for image in images))
                platforms = tuple(
                    PublishedPlatform(platform=image.platform, digest=image.digest, size=5) for image in images
                )
                return Published(digest=digest, tags=tags, platforms=platforms)

    def _commit(self, pod: Pod) -> str | None:
        git = self.build.spec.source.git
        if pod.source_annotation:
            source = Source.model_validate_json(pod.source_annotation)
            return source.commit or source.digest
        return git.ref if git and is_commit(git.ref) else None

    def evict(self, pod: dict[str, Any]) -> None:
        """Evict a pod as the kubelet does under node pressure."""
        pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def edit(self, **fields: Any) -> None:
        """Edit the spec; the generation follows."""
        self.resource["spec"] = {**self.resource["spec"], **fields}
        self.resource["metadata"]["generation"] += 1

    def annotate(self, key: str, value: str) -> None:
        """Annotate the object."""
        self.resource["metadata"]["annotations"][key] = value


def flux_object(commit: str, branch: str = "main") -> dict[str, Any]:
    """Return a GitRepository with the status that source-controller writes."""
    artifact = {
        "digest": f"sha256:{hashlib.sha256(commit.encode()).hexdigest()}",
        "lastUpdateTime": timestamp(START),
        "path": f"gitrepository/team-a/app/{commit}.tar.gz",
        "revision": f"{branch}@sha1:{commit}",
        "size": 1234,
        "url": f"http://source-controller.flux-system.svc.cluster.local./gitrepository/team-a/app/{commit}.tar.gz",
    }
    ready = {"type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored artifact"}
    return {"status": {"artifact": artifact, "conditions": [ready]}}


def kstatus(status: Status, generation: int) -> str:
    """Return the status that kstatus computes: Current, InProgress or Failed.

    Source: https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/status/generic.go.
    """
    conditions = {condition.type: condition.status for condition in status.conditions}
    if status.observed_generation != generation or conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"
