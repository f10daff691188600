"""What is remembered of tries that failed and were followed by another."""

from datetime import datetime

from multiarchbuild.api import limits
from multiarchbuild.api.results import Failure
from multiarchbuild.api.status import FailedAttempt


def with_failure(
    before: tuple[FailedAttempt, ...], attempt: int, failure: Failure, finished_at: datetime, node: str | None
) -> tuple[FailedAttempt, ...]:
    """Return the tries to remember once `attempt` has failed: the last ones, each once."""
    message = failure.message[: limits.FAILED_ATTEMPT]
    this = FailedAttempt(attempt=attempt, reason=failure.reason, message=message, node=node, finished_at=finished_at)
    earlier = tuple(entry for entry in before if entry.attempt != attempt)
    return (*earlier, this)[-limits.FAILED_ATTEMPTS :]
