"""What a registry answers becomes a reason that is retried only where another try may be answered differently."""

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.errors import (
    DeniedError,
    ImmutableTagError,
    NotFoundError,
    RefusedError,
    RegistryError,
    RejectedError,
    UnreachableError,
)
from multiarchbuild.steps.errors import push_error

IMAGE = "registry.test/team/app"
ANSWERS: dict[RegistryError, tuple[Reason, str]] = {
    DeniedError("said"): (Reason.PUSH_DENIED, "output.secretRefs"),
    NotFoundError("said"): (Reason.PUSH_DENIED, "create the repository"),
    UnreachableError("said"): (Reason.REGISTRY_UNREACHABLE, "output.image"),
    RejectedError("said"): (Reason.REGISTRY_REFUSED, "output.tags"),
    ImmutableTagError('tag "latest" already exists and is immutable in registry.test/team/app (said)'): (
        Reason.REGISTRY_REFUSED,
        'tag "latest" already exists and is immutable in registry.test/team/app (said): choose another tag, or allow',
    ),
    RefusedError("said"): (Reason.REGISTRY_ERROR, "failed"),
}


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
def test_a_refused_push(error: RegistryError) -> None:
    reason, words = ANSWERS[error]
    found = push_error(error, IMAGE)
    assert (found.reason, words in found.message, IMAGE in found.message or "said." in found.message) == (
        reason,
        True,
        True,
    ), found.message
    assert "said" in found.message
    assert reason.retryable is isinstance(error, UnreachableError | RefusedError)


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
def test_the_field_is_named_that_says_where_to_push(error: RegistryError) -> None:
    message = push_error(error, IMAGE, "output.destinations[1]").message
    assert "output.image" not in message
    assert "output.secretRefs" not in message
    # What is wrong with a tag, or on the registry's side, no field of a destination mends.
    assert ("output.destinations[1]." in message) is not isinstance(error, ImmutableTagError | RefusedError)
