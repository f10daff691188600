"""JSON that somebody else has written: registries, clouds, frontends, the user's programs.

What is read here has bounds, so that nothing that is done with it later fails for its form: `json.dumps` and `==` go as
deep as it is nested, a number becomes a time, a text is printed.
"""

import json
import re
from math import isfinite
from typing import Any, Final

LARGEST: Final = 4 * 1024 * 1024
"""Bytes or characters by default, as many as a manifest may have."""
DEEPEST: Final = 100
"""Levels by default."""
_DIGITS: Final = 20
"""Of an integer with its sign: all of 64 bits."""
_CONTAINERS: Final = (dict, list)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE_BYTES = re.compile(rb"\\u[dD][89a-fA-F]")


class NonsenseError(ValueError):
    """What somebody sent cannot be read; the message says what, and why."""


def parse_json(content: bytes | str, what: str, *, largest: int | None = LARGEST, deepest: int | None = DEEPEST) -> Any:
    """Return the value that `content` is in JSON (RFC 8259).

    Args:
        content: what was sent.
        what: what it is and whose, for the error: "the answer of registry.example.com".
        largest: bytes or characters that are read; None for any number, where a friend has sent it.
        deepest: levels of objects and lists in each other; None for as many as Python can read.

    Raises:
        NonsenseError: it is no JSON, too large or nested too deeply, or has a number or text that nothing can hold.
    """
    if largest is not None and len(content) > largest:
        raise NonsenseError(f"{what} is larger than {largest} bytes")
    try:
        found = json.loads(  # noqa: TID251 - here alone
            content, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
        if _has_surrogates(content):
            json.dumps(found, ensure_ascii=False).encode()
    except (RecursionError, MemoryError) as error:
        raise NonsenseError(f"{what} is nested too deeply") from error
    except UnicodeError as error:
        raise NonsenseError(f"{what} has text that is not Unicode") from error
    except ValueError as error:
        raise NonsenseError(f"{what} is not JSON: {error}") from error
    if deepest is not None and _is_deeper(found, deepest):
        raise NonsenseError(f"{what} is nested too deeply: more than {deepest} levels")
    return found


def parse_object(
    content: bytes | str, what: str, *, largest: int | None = LARGEST, deepest: int | None = DEEPEST
) -> dict[str, Any]:
    """Return the object that `content` is in JSON, see `parse_json`."""
    found = parse_json(content, what, largest=largest, deepest=deepest)
    if not isinstance(found, dict):
        raise NonsenseError(f"{what} is not a JSON object")
    return found


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(f"the number {text[:_DIGITS]} is too large")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _has_surrogates(content: bytes | str) -> bool:
    found = _SURROGATE.search(content) if isinstance(content, str) else _SURROGATE_BYTES.search(content)
    return found is not None


def _is_deeper(found: Any, deepest: int) -> bool:
    level = [found] if type(found) in _CONTAINERS else []
    for _ in range(deepest):
        level = [
            below
            for each in level
            for below in (each.values() if type(each) is dict else each)
            if type(below) in _CONTAINERS
        ]
        if not level:
            return False
    return True
