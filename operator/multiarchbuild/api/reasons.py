"""Why a run or a platform is in the state it is in: every reason that status and Events can show.

A reason is CamelCase and never changes its meaning (Kubernetes API conventions, "typical status properties").
"""

from .base import OpenEnum


class Reason(OpenEnum):
    """The closed set of reasons. `docs/troubleshooting.md` has an entry for each."""

    # In progress
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
    PARENT_NOT_READY = "ParentNotReady"

    # Ended with success
    SUCCEEDED = "Succeeded"

    # Ended by request
    CANCELLED = "Cancelled"
    SUPERSEDED = "Superseded"

    # The user's to mend: never retried
    INVALID_SPEC = "InvalidSpec"
    OPERATOR_OUTDATED = "OperatorOutdated"
    POLICY_DENIED = "PolicyDenied"
    TAG_CONFLICT = "TagConflict"
    GIT_REF_NOT_FOUND = "GitRefNotFound"
    GIT_AUTHENTICATION_FAILED = "GitAuthenticationFailed"
    GIT_REPOSITORY_NOT_FOUND = "GitRepositoryNotFound"
    GIT_HOST_KEY_REJECTED = "GitHostKeyRejected"
    GIT_LFS_FAILED = "GitLfsFailed"
    GIT_FAILED = "GitFailed"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_DENIED = "SourceDenied"
    SOURCE_CHECKSUM_MISMATCH = "SourceChecksumMismatch"
    SOURCE_INVALID = "SourceInvalid"
    CERTIFICATE_UNTRUSTED = "CertificateUntrusted"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    SECRET_INVALID = "SecretInvalid"  # noqa: S105
    IDENTITY_DENIED = "IdentityDenied"
    SIGNING_FAILED = "SigningFailed"
    DOCKERFILE_NOT_FOUND = "DockerfileNotFound"
    DOCKERFILE_INVALID = "DockerfileInvalid"
    TARGET_NOT_FOUND = "TargetNotFound"
    BASE_IMAGE_NOT_FOUND = "BaseImageNotFound"
    BASE_IMAGE_DENIED = "BaseImageDenied"
    FRONTEND_UNAVAILABLE = "FrontendUnavailable"
    SBOM_GENERATOR_FAILED = "SbomGeneratorFailed"
    BUILD_FAILED = "BuildFailed"
    OUT_OF_MEMORY = "OutOfMemory"
    OUT_OF_DISK = "OutOfDisk"
    PUSH_DENIED = "PushDenied"
    REGISTRY_REFUSED = "RegistryRefused"
    BUILDER_UNSUPPORTED = "BuilderUnsupported"
    TIMED_OUT = "TimedOut"
    POD_REJECTED = "PodRejected"

    # Infrastructure: retried within `spec.retries`
    GIT_UNREACHABLE = "GitUnreachable"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    IDENTITY_UNAVAILABLE = "IdentityUnavailable"
    SIGNING_UNAVAILABLE = "SigningUnavailable"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    REGISTRY_ERROR = "RegistryError"
    TAG_MOVED = "TagMoved"
    SCHEDULING_TIMED_OUT = "SchedulingTimedOut"
    BUILDER_LOST = "BuilderLost"
    BUILDER_EVICTED = "BuilderEvicted"
    BUILDER_OUT_OF_MEMORY = "BuilderOutOfMemory"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CACHE_VOLUME_FAILED = "CacheVolumeFailed"
    STEP_FAILED = "StepFailed"

    @property
    def retryable(self) -> bool:
        """Whether the same inputs may succeed on another try without anybody changing anything."""
        return self in _RETRYABLE

    @property
    def leaves_builder_usable(self) -> bool:
        """Whether a builder that has failed so is as good as one that has built: the Dockerfile is to blame."""
        return self in _OF_THE_DOCKERFILE

    @property
    def may_be_of_kept_builder(self) -> bool:
        """Whether a new pod may do what a kept builder has failed at: its disk is full, or its Secrets are old."""
        return self in _OF_A_KEPT_BUILDER


_OF_THE_DOCKERFILE = frozenset(
    {
        Reason.DOCKERFILE_NOT_FOUND,
        Reason.DOCKERFILE_INVALID,
        Reason.TARGET_NOT_FOUND,
        Reason.BASE_IMAGE_NOT_FOUND,
        Reason.BUILD_FAILED,
    }
)
_OF_A_KEPT_BUILDER = frozenset(
    {
        # Memory and disk are what other builds have left of them.
        Reason.OUT_OF_DISK,
        Reason.OUT_OF_MEMORY,
        # The kubelet updates a mounted Secret within about two minutes. Servers say "not found" where a login is wrong.
        Reason.GIT_AUTHENTICATION_FAILED,
        Reason.GIT_REPOSITORY_NOT_FOUND,
        Reason.GIT_HOST_KEY_REJECTED,
        Reason.SOURCE_DENIED,
        Reason.SOURCE_NOT_FOUND,
        Reason.SECRET_NOT_FOUND,
        Reason.SECRET_INVALID,
        Reason.IDENTITY_DENIED,
        Reason.BASE_IMAGE_DENIED,
        Reason.PUSH_DENIED,
    }
)
_RETRYABLE = frozenset(
    {
        Reason.GIT_UNREACHABLE,
        Reason.SOURCE_UNREACHABLE,
        Reason.IDENTITY_UNAVAILABLE,
        Reason.SIGNING_UNAVAILABLE,
        Reason.REGISTRY_UNREACHABLE,
        Reason.REGISTRY_ERROR,
        Reason.TAG_MOVED,
        Reason.SCHEDULING_TIMED_OUT,
        Reason.BUILDER_LOST,
        Reason.BUILDER_EVICTED,
        Reason.BUILDER_OUT_OF_MEMORY,
        Reason.IMAGE_PULL_FAILED,
        Reason.CACHE_VOLUME_FAILED,
        Reason.STEP_FAILED,
    }
)
