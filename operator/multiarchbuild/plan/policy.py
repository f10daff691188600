"""What the people who run the operator decide for all builds. The operator reads it from one YAML file at its start."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from multiarchbuild.api.base import Model
from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.inputs import Registry
from multiarchbuild.api.scheduling import Resources
from multiarchbuild.api.spec import DEFAULT_TIMEOUT

from .patterns import MatchAny, Pattern, Template
from .quantities import Amount, quantity

BUILDKIT_IMAGE = "moby/buildkit:v0.32.2-rootless"
"""Pinned: at least 0.31.2 is needed for the security fixes of July 2026."""
ROOTFUL_BUILDKIT_IMAGE = BUILDKIT_IMAGE.removesuffix("-rootless")
"""The same without rootlesskit, for a buildkitd that is root, at least in its own user namespace."""
SBOM_IMAGE = "docker/buildkit-syft-scanner:1.12.0"
"""Pinned: what is new in an SBOM should be new in the image."""


class Isolation(StrEnum):
    """How buildkitd is kept from its node."""

    ROOTLESS = "Rootless"
    """As user 1000 of the node."""
    USER_NAMESPACE = "UserNamespace"
    """As root of a user namespace that the kubelet makes for the pod (KEP-127, `hostUsers: false`)."""
    PRIVILEGED = "Privileged"
    """As root of the node."""


class PullPolicy(StrEnum):
    """When a node pulls an image that it may have."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class Images(Model):
    """Images that the operator's pods run."""

    step: Annotated[str, Field(min_length=1)] = "ghcr.io/multiarchbuild/multiarchbuild:latest"
    """The operator's own image, which holds the steps."""
    buildkit: Annotated[str, Field(min_length=1)] | None = None
    """BuildKit; by default the image that the isolation needs."""
    frontend: Annotated[str, Field(max_length=512, pattern=r"^(builtin|[a-z0-9][A-Za-z0-9._:/@-]*)?$")] = ""
    """What reads Dockerfiles: empty for what their `# syntax=` line names, `builtin` for BuildKit's own frontend, which
    needs nothing to be pulled, or the image of a frontend."""
    sbom: Annotated[str, Field(max_length=512, pattern=r"^[a-z0-9][A-Za-z0-9._:/@-]*$")] = SBOM_IMAGE
    """Generator of SBOMs, for builds with attestations.sbom; BuildKit pulls and runs it."""
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    """imagePullPolicy of step and buildkit."""


class Emulation(Model):
    """Where QEMU may be used."""

    allowed: bool = True
    """Whether any platform may be emulated."""
    bundled: bool = True
    """Whether the QEMU in BuildKit's image may be used on nodes without the label multiarch.build/qemu-<arch>=true."""
    namespaces: MatchAny = ("*",)
    """Namespaces whose builds may be emulated."""

    def refusal(self, namespace: str) -> str:
        """Return the rule that forbids QEMU in this namespace, or nothing when it is allowed."""
        if not self.allowed:
            return "emulation.allowed is false"
        if not any(pattern.matches(namespace) for pattern in map(Pattern, self.namespaces)):
            return f"emulation.namespaces does not name {namespace}"
        return ""


class Outputs(Model):
    """Which namespaces may push where."""

    namespaces: MatchAny
    """Namespaces that this is about, such as team-*."""
    registries: MatchAny
    """Repositories that their builds may push images and cache to, such as registry.example.com/{namespace}/*."""


class CachePolicy(Model):
    """The registry cache of builds that name none."""

    repository: Template | None = None
    """Repository for builds without cache.repository; {namespace} and {name} are replaced by those of the build."""


class Concurrency(Model):
    """How many runs may go on at the same time; the others take turns, fair by namespace."""

    cluster: Annotated[int, Field(ge=1)] | None = None
    """In all namespaces together; without it there is no limit."""
    namespace: Annotated[int, Field(ge=1)] | None = None
    """In each namespace; without it there is no limit."""


class Policy(Model):
    """Operator policy."""

    model_config = ConfigDict(extra="forbid")

    images: Images = Images()
    """Images that the operator's pods run."""
    isolation: Isolation = Isolation.ROOTLESS
    """How buildkitd is kept from its node."""
    emulation: Emulation = Emulation()
    """Where QEMU may be used."""
    outputs: tuple[Outputs, ...] = ()
    """Which namespaces may push where. With no entry everybody may push everywhere; with one, only what is named."""
    cache: CachePolicy = CachePolicy()
    """The registry cache of builds that name none."""
    registries: tuple[Registry, ...] = ()
    """How registries are reached; what is not named is reached by HTTPS with the system's CAs."""
    ca_bundle: str = ""
    """PEM certificates that steps and BuildKit trust besides the system's, for registries and git."""
    max_resources: dict[str, Amount] = Field(default_factory=dict)
    """Most that a builder may request or use of each resource, such as memory: 32Gi; also its limit by default."""
    default_resources: Resources = Resources()
    """Resources of a builder whose build names none."""
    max_timeout: Annotated[str, Field(min_length=1)] | None = None
    """Longest spec.timeout, such as 2h."""
    default_timeout: Annotated[str, Field(min_length=1)] | None = None
    """Timeout of a build that names none; without it 1h, or maxTimeout where that is less."""
    concurrency: Concurrency = Concurrency()
    """How many runs may go on at the same time."""

    @field_validator("registries")
    @classmethod
    def _hosts_are_told_apart(cls, registries: tuple[Registry, ...]) -> tuple[Registry, ...]:
        hosts = [registry.host for registry in registries]
        if twice := next((host for host in hosts if hosts.count(host) > 1), None):
            raise ValueError(f"{twice} is there twice: write all that is said of it into one entry")
        return registries

    @field_validator("max_timeout", "default_timeout")
    @classmethod
    def _is_a_duration(cls, text: str | None) -> str | None:
        if text is not None and not parse_duration(text):
            raise ValueError("a run needs time: write 90s, 30m or 1h30m")
        return text

    @field_validator("default_timeout")
    @classmethod
    def _timeout_is_allowed(cls, text: str | None, info: ValidationInfo) -> str | None:
        longest = info.data.get("max_timeout")
        if text and longest and parse_duration(text) > parse_duration(longest):
            raise ValueError(f"is longer than maxTimeout ({longest}): no build could use it")
        return text

    @field_validator("default_resources")
    @classmethod
    def _resources_are_allowed(cls, resources: Resources, info: ValidationInfo) -> Resources:
        for kind, amounts in (("requests", resources.requests), ("limits", resources.limits)):
            for name, amount in amounts.items():
                most = info.data.get("max_resources", {}).get(name)
                if quantity(amount) is None:
                    raise ValueError(f"{kind}.{name} is {amount}, which is no quantity: write 500m, 2 or 4Gi")
                if most is not None and exceeds(amount, most):
                    raise ValueError(f"{kind}.{name} is more than maxResources.{name} ({most}): no build could use it")
        return resources

    @property
    def buildkit_image(self) -> str:
        """Image of BuildKit: only the rootless one starts buildkitd as a user, and it starts it in no other way."""
        if self.images.buildkit is not None:
            return self.images.buildkit
        return BUILDKIT_IMAGE if self.isolation is Isolation.ROOTLESS else ROOTFUL_BUILDKIT_IMAGE

    def timeout(self, own: str | None) -> timedelta:
        """Return how long a run may take whose spec.timeout is `own`."""
        if own is not None:
            return parse_duration(own)
        if self.default_timeout is not None:
            return parse_duration(self.default_timeout)
        usual = parse_duration(DEFAULT_TIMEOUT)
        return min(usual, parse_duration(self.max_timeout)) if self.max_timeout else usual

    def resources(self, own: Resources) -> Resources:
        """Return the resources of a builder for which the build asks `own`: what has a maximum has a limit."""
        base = own if own != Resources() else self.default_resources
        added = {name: most for name, most in self.max_resources.items() if name not in base.limits}
        # Without a request of its own a pod requests its limit: every builder would ask for all that one may have.
        requests = {**dict.fromkeys(added, "0"), **base.requests}
        return base.model_copy(update={"requests": requests, "limits": {**added, **base.limits}})


def exceeds(amount: str | int, most: str | int) -> bool:
    """Return whether `amount` of a resource is more than `most`."""
    have, limit = quantity(amount), quantity(most)
    return have is not None and limit is not None and have > limit
