"""Statuses for specs that can't be read and children that were refused."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from multiarchbuild.api.conditions import Condition
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import RunStatus, Status, Trigger
from multiarchbuild.controller.refused import MESSAGE, invalid_spec, pod_rejected

BEFORE, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
RUN = RunStatus(id="r", trigger=Trigger.SPEC_CHANGED, inputs="i", started_at=BEFORE)
OLD = Status(
    observed_generation=1,
    run=RUN,
    conditions=tuple(
        Condition(type=kind, status=value, reason="X", observed_generation=1, last_transition_time=BEFORE)
        for kind, value in (("Ready", "False"), ("Reconciling", "True"), ("Succeeded", "True"))
    ),
)


def conditions(status: Status) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def test_a_refused_pod_stalls_the_build_and_keeps_what_was_there() -> None:
    status = pod_rejected(OLD, "p-1", 'pods "p-1" is forbidden: violates PodSecurity "restricted"', 2, NOW)
    assert conditions(status) == {
        "Ready": ("False", "PodRejected"),
        "Stalled": ("True", "PodRejected"),
        "Succeeded": ("True", "X"),
    }
    assert status.run == RUN
    assert status.observed_generation == 2
    assert "violates PodSecurity" in status.conditions[0].message
    assert status.conditions[0].last_transition_time == BEFORE, "it was not ready before either"
    assert status.conditions[1].last_transition_time == NOW


def test_a_full_quota_is_waited_for() -> None:
    status = pod_rejected(Status(), "p-1", 'pods "p-1" is forbidden: exceeded quota: q, requested: …', 1, NOW)
    assert conditions(status) == {"Ready": ("False", "PodRejected"), "Reconciling": ("True", "PodRejected")}


def test_the_same_refusal_again_is_the_same_status() -> None:
    once = pod_rejected(OLD, "p-1", "no", 2, BEFORE)
    assert pod_rejected(once, "p-1", "no", 2, NOW) == once


def test_a_webhook_that_answers_with_a_novel() -> None:
    assert len(pod_rejected(OLD, "p-1", "x" * 100_000, 2, NOW).conditions[0].message) == MESSAGE


def test_a_spec_that_cannot_be_read_names_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate({"platforms": ["linux/amd64"], "source": {}, "output": {"image": 5}})
    status = invalid_spec(Status(), caught.value, 3, NOW)
    assert conditions(status) == {"Ready": ("False", "InvalidSpec"), "Stalled": ("True", "InvalidSpec")}
    assert "output.image" in status.conditions[0].message
