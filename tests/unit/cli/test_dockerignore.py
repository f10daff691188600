"""`.dockerignore` against what moby's own matcher answers.

`dockerignore.jsonl` was written by github.com/moby/patternmatcher v0.6.1: for each text of a file the paths that
`ignorefile.ReadAll`, `New` and `MatchesOrParentMatches` ignore and keep, or that they refuse it.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.cli.dockerignore import Ignore, PatternError

CASES = [
    json.loads(line) for line in Path(__file__).with_name("dockerignore.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case["text"]))
def test_paths_are_ignored_as_by_moby(case: dict[str, Any]) -> None:
    if case.get("error"):
        with pytest.raises(PatternError):
            Ignore.parse(case["text"])
        return
    ignore = Ignore.parse(case["text"])
    paths = [*case["ignored"], *case["kept"]]
    assert [path for path in paths if ignore.ignores(path)] == case["ignored"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!\n", "'!' needs a pattern"),
        ("a[b\n", "bracket that is not closed"),
        ("a\\\n", "ends with a backslash"),
        # moby reads it as any digit, which nobody means.
        ("\\d\n", "remove the backslash"),
    ],
)
def test_what_means_nothing_is_refused_with_the_pattern(text: str, message: str) -> None:
    with pytest.raises(PatternError, match=message):
        Ignore.parse(text)


NAMES = st.text(st.sampled_from("abcé.-_ +"), min_size=1, max_size=6).filter(
    lambda name: name.strip() == name and name not in {".", ".."}
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(PATHS, PATHS)
def test_a_folder_takes_along_all_that_is_in_it(folder: str, below: str) -> None:
    assert Ignore.parse(folder).ignores(f"{folder}/{below}")


@given(PATHS)
def test_an_exception_after_a_pattern_takes_it_back(path: str) -> None:
    assert not Ignore.parse(f"{path}\n!{path}").ignores(path)
    assert Ignore.parse(f"!{path}\n{path}").ignores(path)


@given(PATHS, st.integers(0, 3))
def test_two_stars_stand_for_any_number_of_folders(path: str, depth: int) -> None:
    assert Ignore.parse(f"**/{path}").ignores("x/" * depth + path)


@given(st.text(max_size=40), PATHS)
def test_no_text_does_more_than_be_refused(text: str, path: str) -> None:
    with contextlib.suppress(PatternError):
        assert Ignore.parse(text).ignores(path) in {True, False}
