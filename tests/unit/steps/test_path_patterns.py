"""Patterns of `source.paths`: the same answers as their meaning as regular expressions, in one pass."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.source import Paths
from multiarchbuild.steps.path_patterns import PathPatterns
from multiarchbuild.steps.paths import digest


def meaning(pattern: str) -> re.Pattern[str]:
    """Return what a pattern means; to match with it takes exponential time."""
    parts = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    found = (parts.get(part, re.escape(part)) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))
    return re.compile(rf"{''.join(found)}(?:/.*)?\Z", re.DOTALL)


@given(
    patterns=st.lists(st.lists(st.sampled_from(["**/", "**", "*", "?", "/", "a", "b", "."])).map("".join), max_size=3),
    paths=st.lists(st.text("ab/.\n", max_size=12), min_size=1, max_size=8),
)
def test_a_path_fits_as_the_patterns_mean_it(patterns: list[str], paths: list[str]) -> None:
    tested = PathPatterns(patterns)
    for path in paths:
        assert tested.fits(path) == any(meaning(each).match(path) for each in patterns)


HOSTILE = [
    ("**/a*/**/a*/**/b", "a/" * 2000 + "a"),
    ("**/" * 80 + "b", "a/" * 2000),
    ("**/a*/" * 42 + "b", "aaaa/" * 800),
    ("*a" * 120 + "b", "a" * 4000),
    ("**a" * 80 + "b", "a" * 4000),
    ("*?" * 120 + "b", "a" * 4000),
]


def counted(move: Callable[[int, str], int], steps: list[int]) -> Callable[[int, str], int]:
    def step(states: int, character: str) -> int:
        steps.append(states.bit_length())
        return move(states, character)

    return step


@pytest.mark.parametrize(("pattern", "path"), HOSTILE)
def test_each_character_of_a_path_is_looked_at_once(pattern: str, path: str) -> None:
    tested, steps = PathPatterns([pattern] * 32), list[int]()
    changed: Any = tested
    changed._move = counted(tested._moved, steps)
    assert not tested.fits(path)
    assert len(steps) <= len(path)
    assert max(steps) <= tested.bits <= 32 * (2 * len(pattern) + 2)


@pytest.mark.parametrize(("pattern", "path"), HOSTILE)
def test_a_tree_of_hostile_paths_has_a_digest(pattern: str, path: str) -> None:
    entries = [(f"{path}{number}", "1") for number in range(20)]
    excluding = digest(Paths(exclude=(pattern,)), entries, always=())
    assert excluding != digest(Paths(exclude=(pattern,)), entries[1:], always=())
    assert digest(Paths(include=(pattern,)), entries, always=()) == digest(Paths(include=(pattern,)), [], always=())
