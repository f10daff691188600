"""The tags of examples/flux-image-automation are those that its ImagePolicy looks for, and the newest is the last."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.status import SourceStatus
from multiarchbuild.plan.cache import cache_refs
from multiarchbuild.plan.tags import expand
from tests.support.markdown import ROOT, blocks

EXAMPLE = ROOT / "examples" / "flux-image-automation"


def _documents(text: str, kind: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document.get("kind") == kind]


def _only(name: str, kind: str) -> dict[str, Any]:
    (found,) = _documents((EXAMPLE / name).read_text(encoding="utf-8"), kind)
    return found


BUILD = MultiArchBuild.model_validate(
    {
        "metadata": {
            "name": "hello-node",
            "namespace": "team-a",
            "uid": "1",
            "generation": 1,
            "creationTimestamp": "2026-01-31T12:00:00Z",
        },
        "spec": _only("build.yaml", "MultiArchBuild")["spec"],
    }
)
POLICY = _only("policy.yaml", "ImagePolicy")["spec"]
# Go's syntax, which is Python's as far as this pattern goes.
PATTERN = re.compile(POLICY["filterTags"]["pattern"])


def _tags(started: datetime, commit: str) -> tuple[str, ...]:
    return expand(BUILD.spec.output.tags, SourceStatus(commit=commit, ref="main"), started, "7c1f09ab")


@given(
    first=st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    later=st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=4000)),
    commits=st.lists(st.text("0123456789abcdef", min_size=40, max_size=40), min_size=2, max_size=2),
)
def test_the_policy_takes_the_tag_of_the_later_run(first: datetime, later: timedelta, commits: list[str]) -> None:
    extracted = []
    for started, commit in zip((first, first + later), commits, strict=True):
        (tag,) = _tags(started, commit)
        found = PATTERN.fullmatch(tag)
        assert found, tag
        extracted.append(found[POLICY["filterTags"]["extract"].removeprefix("$")])
    assert POLICY["policy"] == {"alphabetical": {"order": "asc"}}, "of which Flux takes the last"
    assert extracted == sorted(extracted)
    assert len(set(extracted)) == 2


def test_the_policy_takes_no_tag_of_the_cache() -> None:
    refs = cache_refs(BUILD, (Platform.parse("linux/amd64"),))
    assert refs.export_to is not None
    assert not PATTERN.fullmatch(refs.export_to.rpartition(":")[2])


def test_the_page_shows_the_policy_of_the_example() -> None:
    text = (block.text for block in blocks(ROOT / "docs" / "how-to" / "flux.md") if block.language == "yaml")
    shown = [document for each in text for document in _documents(each, "ImagePolicy")]
    assert [document["spec"] for document in shown] == [POLICY]
