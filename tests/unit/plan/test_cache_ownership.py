"""Whose cache is whose: a ref is derived, and nothing that a tenant may write points at another's."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import SourceStatus
from multiarchbuild.plan.cache import cache_refs
from multiarchbuild.plan.tags import MAX_TAG, expand
from tests.unit.plan.world import build

AMD64 = Platform.parse("linux/amd64")
SHARED = "registry.example.com/shared/cache"
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
REF = st.text("abc-/._{}", min_size=1, max_size=40)


def owned(namespace: str, name: str, ref: str = "main", cache: str | None = SHARED) -> MultiArchBuild:
    source = {"git": {"url": "https://git.example.com/app.git", "ref": ref}}
    made = build(name, source=source, cache={"repository": cache} if cache else {})
    return made.model_copy(update={"metadata": made.metadata.model_copy(update={"namespace": namespace})})


@given(st.lists(st.tuples(LABEL, LABEL, REF), min_size=2, max_size=2, unique_by=lambda each: each[:2]))
def test_two_builds_never_write_the_same_cache(both: list[tuple[str, str, str]]) -> None:
    one, other = (cache_refs(owned(*each), (AMD64,)) for each in both)
    assert one.export_to != other.export_to
    assert other.export_to not in one.import_from


@given(REF)
def test_no_tag_of_an_image_is_that_of_a_cache(ref: str) -> None:
    for name in (ref, f"cache-{ref}", f"-.cache-{ref}", f"refs/heads/cache-{ref}"):
        for tag in expand(("{ref}", "{ref}-x"), SourceStatus(ref=name), datetime.now(UTC), "r"):
            assert not tag.startswith("cache-")
            assert len(tag) <= MAX_TAG


def test_a_branch_named_like_a_cache_keeps_its_name_behind_a_prefix() -> None:
    assert expand(("{ref}",), SourceStatus(ref="cache-1"), datetime.now(UTC), "r") == ("_cache-1",)


@pytest.mark.parametrize(
    ("cache", "template", "repository"),
    [
        (None, None, "registry.example.com/team-a/app"),
        (None, "r.test/cache/{namespace}/{name}", "r.test/cache/team-a/app"),
        (SHARED, "r.test/cache/{namespace}/{name}", SHARED),
        (None, "r.test/{namespace}", "r.test/team-a"),
    ],
)
def test_where_the_cache_is_kept(cache: str | None, template: str | None, repository: str) -> None:
    refs = cache_refs(owned("team-a", "app", cache=cache), (AMD64,), template)
    assert refs.export_to
    assert refs.export_to.startswith(f"{repository}:cache-")


def test_a_long_name_still_makes_a_repository() -> None:
    template = "r.test/cache/{namespace}/{name}"
    one, other = (cache_refs(owned("team-a", "a" * 252 + end, cache=None), (AMD64,), template) for end in "xy")
    assert one.export_to != other.export_to
    for refs in (one, other):
        assert refs.export_to
        assert len(refs.export_to.partition(":")[0]) <= 255
