"""How a step fails."""

import re

from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.errors import (
    DeniedError,
    ImmutableTagError,
    NotFoundError,
    RegistryError,
    RejectedError,
    UnreachableError,
)


class StepError(Exception):
    """The step cannot reach its goal: why, and what to do about it."""

    def __init__(self, reason: Reason, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.log_tail = log_tail
        self.record = b""
        """`api.record.BuilderRecord` as JSON, of a build that had begun."""


_UNTRUSTED = re.compile(
    # oci/http.py; Go's crypto/tls and crypto/x509; git with GnuTLS; git with OpenSSL.
    r"certificate cannot be verified|failed to verify certificate|x509: |certificate verification failed|"
    r"SSL certificate problem"
)
_UNKNOWN_CA = re.compile(
    # OpenSSL; Go; GnuTLS, which gives no more details.
    r"issuer certificate|self-signed|verify the first certificate|unknown authority|certificate verification failed"
)
FOR_ALL = "`caBundle`"
"""Where the operator's policy names a CA for git, archives and everything else."""
FOR_REGISTRY = "`registries[].caBundle` (for this registry only) or `caBundle` (for everything)"
"""Where the operator's policy names the CA of a registry."""


def certificate_error(said: str, where: str, *, doing: str = "") -> StepError | None:
    """Return how a step fails that was told `said`, if that is about a certificate; `where` the policy names its CA."""
    if not _UNTRUSTED.search(said):
        return None
    if _UNKNOWN_CA.search(said):
        remedy = f"If a CA of your own has signed it, let the operator's policy name that CA in {where}"
    else:
        remedy = "Ask the server's operator to install a valid certificate for this name"
    return StepError(Reason.CERTIFICATE_UNTRUSTED, f"{doing}{said.rstrip('.')}. {remedy}.")


def push_error(error: RegistryError, image: str, field: str = "output") -> StepError:
    """Return how a step fails that cannot write to `image`; `field` of the spec names it and its Secrets."""
    match error:
        case DeniedError():
            return StepError(
                Reason.PUSH_DENIED,
                f"Pushing to {image} was denied: {error}. Name a Secret in {field}.secretRefs whose credentials may "
                f"pull from this repository and push to it, or give {field}.identity the rights.",
            )
        case NotFoundError():
            return StepError(
                Reason.PUSH_DENIED,
                f"{image} does not exist ({error}): create the repository, or correct {field}.image.",
            )
        case UnreachableError():
            return certificate_error(str(error), FOR_REGISTRY) or StepError(
                Reason.REGISTRY_UNREACHABLE,
                f"{error}. Check the host in {field}.image, and that pods may connect to it.",
            )
        case ImmutableTagError():
            return StepError(
                Reason.REGISTRY_REFUSED,
                f"The image is pushed, but {error}: choose another tag, or allow overwriting in the registry.",
            )
        case RejectedError():
            return StepError(
                Reason.REGISTRY_REFUSED,
                f"Pushing to {image} was refused: {error}. Another try would be refused too: correct {field}.image or "
                "output.tags, or what the registry allows (a proxy, a read-only repository, a size limit).",
            )
        case _:
            return StepError(Reason.REGISTRY_ERROR, f"Pushing to {image} failed: {error}.")
