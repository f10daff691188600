"""Why a run or a platform is in the state it is in: every reason that status and Events can show.

A reason is CamelCase and never changes its meaning (Kubernetes API conventions, "typical status properties").
"""

from enum import StrEnum


class Reason(StrEnum):
    """The closed set of reasons. `docs/troubleshooting.md` has an entry for each."""

    # Going on
    PENDING = "Pending"
    RESOLVING = "Resolving"
    BUILDING = "Building"
    PUBLISHING = "Publishing"
    SUSPENDED = "Suspended"
    QUEUED = "Queued"
    WAITING_FOR_NATIVE_NODE = "WaitingForNativeNode"
    NO_BUILDER = "NoBuilder"
    UNSCHEDULABLE = "Unschedulable"
    RETRYING = "Retrying"
    SOURCE_NOT_READY = "SourceNotReady"

    # Ended well
    SUCCEEDED = "Succeeded"

    # Ended by request
    CANCELLED = "Cancelled"
    SUPERSEDED = "Superseded"

    # The user's to mend: never retried
    INVALID_SPEC = "InvalidSpec"
    POLICY_DENIED = "PolicyDenied"
    TAG_CONFLICT = "TagConflict"
    GIT_REF_NOT_FOUND = "GitRefNotFound"
    GIT_AUTHENTICATION_FAILED = "GitAuthenticationFailed"
    GIT_REPOSITORY_NOT_FOUND = "GitRepositoryNotFound"
    GIT_HOST_KEY_REJECTED = "GitHostKeyRejected"
    GIT_LFS_FAILED = "GitLfsFailed"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_DENIED = "SourceDenied"
    SOURCE_CHECKSUM_MISMATCH = "SourceChecksumMismatch"
    SOURCE_INVALID = "SourceInvalid"
    CERTIFICATE_UNTRUSTED = "CertificateUntrusted"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    SECRET_INVALID = "SecretInvalid"  # noqa: S105
    DOCKERFILE_NOT_FOUND = "DockerfileNotFound"
    DOCKERFILE_INVALID = "DockerfileInvalid"
    TARGET_NOT_FOUND = "TargetNotFound"
    BASE_IMAGE_NOT_FOUND = "BaseImageNotFound"
    BASE_IMAGE_DENIED = "BaseImageDenied"
    FRONTEND_UNAVAILABLE = "FrontendUnavailable"
    SBOM_GENERATOR_FAILED = "SbomGeneratorFailed"
    BUILD_FAILED = "BuildFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    PUSH_DENIED = "PushDenied"
    BUILDER_UNSUPPORTED = "BuilderUnsupported"
    TIMED_OUT = "TimedOut"
    POD_REJECTED = "PodRejected"

    # Infrastructure: retried within `spec.retries`
    GIT_UNREACHABLE = "GitUnreachable"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    REGISTRY_ERROR = "RegistryError"
    SCHEDULING_TIMED_OUT = "SchedulingTimedOut"
    BUILDER_LOST = "BuilderLost"
    BUILDER_EVICTED = "BuilderEvicted"
    BUILDER_OUT_OF_MEMORY = "BuilderOutOfMemory"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    STEP_FAILED = "StepFailed"

    @property
    def retryable(self) -> bool:
        """Whether the same inputs may succeed on another try without anybody changing anything."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        Reason.GIT_UNREACHABLE,
        Reason.SOURCE_UNREACHABLE,
        Reason.REGISTRY_UNREACHABLE,
        Reason.REGISTRY_ERROR,
        Reason.SCHEDULING_TIMED_OUT,
        Reason.BUILDER_LOST,
        Reason.BUILDER_EVICTED,
        Reason.BUILDER_OUT_OF_MEMORY,
        Reason.IMAGE_PULL_FAILED,
        Reason.STEP_FAILED,
    }
)
