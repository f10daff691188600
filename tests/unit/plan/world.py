"""A tiny cluster in memory: it performs what is decided, and keeps manifests as the API server and the kubelets do."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from multiarchbuild.api.mounts import IDLE_ANNOTATION, REQUEST_ANNOTATION
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.requests import BuildRequest, LastImage, PublishRequest
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import (
    Built,
    CacheUse,
    Failure,
    Published,
    PublishedPlatform,
    Pushed,
    PushedImage,
    Resolved,
    Source,
    dump,
)
from multiarchbuild.api.status import Result, RunStatus, Status
from multiarchbuild.plan.actions import (
    Action,
    AnnotateBuilt,
    AnnotateSource,
    DeleteClaim,
    DeleteConfigMap,
    DeletePod,
    Deletion,
    EnsureClaim,
    EnsureInputs,
    HandOver,
    KeepRecord,
    MarkIdle,
    Resize,
    StartBuild,
    StartPublish,
    StartResolve,
)
from multiarchbuild.plan.build_summary import BuildSummary
from multiarchbuild.plan.children import RUN_LABEL, Node, Pod, Role, claim_from, config_map_from, pod_from
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.decide import Children, Decision, decide
from multiarchbuild.plan.flux import Artifact, artifact_from
from multiarchbuild.plan.identity import is_commit
from multiarchbuild.plan.not_created import NotCreated
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.quantities import quantity
from multiarchbuild.plan.resize import applies
from multiarchbuild.pods import render, template

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
COMMIT = "1" * 40
GIT = {"git": {"url": "https://git.example.com/app.git", "ref": "main"}}
INLINE = {"inline": {"files": {"Dockerfile": "FROM scratch\n"}}}
POLLED = {"git": {**GIT["git"], "interval": "1m"}}
POLLED_TAG = {"oci": {"image": "registry.example.com/team-a/source:main", "interval": "1m"}}
FLUX = {"flux": {"kind": "GitRepository", "name": "app"}}
PATHS = {"paths": {"include": ["services/api"], "exclude": ["**/*.md"]}}
"""Of a source of which only some files count."""
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


def base(published: str = "", *, name: str = "base", parents: Sequence[str] = (), trouble: str = "") -> BuildSummary:
    """Return a build of the same namespace that others may be built from, with the last letter of its digest."""
    return BuildSummary(
        namespace="team-a",
        name=name,
        uid=f"uid-of-{name}",
        created_at=START,
        running=False,
        waiting_since=None,
        image=f"registry.example.com/team-a/{name}",
        tags=frozenset(),
        parents=tuple(parents),
        published=f"registry.example.com/team-a/{name}@{digest_of(published)}" if published else "",
        published_for=("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386") if published else (),
        trouble=trouble,
    )


BASE = "docker.io/library/busybox:1.36"
ON_BASE = {"onBaseImage": {"interval": "1h"}}
FROM_BASE = {"contexts": {"base": "multiarchbuild://base"}}
"""`spec.build` of an image that is built from that of another build."""


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


def image_of(pushed: str, platform: str) -> str:
    """Return the digest of the image of a platform in what a builder pushed."""
    return digest_of("image", pushed, platform)


@dataclass
class Views:
    """What the operator has seen: it lags behind, but for what it has written itself (`controller/views.py`)."""

    resource: dict[str, Any]
    nodes: tuple[Node, ...]
    pods: dict[str, dict[str, Any]]
    config_maps: dict[str, dict[str, Any]]
    claims: dict[str, dict[str, Any]]


@dataclass
class World:
    """One build, its children, the nodes, the git server and the registry."""

    resource: dict[str, Any] = field(default_factory=manifest)
    nodes: tuple[Node, ...] = BOTH
    policy: Policy = field(default_factory=Policy)
    now: datetime = START
    head: str = "a" * 40
    relevant: str = "1"
    """What is in the files that source.paths names."""
    served: bool = True
    """Whether Flux has an artifact: of `head`."""
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    config_maps: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)
    built: dict[str, tuple[frozenset[str], str | None]] = field(default_factory=dict)
    """What is in the registry, by digest: platforms, and the commit or artifact that they are of."""
    indexes: dict[str, tuple[frozenset[str], str | None]] = field(default_factory=dict)
    """Likewise, of what was published."""
    published: dict[str, str] = field(default_factory=dict)
    """Digest of the index by run."""
    logs: dict[str, str] = field(default_factory=dict)
    """What steps have answered in their logs, by uid of their pod and name of the request: `log_of`."""
    taken: set[str] = field(default_factory=set)
    exporting: set[str] = field(default_factory=set)
    listed: dict[str, dict[str, str]] = field(default_factory=dict)
    """Digests of the images in what was published, by its digest and by platform."""
    """Requests that kept builders have begun with, likewise."""
    records: dict[str, str] = field(default_factory=dict)
    """What builders that failed have printed of their builds, by pod."""
    handed: list[Role] = field(default_factory=list)
    """What was handed to kept pods."""
    built_by: dict[str, str] = field(default_factory=dict)
    """Id of the run that each digest was built for."""
    follows_logs: bool = True
    """Whether the operator can read that."""
    publications: list[tuple[datetime, str, str]] = field(default_factory=list)
    """When which pod moved the tags to which digest."""
    full: set[str] = field(default_factory=set)
    """Kinds of which a quota allows no more: ConfigMap, Pod."""
    foreign: set[tuple[str, str]] = field(default_factory=set)
    """Objects of others, as (kind, name)."""
    node_clock: timedelta = timedelta()
    """How far the clocks of the nodes are ahead."""
    sidecars: bool = False
    """Whether pods have a container of others that never ends."""
    same: bool = False
    """Whether base images and tags are what they were when the last image was published, for whoever compares."""
    cpu: Decimal | None = None
    """Most CPU that a quota lets a builder have again."""
    resizes: bool = True
    """Whether the cluster changes the requests of pods in place."""
    base_tag: str = "1"
    """What the tag of the base image means."""
    mirrored: str = ""
    """What builders take it for, where they ask a mirror that is behind."""
    others: list[BuildSummary] = field(default_factory=list)
    """Builds of the same namespace."""
    uids: int = 0
    views: Views | None = None
    """What the operator has seen, where that is older than what there is."""
    _answers: NotCreated = field(default_factory=NotCreated)
    """What was not created when it was asked for at this moment."""
    _asked_for: object = None

    @property
    def build(self) -> MultiArchBuild:
        """The object as the API server has it now."""
        return _parsed(json.dumps(self.resource))

    @property
    def status(self) -> Status:
        """Its status."""
        return self.build.status

    def views_lag(self) -> None:
        """From now on the watches show nothing."""
        self.views = Views(
            copy.deepcopy(self.resource),
            self.nodes,
            copy.deepcopy(self.pods),
            copy.deepcopy(self.config_maps),
            copy.deepcopy(self.claims),
        )

    def views_catch_up(self) -> None:
        """The watches show all that there is."""
        self.views = None

    @property
    def seen_build(self) -> MultiArchBuild:
        """The object as the operator has seen it."""
        return _parsed(json.dumps(self.views.resource)) if self.views else self.build

    def decide_with(self, not_created: NotCreated) -> Decision:
        """Decide as if the API server had not created these."""
        self._forget_answers()
        self._answers = not_created
        return self.decide()

    def decide(self, others: Sequence[BuildSummary] = ()) -> Decision:
        """Observe and decide, without performing anything."""
        seen = self.views or self
        children = Children(
            tuple(map(self.observed, seen.pods.values())),
            tuple(config_map_from(config_map) for config_map in seen.config_maps.values()),
            tuple(claim_from(claim) for claim in seen.claims.values()),
            self.artifact,
        )
        view = ClusterView(self.policy.concurrency, [*others, *self.others])
        return decide(
            self.seen_build,
            children,
            seen.nodes,
            self.policy,
            self.now,
            others=view,
            not_created=self._answers,
            template=template,
        )

    def observed(self, manifest: dict[str, Any]) -> Pod:
        """Return a pod as a look sees it, with what its log tells."""
        pod = replace(pod_from(manifest), record=self.records.get(manifest["metadata"]["name"], ""))
        if not self.follows_logs or pod.ended is not None or pod.idle:
            return pod
        log = log_of(pod)
        return replace(pod, answer=self.logs.get(log, ""), taken=log in self.taken, exporting=log in self.exporting)

    @property
    def base_image(self) -> str:
        """The base image as it is now."""
        return f"{BASE}@{digest_of(self.base_tag)}"

    @property
    def artifact(self) -> Artifact | None:
        """What Flux says, where the source is an object of Flux."""
        flux = self.build.spec.source.flux
        return artifact_from(flux_object(self.head) if self.served else {}, flux) if flux else None

    def reconcile(self, killed_after: int | None = None, others: Sequence[BuildSummary] = ()) -> Decision:
        """Decide and perform; killed after so many requests to the API server, else whole."""
        self._forget_answers()
        left, asked = killed_after if killed_after is not None else 10_000, list[Action]()
        while True:
            decision = self.decide(others)
            fresh = [action for action in decision.before if action not in asked]
            answer = NotCreated()
            for action in fresh[:left]:
                if getattr(action, "inputs", "") not in answer and getattr(action, "claim", "") not in answer:
                    answer |= self.perform(action)
            left -= len(fresh)
            asked += fresh
            if left <= 0:
                return decision
            if not answer:
                break
            self._answers |= answer
        for request in (decision.status, *decision.after)[:left]:
            if isinstance(request, Status):
                if self._conflicts():
                    break
                self.write(request)
            else:
                self.perform(request)
        self._answers = NotCreated(refused=self._answers.refused)
        return decision

    def _forget_answers(self) -> None:
        """A refusal holds until it is time to ask again, or until the build asks for something else."""
        asked_for = (self.now, self.resource["metadata"]["generation"], frozenset(self.full))
        if asked_for != self._asked_for:
            self._asked_for, self._answers = asked_for, NotCreated()

    def settle(self, others: Sequence[BuildSummary] = ()) -> Decision:
        """Reconcile until nothing changes any more at this moment."""
        decision = self.reconcile(others=others)
        while (following := self.reconcile(others=others)).status != decision.status:
            decision = following
        return following

    def write(self, status: Status) -> None:
        """Write status; the schema's bounds are checked when it is read."""
        for resource in (self.resource, *([self.views.resource] if self.views else [])):
            resource["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)

    def _conflicts(self) -> bool:
        """Return whether the object has changed since the operator has seen it, which then reads it."""
        if self.views is None or self.views.resource == self.resource:
            return False
        self.views.resource = copy.deepcopy(self.resource)
        return True

    def perform(self, action: Action) -> NotCreated:
        """Perform one action as the API server does; return what it did not create."""
        match action:
            case EnsureInputs() | KeepRecord() | EnsureClaim():
                kind = self.claims if isinstance(action, EnsureClaim) else self.config_maps
                return self._create(kind, render(action, self.seen_build, self.policy))
            case StartResolve() | StartBuild() | StartPublish():
                assert action.inputs in self.config_maps, "a pod mounts the ConfigMap of its own build only"
                rendered = {**render(action, self.seen_build, self.policy), "status": {"phase": "Pending"}}
                return self._create(self.pods, rendered)
            case AnnotateSource(pod=pod, uid=uid, run_id=run_id) | AnnotateBuilt(pod=pod, uid=uid, run_id=run_id):
                meta = self.pods[pod]["metadata"] if pod in self.pods else {}
                if meta.get("uid") == uid and meta["labels"][RUN_LABEL] == run_id:
                    self._change(pod, {"annotations": action.annotations})
            case HandOver() | MarkIdle():
                return self._ask(action)
            case Resize():
                self._resize(action)
            case DeletePod() | DeleteConfigMap() | DeleteClaim():
                self._delete_child(action)
        return NotCreated()

    def _ask(self, action: HandOver | MarkIdle) -> NotCreated:
        if isinstance(action, MarkIdle):
            if self._has(action.pod, action.uid, idle=""):
                assert log_of(pod_from(self.pods[action.pod])) in self.logs, "its result is known"
                self._change(action.pod, {"annotations": action.annotations})
            return NotCreated()
        if not self._has(action.pod, action.uid, idle=action.after):
            return NotCreated(not_handed=frozenset({action.pod}))
        before = pod_from(self.pods[action.pod])
        assert log_of(before) in self.logs, "it has ended with what it was asked for before"
        self._change(action.pod, render(action, self.seen_build, self.policy))
        self.handed.append(before.role)
        return NotCreated()

    def _resize(self, action: Resize) -> None:
        if action.pod not in self.pods or self.pods[action.pod]["metadata"]["uid"] != action.uid or not self.resizes:
            return
        if not applies(action, pod_from(self.pods[action.pod])):
            return
        asked = sum(quantity(cpu) or 0 for _, cpu, _ in action.requests)
        if not action.lowers and self.cpu is not None and asked > self.cpu:
            return  # exceeded quota
        spec = self.pods[action.pod]["spec"]
        for name, cpu, memory in action.requests:
            containers = (*spec["containers"], *spec.get("initContainers", ()))
            (container,) = (each for each in containers if each["name"] == name)
            requests = container["resources"].setdefault("requests", {})
            requests |= {kind: each for kind, each in (("cpu", cpu), ("memory", memory)) if each}
        self._change(action.pod, {})

    def _has(self, name: str, uid: str, idle: str) -> bool:
        meta = self.pods[name]["metadata"] if name in self.pods else {}
        return meta.get("uid") == uid and meta["annotations"].get(IDLE_ANNOTATION) == idle

    def _change(self, name: str, changes: dict[str, dict[str, str]]) -> None:
        for part, pairs in changes.items():
            self.pods[name]["metadata"][part].update(pairs)
        if self.views:
            self.views.pods[name] = copy.deepcopy(self.pods[name])

    def _create(self, kind: dict[str, dict[str, Any]], created: dict[str, Any]) -> NotCreated:
        name = created["metadata"]["name"]
        if created["kind"] in self.full:
            # Admission comes first: also what exists is refused.
            words = f'{created["kind"].lower()}s "{name}" is forbidden: exceeded quota: q'
            return NotCreated(refused={name: words})
        if (created["kind"], name) in self.foreign:
            return NotCreated(taken=frozenset({name}))
        if name in kind:
            return NotCreated()
        self.uids += 1
        created["metadata"] |= {"uid": f"uid-{self.uids}", "creationTimestamp": timestamp(self.now)}
        kind[name] = copy.deepcopy(created)
        if self.views:
            seen = {"Pod": self.views.pods, "PersistentVolumeClaim": self.views.claims}
            seen.get(created["kind"], self.views.config_maps)[name] = copy.deepcopy(created)
        return NotCreated()

    def _delete_child(self, action: Deletion) -> None:
        if isinstance(action, DeleteClaim):
            self._delete_claim(action.name, action.uid)
        else:
            self._delete(self.pods if isinstance(action, DeletePod) else self.config_maps, action.name, action.uid)

    def _delete(self, kind: dict[str, dict[str, Any]], name: str, uid: str) -> None:
        if name in kind and kind[name]["metadata"]["uid"] == uid:
            del kind[name]
        if self.views and kind is self.config_maps and name in self.views.config_maps:
            del self.views.config_maps[name]
        elif self.views and name in self.views.pods:
            self.views.pods[name]["metadata"]["deletionTimestamp"] = timestamp(self.now)

    def _delete_claim(self, name: str, uid: str) -> None:
        """It stays until no pod has it (kubernetes.io/pvc-protection)."""
        for claims in (self.claims, *([self.views.claims] if self.views else [])):
            if name in claims and claims[name]["metadata"]["uid"] == uid:
                claims[name]["metadata"]["deletionTimestamp"] = timestamp(self.now)
        self.release_claims()

    def release_claims(self) -> None:
        """Let claims go that are deleted, and that no pod which has a node names any more, be it one that has ended."""
        held = {pod.claim for pod in map(pod_from, self.pods.values()) if pod.node}
        for name in [name for name, claim in self.claims.items() if "deletionTimestamp" in claim["metadata"]]:
            if name not in held:
                del self.claims[name]

    def bind(self, claim: dict[str, Any]) -> None:
        """Give a claim its volume."""
        claim["status"] = {"phase": "Bound"}

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

    def schedule(self, pod: dict[str, Any], node_name: str = "node-amd64") -> dict[str, Any]:
        """Give a pod a node, whose kubelet has not seen it yet; return the pod."""
        pod["spec"]["nodeName"] = node_name
        pod["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(self.now)}
        ]
        return pod

    def start(self, pod: dict[str, Any]) -> None:
        """Start the containers of a pod."""
        if "nodeName" not in pod["spec"]:
            self.schedule(pod)
        started = {"running": {"startedAt": timestamp(self.now + self.node_clock)}}
        pod["status"]["phase"] = "Running"
        pod["status"]["containerStatuses"] = [{"name": "step", "restartCount": 0, "state": started}]
        if pod_from(pod).role is Role.BUILD:
            pod["status"]["initContainerStatuses"] = [{"name": "buildkitd", "restartCount": 0, "state": started}]

    def end(self, pod: dict[str, Any], message: bytes | str, exit_code: int = 0, reason: str = "Completed") -> None:
        """End the step of a pod with this termination message, and the pod unless a foreign sidecar runs on."""
        if pod["status"]["phase"] == "Pending":
            self.start(pod)
        text = message if isinstance(message, str) else message.decode()
        terminated = {
            "exitCode": exit_code,
            "reason": reason,
            "message": text,
            "startedAt": timestamp(self.now + self.node_clock),
            "finishedAt": timestamp(self.now + self.node_clock),
        }
        pod["metadata"]["managedFields"] = [
            {"manager": "multiarchbuild", "operation": "Update", "time": timestamp(START)},
            {"manager": "kubelet", "operation": "Update", "subresource": "status", "time": timestamp(self.now)},
        ]
        pod["status"]["containerStatuses"] = [{"name": "step", "restartCount": 0, "state": {"terminated": terminated}}]
        if not self.sidecars:
            pod["status"]["phase"] = "Failed" if exit_code else "Succeeded"

    def fail(self, pod: dict[str, Any], reason: Reason, message: str = "it broke", log_tail: str = "") -> None:
        """End the step of a pod with a failure."""
        failure = Failure(reason=reason, message=message, log_tail=log_tail)
        self.end(pod, dump(failure), exit_code=1, reason="Error")

    def answer_failure(self, pod: dict[str, Any], reason: Reason) -> None:
        """Let a kept builder say in its log that the Dockerfile is to blame: it goes on."""
        if pod["status"]["phase"] == "Pending":
            self.start(pod)
        seen = pod_from(pod)
        self.logs[log_of(seen)] = dump(Failure(reason=reason, message="it is wrong"), seen.request).decode()

    def succeed(self, pod: dict[str, Any]) -> None:
        """Let the step of a pod do its work and end."""
        self.end(pod, self._message(pod_from(pod)))

    def answer(self, pod: dict[str, Any]) -> None:
        """Let the step of a pod do its work and say so in its log; its end is seen later."""
        if pod["status"]["phase"] == "Pending":
            self.start(pod)
        seen = pod_from(pod)
        self.logs[log_of(seen)] = self._message(seen)

    def begin(self, pod: dict[str, Any]) -> None:
        """Let a kept builder begin with what it was handed."""
        self.taken.add(log_of(pod_from(pod)))

    def export(self, pod: dict[str, Any]) -> None:
        """Let a builder say in its log that its image is being pushed."""
        if pod["status"]["phase"] == "Pending":
            self.start(pod)
        self.exporting.add(log_of(pod_from(pod)))

    def end_idle(self, pod: dict[str, Any]) -> None:
        """Let a builder end that is kept, as when nothing comes: its last answer is its termination message."""
        last = f"{pod_from(pod).uid}/"
        found = [message for name, message in self.logs.items() if name.startswith(last)]
        self.end(pod, found[-1])

    def _message(self, pod: Pod) -> str:
        return dump(self._result(pod), pod.request if pod.template else None).decode()

    def succeed_all(self, *roles: Role) -> None:
        """Let every pod of these roles that has not ended do its work."""
        for pod in self.pods.values():
            seen = pod_from(pod)
            if seen.role in roles and seen.ended is None:
                self.succeed(pod)

    def finish(self) -> RunStatus:
        """Let the run that goes on build and publish, which must succeed; return it, or the one that follows on it."""
        before = self.status.run
        assert before is not None
        for role in (Role.BUILD, Role.PUBLISH):
            self.succeed_all(role)
            self.settle()
        run = self.status.run
        assert run is not None
        results = {entry.id: entry.result for entry in self.status.history} | {run.id: run.result}
        assert results[before.id] is Result.SUCCEEDED, run
        return run

    def _result(self, pod: Pod) -> Resolved | Built | Published:
        match pod.role:
            case Role.CHECK_BASES:
                asked = [each.removeprefix("--base=") for each in self.pods[pod.name]["spec"]["containers"][0]["args"]]
                return Resolved(bases=(self.base_image,) if self.base_image not in asked else ())
            case Role.RESOLVE | Role.CHECK:
                return self._resolved(pod)
            case Role.BUILD:
                if (last := self._last(pod)) is not None and self._is(last, self._commit(pod)):
                    images = tuple(
                        PushedImage(platform=name, digest=self.listed[last.digest][name])
                        for name in map(str, pod.platforms)
                    )
                    return Built(digest=last.digest, images=images, unchanged=True)
                digest = digest_of(pod.run_id, pod.platforms, pod.attempt, pod.mode)
                self.built_by[digest] = pod.run_id
                self.built[digest] = (frozenset(map(str, pod.platforms)), self._commit(pod))
                bases = (f"{BASE}@{digest_of(self.mirrored or self.base_tag)}",)
                images = self._images(digest, pod)
                return Built(digest=digest, images=images, cache=CacheUse(hits=1, total=3), bases=bases)
            case Role.PUBLISH:
                images = Pushed.model_validate_json(pod.built_annotation).images
                tags = tuple(arg.removeprefix("--tag=") for arg in self._arguments(pod) if arg.startswith("--tag="))
                assert tags == pod.tags, "status tells which tags were moved"
                digest = self.published[pod.run_id] = digest_of(*(image.digest for image in images))
                self.publications.append((self.now, pod.name, digest))
                of = frozenset(image.platform for image in images)
                source = Pushed.model_validate_json(pod.built_annotation).source
                self.indexes[digest] = (of, source.commit or source.digest if source else None)
                platforms = tuple(
                    PublishedPlatform(platform=image.platform, digest=image_of(image.digest, image.platform), size=5)
                    for image in images
                )
                self.listed[digest] = {each.platform: each.digest for each in platforms}
                return Published(digest=digest, tags=tags, platforms=platforms)
            case Role.UNKNOWN:
                raise AssertionError("nothing makes such a pod")

    def _arguments(self, pod: Pod) -> Sequence[str]:
        """Return those of a publish step."""
        if pod.handed:
            asked = self.pods[pod.name]["metadata"]["annotations"][REQUEST_ANNOTATION]
            return PublishRequest.model_validate_json(asked).arguments
        arguments: list[str] = self.pods[pod.name]["spec"]["containers"][0]["args"]
        return arguments

    @staticmethod
    def _images(digest: str, pod: Pod) -> tuple[PushedImage, ...]:
        names = map(str, pod.platforms)
        return tuple(PushedImage(platform=name, digest=image_of(digest, name)) for name in names)

    def _resolved(self, pod: Pod) -> Resolved:
        last, spec = self._last(pod), self.build.spec
        arguments = self.pods[pod.name]["spec"]["containers"][0]["args"]
        given = {key: value for key, _, value in (each.partition("=") for each in arguments)}
        paths = digest_of(self.relevant) if "--paths" in given else None
        if "--artifact" in given:
            found = Source.model_validate_json(given["--artifact"]).model_copy(update={"paths": paths})
        elif spec.source.oci:
            found = Source(digest=digest_of(self.head), ref="main")
        elif last is not None and not (spec.source.git and not is_commit(spec.source.git.ref)):
            found = last.source
        else:
            # The spec may have been edited since.
            found = Source(commit=self.head, ref="main", author="Ada", time=1_700_000_000, paths=paths)
        if last is None:
            return Resolved(source=found)
        same = self._is(last, found.commit or found.digest)
        return Resolved(source=found, unchanged=same, changed="" if same else "busybox:1.36 has moved")

    def _last(self, pod: Pod) -> LastImage | None:
        """Return with what a step was told to compare."""
        if pod.handed:
            asked = self.pods[pod.name]["metadata"]["annotations"][REQUEST_ANNOTATION]
            return BuildRequest.model_validate_json(asked).last
        arguments = self.pods[pod.name]["spec"]["containers"][0]["args"]
        found = (each.removeprefix("--last=") for each in arguments if each.startswith("--last="))
        return next((LastImage.model_validate_json(each) for each in found), None)

    def _is(self, last: LastImage, source: str | None) -> bool:
        """Return whether tags name the last image, and all that it was made from is the same."""
        named = self.publications[-1][2] if self.publications else ""
        known = last.source.commit or last.source.digest
        return self.same and named == last.digest and (source is None or source == known)

    def _commit(self, pod: Pod) -> str | None:
        spec = self.build.spec
        if pod.handed:
            asked = self.pods[pod.name]["metadata"]["annotations"][REQUEST_ANNOTATION]
            spec = BuildRequest.model_validate_json(asked).inputs.spec
        git = spec.source.git
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


@lru_cache(maxsize=16)
def _parsed(resource: str) -> MultiArchBuild:
    return MultiArchBuild.model_validate(json.loads(resource))


def log_of(pod: Pod) -> str:
    """Return what names the answer of a pod to what it was asked for last."""
    return f"{pod.uid}/{pod.request}"


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
    return {"metadata": {"resourceVersion": "1"}, "status": {"artifact": artifact, "conditions": [ready]}}


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
