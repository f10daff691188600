"""Tags and their placeholders."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.spec import RESERVED_TAG_PREFIXES
from multiarchbuild.api.status import SourceStatus
from multiarchbuild.plan.tags import child_tag, expand
from tests.unit.plan.world import COMMIT

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
AT = datetime(2026, 1, 31, 23, 30, 5, tzinfo=UTC)
GIT_REF = st.from_regex(r"(refs/heads/|refs/tags/)?[^\x00-\x20\x7f~^:?*\[\\]{1,200}", fullmatch=True)


def one(tag: str, ref: str = "main", at: datetime = AT) -> str:
    """Return `tag` for a commit of this ref."""
    (expanded,) = expand((tag,), SourceStatus(commit=COMMIT, ref=ref), at, "7c1f09ab")
    return expanded


@pytest.mark.parametrize(
    ("tag", "expanded"),
    [
        ("latest", "latest"),
        ("{commit}", COMMIT),
        ("{shortCommit}", "1111111"),
        ("{ref}", "main"),
        ("{date}", "20260131"),
        ("{time}", "233005"),
        ("{run}", "7c1f09ab"),
        ("v1-{date}.{time}_{shortCommit}", "v1-20260131.233005_1111111"),
        ("{run}{run}", "7c1f09ab7c1f09ab"),
    ],
)
def test_placeholder(tag: str, expanded: str) -> None:
    assert one(tag) == expanded


def test_date_and_time_are_utc() -> None:
    assert one("{date}{time}", at=AT.astimezone(timezone(timedelta(hours=5)))) == "20260131233005"


@pytest.mark.parametrize(
    ("ref", "expanded"),
    [
        ("refs/heads/main", "main"),
        ("refs/tags/v1.2.0", "v1.2.0"),
        ("feature/login", "feature-login"),
        ("refs/pull/7/head", "refs-pull-7-head"),
        ("a+b@c", "a-b-c"),
        ("fix/#12,a=b%20", "fix--12-a-b-20"),
        ("#12", "_12"),
        ("größe", "gr--e"),
        ("refs/heads/-x", "_x"),
        ("refs/heads/.x", "_x"),
        ("refs/heads/-", "_"),
        ("x" * 200, "x" * 128),
        ("cache-busting", "_cache-busting"),
        ("sha256-0.sig", "_sha256-0.sig"),
    ],
    ids=str,
)
def test_a_ref_becomes_what_a_tag_may_be(ref: str, expanded: str) -> None:
    assert one("{ref}", ref) == expanded


def test_what_a_value_holds_is_not_expanded_again() -> None:
    (tag,) = expand(("{ref}",), SourceStatus(commit=COMMIT, ref="x{run}"), AT, "7c1f09ab")
    assert tag == "x-run-"


def test_the_same_tag_twice_is_one_tag_in_the_order_of_spec() -> None:
    tags = ("b", "{ref}", "a", "main", "b")
    assert expand(tags, SourceStatus(commit=COMMIT, ref="main"), AT, "r") == ("b", "main", "a")


def test_no_tags_are_no_tags() -> None:
    assert expand((), SourceStatus(), AT, "r") == ()


@given(GIT_REF, st.sampled_from(["{ref}", "{ref}-{date}", "v-{ref}", "{commit}-{ref}"]))
def test_any_ref_makes_a_tag_that_is_none_of_the_cache_or_a_signature(ref: str, tag: str) -> None:
    expanded = one(tag, ref)
    assert TAG.fullmatch(expanded)
    assert not expanded.startswith(RESERVED_TAG_PREFIXES)


def test_a_child_has_the_tag_of_its_index_and_its_own_end() -> None:
    assert child_tag("v1", "arm64-attestation") == "v1-arm64-attestation"
    assert child_tag("a" * 122, "arm64") == f"{'a' * 122}-arm64"
    long = {child_tag(f"{'a' * 125}{end}", "arm64") for end in "bc"}
    assert len(long) == 2
    assert {len(tag) for tag in long} == {128}
    assert all(tag.endswith("-arm64") for tag in long)
