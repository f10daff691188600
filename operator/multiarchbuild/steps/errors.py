"""How a step fails."""

from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.errors import DeniedError, NotFoundError, RegistryError, UnreachableError


class StepError(Exception):
    """The step cannot reach its goal: why, and what to do about it."""

    def __init__(self, reason: Reason, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.log_tail = log_tail


def push_error(error: RegistryError, image: str) -> StepError:
    """Return how a step fails that cannot write to `image`."""
    match error:
        case DeniedError():
            return StepError(
                Reason.PUSH_DENIED,
                f"Pushing to {image} was denied: {error}. Name a Secret in output.secretRefs whose credentials may "
                "push to this repository.",
            )
        case NotFoundError():
            return StepError(
                Reason.PUSH_DENIED, f"{image} does not exist ({error}): create the repository, or correct output.image."
            )
        case UnreachableError():
            return StepError(
                Reason.REGISTRY_UNREACHABLE,
                f"{error}. Check the host in output.image, and that pods may connect to it.",
            )
        case _:
            return StepError(Reason.REGISTRY_ERROR, f"Pushing to {image} failed: {error}.")
