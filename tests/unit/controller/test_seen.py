"""What is kept of builds."""

import pytest

from multiarchbuild.controller.seen import KEPT_BYTES, see
from multiarchbuild.plan.identity import fingerprint
from tests.unit.plan.world import World, manifest


def large(size: int) -> World:
    files = {"Dockerfile": "FROM scratch\n", "big.txt": "x" * size}
    return World(resource=manifest(source={"inline": {"files": files}}))


@pytest.mark.parametrize(("size", "complete"), [(10, True), (KEPT_BYTES + 1, False)])
def test_large_files_are_not_kept_and_what_is_asked_for_is_still_the_same(size: int, *, complete: bool) -> None:
    world = large(size)
    world.resource["metadata"]["resourceVersion"] = "7"
    seen = see(world.resource)
    assert seen.build is not None
    assert seen.build.spec.source.inline
    assert seen.build.spec.source.inline.files.keys() == {"Dockerfile", "big.txt"}
    assert (seen.complete, bool(seen.build.spec.source.inline.files["big.txt"])) == (complete, complete)
    assert fingerprint(seen.build.spec) == fingerprint(world.build.spec)
    assert seen.identity == {"name": "app", "namespace": "team-a", "resourceVersion": "7"}


def test_two_specs_that_differ_only_in_large_files_are_not_the_same() -> None:
    one, other = large(5000), large(5001)
    for world in (one, other):
        world.resource["metadata"]["resourceVersion"] = "7"
    first, second = see(one.resource).build, see(other.resource).build
    assert first is not None
    assert second is not None
    assert first.spec == second.spec
    assert fingerprint(first.spec) != fingerprint(second.spec)


def test_a_spec_that_cannot_be_read_says_why() -> None:
    world = large(10)
    world.resource["metadata"]["resourceVersion"] = "7"
    world.resource["spec"]["retries"] = "many"
    seen = see(world.resource)
    assert seen.build is None
    assert seen.error is not None
