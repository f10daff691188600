"""A transition time changes when the status does, and only then."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from multiarchbuild.api.conditions import Condition, merge

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def condition(status: Literal["True", "False", "Unknown"], at: datetime, kind: str = "Ready") -> Condition:
    return Condition(type=kind, status=status, reason="Because", observed_generation=1, last_transition_time=at)


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ((), condition("True", LATER), LATER),
        ((condition("True", NOON),), condition("True", LATER), NOON),
        ((condition("False", NOON),), condition("True", LATER), LATER),
        ((condition("True", NOON, "Stalled"),), condition("True", LATER), LATER),
    ],
    ids=["new", "same status", "other status", "other type"],
)
def test_transition_time(old: tuple[Condition, ...], new: Condition, at: datetime) -> None:
    assert merge(old, (new,)) == (new.model_copy(update={"last_transition_time": at}),)


def test_a_condition_that_is_not_said_again_is_gone() -> None:
    assert merge((condition("True", NOON, "Stalled"),), ()) == ()


def test_reason_and_message_are_the_new_ones() -> None:
    changed = condition("True", LATER).model_copy(update={"reason": "Other", "message": "News."})
    (merged,) = merge((condition("True", NOON),), (changed,))
    assert (merged.reason, merged.message) == ("Other", "News.")
