"""A run as people see it: what is created, what status says, and when it is looked at again."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from multiarchbuild.api.mounts import SOURCE_ANNOTATION
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import CANCEL_ANNOTATION, FLUX_RECONCILE_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.api.results import Built, CacheUse, PushedImage, dump
from multiarchbuild.api.status import Phase, PlatformStatus, Result, RunStatus, Trigger
from multiarchbuild.plan.actions import (
    Action,
    AnnotateSource,
    DeleteConfigMap,
    DeletePod,
    EnsureInputs,
    StartBuild,
    StartPublish,
    StartResolve,
)
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.decide import Decision
from multiarchbuild.plan.policy import Policy
from tests.unit.plan.world import (
    COMMIT,
    FROM_BASE,
    GIT,
    INLINE,
    PINNED,
    START,
    World,
    digest_of,
    image_of,
    kstatus,
    manifest,
    node,
    timestamp,
)

AMD64, ARM64 = "linux/amd64", "linux/arm64"
USERS = [reason for reason in Reason if not (reason.retryable or reason is Reason.SECRET_NOT_FOUND)]
INFRASTRUCTURE = [reason for reason in Reason if reason.retryable]


def world(**fields: Any) -> World:
    """Return a cluster with one new build."""
    return World(manifest(**fields))


def said(w: World, kind: str) -> str:
    """Return the message of a condition."""
    return next(each.message for each in w.status.conditions if each.type == kind)


def run_of(world: World) -> RunStatus:
    """Return the run in status."""
    assert world.status.run is not None
    return world.status.run


def entry(world: World, platform: str) -> PlatformStatus:
    """Return a platform of the run in status."""
    return next(entry for entry in run_of(world).platforms if entry.platform == platform)


def phases(world: World) -> dict[str, Phase]:
    """Return where each platform stands."""
    return {entry.platform: entry.phase for entry in run_of(world).platforms}


def kinds(actions: tuple[Action, ...]) -> list[str]:
    """Return the kinds of actions in their order."""
    return [type(action).__name__ for action in actions]


def reconciled(world: World) -> list[str]:
    """Reconcile and return the kinds of actions, those before status and those after."""
    decision = world.reconcile()
    return kinds((*decision.before, *decision.after))


def started(decision: Decision) -> StartBuild:
    """Return the only builder that is started."""
    (found,) = (action for action in decision.before if isinstance(action, StartBuild))
    return found


def built(world: World) -> World:
    """Let every builder succeed."""
    world.settle()
    world.succeed_all(Role.RESOLVE)
    world.settle()
    world.succeed_all(Role.BUILD)
    world.settle()
    return world


def ready(world: World) -> World:
    """Let the run succeed."""
    built(world).succeed_all(Role.PUBLISH)
    world.settle()
    assert run_of(world).result is Result.SUCCEEDED
    return world


def half(world: World, reason: Reason = Reason.BUILD_FAILED) -> World:
    """Let the run fail with amd64 built and arm64 not."""
    world.settle()
    world.succeed_all(Role.RESOLVE)
    world.settle()
    world.succeed(world.pod(platform=AMD64))
    world.fail(world.pod(platform=ARM64), reason, "RUN false failed", "the last lines")
    world.settle()
    return world


# From creation to Ready


def test_inline_a_run_from_create_to_ready() -> None:
    w = world()
    assert reconciled(w) == ["EnsureInputs", "StartBuild", "StartBuild"]
    assert (run_of(w).trigger, run_of(w).reason) == (Trigger.SPEC_CHANGED, Reason.PENDING)
    assert phases(w) == {AMD64: Phase.PENDING, ARM64: Phase.PENDING}
    assert reconciled(w) == []

    for pod in w.pods.values():
        w.start(pod)
    assert reconciled(w) == []
    assert run_of(w).reason is Reason.BUILDING
    assert phases(w) == {AMD64: Phase.RUNNING, ARM64: Phase.RUNNING}
    assert entry(w, AMD64).node == "node-amd64"

    w.succeed(w.pod(platform=AMD64))
    assert reconciled(w) == ["StartPublish"], "it starts while the last builders end"
    assert phases(w) == {AMD64: Phase.SUCCEEDED, ARM64: Phase.RUNNING}
    assert run_of(w).reason is Reason.BUILDING

    w.succeed(w.pod(platform=ARM64))
    assert reconciled(w) == ["AnnotateBuilt"]
    assert run_of(w).reason is Reason.PUBLISHING
    assert w.status.image is None

    w.succeed_all(Role.PUBLISH)
    assert reconciled(w) == []
    image = w.status.image
    assert image is not None
    assert image.digest == w.published[run_of(w).id]
    assert image.ref == f"registry.example.com/team-a/app@{image.digest}"
    assert [each.platform for each in image.platforms] == [AMD64, ARM64]
    assert (image.tags, image.size) == (("latest",), 10)
    assert kstatus(w.status, 1) == "Current"
    assert w.decide().wake_after is None


def test_git_builders_start_while_the_ref_is_resolved() -> None:
    w = world(source=GIT)
    decision = w.reconcile()
    assert kinds(decision.before) == ["EnsureInputs", "StartResolve", "StartBuild", "StartBuild"]
    assert all(action.source is None for action in decision.before if isinstance(action, StartBuild))
    assert (run_of(w).reason, run_of(w).source) == (Reason.RESOLVING, None)

    w.succeed_all(Role.RESOLVE)
    decision = w.reconcile()
    assert kinds(decision.before) == ["AnnotateSource", "AnnotateSource"]
    sources = [action.source for action in decision.before if isinstance(action, AnnotateSource)]
    assert [source.commit for source in sources] == [w.head, w.head]
    source = run_of(w).source
    assert source is not None
    assert (source.commit, source.ref, source.author) == (w.head, "main", "Ada")
    assert reconciled(w) == [], "the source is handed over once"


def test_a_branch_that_moves_meanwhile_changes_nothing() -> None:
    w = world(source=GIT, output={"image": "registry.example.com/team-a/app", "tags": ["{commit}"]})
    w.settle()
    w.succeed_all(Role.RESOLVE)
    w.settle()
    commit, w.head = w.head, "b" * 40
    w.finish()
    assert {built for _, built in w.built.values()} == {commit}
    assert w.status.image is not None
    assert w.status.image.tags == (commit,)


@pytest.mark.parametrize("source", [PINNED, INLINE], ids=["commit", "inline"])
def test_a_pinned_source_needs_no_resolve(source: dict[str, Any]) -> None:
    decision = world(source=source).reconcile()
    assert "StartResolve" not in kinds(decision.before)
    assert all(action.source is not None for action in decision.before if isinstance(action, StartBuild))


def test_a_builder_that_starts_late_gets_the_source_with_its_pod() -> None:
    w = world(source=GIT)
    w.settle()
    w.succeed_all(Role.RESOLVE)
    w.settle()
    w.evict(w.pod(platform=ARM64))
    w.settle()
    w.advance(5)
    source = started(w.reconcile()).source
    assert source is not None
    assert source.commit == w.head


def test_publish_waits_for_every_platform_and_lists_them_in_order_of_spec() -> None:
    w = world(platforms=["linux/386", ARM64, AMD64])
    w.settle()
    for platform in (AMD64, "linux/386"):
        w.succeed(w.pod(platform=platform))
        assert "StartPublish" not in reconciled(w)
    w.succeed(w.pod(platform=ARM64))
    (publish,) = (action for action in w.reconcile().before if isinstance(action, StartPublish))
    assert publish.built is not None
    assert [image.platform for image in publish.built.images] == ["linux/386", ARM64, AMD64]
    assert [image.digest for image in publish.built.images] == [entry.pushed for entry in run_of(w).platforms]


def test_a_platform_has_the_digest_of_its_image_and_publish_gets_what_was_pushed() -> None:
    w = world(platforms=[AMD64])
    w.settle()
    pod = w.pod(platform=AMD64)
    # A registry that did not answer, or a step of an older version: what is not known is not shown.
    w.end(pod, dump(Built(digest=digest_of("pushed"), cache=CacheUse(hits=0, total=1), record=digest_of("record"))))
    decision = w.reconcile()
    (publish,) = (action for action in decision.before if isinstance(action, StartPublish))
    # Mode and architecture are for signed provenance, and with the rest for the build record.
    image = PushedImage(
        platform=AMD64,
        digest=digest_of("pushed"),
        mode="Native",
        node_architecture="amd64",
        record=digest_of("record"),
        attempt=1,
        phases={"schedule": 0.0, "pull": 0.0},
    )
    assert publish.built is not None
    assert publish.built.images == (image,)
    assert publish.built.source is not None
    assert entry(w, AMD64).digest is None


def test_what_an_older_version_wrote_as_digest_is_what_was_pushed() -> None:
    assert PlatformStatus(platform=AMD64, digest="sha256:old").builder_output == "sha256:old"
    assert PlatformStatus(platform=AMD64, digest="sha256:image", pushed="sha256:all").builder_output == "sha256:all"


def test_cross_one_builder_makes_every_platform() -> None:
    w = world(scheduling={"strategy": "Cross"})
    action = started(w.reconcile())
    assert [str(platform) for platform in action.platforms] == [AMD64, ARM64]
    w.succeed_all(Role.BUILD)
    w.settle()
    assert phases(w) == {AMD64: Phase.SUCCEEDED, ARM64: Phase.SUCCEEDED}
    pushed = entry(w, AMD64).pushed
    assert pushed == entry(w, ARM64).pushed
    assert pushed is not None
    w.settle()
    assert {name: entry(w, name).digest for name in (AMD64, ARM64)} == {
        name: image_of(pushed, name) for name in (AMD64, ARM64)
    }
    w.succeed_all(Role.PUBLISH)
    w.settle()
    assert kstatus(w.status, 1) == "Current"


def test_cross_a_platform_with_a_strategy_of_its_own_has_a_builder_of_its_own() -> None:
    overrides = [{"platform": ARM64, "strategy": "Native"}]
    platforms = [AMD64, ARM64, "linux/386"]
    decision = world(platforms=platforms, scheduling={"strategy": "Cross", "overrides": overrides}).reconcile()
    builders = [action for action in decision.before if isinstance(action, StartBuild)]
    assert [tuple(map(str, builder.platforms)) for builder in builders] == [(AMD64, "linux/386"), (ARM64,)]
    assert [str(builder.placement.mode) for builder in builders] == ["Cross", "Native"]


def test_flux_sees_its_request_in_status() -> None:
    w = world()
    w.annotate(FLUX_RECONCILE_ANNOTATION, "2026-01-31T12:00:00.123Z")
    w.settle()
    assert w.status.last_handled_reconcile_at == "2026-01-31T12:00:00.123Z"
    w.annotate(FLUX_RECONCILE_ANNOTATION, "x" * 300)
    w.settle()
    assert w.status.last_handled_reconcile_at == "x" * 64


# Waiting for nodes


def test_auto_a_native_pod_waits_then_qemu_takes_its_place() -> None:
    w = world(scheduling={"nativeWait": "1m"})
    w.nodes = (node("amd64"),)
    decision = w.settle()
    assert entry(w, ARM64).reason is Reason.WAITING_FOR_NATIVE_NODE
    assert decision.wake_after == timedelta(minutes=1)
    native = entry(w, ARM64).pod

    w.advance(60)
    decision = w.reconcile()
    assert started(decision).placement.mode == "Emulated"
    assert decision.after == (DeletePod(native or "", "uid-3"),)
    assert (entry(w, ARM64).mode, entry(w, ARM64).attempt) == ("Emulated", 1), "it is no further attempt"


def test_auto_a_native_node_that_joins_while_waiting_is_used() -> None:
    w = world(scheduling={"nativeWait": "1m"})
    w.nodes = (node("amd64"),)
    w.settle()
    w.advance(30)
    w.nodes = (node("amd64"), node("arm64"))
    w.settle()
    w.advance(60)
    w.schedule(w.pod(platform=ARM64), "node-arm64")
    w.start(w.pod(platform=ARM64))
    assert reconciled(w) == []
    assert (entry(w, ARM64).mode, entry(w, ARM64).phase) == ("Native", Phase.RUNNING)


def test_a_builder_that_nothing_fits_waits_as_a_pod_that_an_autoscaler_sees() -> None:
    w = world(scheduling={"strategy": "Native"})
    w.nodes = (node("amd64"),)
    w.settle()
    assert (entry(w, ARM64).phase, entry(w, ARM64).reason) == (Phase.PENDING, Reason.NO_BUILDER)
    assert w.pod(platform=ARM64)["spec"]["nodeSelector"]["kubernetes.io/arch"] == "arm64"
    assert "kubernetes.io/arch=arm64" in (run_of(w).message or "")
    w.nodes = (node("amd64"), node("arm64"))
    w.settle()
    assert entry(w, ARM64).reason is Reason.PENDING


def test_emulated_a_pod_that_waited_for_any_node_takes_the_first_that_joins() -> None:
    w = world(platforms=[ARM64], scheduling={"strategy": "Emulated"})
    w.nodes = ()
    w.settle()
    assert entry(w, ARM64).reason is Reason.NO_BUILDER
    w.nodes = (node("amd64"),)
    w.settle()
    assert entry(w, ARM64).reason is Reason.PENDING
    selector = w.pod()["spec"]["nodeSelector"]
    assert all(w.nodes[0].labels.get(key) == value for key, value in selector.items()), "the pod may go there"


def test_a_full_cluster_is_told_in_the_words_of_the_scheduler() -> None:
    w = world()
    w.settle()
    w.pod(platform=ARM64)["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes: Insufficient cpu"}
    ]
    w.settle()
    assert (entry(w, ARM64).reason, entry(w, ARM64).message) == (Reason.UNSCHEDULABLE, "0/2 nodes: Insufficient cpu")


def test_what_the_kubelet_waits_for_is_told() -> None:
    w = world(source=GIT)
    w.settle()
    for pod in w.pods.values():
        w.schedule(pod)
        state = {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}
        pod["status"]["containerStatuses"] = [{"name": "step", "state": state}]
    w.settle()
    assert entry(w, ARM64).message == "ErrImagePull: no such host"
    assert run_of(w).message == "ErrImagePull: no such host", "of the resolve step"


# Failing


@pytest.mark.parametrize("reason", USERS)
def test_what_the_user_has_to_mend_is_never_retried(reason: Reason) -> None:
    w = world(platforms=[AMD64])
    w.settle()
    w.fail(w.pod(), reason, "words")
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, reason)
    assert entry(w, AMD64).attempt == 1
    assert w.decide().wake_after is None


@pytest.mark.parametrize("role", [Role.RESOLVE, Role.BUILD, Role.PUBLISH])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_secret_that_may_come_with_the_build_is_looked_for_once_more(role: Role, retries: int) -> None:
    """GitOps applies all at once, and another controller may make the Secret."""
    w = world(source=GIT, platforms=[AMD64], retries=retries)
    for each in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        w.settle()
        if each is role:
            break
        w.succeed_all(each)
    w.fail(w.pod(role), Reason.SECRET_NOT_FOUND, "there is no Secret")
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (None, Reason.RETRYING)
    w.advance(5)
    w.settle()
    w.fail(w.pod(role, attempt=2), Reason.SECRET_NOT_FOUND, "there is no Secret")
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, Reason.SECRET_NOT_FOUND)
    assert w.decide().wake_after is None


@pytest.mark.parametrize("reason", INFRASTRUCTURE)
def test_what_the_infrastructure_did_is_retried(reason: Reason) -> None:
    w = world()
    w.settle()
    w.fail(w.pod(platform=ARM64), reason, "words")
    decision = w.settle()
    assert run_of(w).result is None
    assert (entry(w, ARM64).phase, entry(w, ARM64).reason) == (Phase.PENDING, Reason.RETRYING)
    assert f"attempt 1 failed: {reason}: words; next try at 12:00:05 UTC" in (entry(w, ARM64).message or "")
    assert decision.wake_after == timedelta(seconds=5)
    w.advance(4)
    assert reconciled(w) == []
    w.advance(1)
    action = started(w.reconcile())
    assert (action.attempt, [str(each) for each in action.platforms]) == (2, [ARM64]), "only what failed"
    assert entry(w, AMD64).attempt == 1


def test_retries_wait_longer_each_time_and_end() -> None:
    w = world(platforms=[AMD64], retries=6)
    waits = []
    for _ in range(6):
        w.settle()
        w.fail(w.pod(), Reason.REGISTRY_ERROR, "503")
        wake_after = w.settle().wake_after
        assert wake_after is not None
        waits.append(int(wake_after.total_seconds()))
        w.advance(wake_after.total_seconds())
    assert waits == [5, 20, 60, 60, 60, 60]
    w.settle()
    w.fail(w.pod(), Reason.REGISTRY_ERROR, "503")
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, Reason.REGISTRY_ERROR)
    assert entry(w, AMD64).attempt == 7


def test_without_retries_the_first_failure_counts() -> None:
    w = world(platforms=[AMD64], retries=0)
    w.settle()
    w.evict(w.pod())
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, Reason.BUILDER_EVICTED)


def test_a_retry_does_not_wait_for_a_native_node_once_more() -> None:
    w = world(platforms=[ARM64], scheduling={"nativeWait": "1m"})
    w.nodes = (node("amd64"),)
    w.settle()
    w.advance(60)
    w.settle()
    w.evict(w.pod())
    w.settle()
    w.advance(5)
    assert started(w.reconcile()).placement.mode == "Emulated"


VANISHED: dict[str, Callable[[World], object]] = {
    "deleted by hand": lambda w: w.pods.pop(w.pod(platform=ARM64)["metadata"]["name"]),
    "being deleted": lambda w: w.pod(platform=ARM64)["metadata"].update(deletionTimestamp=timestamp(w.now)),
    "evicted": lambda w: w.evict(w.pod(platform=ARM64)),
    "killed": lambda w: w.end(w.pod(platform=ARM64), "", 137, "Error"),
}


@pytest.mark.parametrize("vanish", VANISHED.values(), ids=VANISHED)
def test_a_builder_that_is_lost_is_replaced_and_the_run_ends_ready(vanish: Callable[[World], object]) -> None:
    w = world()
    w.settle()
    for pod in w.pods.values():
        w.start(pod)
    w.settle()
    vanish(w)
    w.settle()
    assert entry(w, ARM64).reason is Reason.RETRYING
    w.advance(5)
    w.settle()
    assert entry(w, ARM64).attempt == 2
    ready(w)
    assert kstatus(w.status, 1) == "Current"


GONE: dict[str, Callable[[World, Role], object]] = {
    "evicted": lambda w, role: w.evict(w.pod(role)),
    "deleted by hand": lambda w, role: w.pods.pop(w.pod(role)["metadata"]["name"]),
}


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
@pytest.mark.parametrize("role", [Role.RESOLVE, Role.PUBLISH])
def test_a_step_of_the_whole_run_is_retried_too(role: Role, gone: Callable[[World, Role], object]) -> None:
    w = world(source=GIT)
    w.settle()
    if role is Role.PUBLISH:
        built(w)
    gone(w, role)
    assert w.settle().wake_after == timedelta(seconds=5)
    assert run_of(w).reason is Reason.RETRYING
    w.advance(5)
    (action,) = (each for each in w.reconcile().before if isinstance(each, StartResolve | StartPublish))
    assert action.attempt == 2
    ready(w)


@pytest.mark.parametrize("role", [Role.RESOLVE, Role.PUBLISH])
def test_a_step_of_the_whole_run_that_fails_for_good_ends_the_run(role: Role) -> None:
    w = world(source=GIT)
    w.settle()
    if role is Role.PUBLISH:
        built(w)
    w.fail(w.pod(role), Reason.SECRET_INVALID, "this is no key")
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, Reason.SECRET_INVALID)
    assert run_of(w).message == "this is no key"
    assert w.status.image is None
    assert not [pod for pod in w.pods.values() if pod["status"]["phase"] == "Pending"], "nothing is left running"


def test_one_platform_fails_the_other_is_finished_and_nothing_is_published() -> None:
    w = world()
    w.settle()
    w.fail(w.pod(platform=ARM64), Reason.BUILD_FAILED, "RUN false failed", "the last lines")
    w.settle()
    assert run_of(w).result is None
    assert kstatus(w.status, 1) == "InProgress"
    failed = entry(w, ARM64)
    assert (failed.phase, failed.reason, failed.message) == (Phase.FAILED, Reason.BUILD_FAILED, "RUN false failed")
    assert failed.log_tail == "the last lines"

    w.succeed(w.pod(platform=AMD64))
    assert "StartPublish" not in reconciled(w)
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, Reason.BUILD_FAILED)
    assert run_of(w).message == f"{ARM64}: RUN false failed"
    assert entry(w, AMD64).digest is not None, "what was built is kept"
    assert kstatus(w.status, 1) == "Failed"


def test_the_same_failure_of_two_platforms_is_told_once() -> None:
    w = world()
    w.settle()
    for pod in w.pods.values():
        w.fail(pod, Reason.BUILD_FAILED, "RUN false failed")
    w.settle()
    assert run_of(w).message == f"{AMD64}, {ARM64}: RUN false failed"


def test_a_failed_run_leaves_the_image_of_the_run_before() -> None:
    w = ready(world())
    image = w.status.image
    w.edit(build={"args": {"A": "1"}})
    half(w)
    assert w.status.image == image


def test_a_node_that_says_it_makes_no_user_namespaces_ends_the_build_at_once() -> None:
    nodes = (replace(node("amd64"), user_namespaces=False), replace(node("arm64"), user_namespaces=True))
    w = World(manifest(platforms=[AMD64, ARM64]), nodes, Policy.model_validate({"isolation": "UserNamespace"}))
    w.settle()
    for name in (AMD64, ARM64):
        pod = w.pod(platform=name)
        w.schedule(pod, f"node-{name.partition('/')[2]}")
        # No sandbox yet: so the kubelet leaves it where it can't make one, and says why in an Event only.
        pod["status"]["conditions"].append({"type": "PodReadyToStartContainers", "status": "False"})
    w.settle()
    assert phases(w) == {AMD64: Phase.FAILED, ARM64: Phase.PENDING}
    assert entry(w, AMD64).reason is Reason.BUILDER_UNSUPPORTED
    assert "node node-amd64 cannot give pod" in (entry(w, AMD64).message or "")


# Asking again


def again(w: World, value: str = "2026-01-31T12:00:00Z") -> list[str]:
    """Request a rebuild and return the platforms that are built."""
    w.annotate(REBUILD_ANNOTATION, value)
    decision = w.reconcile()
    assert run_of(w).trigger is Trigger.REQUESTED
    if run_of(w).comparison:
        w.succeed(w.pod(Role.RESOLVE))  # something has changed
        decision = w.reconcile()
    return [str(each) for action in decision.before if isinstance(action, StartBuild) for each in action.platforms]


@pytest.mark.parametrize("source", [INLINE, PINNED], ids=["inline", "commit"])
def test_asking_again_after_a_failure_builds_only_what_is_missing(source: dict[str, Any]) -> None:
    w = half(world(source=source))
    digest = entry(w, AMD64).digest
    assert again(w) == [ARM64]
    assert entry(w, AMD64).digest == digest
    ready(w)
    assert len(w.built) == 2


@pytest.mark.parametrize(("moved", "missing"), [(False, [ARM64]), (True, [AMD64, ARM64])], ids=["same", "moved"])
def test_what_is_kept_of_a_branch_counts_only_for_the_same_commit(missing: list[str], *, moved: bool) -> None:
    w = half(world(source=GIT))
    w.head = "b" * 40 if moved else w.head
    assert again(w) == [ARM64]
    assert w.pod(platform=ARM64)["metadata"]["annotations"].get(SOURCE_ANNOTATION) is None, "it waits for the commit"
    w.succeed_all(Role.RESOLVE)
    w.settle()
    w.settle()
    assert [each for each, phase in phases(w).items() if phase is not Phase.SUCCEEDED] == missing
    ready(w)
    assert {commit for _, commit in w.built.values() if commit == w.head}


NOTHING_KEPT: dict[str, Callable[[World], None]] = {
    "the spec has changed": lambda w: w.edit(build={"args": {"A": "1"}}),
    "another platform is wanted": lambda w: w.edit(platforms=[AMD64, "linux/386"]),
    "the repository has changed": lambda w: w.edit(output={"image": "registry.example.com/other"}),
}


@pytest.mark.parametrize("edit", NOTHING_KEPT.values(), ids=NOTHING_KEPT)
def test_of_other_inputs_nothing_is_kept(edit: Callable[[World], None]) -> None:
    w = half(world())
    edit(w)
    w.reconcile()
    assert set(phases(w).values()) == {Phase.PENDING}


def test_of_a_successful_run_nothing_is_kept() -> None:
    assert again(ready(world())) == [AMD64, ARM64]


def test_of_a_run_whose_publish_failed_nothing_is_kept() -> None:
    w = built(world())
    w.fail(w.pod(Role.PUBLISH), Reason.PUSH_DENIED)
    w.settle()
    assert again(w) == [AMD64, ARM64]


@pytest.mark.parametrize("reason", [Reason.SECRET_NOT_FOUND, Reason.SECRET_INVALID])
def test_once_the_key_is_there_what_was_built_is_signed_and_not_built_again(reason: Reason) -> None:
    w = built(world())
    w.fail(w.pod(Role.PUBLISH), reason)
    w.settle()
    if reason is Reason.SECRET_NOT_FOUND:
        w.advance(5)
        w.settle()
        w.fail(w.pod(Role.PUBLISH, attempt=2), reason)
        w.settle()
    assert again(w) == []
    ready(w)
    assert len(w.built) == 2


def test_platforms_built_apart_do_not_stand_for_a_cross_build() -> None:
    w = half(world())
    w.edit(scheduling={"strategy": "Cross"})
    w.reconcile()
    assert set(phases(w).values()) == {Phase.PENDING}


@pytest.mark.parametrize(
    "value", ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:00+05:00"]
)
def test_a_request_is_a_time_as_kubernetes_writes_it(value: str) -> None:
    w = ready(world())
    assert again(w, value) == [AMD64, ARM64]
    assert run_of(w).request == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "true",
        "2026-01-31",
        "2026-13-01T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T25:00:00Z",
        "x" * 300_000,
        "\0",
        "2026-01-31T12:00:00Z\n",
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_request_that_is_no_time_is_reported_and_ignored(value: str) -> None:
    w = ready(world())
    before = run_of(w)
    w.annotate(REBUILD_ANNOTATION, value)
    decision = w.reconcile()
    assert run_of(w) == before
    assert [(event.type, event.reason) for event in decision.events] == [("Warning", "InvalidAnnotation")]


# Ending early


def test_a_run_that_takes_too_long_fails() -> None:
    w = world(timeout="10m")
    w.settle()
    for pod in w.pods.values():
        w.start(pod)
    w.succeed(w.pod(platform=AMD64))
    w.settle()
    w.advance(599)
    assert w.settle().wake_after == timedelta(seconds=1)
    assert run_of(w).result is None
    w.advance(1)
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.FAILED, Reason.TIMED_OUT)
    assert "spec.timeout (10m): 1/2 platforms built; linux/arm64 Running" in (run_of(w).message or "")
    assert w.status.columns
    assert w.status.columns.duration == "10m0s"
    assert len(w.pods) == 1, "what still runs is deleted, what has ended stays for its log"


def test_pods_get_the_time_that_is_left() -> None:
    w = world(platforms=[AMD64], timeout="10m")
    first = started(w.reconcile())
    w.advance(300)
    w.evict(w.pod())
    w.settle()
    w.advance(5)
    second = started(w.reconcile())
    assert (first.deadline, second.deadline) == (630, 325)


def test_a_run_is_cancelled() -> None:
    w = world()
    w.settle()
    for pod in w.pods.values():
        w.start(pod)
    w.succeed(w.pod(platform=AMD64))
    w.settle()
    w.annotate(CANCEL_ANNOTATION, run_of(w).id)
    decision = w.reconcile()
    assert kinds(decision.after) == ["DeletePod", "DeletePod"], "of arm64, and of the publish step"
    assert (run_of(w).result, run_of(w).reason) == (Result.CANCELLED, Reason.CANCELLED)
    assert kstatus(w.status, 1) == "Failed"
    assert w.settle().events == (), "the annotation that stays is no mistake"
    assert again(w) == [ARM64], "what was built before is kept"
    assert run_of(w).result is None, "the annotation is about the other run"


def test_the_id_of_a_cancelled_run_that_history_does_not_keep_is_no_mistake() -> None:
    w = world(history={"successful": 0, "failed": 0})
    w.settle()
    w.annotate(CANCEL_ANNOTATION, run_of(w).id)
    w.settle()
    assert w.decide().events == ()


@pytest.mark.parametrize("value", ["", "all", "x" * 300_000, "\0"], ids=lambda value: repr(value[:9]))
def test_a_cancel_of_no_run_is_reported_and_ignored(value: str) -> None:
    w = world()
    w.settle()
    w.annotate(CANCEL_ANNOTATION, value)
    decision = w.reconcile()
    assert run_of(w).result is None
    assert [event.reason for event in decision.events] == ["InvalidAnnotation"]
    assert "status.run.id" in decision.events[0].message


def test_an_edit_supersedes_a_running_run() -> None:
    w = world()
    w.settle()
    for pod in w.pods.values():
        w.start(pod)
    w.settle()
    first = run_of(w)
    w.edit(build={"args": {"A": "1"}})
    decision = w.reconcile()
    assert kinds(decision.before) == ["EnsureInputs", "StartBuild", "StartBuild"]
    assert kinds(decision.after) == ["DeletePod", "DeletePod"]
    assert run_of(w).id != first.id
    assert [(each.id, each.result) for each in w.status.history] == [(first.id, Result.SUPERSEDED)]
    ready(w)
    assert w.status.observed_generation == 2


def test_an_edit_of_nothing_that_matters_disturbs_nothing() -> None:
    w = world()
    w.settle()
    before = run_of(w)
    w.edit(history={"successful": 1, "failed": 1})
    assert reconciled(w) == []
    assert run_of(w).id == before.id
    assert w.status.observed_generation == 2


# Suspended


def test_suspended_from_the_start_nothing_is_made() -> None:
    w = world(suspend=True)
    assert reconciled(w) == []
    assert w.status.run is None
    (condition,) = w.status.conditions
    assert (condition.type, condition.status, condition.reason) == ("Ready", "False", Reason.SUSPENDED)
    w.edit(suspend=False)
    assert reconciled(w) == ["EnsureInputs", "StartBuild", "StartBuild"]


def test_suspended_a_running_run_goes_on_to_its_end() -> None:
    w = world()
    w.settle()
    w.edit(suspend=True)
    ready(w)
    assert kstatus(w.status, 2) == "Current"


def test_suspended_a_request_waits() -> None:
    w = ready(world())
    w.edit(suspend=True)
    w.annotate(REBUILD_ANNOTATION, "2026-01-31T12:00:00Z")
    assert reconciled(w) == []
    w.edit(suspend=False)
    assert "StartResolve" in reconciled(w)


def test_suspended_and_edited_a_build_does_not_pass_for_what_it_says_now() -> None:
    w = ready(world())
    image = w.status.image
    w.edit(suspend=True, build={"args": {"A": "1"}})
    assert reconciled(w) == []
    condition = next(each for each in w.status.conditions if each.type == "Ready")
    assert (condition.status, condition.reason) == ("False", Reason.SUSPENDED)
    assert "set it to false" in condition.message
    assert w.status.image == image
    w.edit(build={})
    w.settle()
    assert kstatus(w.status, 3) == "Current", "the image is again what spec says"


def test_suspended_an_edit_ends_the_running_run() -> None:
    w = world()
    w.settle()
    w.edit(suspend=True, build={"args": {"A": "1"}})
    w.settle()
    assert (run_of(w).result, run_of(w).reason) == (Result.SUPERSEDED, Reason.SUPERSEDED)
    assert "superseded by generation 2 of the spec, edited while suspend is true: set it" in said(w, "Succeeded")
    assert w.pods == {}
    w.edit(suspend=False)
    assert "StartBuild" in reconciled(w)


def test_an_edit_that_cannot_be_built_yet_ends_the_running_run_and_every_condition_says_so() -> None:
    w = world()
    w.settle()
    assert "platforms built" in said(w, "Succeeded")
    w.edit(build=FROM_BASE)
    w.settle()
    assert "superseded by generation 2 of the spec, edited while no run may start" in said(w, "Succeeded")
    assert "MultiArchBuild base does not exist" in said(w, "Ready")


def test_suspended_edited_and_edited_back_it_is_built_after_all() -> None:
    w = world()
    w.settle()
    w.edit(suspend=True, build={"args": {"A": "1"}})
    w.settle()
    w.edit(suspend=False, build={})
    assert "StartBuild" in reconciled(w)
    ready(w)


# What holds for every decision


def test_deciding_twice_is_the_same_as_once() -> None:
    w = world(source=GIT)
    assert w.decide() == w.decide()


@pytest.mark.parametrize("killed_after", range(8))
def test_killed_anywhere_the_next_look_goes_on(killed_after: int) -> None:
    w = world(source=GIT)
    w.reconcile(killed_after=killed_after)
    w.advance(1)
    w.settle()
    names = set(w.pods)
    ready(w)
    assert names <= set(w.pods)
    assert len([name for name in w.pods if "amd64" in name]) == 1, "no platform was started twice"


def test_a_result_is_in_status_before_its_pod_goes() -> None:
    w = world(history={"successful": 0, "failed": 0})
    ready(w)
    w.edit(build={"args": {"A": "1"}})
    decision = w.reconcile()
    assert {type(action) for action in decision.before} <= {EnsureInputs, StartResolve, StartBuild, StartPublish}
    assert {type(action) for action in decision.after} == {DeletePod, DeleteConfigMap}


def test_a_pod_that_left_the_result_of_another_step_has_failed() -> None:
    w = world(platforms=[AMD64], source=GIT, retries=0)
    w.settle()
    w.succeed_all(Role.RESOLVE)
    resolved = w.pod(Role.RESOLVE)["status"]["containerStatuses"][0]["state"]["terminated"]["message"]
    w.end(w.pod(), resolved)
    w.settle()
    assert (run_of(w).reason, run_of(w).result) == (Reason.STEP_FAILED, Result.FAILED)


def test_a_run_starts_when_it_is_first_seen() -> None:
    w = world(source=PINNED)
    w.settle()
    assert run_of(w).started_at == START
    source = run_of(w).source
    assert source is not None
    assert source.commit == COMMIT
