"""What the policy says of pods: what is accepted, what is filled in, and what a mistake is told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from multiarchbuild.api.scheduling import Resources
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.pod_policy import StepResources
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.quantities import quantity

AMOUNTS = st.dictionaries(
    st.sampled_from(["cpu", "memory", "ephemeral-storage"]),
    st.sampled_from(["1m", "50m", 1, "64Mi", "100Mi", "1Gi", "64Gi", "1e12"]),
)


def step(**build: Any) -> Resources:
    return Policy.model_validate({"stepResources": {"build": build}}).step_resources.of(Role.BUILD)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "2Gi"}}),
        (
            {"limits": {"ephemeral-storage": "10Gi"}},
            {
                "requests": {"cpu": "50m", "memory": "64Mi"},
                "limits": {"memory": "2Gi", "ephemeral-storage": "10Gi"},
            },
        ),
        # A default that the other amount makes impossible gives way to it.
        ({"requests": {"memory": "3Gi"}}, {"requests": {"cpu": "50m", "memory": "3Gi"}, "limits": {"memory": "3Gi"}}),
        ({"limits": {"memory": "32Mi"}}, {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "32Mi"}}),
    ],
)
def test_what_is_not_set_has_its_default(own: dict[str, Any], expected: dict[str, Any]) -> None:
    assert step(**own) == Resources.model_validate(expected)


@given(AMOUNTS, AMOUNTS)
def test_no_request_is_above_its_limit(requests: dict[str, Any], limits: dict[str, Any]) -> None:
    try:
        found = step(requests=requests, limits=limits)
    except ValidationError:
        over = [name for name in requests if name in limits and _amount(requests[name]) > _amount(limits[name])]
        assert over, "a mistake only where the policy itself says the impossible"
        return
    assert requests.items() <= found.requests.items()
    assert limits.items() <= found.limits.items()
    for name in found.requests.keys() & found.limits.keys():
        assert _amount(found.requests[name]) <= _amount(found.limits[name])


def _amount(text: str | int) -> Any:
    found = quantity(text)
    assert found is not None
    return found


def test_each_role_has_resources_and_the_field_that_sets_them() -> None:
    for role in set(Role) - {Role.UNKNOWN}:
        field = StepResources.field(role)
        _, name, kind, resource = field.split(".")
        policy = Policy.model_validate({"stepResources": {name: {kind: {resource: "123Mi"}}}})
        assert policy.step_resources.of(role).limits["memory"] == "123Mi", field


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stepResources": {"resolve": {"limits": {"memory": "much"}}}}, "limits.memory is much"),
        (
            {"stepResources": {"build": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}},
            "requests.memory is more than limits.memory",
        ),
        ({"stepResources": {"check": {}}}, "stepResources.check"),
        ({"injection": "Enabled"}, "injection"),
        ({"podMetadata": {"labels": {"multiarch.build/run": "x"}}}, "multiarch.build/run is set by the operator"),
        (
            {"podMetadata": {"annotations": {"multiarch.build/mode": "x"}}},
            "multiarch.build/mode is set by the operator",
        ),
        ({"podMetadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}, "managed-by is set by the operator"),
        ({"podMetadata": {"labels": {"a b": "x"}}}, "'a b' is not a valid key"),
        ({"podMetadata": {"labels": {"team": "the platform team"}}}, "'the platform team' is not a valid label value"),
    ],
)
def test_a_mistake_names_the_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        Policy.model_validate(fields, extra="forbid")
    assert words.rpartition(".")[2] in str(error.value)
    assert words in str(error.value) or words in ".".join(map(str, error.value.errors()[0]["loc"]))
