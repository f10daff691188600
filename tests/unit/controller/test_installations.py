"""Which of several installations of the operator works."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from multiarchbuild.controller.installations import GONE, SERVES, claims, rivals, serves_text

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def lease(home: str, serves: str | None, *, age: int = 100, silent: float = 1) -> Any:
    """Return a V1Lease: `age` and `silent` are seconds since it was made, and since it was renewed."""
    annotations = None if serves is None else {SERVES: serves}
    created = NOW - timedelta(seconds=age)
    metadata = SimpleNamespace(namespace=home, annotations=annotations, creation_timestamp=created)
    return SimpleNamespace(metadata=metadata, spec=SimpleNamespace(renew_time=NOW - timedelta(seconds=silent)))


@pytest.mark.parametrize(
    ("own", "other", "meet"),
    [
        ((), "*", True),
        ((), "a", True),
        (("a",), "*", True),
        (("a", "b"), "b,c", True),
        (("a",), "b", False),
        (("a",), "aa", False),
    ],
)
def test_installations_meet_where_they_serve_the_same_namespace(
    own: tuple[str, ...], other: str, *, meet: bool
) -> None:
    found = rivals(claims([lease("theirs", other)]), "ours", frozenset(own), NOW)
    assert [claim.home for claim in found] == (["theirs"] if meet else [])


def test_the_own_lease_and_those_that_wait_or_have_gone_are_no_rivals() -> None:
    leases = [
        lease("ours", "*"),
        lease("waits", None),
        lease("gone", "*", silent=GONE.total_seconds()),
        lease("back-soon", "*", silent=GONE.total_seconds() - 1),
        lease("oldest", "a,b", age=1000),
    ]
    found = rivals(claims(leases), "ours", frozenset(), NOW)
    assert [claim.home for claim in found] == ["oldest", "back-soon"]


def test_a_lease_that_was_never_held_claims_nothing() -> None:
    never = lease("theirs", "*")
    never.spec = None
    assert claims([never]) == []


def test_what_is_claimed_is_read_back() -> None:
    for names in ((), ("a",), ("b", "a")):
        (claim,) = claims([lease("theirs", serves_text(names))])
        assert claim.serves == frozenset(names)
