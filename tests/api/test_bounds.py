"""Every bound of the schema refuses what is just outside of it."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from multiarchbuild.api.crd import structural
from multiarchbuild.api.spec import Spec
from tests.api.conftest import Kubectl
from tests.api.objects import Object, base, changed, shown, steps


class Bound(NamedTuple):
    """A value just outside of one bound."""

    path: str
    keyword: str
    value: Any
    message: str


def _bounds(path: str, schema: Object) -> Iterator[Bound]:
    """Yield a value outside of each bound at `path` and below."""
    for keyword, limit in schema.items():
        yield from (Bound(path, keyword, *outside) for outside in _outside(path, keyword, limit))
    for name in schema.get("required", ()):
        yield Bound(f"{path}.{name}", "required", None, "Required value")
    for name, field in schema.get("properties", {}).items():
        yield from _bounds(f"{path}.{name}", field)
    for entries in ("items", "additionalProperties"):
        if entries in schema:
            yield from _bounds(f"{path}.*", schema[entries])


def _outside(path: str, keyword: str, limit: Any) -> Iterator[tuple[Any, str]]:
    """Yield (value, message of the API server)."""
    if keyword in _OUTSIDE:
        value, message = _OUTSIDE[keyword]
        yield value(path, limit), message.format(limit)
    elif keyword == "x-kubernetes-list-type" and limit in ("set", "map"):
        yield [_value(path)[0]] * 2, "Duplicate value"


def _value(path: str) -> Any:
    here: Any = base(path)
    for key in steps(here, path):
        here = here[key]
    return here


_OUTSIDE: dict[str, tuple[Callable[[str, Any], Any], str]] = {
    "maxLength": (lambda _, limit: "1" * (limit + 1), "Too long: may not be more than"),
    "minLength": (lambda _, limit: "1" * (limit - 1), "should be at least {} chars long"),
    "maxItems": (lambda path, limit: [_value(path)[0]] * (limit + 1), "must have at most {} items"),
    "minItems": (lambda *_: [], "should have at least {} items"),
    "maxProperties": (
        lambda path, limit: {f"a{number}": next(iter(_value(path).values())) for number in range(limit + 1)},
        "must have at most {} items",
    ),
    "minProperties": (lambda *_: {}, "should have at least {} properties"),
    "enum": (lambda *_: "Other", 'Unsupported value: "Other"'),
    "minimum": (lambda _, limit: limit - 1, "should be greater than or equal to {}"),
    "maximum": (lambda _, limit: limit + 1, "should be less than or equal to {}"),
    "pattern": (lambda *_: "-1 GB", "should match"),
}
"""What is just outside of a bound, and how the API server answers."""

BOUNDS = {f"bound-{number}": bound for number, bound in enumerate(_bounds("", structural(Spec)))}


@pytest.fixture(scope="module")
def refusals(kube: Kubectl) -> dict[str, str]:
    """Return what the API server says to each value, by its name."""
    return kube.refusals(
        {name: changed(base(bound.path), bound.path, bound.value) for name, bound in BOUNDS.items() if bound.path}
    )


@pytest.mark.parametrize("name", BOUNDS, ids=[f"{bound.path[1:]}: {bound.keyword}" for bound in BOUNDS.values()])
def test_a_value_outside_of_a_bound_is_refused(refusals: dict[str, str], name: str) -> None:
    bound = BOUNDS[name]
    assert shown(base(bound.path), bound.path) in refusals[name]
    assert bound.message in refusals[name]


def test_every_field_has_bounds() -> None:
    assert set(_unbounded("spec", structural(Spec))) == set()


def _unbounded(path: str, schema: Object) -> Iterator[str]:
    needed = {
        "string": {"maxLength", "enum", "format"},
        "array": {"maxItems"},
        "object": {"maxProperties", "properties"},
        "integer": {"maximum"},
    }
    if needed.get(schema.get("type", ""), schema.keys()).isdisjoint(schema):
        yield path
    for name, field in schema.get("properties", {}).items():
        yield from _unbounded(f"{path}.{name}", field)
    for entries in ("items", "additionalProperties"):
        if entries in schema:
            yield from _unbounded(f"{path}.*", schema[entries])
