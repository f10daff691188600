"""Patterns of `source.paths` against paths, in one pass: tenants write both, and no pattern makes a path take long.

`*` stands for any characters but a slash, `?` for one of them, `**/` for any folders and `**` for anything. What is
below a path that fits, fits too.

All patterns are one automaton without backtracking. Its states are the bits of a number, which each character moves
together (Navarro and Raffinot, "Flexible Pattern Matching in Strings", chapter 4): a path of n characters costs n
moves of a number of at most twice as many bits as the patterns have characters.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]", re.DOTALL)
_REPEATED: Final = frozenset({"**/", "**", "*"})
_KEPT_MOVES: Final = 4096
"""Moves that are remembered: few are different, unless somebody means it."""
_KEPT_FOLDERS: Final = 16


class PathPatterns:
    """Which paths one of several patterns fits."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Take the patterns; none fits nothing."""
        self.bits = 0
        """How many states there are."""
        self._start = self._accepts = self._ends = 0
        self._letters: dict[str, int] = {}
        self._one = self._folder = self._in_folder = self._same_segment = self._anything = 0
        for pattern in patterns:
            self._add(pattern)
        self._start = self._closure(self._start)
        self._move = lru_cache(_KEPT_MOVES)(self._moved)
        self._in = lru_cache(_KEPT_FOLDERS)(lambda folder: self._after(self._start, folder))

    def fits(self, path: str) -> bool:
        """Return whether one of the patterns fits a path from the root of a repository."""
        # Files of one folder mostly come one after another.
        folder, slash, name = path.rpartition("/")
        return bool(self._after(self._in(folder + slash), name) & self._accepts)

    def _after(self, states: int, characters: str) -> int:
        for character in characters:
            if not states:
                break
            states = self._move(states, character)
        return states

    def _moved(self, states: int, character: str) -> int:
        forward = states & self._letters.get(character, 0)
        if character == "/":
            back = (states & self._in_folder) >> 1
            return self._closure((forward | states & self._ends) << 1 | back | states & self._anything)
        forward |= states & (self._one | self._folder)
        return self._closure(forward << 1 | states & (self._anything | self._same_segment | self._in_folder))

    def _closure(self, states: int) -> int:
        """Return `states` and those that are reached from them without a character.

        Once is enough: of what stands for any number of characters, one after another is `**/*` at most.
        """
        states |= (states & self._folder) << 2
        return states | (states & (self._same_segment | self._anything & ~self._accepts)) << 1

    def _add(self, pattern: str) -> None:
        self._start |= 1 << self.bits
        for token in _tokens(pattern):
            bit = 1 << self.bits
            self.bits += 1
            match token:
                case "**/":
                    # Two states: before a folder, and in its name.
                    self._folder |= bit
                    self._in_folder |= bit << 1
                    self.bits += 1
                case "**":
                    self._anything |= bit
                case "*":
                    self._same_segment |= bit
                case "?":
                    self._one |= bit
                case _:
                    self._letters[token] = self._letters.get(token, 0) | bit
        # Two states: at the end of the pattern, and below what fits.
        end = 1 << self.bits
        self.bits += 2
        self._ends |= end
        self._anything |= end << 1
        self._accepts |= end | end << 1


def _tokens(pattern: str) -> list[str]:
    """Return the parts of a pattern, without what adds nothing beside another: `**` has in it all that `*` fits."""
    found: list[str] = []
    for token in _TOKENS.findall(pattern):
        before = found[-1] if found else ""
        if token in _REPEATED and before in ("**", token):
            continue
        if token == "**":  # noqa: S105 - no password
            while found and found[-1] in _REPEATED:
                found.pop()
        found.append(token)
    return found
