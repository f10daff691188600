"""Names, hashes and when a run is needed."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.platforms import SUPPORTED, Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import REBUILD_ANNOTATION
from multiarchbuild.api.status import Result, Trigger
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.identity import (
    builder_name,
    builder_slug,
    digest,
    fingerprint,
    inputs_name,
    is_commit,
    run_id,
    step_name,
)
from tests.unit.plan.world import COMMIT, GIT, World, build

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?){0,3}", fullmatch=True)


def names_of(name: str) -> list[str]:
    """Return the names of all children that a build of this name may have in one run."""
    named = build(name)
    run = run_id(named, fingerprint(named.spec), None)
    builders = [builder_slug((Platform.parse(each),)) for each in SUPPORTED if each != "linux/arm64/v8"]
    builders.append(builder_slug((Platform.parse("linux/amd64"), Platform.parse("linux/arm64"))))
    return [
        inputs_name(named, run),
        *(step_name(named, run, step, attempt) for step in (Role.RESOLVE, Role.PUBLISH) for attempt in (1, 11)),
        *(
            builder_name(named, run, builder, placement, attempt)
            for builder in builders
            for placement in ("", "on-386", "qemu", "qemu-bundled")
            for attempt in (1, 11)
        ),
    ]


@pytest.mark.parametrize("name", ["a", "app", "team.app.v1", "a" * 253, "-".join("a" * 126), "a" * 40 + "." + "b" * 60])
def test_every_child_has_a_name_of_its_own_that_is_a_dns_label(name: str) -> None:
    names = names_of(name)
    assert all(LABEL.fullmatch(each) for each in names), names
    assert len(set(names)) == len(names)


@given(NAMES)
def test_any_name_of_a_build_makes_dns_labels(name: str) -> None:
    assert all(LABEL.fullmatch(each) for each in names_of(name))


def test_names_are_the_same_on_every_look() -> None:
    assert names_of("app") == names_of("app")


def test_two_builds_never_share_a_name() -> None:
    one, other = build(), build()
    other = other.model_copy(update={"metadata": other.metadata.model_copy(update={"uid": "another"})})
    assert run_id(one, fingerprint(one.spec), None) != run_id(other, fingerprint(other.spec), None)


def test_parts_of_a_digest_do_not_run_together() -> None:
    assert digest("ab", "c") != digest("a", "bc")


@pytest.mark.parametrize(
    ("ref", "pinned"),
    [("a" * 40, True), ("a" * 64, True), ("a" * 39, False), ("A" * 40, False), ("main", False), ("g" * 40, False)],
)
def test_a_full_commit_needs_no_resolving(ref: str, *, pinned: bool) -> None:
    assert is_commit(ref) is pinned


INPUTS: list[dict[str, Any]] = [
    {"platforms": ["linux/amd64"]},
    {"platforms": ["linux/arm64", "linux/amd64"]},
    {"source": GIT},
    {"build": {"args": {"A": "1"}}},
    {"output": {"image": "registry.example.com/team-a/app", "tags": ["v1"]}},
    {"attestations": {"provenance": "Max"}},
    {"attestations": {"sbom": True}},
    {"reproducible": False},
]
EXECUTION: list[dict[str, Any]] = [
    {"cache": {"mode": "Min"}},
    {"scheduling": {"strategy": "Native"}},
    {"timeout": "2h"},
    {"retries": 5},
]
NEITHER: list[dict[str, Any]] = [{"suspend": True}, {"history": {"successful": 1, "failed": 0}}]


def ended(result: Result) -> World:
    """Return a world whose run has ended so."""
    world = World()
    world.settle()
    if result is Result.SUCCEEDED:
        world.succeed_all(Role.BUILD)
        world.settle()
        world.succeed_all(Role.PUBLISH)
    else:
        for pod in world.pods.values():
            world.fail(pod, Reason.BUILD_FAILED)
    world.settle()
    assert world.status.run
    assert world.status.run.result is result
    return world


def rerun(world: World, **edit: Any) -> bool:
    """Return whether this edit starts a run."""
    assert world.status.run
    before = world.status.run.id
    world.edit(**edit)
    world.settle()
    return world.status.run.id != before


@pytest.mark.parametrize("edit", INPUTS, ids=str)
@pytest.mark.parametrize("result", [Result.SUCCEEDED, Result.FAILED])
def test_an_edit_of_what_shapes_the_image_starts_a_run(edit: dict[str, Any], result: Result) -> None:
    assert rerun(ended(result), **edit)


@pytest.mark.parametrize("edit", EXECUTION, ids=str)
def test_an_edit_of_how_it_is_built_starts_a_run_only_while_there_is_no_image(edit: dict[str, Any]) -> None:
    assert rerun(ended(Result.FAILED), **edit)
    assert not rerun(ended(Result.SUCCEEDED), **edit)


@pytest.mark.parametrize("edit", NEITHER, ids=str)
@pytest.mark.parametrize("result", [Result.SUCCEEDED, Result.FAILED])
def test_an_edit_of_suspend_or_history_starts_no_run(edit: dict[str, Any], result: Result) -> None:
    assert not rerun(ended(result), **edit)


def test_spelling_out_a_default_starts_no_run() -> None:
    assert not rerun(ended(Result.FAILED), retries=2, build={"dockerfile": "Dockerfile"})


def test_going_back_to_an_earlier_spec_is_a_new_run() -> None:
    world = ended(Result.SUCCEEDED)
    assert world.status.run
    first = world.status.run.id
    assert rerun(world, reproducible=False)
    assert rerun(world, reproducible=True)
    assert world.status.run.id != first
    assert world.status.run.result is None, "it does not find the pods of the earlier run"


def test_a_request_starts_one_run() -> None:
    world = ended(Result.SUCCEEDED)
    world.annotate(REBUILD_ANNOTATION, "2026-01-31T12:00:00Z")
    assert rerun(world)
    assert world.status.run
    assert world.status.run.trigger is Trigger.REQUESTED
    assert not rerun(world)


@pytest.mark.parametrize("value", ["", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31 12:00:00Z", "x" * 300])
def test_a_request_that_is_no_time_starts_none(value: str) -> None:
    world = ended(Result.SUCCEEDED)
    world.annotate(REBUILD_ANNOTATION, value)
    assert not rerun(world)
    assert [event.reason for event in world.decide().events] == ["InvalidAnnotation"]


def test_a_pinned_commit_is_not_resolved() -> None:
    pinned = World()
    pinned.edit(source={"git": {"url": "https://git.example.com/app.git", "ref": COMMIT}})
    pinned.settle()
    assert pinned.status.run
    assert pinned.status.run.resolve is None
    assert pinned.status.run.source
    assert pinned.status.run.source.commit == COMMIT
