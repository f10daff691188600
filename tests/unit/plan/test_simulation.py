"""Whatever happens in a cluster, in whatever order, what is decided keeps its promises."""

import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION, FLUX_RECONCILE_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.api.results import Built, Published, Pushed, Source, load
from multiarchbuild.api.status import (
    MAX_BYTES,
    Phase,
    PlatformStatus,
    Result,
    RunStatus,
    SourceStatus,
    Status,
    StepStatus,
    Trigger,
)
from multiarchbuild.plan.actions import (
    AnnotateBuilt,
    EnsureClaim,
    EnsureInputs,
    HandOver,
    StartBuild,
    StartPublish,
    StartResolve,
)
from multiarchbuild.plan.children import Node, Pod, Role, claim_from, pod_from
from multiarchbuild.plan.claims import request
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.decide import Decision
from multiarchbuild.plan.identity import fingerprint
from multiarchbuild.plan.outcome import SANDBOX_GRACE
from multiarchbuild.plan.parents import parents_of
from multiarchbuild.plan.pod_policy import CacheVolumes
from multiarchbuild.plan.policy import KeptBuilders, Policy
from multiarchbuild.plan.resize import written
from multiarchbuild.plan.sources import differ, needs_resolving, pinned
from multiarchbuild.plan.windows import is_open
from multiarchbuild.pods import render
from tests.unit.plan.world import (
    FLUX,
    FROM_BASE,
    GIT,
    INLINE,
    ON_BASE,
    PATHS,
    PINNED,
    POLLED,
    POLLED_TAG,
    World,
    base,
    kstatus,
    log_of,
    node,
    timestamp,
)

NIGHT = {"start": "22:00", "duration": "6h"}
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386")
NODES = (
    node("amd64"),
    node("arm64"),
    node("arm64", name="arm32", labels={"multiarch.build/aarch32": "true"}),
    node("arm"),
    node("amd64", name="qemu", labels={"multiarch.build/qemu-arm64": "true", "multiarch.build/qemu-arm": "true"}),
)
LOWERED = {
    Role.BUILD: (("step", "5m", "33554432"), ("buildkitd", "5m", "33554432")),
    Role.PUBLISH: (("step", "10m", "64Mi"),),
}
HOSTILE = ("it broke", "\x1b" * 4096, "\N{PILE OF POO}" * 2048, '"\\' * 3000)
EDITS = st.fixed_dictionaries(
    {},
    optional={
        "platforms": st.lists(st.sampled_from(PLATFORMS), min_size=1, max_size=3, unique=True),
        "source": st.sampled_from(
            [GIT, INLINE, PINNED, POLLED, POLLED_TAG, FLUX, {**GIT, **PATHS}, {**POLLED, **PATHS}, {**FLUX, **PATHS}]
        ),
        "build": st.sampled_from([{}, FROM_BASE]),
        "rebuild": st.sampled_from(
            [
                {},
                ON_BASE,
                {"retryInterval": "1m"},
                {"schedule": "30 * * * *", "window": NIGHT},
                {**ON_BASE, "window": NIGHT},
            ]
        ),
        "retries": st.integers(0, 2),
        "timeout": st.sampled_from(["5m", "1h"]),
        "suspend": st.booleans(),
        "cache": st.sampled_from(
            [{}, {"volume": {"size": "10Gi"}}, {"volume": {"size": "20Gi", "storageClassName": "fast"}}]
        ),
        "history": st.fixed_dictionaries({"successful": st.integers(0, 2), "failed": st.integers(0, 2)}),
        "scheduling": st.fixed_dictionaries(
            {
                "strategy": st.sampled_from(["Auto", "Native", "Emulated", "Cross"]),
                "nativeWait": st.sampled_from(["0s", "1m"]),
            },
            optional={
                "pendingTimeout": st.sampled_from(["30s", "2m"]),
                "keepBuilder": st.sampled_from(["0s", "10m"]),
            },
        ),
    },
)


class Simulation(RuleBasedStateMachine):
    """One build in a cluster where everything may go wrong between any two requests."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(policy=Policy(cache_volumes=CacheVolumes(max_size="20Gi", storage_classes=("fast",))))
        self.recorded: set[str] = set()
        self.requests = self.waited = 0
        self.seen: set[str] = set()
        """Publish pods that ended well, or said so in their logs, and that a whole look has seen."""

    @initialize(edit=EDITS)
    def create(self, edit: dict[str, Any]) -> None:
        self.world.edit(**{"retries": 1, **edit, "suspend": False})
        self.reconcile()

    # What the operator does

    @precondition(lambda self: self.world.views is None)
    @rule()
    def views_lag(self) -> None:
        """The watches are behind: the operator sees nothing but what it writes itself."""
        self.world.views_lag()

    @precondition(lambda self: self.world.views)
    @rule(requests=st.none() | st.integers(0, 6))
    def reconcile_what_was_seen(self, requests: int | None) -> None:
        """A look at old news costs a look: nothing is started once more, nothing wrong is handed over or published."""
        self._check(self.world.decide())
        self.world.reconcile(killed_after=requests)
        self._record()

    @rule()
    def reconcile(self) -> None:
        self.world.views_catch_up()
        decision = self._look()
        if decision.wake_after == timedelta():
            # It saw late that a try had failed or a run has ended, and says so before it starts the next.
            decision = self._look()
        while self._volume_is_free():
            decision = self._look()
        for pod in map(pod_from, self.world.pods.values()):
            if pod.full_requests and not pod.concluded and not pod.deleting:
                assert written(pod.requests) == pod.full_requests, "one that builds has what it needs"
            if pod.idle and not pod.ended and pod.phase == "Running" and not pod.deleting and not pod.disrupted:
                assert pod.requests == LOWERED[pod.role], "one that waits costs next to nothing"
        again = self.world.decide()
        assert again.before == (), "the same state asks for nothing new"
        assert again.after == (), "the same state deletes nothing more"
        assert dumped(again.status) == dumped(decision.status), "the same state, the same status"
        assert all(event.key.startswith("invalid/") for event in again.events), "each transition has one event"
        assert (again.wake_after is None) == (decision.wake_after is None)

    @rule(requests=st.integers(0, 6))
    def reconcile_and_be_killed(self, requests: int) -> None:
        self.world.views_catch_up()  # the next operator lists what there is
        self._check(self.world.decide())
        self.world.reconcile(killed_after=requests)
        self._record()

    @precondition(lambda self: self._awaiting())
    @rule(requests=st.integers(1, 3))
    def try_again_and_be_killed(self, requests: int) -> None:
        """The pod of the next attempt is there, and status still waits for it."""
        self.world.advance(60)
        self.reconcile_and_be_killed(requests)

    @rule()
    def wake(self) -> None:
        self.world.views_catch_up()
        decision = self.world.decide()
        if decision.wake_after is not None:
            self.world.now += decision.wake_after
        self.reconcile()

    # What the cluster does

    @rule(seconds=st.sampled_from([1, 5, 30, 121, 3700]))
    def time_passes(self, seconds: int) -> None:
        """The operator may be away for longer than a run may take."""
        self.world.advance(seconds)

    @rule(hours=st.sampled_from([-48, -1, 0, 1, 48]))
    def clocks_of_nodes_are_wrong(self, hours: int) -> None:
        self.world.node_clock = timedelta(hours=hours)

    @rule(injected=st.booleans())
    def sidecars_are_injected(self, *, injected: bool) -> None:
        """One that does not end keeps the phase of its pod Running."""
        self.world.sidecars = injected

    @rule(kind=st.sampled_from(["ConfigMap", "Pod", "PersistentVolumeClaim"]))
    def quota_is_full(self, kind: str) -> None:
        self.world.full.add(kind)

    @precondition(lambda self: self.world.full)
    @rule()
    def quota_has_room(self) -> None:
        self.world.full.clear()

    @rule(data=st.data())
    def others_take_a_name(self, data: st.DataObject) -> None:
        """Names can be computed by whoever may read the build."""
        names = [
            (render(action, self.world.seen_build, self.world.policy)["kind"], action.name)
            for action in self.world.decide().before
            if isinstance(action, EnsureInputs | EnsureClaim | StartResolve | StartBuild | StartPublish)
        ]
        taken = {*self.world.pods, *self.world.config_maps, *self.world.claims}
        free = [each for each in names if each[1] not in taken]
        if free:
            self.world.foreign.add(data.draw(st.sampled_from(free)))

    @rule(which=st.lists(st.sampled_from(NODES), unique_by=lambda each: each.name))
    def nodes_change(self, which: list[Node]) -> None:
        self.world.nodes = tuple(which)

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def pod_is_scheduled(self, data: st.DataObject) -> None:
        self.world.schedule(self._draw(data))

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def kubelet_does_not_set_it_up(self, data: st.DataObject) -> None:
        """As after its node has lost its power: it never comes to make the sandbox."""
        pod = self._draw(data)
        if pod["status"]["phase"] == "Pending":
            self.world.schedule(pod)["status"]["startTime"] = timestamp(self.world.now)
            pod["status"]["conditions"].append({"type": "PodReadyToStartContainers", "status": "False"})

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def step_starts(self, data: st.DataObject) -> None:
        self.world.start(self._draw(data))

    @precondition(lambda self: self._ready())
    @rule(data=st.data())
    def step_succeeds(self, data: st.DataObject) -> None:
        self.world.succeed(self._draw(data, self._ready()))

    @precondition(lambda self: self._ready())
    @rule(data=st.data())
    def step_answers_in_its_log(self, data: st.DataObject) -> None:
        pod = self._draw(data, self._ready())
        if log_of(pod_from(pod)) not in self.world.logs:
            self.world.answer(pod)

    @precondition(lambda self: self._ready())
    @rule(data=st.data())
    def builder_pushes_its_image(self, data: st.DataObject) -> None:
        pod = self._draw(data, self._ready())
        if pod_from(pod).role is Role.BUILD:
            self.world.export(pod)

    @precondition(lambda self: self._ready())
    @rule(data=st.data())
    def dockerfile_is_wrong_for_a_kept_builder(self, data: st.DataObject) -> None:
        pod = self._draw(data, self._ready())
        if (seen := pod_from(pod)).template and log_of(seen) not in self.world.logs:
            self.world.begin(pod)
            self.world.answer_failure(pod, Reason.BUILD_FAILED)

    @rule(followed=st.booleans())
    def logs_are_followed(self, *, followed: bool) -> None:
        self.world.follows_logs = followed

    @precondition(lambda self: self._ready())
    @rule()
    def steps_succeed(self) -> None:
        for pod in self._ready():
            self.world.succeed(pod)
        self.reconcile()

    @precondition(lambda self: self._ready())
    @rule()
    def builders_stay(self) -> None:
        """All goes well: builders answer in their logs and stay, the others end."""
        self.world.follows_logs = True
        for _ in range(4):
            for pod in self._ready():
                seen = pod_from(pod)
                if seen.template and log_of(seen) not in self.world.logs:
                    self.world.begin(pod)
                    self.world.answer(pod)
                elif not seen.template:
                    self.world.succeed(pod)
            self.reconcile()

    @precondition(lambda self: self._handed())
    @rule(data=st.data())
    def kept_builder_begins(self, data: st.DataObject) -> None:
        self.world.begin(self._draw(data, self._handed()))

    @precondition(lambda self: self._idle())
    @rule(data=st.data())
    def kept_builder_ends(self, data: st.DataObject) -> None:
        """It has waited for long enough, or it is killed while it waits."""
        self.world.end_idle(self._draw(data, self._idle()))

    @precondition(lambda self: self._live())
    @rule(
        data=st.data(),
        reason=st.sampled_from([Reason.REGISTRY_ERROR, Reason.BUILDER_LOST, Reason.BUILD_FAILED]),
        text=st.sampled_from(HOSTILE),
    )
    def step_fails(self, data: st.DataObject, reason: Reason, text: str) -> None:
        self.world.fail(self._draw(data), reason, text, text)

    @precondition(lambda self: self._live())
    @rule(data=st.data(), exit_code=st.sampled_from([1, 137, 143]))
    def step_is_killed(self, data: st.DataObject, exit_code: int) -> None:
        self.world.end(self._draw(data), "", exit_code, "Error")

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def pod_is_evicted(self, data: st.DataObject) -> None:
        self.world.evict(self._draw(data))

    @precondition(lambda self: self._live())
    @rule(data=st.data(), text=st.sampled_from(HOSTILE))
    def image_is_not_pulled(self, data: st.DataObject, text: str) -> None:
        pod = self._draw(data)
        if pod["status"]["phase"] == "Pending":
            state = {"waiting": {"reason": "ImagePullBackOff", "message": text}}
            self.world.schedule(pod)
            pod["status"]["containerStatuses"] = [{"name": "step", "state": state}]

    @precondition(lambda self: self.world.pods)
    @rule(data=st.data())
    def pod_is_being_deleted(self, data: st.DataObject) -> None:
        pod = self.world.pods[data.draw(st.sampled_from(sorted(self.world.pods)))]
        pod["metadata"]["deletionTimestamp"] = timestamp(self.world.now)

    @precondition(lambda self: self.world.pods)
    @rule(data=st.data())
    def pod_disappears(self, data: st.DataObject) -> None:
        del self.world.pods[data.draw(st.sampled_from(sorted(self.world.pods)))]

    @precondition(lambda self: self.world.claims)
    @rule(data=st.data(), phase=st.sampled_from(["Bound", "Lost"]))
    def claim_is_bound_or_lost(self, data: st.DataObject, phase: str) -> None:
        claim = self.world.claims[data.draw(st.sampled_from(sorted(self.world.claims)))]
        claim["status"] = {"phase": phase}

    @precondition(lambda self: self.world.claims)
    @rule(data=st.data())
    def claim_is_deleted(self, data: st.DataObject) -> None:
        """By somebody who wants an empty cache."""
        name = data.draw(st.sampled_from(sorted(self.world.claims)))
        self.world.claims[name]["metadata"]["deletionTimestamp"] = timestamp(self.world.now)
        self.world.release_claims()

    @precondition(lambda self: self._with_claim())
    @rule(data=st.data())
    def no_node_can_mount_the_volume(self, data: st.DataObject) -> None:
        pod = self._draw(data, self._with_claim())
        if pod["status"]["phase"] == "Pending" and "nodeName" not in pod["spec"]:
            message = "0/5 nodes are available: 5 node(s) had volume node affinity conflict."
            why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            pod["status"]["conditions"] = [why]

    @precondition(lambda self: self._with_claim())
    @rule(data=st.data())
    def buildkitd_does_not_start_with_what_is_on_its_volume(self, data: st.DataObject) -> None:
        self.world.fail(self._draw(data, self._with_claim()), Reason.CACHE_VOLUME_FAILED)

    @rule(commit=st.sampled_from(["a" * 40, "b" * 40]))
    def branch_moves(self, commit: str) -> None:
        self.world.head = commit

    @rule(published=st.sampled_from(["", "1", "2"]), trouble=st.sampled_from(["", "is suspended"]))
    def parent_publishes(self, published: str, trouble: str) -> None:
        self.world.others = [base(published, trouble=trouble)]

    @rule(tag=st.sampled_from(["1", "2", "3"]), mirrored=st.sampled_from(["", "1"]))
    def base_image_moves(self, tag: str, mirrored: str) -> None:
        """Builders may see an older one, behind a mirror."""
        self.world.base_tag, self.world.mirrored = tag, mirrored

    @rule(content=st.sampled_from(["1", "2"]))
    def relevant_files_change(self, content: str) -> None:
        """Those that source.paths names; they may without a new commit, as nobody looks before there is one."""
        self.world.relevant = content

    @rule(served=st.booleans())
    def flux_has_an_artifact(self, *, served: bool) -> None:
        self.world.served = served

    @rule(same=st.booleans())
    def base_images_move(self, *, same: bool) -> None:
        self.world.same = same

    # What people do

    @rule(edit=EDITS)
    def spec_is_edited(self, edit: dict[str, Any]) -> None:
        self.world.edit(**edit)

    @rule()
    def rebuild_is_requested(self) -> None:
        self.requests += 1
        self.world.annotate(REBUILD_ANNOTATION, f"2026-02-01T00:00:{self.requests % 60:02}Z")

    @rule()
    def rebuild_is_requested_and_seen(self) -> None:
        self.rebuild_is_requested()
        self.reconcile()

    @precondition(lambda self: self.world.status.run)
    @rule()
    def run_is_cancelled(self) -> None:
        run = self.world.status.run
        assert run is not None
        self.world.annotate(CANCEL_ANNOTATION, run.id)

    @rule()
    def a_look_is_asked_for(self) -> None:
        self.requests += 1
        self.world.annotate(FLUX_RECONCILE_ANNOTATION, f"2026-02-01T00:00:{self.requests % 60:02}Z")

    @rule(key=st.sampled_from([REBUILD_ANNOTATION, CANCEL_ANNOTATION]), value=st.text(max_size=300))
    def annotation_is_nonsense(self, key: str, value: str) -> None:
        self.world.annotate(key, value)

    # What must always hold

    @invariant()
    def status_is_small_and_readable(self) -> None:
        status = self.world.status
        assert len(dumped(status).encode()) < MAX_BYTES
        if status.observed_generation != self.world.build.metadata.generation:
            return
        if any((each.type, each.reason) == ("Reconciling", Reason.RETRYING) for each in status.conditions):
            assert kstatus(status, self.world.build.metadata.generation) == "InProgress"
            return
        waits = {condition.reason for condition in status.conditions} & {
            Reason.SOURCE_NOT_READY,
            Reason.PARENT_NOT_READY,
        }
        if waits:
            assert self.world.build.spec.source.flux or self.world.build.spec.build.parents
            assert kstatus(status, self.world.build.metadata.generation) == "InProgress"
            return
        result = status.run.result if status.run else None
        expected = {None: "InProgress", Result.SUCCEEDED: "Current"}.get(result, "Failed")
        if status.run and result is Result.SUCCEEDED and status.run.inputs != fingerprint(self.world.build.spec).inputs:
            expected = "InProgress"  # edited while suspended
        if status.run and any((each.type, each.reason) == ("Ready", Reason.PENDING) for each in status.conditions):
            expected = "InProgress"  # another run starts at the next look
        assert kstatus(status, self.world.build.metadata.generation) == expected

    @invariant()
    def status_names_what_was_published(self) -> None:
        run, image = self.world.status.run, self.world.status.image
        if run and run.result is Result.SUCCEEDED:
            assert image is not None
            unchanged = run.comparison.digest if run.comparison and run.comparison.changed is None else None
            assert image.digest == (unchanged or self.world.published[run.id])
            if unchanged:
                assert run.id not in self.world.published, "what has not changed is not published anew"
                assert run.trigger is Trigger.REQUESTED
            shown, published = run.platforms, image.platforms
            assert {entry.platform: entry.digest for entry in shown} == {
                each.platform: each.digest for each in published
            }

    @invariant()
    def no_two_pods_have_one_volume(self) -> None:
        pods = [pod for pod in map(pod_from, self.world.pods.values()) if pod.phase not in {"Succeeded", "Failed"}]
        held = [pod.claim for pod in pods if pod.claim]
        assert len(held) == len(set(held)), "two daemons would write to it"

    @invariant()
    def volumes_go_with_their_build(self) -> None:
        for claim in self.world.claims.values():
            (owner,) = claim["metadata"]["ownerReferences"]
            assert (owner["uid"], owner["controller"]) == (self.world.build.metadata.uid, True)

    @invariant()
    def what_is_tried_again_has_failed(self) -> None:
        for entry in self._awaiting():
            failed = {tried.attempt for tried in entry.failed_attempts}
            assert entry.attempt in failed, f"attempt {entry.attempt} of {entry.pod} goes on, and is said to wait"

    @invariant()
    def succeeded_tells_of_the_run(self) -> None:
        """Whatever the build waits for beside."""
        run = self.world.status.run
        if run is not None:
            ended = {None: "Unknown", Result.SUCCEEDED: "True"}.get(run.result, "False")
            found = [each for each in self.world.status.conditions if each.type == ConditionType.SUCCEEDED]
            assert [(each.status, each.reason) for each in found] == [(ended, run.reason or Reason.PENDING)]

    def teardown(self) -> None:
        self._come_to_rest()

    def _come_to_rest(self) -> None:
        """The cluster comes to rest: only time passes. Then everything has ended, and nothing is left over."""
        self.world.edit(rebuild={})  # base images are asked for as long as there is a build
        source = self.world.build.spec.source
        if source.git or source.oci:
            # A source that is polled never comes to rest.
            polling = {"git": {"interval"}, "oci": {"interval"}}
            self.world.edit(source=source.model_dump(mode="json", exclude=polling, exclude_none=True))
        for pod in self._live():
            if (name := log_of(pod_from(pod))) in self.world.logs and not pod_from(pod).idle:
                self.world.end(pod, self.world.logs[name])
        for turn in range(100):
            if turn == 50:  # a look that is asked for waits for room for as long as there is none
                self.world.full.clear()
            # A look takes a second; the kubelet would end it at its deadline.
            self.world.succeed_all(Role.CHECK, Role.CHECK_BASES)
            self.reconcile()
            decision = self.world.decide()
            if decision.wake_after is None:
                break
            self.world.now += decision.wake_after
        else:
            raise AssertionError("it never comes to rest")
        self._check_rest()

    def _check_rest(self) -> None:
        """Check that nothing is left over."""
        status = self.world.status
        kept = {entry.id for entry in status.history} | ({status.run.id} if status.run else set())
        asked = request(self.world.build, self.world.policy)
        for claim in map(claim_from, self.world.claims.values()):
            assert claim.deleting or (asked is not None and claim.asked == asked.asked), f"{claim.name} is left over"
        for name, pod in self.world.pods.items():
            seen = pod_from(pod)
            if seen.idle and seen.ended is None and seen.phase != "Failed" and not seen.deleting:
                assert self.world.build.spec.scheduling.keep_builder != "0s", f"{name} stays, and should not"
                continue
            assert seen.run_id in kept or seen.deleting, f"{name} is of a run that nobody knows"
            assert seen.ended or seen.deleting or seen.phase == "Failed", f"{name} still runs"
            assert seen.phase in {"Succeeded", "Failed"} or seen.deleting, f"a sidecar keeps {name}"
        for name, config_map in self.world.config_maps.items():
            mounted = {pod.inputs for pod in map(pod_from, self.world.pods.values()) if pod.idle}
            run_id = config_map["metadata"]["labels"]["multiarch.build/run"]
            assert run_id in kept or name in mounted, f"{name} is left over"
        if status.run is not None:
            made_from = parents_of(self.world.build, ClusterView(builds=self.world.others))
            artifact = self.world.artifact
            waits = artifact is not None and artifact.source is None
            if not self.world.build.spec.suspend and not made_from.problem and not waits:
                assert status.run.parents == made_from.images, "no image is left behind its parents"
            assert status.run.result is not None, "every run ends"
            if status.run.result is not Result.SUPERSEDED:
                assert status.run.finished_at is not None

    def _look(self) -> Decision:
        """Look at the build once, as a whole."""
        self._check(self.world.decide())
        last = self.world.status.run
        pods = [self.world.observed(pod) for pod in self.world.pods.values()]
        answered = {pod.name for pod in pods if isinstance(load(pod.answer, pod.request), Published)}
        ended = [(pod, load(pod.ended.message, pod.request)) for pod in pods if pod.ended]
        before = self.world.status.run
        over = before.id if before and before.result else ""
        self.world.release_claims()
        decision = self.world.reconcile()
        self._check_trigger(last, decision.status.run)
        self._record()
        self.seen |= answered | {pod.name for pod, result in ended if isinstance(result, Published)}
        self._check_results(ended, over)
        self._check_children()
        return decision

    def _check_trigger(self, last: RunStatus | None, run: RunStatus | None) -> None:
        """Check why a run has started: nobody may have to guess, and nothing is built for files that do not count."""
        if run is not None and (last is None or run.id != last.id):
            names = tuple(parent.name for parent in run.parents)
            assert names == self.world.seen_build.spec.build.parents, "it is built from all of them"
        if last is None or run is None or run.id == last.id:
            return
        if run.trigger is Trigger.PARENT_PUBLISHED:
            assert last.result is not None, "a newer parent takes no run away"
            assert run.parents != last.parents, "one run for each image of a parent"
            assert run.cause
        if run.trigger in {
            Trigger.PARENT_PUBLISHED,
            Trigger.BASE_IMAGE_CHANGED,
            Trigger.SCHEDULED,
            Trigger.RETRIED,
        }:
            assert last.result is not None, "none of them takes a run away"
            assert is_open(self.world.seen_build.spec.rebuild.window, run.started_at), "nobody has asked for it"
        if run.trigger is Trigger.RETRIED:
            assert last.reason is not None
            assert last.reason.retryable
            assert run.retry == last.retry + 1
            assert last.finished_at is not None
            assert run.started_at >= last.finished_at + timedelta(minutes=1) * 2 ** min(last.retry, 10)
        if run.trigger is Trigger.BASE_IMAGE_CHANGED:
            assert last.result is not None, "a newer base takes no run away"
            assert set(run.bases) - set(last.bases), "one run for each digest of a base, whatever came of it"
            assert run.cause
        if run.trigger is not Trigger.SOURCE_CHANGED:
            return
        assert last.result is not None, "a newer source takes no run away"
        assert not same_source(last.source, run.source)
        if self.world.build.spec.source.paths and run.source and last.source and last.source.paths:
            assert run.source.paths != last.source.paths, "nothing that counts has changed"

    def _check_results(self, ended: list[tuple[Pod, Any]], over: str) -> None:
        """Check that status has what these pods have ended with; `over` is a run that had ended before they were seen.

        That it has published something counts all the same.
        """
        status = self.world.status
        seen = [each for each in self.world.publications if each[1] in self.seen]
        if seen:
            assert status.image is not None, "tags were moved"
            latest = max(moved_at for moved_at, _, _ in seen)
            # A later one may be known from a log, or from a look that was killed after it had written status.
            assert status.image.digest in {
                digest for moved_at, _, digest in self.world.publications if moved_at >= latest
            }
        run = status.run
        results = {entry.id: entry.result for entry in status.history} | ({run.id: run.result} if run else {})
        entries = {entry.platform: entry for entry in run.platforms} if run else {}
        for pod, result in ended:
            if isinstance(result, Published):
                assert results.get(pod.run_id, Result.SUCCEEDED) is Result.SUCCEEDED, "it has moved the tags"
            if run is None or pod.run_id != run.id or pod.role is not Role.BUILD or run.id == over:
                continue
            for entry in (entries[str(platform)] for platform in pod.platforms):
                if isinstance(result, Built):
                    assert entry.phase is Phase.SUCCEEDED, f"{pod.name} has built {entry.platform}"
                elif entry.pod == pod.name:
                    tried = pod.attempt in {each.attempt for each in entry.failed_attempts}
                    assert tried or entry.phase in {Phase.SUCCEEDED, Phase.FAILED}, f"{pod.name} has failed"

    def _check_children(self) -> None:
        """Check that whatever was refused, everything else was done."""
        run = self.world.status.run
        if run is None or run.result is not None:
            return
        source = pinned(self.world.build.spec, run)
        tried = self._awaiting()
        steps = (run.resolve, *run.platforms, run.publish)
        awaited = {step.pod for step in steps if step and step not in tried and not step.finished_at}
        for pod in map(pod_from, self._live()):
            if pod.run_id == run.id and pod.role is Role.BUILD and not pod.deleting and source not in (None, Source()):
                assert pod.source_annotation, f"{pod.name} waits for its source"
            begins_by = pod.scheduled_at + SANDBOX_GRACE if pod.scheduled_at else None
            if pod.step_started_at is None and begins_by is not None and begins_by <= self.world.now:
                assert pod.name not in awaited, f"{pod.name} is waited for, and its kubelet does not start it"
        named = {entry.pod for entry in (*run.platforms, run.resolve, run.publish) if entry}
        assert not named & {name for kind, name in self.world.foreign if kind == "Pod"}, "it is not ours"

    def _check(self, decision: Decision) -> None:
        """Check a decision before it is performed."""
        build = self.world.seen_build
        for action in decision.before:
            if not isinstance(action, StartResolve | StartBuild | StartPublish):
                continue
            if not (isinstance(action, StartResolve) and action.role in {Role.CHECK, Role.CHECK_BASES}):
                # What fails for its volume is tried again once more, without.
                most = build.spec.retries + (2 if build.spec.cache.volume else 1)
                assert action.attempt <= most, "retries are bounded"
            if action.name not in self.world.pods:
                assert action.name not in self.recorded, f"{action.name} is started once more"
            if isinstance(action, StartPublish):
                self._check_publish(decision.status, action.run_id, action.built)
        for action in decision.before:
            if isinstance(action, HandOver) and isinstance(action.wanted, StartPublish):
                self._check_publish(decision.status, action.wanted.run_id, action.wanted.built)
            if isinstance(action, AnnotateBuilt) and action.pod in self.world.pods:
                self._check_publish(decision.status, pod_from(self.world.pods[action.pod]).run_id, action.built)
        run = decision.status.run
        if run is not None and run.result is None:
            assert decision.wake_after is not None, "what goes on is looked at again"
            assert decision.wake_after <= timedelta(minutes=4), "a watch may miss what happens"
            assert self.world.now + decision.wake_after <= run.started_at + build.spec.timeout_delta

    def _check_publish(self, status: Status, run_id: str, built: Pushed | None) -> None:
        run = status.run
        assert run is not None
        assert run_id == run.id
        spec = self.world.seen_build.spec
        assert [entry.platform for entry in run.platforms] == list(spec.platforms)
        pinned = None
        if run.source and not spec.source.inline:
            pinned = run.source.digest if spec.source.oci else run.source.commit
        assert pinned or spec.source.inline
        if built is None:
            assert all(entry.phase in {Phase.SUCCEEDED, Phase.RUNNING} for entry in run.platforms), "not too early"
            return
        assert all(entry.phase is Phase.SUCCEEDED for entry in run.platforms)
        assert [image.platform for image in built.images] == list(spec.platforms)
        for image in built.images:
            platforms, built_from = (self.world.built | self.world.indexes)[image.digest]
            assert image.platform in platforms, f"{image.digest} is not of {image.platform}"
            assert built_from == pinned, "all platforms are of the commit or artifact that status names"
        compared = run.comparison.digest if run.comparison else None
        for entry in run.platforms:
            if entry.builder is not None and entry.pushed != compared:
                assert self.world.built_by[str(entry.builder_output)] == run_id, "not what an earlier run has built"

    def _volume_is_free(self) -> bool:
        """Return whether a builder waits for a volume that nobody has: here a pod is gone as soon as it is deleted."""
        run = self.world.status.run
        told = [entry.message or "" for entry in run.platforms] if run and not run.result else []
        waits = [text.split()[3] for text in told if text.startswith("waiting until pod")]
        self.waited += bool(waits)
        return any(name not in self.world.pods for name in waits)

    def _with_claim(self) -> list[dict[str, Any]]:
        """Return the live pods that have a volume."""
        return [pod for pod in self._live() if pod_from(pod).claim]

    def _awaiting(self) -> list[StepStatus | PlatformStatus]:
        """Return what status says is tried again."""
        run = self.world.status.run
        steps = (run.resolve, *run.platforms, run.publish) if run else ()
        return [step for step in steps if step and step.reason is Reason.RETRYING]

    def _record(self) -> None:
        run = self.world.status.run
        if run is not None:
            names = [entry.pod for entry in (run.resolve, run.publish, self.world.status.source) if entry]
            names += [entry.pod for entry in run.platforms if entry.attempt]  # else it waits for its volume
            # What has no node yet may give way to another, and come back when the nodes do.
            waiting = {name for name, pod in self.world.pods.items() if "nodeName" not in pod["spec"]}
            self.recorded |= {name for name in names if name and name not in waiting}

    def _live(self) -> list[dict[str, Any]]:
        """Return the pods that have not ended, by name."""
        seen = ((pod, pod_from(pod)) for _, pod in sorted(self.world.pods.items()))
        return [pod for pod, state in seen if state.ended is None and state.phase in {"Pending", "Running"}]

    def _ready(self) -> list[dict[str, Any]]:
        """Return the live pods that can do their work: builders wait for their source, publish for what they build."""
        pinned = not needs_resolving(self.world.build.spec)
        states = ((pod, pod_from(pod)) for pod in self._live())
        return [
            pod
            for pod, state in states
            if not state.idle
            and (state.role is not Role.BUILD or pinned or state.source_annotation)
            and (state.role is not Role.PUBLISH or state.built_annotation)
        ]

    def _idle(self) -> list[dict[str, Any]]:
        return [pod for pod in self._live() if pod_from(pod).idle]

    def _handed(self) -> list[dict[str, Any]]:
        """Return the kept builders that have a build to begin with."""
        return [pod for pod in self._live() if (seen := pod_from(pod)).handed and log_of(seen) not in self.world.taken]

    def _draw(self, data: st.DataObject, pods: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        names = [pod["metadata"]["name"] for pod in pods or self._live()]
        pod: dict[str, Any] = self.world.pods[data.draw(st.sampled_from(names))]
        return pod


def same_source(one: SourceStatus | None, other: SourceStatus | None) -> bool:
    return not differ(one, other)


def dumped(status: Status) -> str:
    return status.model_dump_json(by_alias=True, exclude_none=True)


class KeptSimulation(Simulation):
    """The same, with builders that have stayed after a first run."""

    @initialize(edit=EDITS, max_runs=st.integers(1, 4), volume=st.booleans())
    def create(self, edit: dict[str, Any], max_runs: int, *, volume: bool = False) -> None:
        edit = {**edit, **({"cache": {"volume": {"size": "10Gi"}}} if volume else {})}
        limits = KeptBuilders(default="30m", max_runs=max_runs)
        self.world.policy = self.world.policy.model_copy(update={"kept_builders": limits})
        super().create(edit)
        self.builders_stay()
        # Of a request it may be looked first whether anything has changed.
        self.world.edit(build={"labels": {"edited": "1"}})
        self.reconcile()


SETTINGS = settings(
    max_examples=int(os.environ.get("MAB_SIMULATIONS", "60")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


TestSimulation = Simulation.TestCase
TestSimulation.settings = SETTINGS


def test_kept_builders_break_no_promise() -> None:
    run_state_machine_as_test(KeptSimulation, settings=SETTINGS)


@pytest.mark.parametrize("source", [INLINE, PINNED, GIT, POLLED_TAG, FLUX])
@pytest.mark.parametrize("max_runs", [1, 2])
def test_the_simulation_of_kept_builders_hands_builds_to_them(source: dict[str, Any], max_runs: int) -> None:
    """What is drawn may end all builders, or build nothing at all: these examples are what it begins with."""
    simulation = KeptSimulation()
    simulation.create({"source": source}, max_runs)
    assert simulation.world.handed == ([Role.BUILD] * 2 if max_runs > 1 else []), "one for each platform"
    simulation.builders_stay()
    assert (Role.PUBLISH in simulation.world.handed) is (max_runs > 1)
    simulation.teardown()


def test_the_simulation_of_kept_builders_lets_volumes_change_hands() -> None:
    simulation = KeptSimulation()
    simulation.create({"source": INLINE}, max_runs=1, volume=True)
    claims = {pod.claim for pod in map(pod_from, simulation.world.pods.values()) if pod.claim}
    assert simulation.waited, "those that have served one run go before others get their volumes"
    assert claims == set(simulation.world.claims)
    simulation.teardown()
