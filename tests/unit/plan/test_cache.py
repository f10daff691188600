"""References of the registry cache: who writes where, and reads what first."""

import re
from typing import Any

import pytest

from multiarchbuild.api.platforms import SUPPORTED, Platform
from multiarchbuild.plan.cache import cache_refs
from tests.unit.plan.world import COMMIT, GIT, INLINE, build

REFERENCE = re.compile(r"[a-z0-9.:/-]+:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


def git(ref: str) -> dict[str, Any]:
    """Return a source at this ref."""
    return {"git": {**GIT["git"], "ref": ref}}


def written(*platforms: Platform, name: str = "app", **fields: Any) -> str:
    """Return where a builder writes its cache to."""
    ref = cache_refs(build(name, **fields), platforms or (AMD64,)).export_to
    assert ref is not None
    assert REFERENCE.fullmatch(ref), ref
    return ref


def read(*platforms: Platform, **fields: Any) -> tuple[str, ...]:
    """Return what a builder reads, the nearest first."""
    return cache_refs(build(**fields), platforms or (AMD64,)).import_from


def test_the_cache_is_beside_the_image_unless_a_repository_is_named() -> None:
    assert written().startswith("registry.example.com/team-a/app:cache-")
    named = {"repository": "cache.example.com/team-a/app"}
    assert written(cache=named).startswith("cache.example.com/team-a/app:cache-")


def test_without_import_it_is_written_and_not_read() -> None:
    assert written(cache={"import": False}) == written()
    assert read(cache={"import": False}) == ()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_cache_that_is_used_is_read_and_written(mode: str) -> None:
    assert written(cache={"mode": mode}) in read(cache={"mode": mode})


def test_a_disabled_cache_is_neither_read_nor_written() -> None:
    refs = cache_refs(build(cache={"mode": "Disabled"}), (AMD64,))
    assert (refs.export_to, refs.import_from) == (None, ())


def test_every_platform_writes_a_ref_of_its_own() -> None:
    platforms = {Platform.parse(name) for name in SUPPORTED}
    assert len({written(platform) for platform in platforms} | {written(AMD64, ARM64)}) == len(platforms) + 1


def test_a_branch_reads_its_own_cache_then_that_of_main() -> None:
    own, main = written(source=git("feature")), written(source=git("main"))
    assert own != main
    assert read(source=git("feature")) == (own, main)
    assert read(source=git("main")) == (main,)


@pytest.mark.parametrize("ref", ["main", "master", "HEAD", "refs/heads/main", COMMIT])
def test_the_main_branch_and_bare_commits_share_the_main_scope(ref: str) -> None:
    assert written(source=git(ref)) == written(source=INLINE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("feature/x", "feature-x"),
        ("Feature", "feature"),
        ("x" * 60, "x" * 61),
        ("v1", "v2"),
        ("main2", "main"),
        ("refs/pull/7/head", "refs/pull/8/head"),
    ],
)
def test_two_branches_never_share_a_scope(one: str, other: str) -> None:
    assert written(source=git(one)) != written(source=git(other))


def test_a_branch_is_the_same_scope_by_its_short_and_its_full_name() -> None:
    assert written(source=git("feature")) == written(source=git("refs/heads/feature"))


def test_two_builds_never_share_a_ref_even_in_one_repository() -> None:
    cache = {"repository": "cache.example.com/all"}
    assert written(name="app", cache=cache) != written(name="other", cache=cache)
    one, elsewhere = build(cache=cache), build(cache=cache)
    elsewhere = elsewhere.model_copy(update={"metadata": elsewhere.metadata.model_copy(update={"namespace": "team-b"})})
    assert cache_refs(one, (AMD64,)) != cache_refs(elsewhere, (AMD64,))


def test_a_build_cannot_be_named_so_that_its_refs_are_anothers() -> None:
    owner = re.compile(r":cache-(?P<owner>[0-9a-f]+)-main-amd64$").search(written())
    assert owner is not None
    assert len(owner["owner"]) >= 20, "a name with the same hash must not be findable"


def test_a_cross_builder_reads_what_the_builders_of_its_platforms_have_left() -> None:
    refs = read(AMD64, ARM64, source=git("feature"))
    assert refs == (
        written(AMD64, ARM64, source=git("feature")),
        written(AMD64, ARM64, source=git("main")),
        written(AMD64, source=git("main")),
        written(ARM64, source=git("main")),
    )


def test_the_cache_stays_the_same_from_run_to_run() -> None:
    assert written(build={"args": {"A": "1"}}) == written()
