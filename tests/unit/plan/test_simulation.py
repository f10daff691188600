"""Whatever happens in a cluster, in whatever order, what is decided keeps its promises."""

from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.api.results import Pushed
from multiarchbuild.api.status import MAX_BYTES, Phase, Result, Status
from multiarchbuild.plan.actions import AnnotateBuilt, StartBuild, StartPublish, StartResolve
from multiarchbuild.plan.children import Node, Role, pod_from
from multiarchbuild.plan.decide import Decision
from multiarchbuild.plan.identity import fingerprint
from multiarchbuild.plan.sources import needs_resolving
from tests.unit.plan.world import FLUX, GIT, INLINE, PINNED, POLLED, POLLED_TAG, World, kstatus, node, timestamp

PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386")
NODES = (
    node("amd64"),
    node("arm64"),
    node("arm64", name="arm32", labels={"multiarch.build/aarch32": "true"}),
    node("arm"),
    node("amd64", name="qemu", labels={"multiarch.build/qemu-arm64": "true", "multiarch.build/qemu-arm": "true"}),
)
HOSTILE = ("it broke", "\x1b" * 4096, "\N{PILE OF POO}" * 2048, '"\\' * 3000)
EDITS = st.fixed_dictionaries(
    {},
    optional={
        "platforms": st.lists(st.sampled_from(PLATFORMS), min_size=1, max_size=3, unique=True),
        "source": st.sampled_from([GIT, INLINE, PINNED, POLLED, POLLED_TAG, FLUX]),
        "retries": st.integers(0, 2),
        "timeout": st.sampled_from(["5m", "1h"]),
        "suspend": st.booleans(),
        "history": st.fixed_dictionaries({"successful": st.integers(0, 2), "failed": st.integers(0, 2)}),
        "scheduling": st.fixed_dictionaries(
            {
                "strategy": st.sampled_from(["Auto", "Native", "Emulated", "Cross"]),
                "nativeWait": st.sampled_from(["0s", "1m"]),
            },
            optional={"pendingTimeout": st.sampled_from(["30s", "2m"])},
        ),
    },
)


class Simulation(RuleBasedStateMachine):
    """One build in a cluster where everything may go wrong between any two requests."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.recorded: set[str] = set()
        self.requests = 0

    @initialize(edit=EDITS)
    def create(self, edit: dict[str, Any]) -> None:
        self.world.edit(**{"retries": 1, **edit, "suspend": False})
        self.reconcile()

    # What the operator does

    @rule()
    def reconcile(self) -> None:
        self._check(self.world.decide())
        decision = self.world.reconcile()
        self._record()
        if decision.wake_after == timedelta():
            # It saw late that a try had failed, and says so before it starts the next.
            self._check(self.world.decide())
            decision = self.world.reconcile()
            self._record()
        again = self.world.decide()
        assert again.before == (), "the same state asks for nothing new"
        assert again.after == (), "the same state deletes nothing more"
        assert dumped(again.status) == dumped(decision.status), "the same state, the same status"
        assert all(event.key.startswith("invalid/") for event in again.events), "each transition has one event"
        assert (again.wake_after is None) == (decision.wake_after is None)

    @rule(requests=st.integers(0, 6))
    def reconcile_and_be_killed(self, requests: int) -> None:
        self._check(self.world.decide())
        self.world.reconcile(killed_after=requests)
        self._record()

    @rule()
    def wake(self) -> None:
        decision = self.world.decide()
        if decision.wake_after is not None:
            self.world.now += decision.wake_after
        self.reconcile()

    # What the cluster does

    @rule(seconds=st.sampled_from([1, 5, 30, 121]))
    def time_passes(self, seconds: int) -> None:
        self.world.advance(seconds)

    @rule(which=st.lists(st.sampled_from(NODES), unique_by=lambda each: each.name))
    def nodes_change(self, which: list[Node]) -> None:
        self.world.nodes = tuple(which)

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def pod_is_scheduled(self, data: st.DataObject) -> None:
        self.world.schedule(self._draw(data))

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def step_starts(self, data: st.DataObject) -> None:
        self.world.start(self._draw(data))

    @precondition(lambda self: self._ready())
    @rule(data=st.data())
    def step_succeeds(self, data: st.DataObject) -> None:
        self.world.succeed(self._draw(data, self._ready()))

    @precondition(lambda self: self._ready())
    @rule()
    def steps_succeed(self) -> None:
        for pod in self._ready():
            self.world.succeed(pod)
        self.reconcile()

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

    @rule(commit=st.sampled_from(["a" * 40, "b" * 40]))
    def branch_moves(self, commit: str) -> None:
        self.world.head = commit

    @rule(served=st.booleans())
    def flux_has_an_artifact(self, *, served: bool) -> None:
        self.world.served = served

    # What people do

    @rule(edit=EDITS)
    def spec_is_edited(self, edit: dict[str, Any]) -> None:
        self.world.edit(**edit)

    @rule()
    def rebuild_is_requested(self) -> None:
        self.requests += 1
        self.world.annotate(REBUILD_ANNOTATION, f"2026-02-01T00:00:{self.requests % 60:02}Z")

    @precondition(lambda self: self.world.status.run)
    @rule()
    def run_is_cancelled(self) -> None:
        run = self.world.status.run
        assert run is not None
        self.world.annotate(CANCEL_ANNOTATION, run.id)

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
        if any(condition.reason == Reason.SOURCE_NOT_READY for condition in status.conditions):
            assert self.world.build.spec.source.flux
            assert kstatus(status, self.world.build.metadata.generation) == "InProgress"
            return
        result = status.run.result if status.run else None
        expected = {None: "InProgress", Result.SUCCEEDED: "Current"}.get(result, "Failed")
        if status.run and result is Result.SUCCEEDED and status.run.inputs != fingerprint(self.world.build.spec).inputs:
            expected = "InProgress"  # edited while suspended
        assert kstatus(status, self.world.build.metadata.generation) == expected

    @invariant()
    def status_names_what_was_published(self) -> None:
        run, image = self.world.status.run, self.world.status.image
        if run and run.result is Result.SUCCEEDED:
            assert image is not None
            assert image.digest == self.world.published[run.id]

    def teardown(self) -> None:
        """The cluster comes to rest: only time passes. Then everything has ended, and nothing is left over."""
        source = self.world.build.spec.source
        if source.git or source.oci:
            # A source that is polled never comes to rest.
            polling = {"git": {"interval"}, "oci": {"interval"}}
            self.world.edit(source=source.model_dump(mode="json", exclude=polling, exclude_none=True))
        for _ in range(100):
            self.reconcile()
            decision = self.world.decide()
            if decision.wake_after is None:
                break
            self.world.now += decision.wake_after
        else:
            raise AssertionError("it never comes to rest")
        status = self.world.status
        kept = {entry.id for entry in status.history} | ({status.run.id} if status.run else set())
        for name, pod in self.world.pods.items():
            seen = pod_from(pod)
            assert seen.run_id in kept or seen.deleting, f"{name} is of a run that nobody knows"
            assert seen.ended or seen.deleting or seen.phase == "Failed", f"{name} still runs"
        for name, config_map in self.world.config_maps.items():
            assert config_map["metadata"]["labels"]["multiarch.build/run"] in kept, f"{name} is left over"
        if status.run is not None:
            assert status.run.result is not None, "every run ends"
            if status.run.result is not Result.SUPERSEDED:
                assert status.run.finished_at is not None

    def _check(self, decision: Decision) -> None:
        """Check a decision before it is performed."""
        build = self.world.build
        for action in decision.before:
            if not isinstance(action, StartResolve | StartBuild | StartPublish):
                continue
            if not (isinstance(action, StartResolve) and action.role is Role.CHECK):
                assert action.attempt <= build.spec.retries + 1, "retries are bounded"
            if action.name not in self.world.pods:
                assert action.name not in self.recorded, f"{action.name} is started once more"
            if isinstance(action, StartPublish):
                self._check_publish(decision.status, action.run_id, action.built)
        for action in decision.before:
            if isinstance(action, AnnotateBuilt):
                self._check_publish(decision.status, pod_from(self.world.pods[action.pod]).run_id, action.built)
        run = decision.status.run
        if decision.wake_after is not None and run is not None and run.result is None:
            assert self.world.now + decision.wake_after <= run.started_at + build.spec.timeout_delta

    def _check_publish(self, status: Status, run_id: str, built: Pushed | None) -> None:
        run = status.run
        assert run is not None
        assert run_id == run.id
        spec = self.world.build.spec
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
            platforms, built_from = self.world.built[image.digest]
            assert image.platform in platforms, f"{image.digest} is not of {image.platform}"
            assert built_from == pinned, "all platforms are of the commit or artifact that status names"

    def _record(self) -> None:
        run = self.world.status.run
        if run is not None:
            names = [
                entry.pod for entry in (*run.platforms, run.resolve, run.publish, self.world.status.source) if entry
            ]
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
            if (state.role is not Role.BUILD or pinned or state.source_annotation)
            and (state.role is not Role.PUBLISH or state.built_annotation)
        ]

    def _draw(self, data: st.DataObject, pods: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        names = [pod["metadata"]["name"] for pod in pods or self._live()]
        pod: dict[str, Any] = self.world.pods[data.draw(st.sampled_from(names))]
        return pod


def dumped(status: Status) -> str:
    return status.model_dump_json(by_alias=True, exclude_none=True)


TestSimulation = Simulation.TestCase
TestSimulation.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
