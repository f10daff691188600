"""Patterns and templates of the policy: `*` stands for any characters, braces for values. Nothing else is special."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from multiarchbuild.api.names import REPOSITORY_PATTERN

PLACEHOLDERS: Final = ("namespace", "name")
"""What a template may name in braces."""
MAX_REPOSITORY: Final = 255
"""Characters of a repository (distribution spec, "Pulling manifests")."""
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern for namespaces or repositories."""

    text: str

    def matches(self, subject: str, **values: str) -> bool:
        """Return whether all of `subject` fits, with each placeholder standing for its value."""
        first, *rest = (substitute(part, values) for part in self.text.split("*"))
        if not rest or "\n" in subject:
            return subject == first
        *middle, last = rest
        if not subject.startswith(first) or not subject.endswith(last):
            return False
        # The first place for each part leaves most for the next: nothing is tried twice.
        at = len(first)
        for part in middle:
            if (found := subject.find(part, at)) < 0:
                return False
            at = found + len(part)
        return at <= len(subject) - len(last)


def substitute(text: str, values: dict[str, str]) -> str:
    """Return `text` with each `{name}` that has a value replaced by it, once."""
    return _BRACES.sub(lambda match: values.get(match[1], match[0]), text)


def is_pattern(text: str) -> str:
    """Return `text`, or raise ValueError where it is no pattern."""
    if any(name != "namespace" for name in _BRACES.findall(text)) or re.search(r"[^A-Za-z0-9._:/*{}-]", text):
        raise ValueError("a pattern consists of the characters of a name, '*' for any others, and {namespace}")
    return text


def is_identity_pattern(text: str) -> str:
    """Return `text`, or raise ValueError where it is no pattern of names of identities."""
    if not re.match(r"(aws|google|azure|\*)(/|$|\*)", text):
        raise ValueError("write aws/<ARN>, google/<…> or azure/<tenant>/<client id>, each with '*' for any characters")
    is_pattern(re.sub("[@+=,]", "_", text))
    return text


def _is_template(text: str) -> str:
    if unknown := next((name for name in _BRACES.findall(text) if name not in PLACEHOLDERS), None):
        raise ValueError(f"unknown placeholder {{{unknown}}}: use {{namespace}} and {{name}}")
    if not re.fullmatch(REPOSITORY_PATTERN, substitute(text, dict.fromkeys(PLACEHOLDERS, "a"))):
        raise ValueError("must be registry/repository in lower case, such as registry.example.com/{namespace}/cache")
    return text


MatchAny = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=255), AfterValidator(is_pattern)], ...], Field(min_length=1)
]
"""Patterns of which one must fit."""
KeyPattern = Annotated[str, Field(min_length=1, max_length=317), AfterValidator(is_pattern)]
"""Pattern of names of objects, or of keys of labels, annotations and taints."""
IdentityPattern = Annotated[str, Field(min_length=1, max_length=768), AfterValidator(is_identity_pattern)]
"""Pattern of names of identities, see `Identity.name`."""
Template = Annotated[str, Field(min_length=3, max_length=255), AfterValidator(_is_template)]
"""Name of a repository with placeholders."""
