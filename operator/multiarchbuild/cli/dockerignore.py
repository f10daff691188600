"""`.dockerignore` as docker and BuildKit read it.

Sources: https://docs.docker.com/build/concepts/context/#dockerignore-files and github.com/moby/patternmatcher v0.6.1,
whose answers, quirks included, are the table that tests/unit/cli/test_dockerignore.py compares with.
"""

import posixpath
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Self

_SPACE = (
    " \t\n\v\f\r\x85\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029"
    "\u202f\u205f\u3000"
)
"""What Go's strings.TrimSpace removes; Python's strip() removes more."""

_ANYTHING = r"[\s\S]*"

_MEANING = {"*": "[^/]*", "?": "[^/]", **{char: f"\\{char}" for char in ".+()$"}}
"""What a character of a pattern means in a regular expression, if not itself."""

Hits = tuple[bool, ...]
"""For each pattern, whether it matches a path or one of the folders above it."""


class PatternError(ValueError):
    """A pattern that means nothing; the message says which."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of the file."""

    regex: re.Pattern[str]
    exception: bool
    """Whether it begins with `!` and takes back what patterns before it exclude."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the pattern that `text`, as `read` returns it, means.

        Raises:
            PatternError: it is malformed.
        """
        exception = text.startswith("!")
        pattern = text.removeprefix("!")
        if not pattern:
            raise PatternError("'!' needs a pattern after it")
        _check_syntax(pattern)
        try:
            with warnings.catch_warnings():
                # Python warns of what a later version might read as a set in a set.
                warnings.simplefilter("ignore", FutureWarning)
                return cls(re.compile(rf"^{_translate(pattern)}\Z", re.ASCII), exception)
        except re.error as error:
            raise PatternError(f"{text!r} is malformed: {error}") from error


@dataclass(frozen=True, slots=True)
class Ignore:
    """All patterns of a file; of those that match a path the last one counts."""

    patterns: tuple[Pattern, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the patterns in the text of a file.

        Raises:
            PatternError: one of them is malformed.
        """
        return cls(tuple(map(Pattern.parse, read(text))))

    @property
    def has_exceptions(self) -> bool:
        """Whether something below an ignored folder may be wanted after all."""
        return any(pattern.exception for pattern in self.patterns)

    def hits(self, path: str, above: Hits = ()) -> Hits:
        """Return which patterns match `path`; `above` are the hits of its folder."""
        inherited = above or (False,) * len(self.patterns)
        return tuple(
            hit or pattern.regex.search(path) is not None for pattern, hit in zip(self.patterns, inherited, strict=True)
        )

    def decide(self, hits: Hits) -> bool:
        """Return whether a path with these `hits` is ignored."""
        ignored = False
        for pattern, hit in zip(self.patterns, hits, strict=True):
            if hit and pattern.exception == ignored:
                ignored = not pattern.exception
        return ignored

    def ignores(self, path: str) -> bool:
        """Return whether `path`, relative and separated by slashes, is ignored."""
        parts = path.split("/")
        paths: Iterable[str] = ("/".join(parts[: end + 1]) for end in range(len(parts)))
        return self.decide(reduce(lambda above, each: self.hits(each, above), paths, ()))


def read(text: str) -> list[str]:
    """Return the patterns in the text of a file: cleaned, without comments, without a slash at the beginning."""
    patterns = []
    for line in text.removeprefix("\ufeff").split("\n"):
        if line.startswith("#"):
            continue
        pattern = line.strip(_SPACE)
        exception = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip(_SPACE) if exception else pattern
        if pattern:
            pattern = _clean(pattern)
            pattern = pattern.removeprefix("/") or "/"
        if pattern or exception:
            # Once more, as moby's two readers do one after the other.
            patterns.append(_clean((f"!{pattern}" if exception else pattern).strip(_SPACE)))
    return patterns


def _clean(path: str) -> str:
    # POSIX leaves two slashes at the beginning alone, Go does not.
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _translate(pattern: str) -> str:
    """Return the regular expression for a whole path.

    As in moby, `*` and `?` mean the same inside brackets as outside, and beside anything special `|` means "or": few
    rely on it, but BuildKit reads the file once more, and both have to agree.
    """
    if not _special(pattern):
        return re.escape(pattern)
    if pattern.endswith("**") and not _special(pattern[:-2]):
        return re.escape(pattern[:-2]) + _ANYTHING
    if pattern.startswith("**") and not _special(pattern[2:]):
        tail = re.escape(pattern[2:].removeprefix("/"))
        return f"({_ANYTHING}/)?{tail}" if pattern[2] == "/" else f"{_ANYTHING}{tail}"
    result, at = "", 0
    while at < len(pattern):
        if pattern[at] == "\\":
            result += _escaped(pattern, at + 1)
            at += 2
        elif pattern.startswith("**", at):
            at += 3 if pattern.startswith("/", at + 2) else 2
            result += "(.*/)?" if at < len(pattern) else ".*"
        else:
            char = pattern[at]
            result += _MEANING.get(char, char)
            at += 1
    return result


def _escaped(pattern: str, at: int) -> str:
    char = pattern[at]
    if char.isalnum() or not char.isascii():
        raise PatternError(f"{pattern!r} escapes {char!r}, which needs none: remove the backslash")
    return re.escape(char)


def _special(text: str) -> bool:
    return any(mark in text for mark in "*?[]\\")


def _check_syntax(pattern: str) -> None:
    """Raise PatternError where Go's filepath.Match calls a pattern malformed."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "\\":
            if at == len(pattern):
                raise PatternError(f"{pattern!r} ends with a backslash")
            at += 1
        elif char == "[":
            at = _check_class(pattern, at)


def _check_class(pattern: str, at: int) -> int:
    """Return where the class that begins before `at` ends."""
    at += pattern.startswith("^", at)
    first = True
    while first or not pattern.startswith("]", at):
        at = _check_member(pattern, at)
        if pattern.startswith("-", at):
            at = _check_member(pattern, at + 1)
        first = False
    return at + 1


def _check_member(pattern: str, at: int) -> int:
    escaped = pattern.startswith("\\", at)
    at += escaped
    if at >= len(pattern) - 1 or (pattern[at] in "-]" and not escaped):
        raise PatternError(f"{pattern!r} has a bracket that is not closed, or nothing in it")
    return at + 1
