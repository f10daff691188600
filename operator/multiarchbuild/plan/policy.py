"""What the people who run the operator decide for all builds. The operator reads it from one YAML file at its start."""

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from multiarchbuild.api.base import Model
from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.identity import Identities
from multiarchbuild.api.inputs import Registry
from multiarchbuild.api.nodes import PROFILE_LABEL, PROFILE_VERSION
from multiarchbuild.api.rebuild import Window
from multiarchbuild.api.scheduling import Resources
from multiarchbuild.api.spec import DEFAULT_TIMEOUT

from .children import Role
from .identity import digest
from .patterns import KeyPattern, MatchAny, Pattern, Template
from .pod_policy import CacheVolumes, Injection, PodMetadata, StepResources, VolumeSizes
from .proxy import ProxyPolicy
from .quantities import Amount, quantity
from .tenants import NATIVE, Nodes, Tenant, are_told_apart
from .tracing import Tracing

BUILDKIT_IMAGE = "moby/buildkit:v0.32.2-rootless"
"""Pinned: at least 0.31.2 is needed for the security fixes of July 2026."""
ROOTFUL_BUILDKIT_IMAGE = BUILDKIT_IMAGE.removesuffix("-rootless")
"""The same without rootlesskit, for a buildkitd that is root, at least in its own user namespace."""
SBOM_IMAGE = "docker/buildkit-syft-scanner:1.12.0"
"""Pinned: what is new in an SBOM should be new in the image."""

KEEP_BUILDER: Final = "10m"
"""How long builders stay by default, where one that waits costs next to nothing."""
BUILDER_ID = "https://multiarch.build/builders/operator"
"""Builders of an installation that has no identity of its own."""


MAX_BUNDLES: Final = 256 * 1024
"""Bytes of all CA bundles together: with sources, spec and registries they have to fit into a ConfigMap (1 MiB)."""
MAX_REGISTRIES: Final = 64 * 1024
"""Bytes of all registries without their CA bundles, as JSON."""


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


class Profile(StrEnum):
    """Which seccomp profile a rootless builder has."""

    UNCONFINED = "Unconfined"
    """None: its namespace must not enforce Pod Security."""
    LOCALHOST = "Localhost"
    """The one that the chart lays down on nodes (`profile.enabled`): its namespace may enforce `baseline`."""


class RootlessPolicy(Model):
    """How rootless builders are confined."""

    profile: Profile = Profile.UNCONFINED
    """`Localhost` for the profile that the chart lays down on nodes; builds wait for a node that has it."""
    app_armor_profile: Annotated[str, Field(max_length=253, pattern=r"^[!-~]*$")] = ""
    """With `Localhost`, name of an AppArmor profile that all nodes have loaded; empty for the one that the chart loads
    (`profile.appArmor`), on nodes whose label says that they have it."""

    @property
    def takes_app_armor(self) -> bool:
        """Whether a builder gets the AppArmor profile of the chart on nodes that have it."""
        return self.profile is Profile.LOCALHOST and not self.app_armor_profile

    @model_validator(mode="after")
    def _app_armor_is_used(self) -> Self:
        if self.app_armor_profile and self.profile is Profile.UNCONFINED:
            raise ValueError("appArmorProfile is used with profile: Localhost only: set that, or leave it out")
        return self


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


class PollingPolicy(Model):
    """How often, and how many at the same time, sources are looked at that a build polls."""

    min_interval: Annotated[str, Field(min_length=1)] | None = None
    """Shortest time between two looks at one source, such as 1m; a build that asks for less gets this."""
    concurrent: Annotated[int, Field(ge=1)] = 20
    """Looks at the same time in the cluster, each of which is a pod for a second or two."""

    @field_validator("min_interval")
    @classmethod
    def _is_a_duration(cls, text: str | None) -> str | None:
        return _duration(text)

    def interval(self, own: timedelta) -> timedelta:
        """Return the interval of a build that asks for `own`."""
        return max(own, parse_duration(self.min_interval)) if self.min_interval else own


class IdleRequests(Model):
    """What a builder that waits for work requests of its node, its containers together."""

    cpu: Amount = "10m"
    """CPU."""
    memory: Amount = "64Mi"
    """Memory."""


class RebuildPolicy(Model):
    """When runs start that nobody has asked for (spec.rebuild)."""

    min_interval: Annotated[str, Field(min_length=1)] | None = None
    """Shortest rebuild.onBaseImage.interval, such as 1h; a build that asks for less gets this."""
    jitter: Annotated[str, Field(min_length=2)] = "30m"
    """How much later than its interval says a build is looked at, at most and never more than a tenth of the interval:
    another time for each build, so that not all of them ask registries, and start, at once."""
    window: Window | None = None
    """When base images are asked for and runs for them start, for builds that have no window of their own."""

    @field_validator("min_interval")
    @classmethod
    def _is_a_duration(cls, text: str | None) -> str | None:
        return _duration(text)

    @field_validator("jitter")
    @classmethod
    def _is_a_span(cls, text: str) -> str:
        parse_duration(text)
        return text

    def interval(self, own: timedelta) -> timedelta:
        """Return the interval of a build that asks for `own`."""
        return max(own, parse_duration(self.min_interval)) if self.min_interval else own

    def spread(self, uid: str, interval: timedelta) -> timedelta:
        """Return how much later the build with this uid is looked at."""
        most = min(parse_duration(self.jitter), interval / 10)
        share = int(digest(uid)[:4], 16) / 0x10000
        return timedelta(seconds=int(most.total_seconds() * share))


class KeptBuilders(Model):
    """Builders that stay after a run, to serve the next run of the same build and platform."""

    default: Annotated[str, Field(min_length=2)] | None = None
    """How long a builder stays whose build does not say it (scheduling.keepBuilder); 0s: not at all. Without it 10m
    where one that waits requests next to nothing (`idle`), and not at all elsewhere."""
    max: Annotated[str, Field(min_length=2)] = "1h"
    """How long a builder may stay at most, whatever a build asks for; 0s: none is kept."""
    idle: IdleRequests | None = IdleRequests()
    """What one requests while it waits, where the cluster resizes pods in place; null: what it does while it builds."""
    cache: Amount = "20Gi"
    """Most that BuildKit keeps on disk of layers and cache mounts, after each build: what was used least recently goes.
    Never more than a third of its volume, which may become as large as `volumes.builder` while it builds."""
    max_age: Annotated[str, Field(min_length=2)] = "8h"
    """Age from which on a builder gets no further run: Secrets and everything else in its pod are as old."""
    max_runs: Annotated[int, Field(ge=1)] = 50
    """Runs that one builder serves at most."""
    per_namespace: Annotated[int, Field(ge=0)] = 10
    """Builders that wait for work at most in each namespace; the least recently used goes first."""
    per_cluster: Annotated[int, Field(ge=0)] = 100
    """Likewise in the cluster."""

    @field_validator("default", "max")
    @classmethod
    def _is_a_duration(cls, text: str | None) -> str | None:
        if text is not None:
            parse_duration(text)
        return text

    @field_validator("cache")
    @classmethod
    def _is_some_disk(cls, amount: str | int) -> str | int:
        if (found := quantity(amount)) is None or found < 1:
            raise ValueError("is less than a byte: write 20Gi, or default: 0s to keep no builder")
        return amount

    @field_validator("max_age")
    @classmethod
    def _is_some_time(cls, text: str) -> str:
        _duration(text)
        return text


def _check_allowed(resources: Resources, most: Mapping[str, str | int]) -> None:
    """Raise ValueError where resources that builds have by default are more than the most that they may have."""
    for kind, amounts in (("requests", resources.requests), ("limits", resources.limits)):
        for name, amount in amounts.items():
            if quantity(amount) is None:
                raise ValueError(f"{kind}.{name} is {amount}, which is not a quantity: write 500m, 2 or 4Gi")
            if name in most and exceeds(amount, most[name]):
                limit = f"maxResources.{name} ({most[name]})"
                raise ValueError(f"{kind}.{name} is more than {limit}: no build could use it")


class Policy(Model):
    """Operator policy."""

    model_config = ConfigDict(extra="forbid")

    images: Images = Images()
    """Images that the operator's pods run."""
    isolation: Isolation = Isolation.ROOTLESS
    """How buildkitd is kept from its node."""
    rootless: RootlessPolicy = RootlessPolicy()
    """With isolation Rootless, how its builders are confined."""
    emulation: Emulation = Emulation()
    """Where QEMU may be used."""
    outputs: tuple[Outputs, ...] = ()
    """Which namespaces may push where. With no entry everybody may push everywhere; with one, only what is named."""
    cache: CachePolicy = CachePolicy()
    """The registry cache of builds that name none."""
    registries: tuple[Registry, ...] = ()
    """How registries are reached; what is not named is reached by HTTPS with the system's CAs."""
    identities: Identities = Identities()
    """Where the providers of identities are, and which further registries take their logins."""
    proxy: ProxyPolicy = ProxyPolicy()
    """How pods of builds reach what is outside of the cluster; without it directly."""
    builder_id: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[a-z][a-z0-9+.-]*:[!-~]+$")] = BUILDER_ID
    """URI of who vouches for the builders, as builder.id in signed provenance (SLSA)."""
    ca_bundle: str = ""
    """PEM certificates that steps and BuildKit trust besides the system's, for registries and git."""
    max_resources: dict[str, Amount] = Field(default_factory=dict)
    """Most that a builder may request or use of each resource, such as memory: 32Gi; also its limit by default."""
    default_resources: Resources = Resources()
    """Resources of a builder whose build names none."""
    step_resources: StepResources = StepResources()
    """Resources of the operator's own container in each pod."""
    volumes: VolumeSizes = VolumeSizes()
    """How large the volumes of pods may become."""
    tenants: tuple[Tenant, ...] = ()
    """What builds may ask of the cluster, by namespace: the first entry that covers it counts. With no entry a safe
    default holds for all; with one, builds in a namespace that no entry covers are refused."""
    injection: Injection = Injection.DISABLED
    """Whether admission webhooks may add containers to the pods of builds."""
    pod_metadata: PodMetadata = PodMetadata()
    """Labels and annotations of all pods."""
    build_metadata: tuple[KeyPattern, ...] = ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class")
    """Keys of labels and annotations that a build may set on its builders' pods (scheduling.podMetadata). Network
    policies and admission go by labels: allow no key that something trusts."""
    max_timeout: Annotated[str, Field(min_length=1)] | None = None
    """Longest spec.timeout, such as 2h."""
    default_timeout: Annotated[str, Field(min_length=1)] | None = None
    """Timeout of a build that names none; without it 1h, or maxTimeout where that is less."""
    concurrency: Concurrency = Concurrency()
    """How many runs may go on at the same time."""
    kept_builders: KeptBuilders = KeptBuilders()
    """Builders that stay after a run, to serve the next one."""
    cache_volumes: CacheVolumes = CacheVolumes()
    """Volumes that builds may ask for, to keep their cache on."""
    rebuild: RebuildPolicy = RebuildPolicy()
    """When runs start that nobody has asked for."""
    tracing: Tracing = Tracing()
    """Traces of runs."""
    polling: PollingPolicy = PollingPolicy()
    """How often sources are looked at that a build polls."""

    @field_validator("rootless")
    @classmethod
    def _builders_are_rootless(cls, rootless: RootlessPolicy, info: ValidationInfo) -> RootlessPolicy:
        isolation = info.data.get("isolation", Isolation.ROOTLESS)
        if rootless.profile is Profile.LOCALHOST and isolation is not Isolation.ROOTLESS:
            raise ValueError(f"profile: Localhost is for isolation: Rootless, and isolation is {isolation}")
        return rootless

    @field_validator("tenants")
    @classmethod
    def _tenants_are_possible(cls, tenants: tuple[Tenant, ...], info: ValidationInfo) -> tuple[Tenant, ...]:
        for number, each in enumerate(tenants):
            own = each.default_resources or info.data.get("default_resources") or Resources()
            try:
                _check_allowed(own, {**info.data.get("max_resources", {}), **each.max_resources})
            except ValueError as error:
                raise ValueError(f"[{number}].defaultResources, or those of all tenants: {error}") from error
        return are_told_apart(tenants)

    @model_validator(mode="after")
    def _tokens_for_signing_are_for_nothing_else(self) -> Self:
        """Hold back what would mount such a token where a RUN is executed."""
        for number, each in enumerate(self.tenants):
            keyless = each.signing.keyless
            if keyless and self.identities.may_be_of_login(keyless.audience):
                raise ValueError(
                    f"tenants[{number}].signing.keyless.audience is {keyless.audience}, which tokens for logins to "
                    "registries have too, and builders get those: choose another, here and in Fulcio"
                )
        return self

    @field_validator("registries")
    @classmethod
    def _hosts_are_told_apart(cls, registries: tuple[Registry, ...]) -> tuple[Registry, ...]:
        hosts = [registry.host for registry in registries]
        if twice := next((host for host in hosts if hosts.count(host) > 1), None):
            raise ValueError(f"{twice} is listed twice: merge the entries")
        return registries

    @model_validator(mode="after")
    def _leaves_room_for_sources(self) -> Self:
        signing = [each.signing.keyless.ca_bundle for each in self.tenants if each.signing.keyless]
        bundles = [
            self.ca_bundle,
            *(registry.ca_bundle for registry in self.registries),
            max(signing, key=len, default=""),
        ]
        if (size := sum(len(bundle.encode()) for bundle in bundles)) > MAX_BUNDLES:
            raise ValueError(
                f"caBundle, registries[].caBundle and signing.keyless.caBundle have {size} bytes together, of at most "
                f"{MAX_BUNDLES}: they are in ConfigMap and pods of each run; leave out what the system's CAs have"
            )
        entries = [registry.model_copy(update={"ca_bundle": ""}).model_dump_json() for registry in self.registries]
        if (size := sum(map(len, map(str.encode, entries)))) > MAX_REGISTRIES:
            raise ValueError(
                f"registries has {size} bytes without caBundle, of at most {MAX_REGISTRIES}: they are in the ConfigMap "
                "of each run; leave out those that are reached by HTTPS with the system's CAs"
            )
        return self

    @field_validator("max_timeout", "default_timeout")
    @classmethod
    def _is_a_duration(cls, text: str | None) -> str | None:
        return _duration(text)

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
        _check_allowed(resources, info.data.get("max_resources", {}))
        return resources

    @property
    def buildkit_image(self) -> str:
        """Image of BuildKit: only the rootless one starts buildkitd as a user, and it starts it in no other way."""
        if self.images.buildkit is not None:
            return self.images.buildkit
        return BUILDKIT_IMAGE if self.isolation is Isolation.ROOTLESS else ROOTFUL_BUILDKIT_IMAGE

    def in_cluster(self, *, resizes: bool) -> Self:
        """Return what holds in a cluster that changes requests of running pods in place (`resizes`), or does not."""
        own = self.kept_builders
        idle = own.idle if resizes else None
        usual = "0s" if idle is None else KEEP_BUILDER
        kept = own.model_copy(update={"idle": idle, "default": own.default or usual})
        return self.model_copy(update={"kept_builders": kept})

    def timeout(self, own: str | None) -> timedelta:
        """Return how long a run may take whose spec.timeout is `own`."""
        if own is not None:
            return parse_duration(own)
        if self.default_timeout is not None:
            return parse_duration(self.default_timeout)
        usual = parse_duration(DEFAULT_TIMEOUT)
        return min(usual, parse_duration(self.max_timeout)) if self.max_timeout else usual

    def tenant(self, namespace: str) -> Tenant | None:
        """Return what holds for builds of `namespace`, or None where they are refused."""
        if not self.tenants:
            return _ANYBODY
        return next((each for each in self.tenants if each.covers(namespace)), None)

    def builder_nodes(self, namespace: str) -> Nodes:
        """Return the nodes that builders in `namespace` are kept on."""
        nodes = self.rules_for(namespace).placement
        if self.rootless.profile is Profile.UNCONFINED:
            return nodes
        return nodes.model_copy(update={"node_selector": {**nodes.node_selector, PROFILE_LABEL: PROFILE_VERSION}})

    def rules_for(self, namespace: str) -> Tenant:
        """Return what holds for pods in `namespace`, be builds refused there by now or not."""
        return self.tenant(namespace) or _ANYBODY

    def most(self, namespace: str) -> dict[str, Amount]:
        """Return the maximum of each resource that has one."""
        return {**self.max_resources, **self.rules_for(namespace).max_resources}

    def step(self, role: Role, namespace: str) -> Resources:
        """Return the resources of the operator's own container in a pod of this role."""
        return (self.rules_for(namespace).step_resources or self.step_resources).of(role)

    def volume_sizes(self, namespace: str) -> VolumeSizes:
        """Return how large the volumes of a pod may become."""
        return self.rules_for(namespace).volumes or self.volumes

    def cache_volumes_for(self, namespace: str) -> CacheVolumes:
        """Return which volumes builds in `namespace` may ask for."""
        return self.rules_for(namespace).cache_volumes or self.cache_volumes

    @property
    def knows_cache_volumes(self) -> bool:
        """Whether any build may have one: the operator needs rights for claims then, and watches them."""
        return any(
            each and each.max_size for each in (self.cache_volumes, *(own.cache_volumes for own in self.tenants))
        )

    def resources(self, own: Resources, namespace: str) -> Resources:
        """Return the resources of a builder for which the build asks `own`: what has a maximum has a limit."""
        base = own if own != Resources() else self.rules_for(namespace).default_resources or self.default_resources
        # Of the others a limit that nobody has asked for would take one, such as a GPU, for each builder.
        most = {name: amount for name, amount in self.most(namespace).items() if name in NATIVE}
        added = {name: amount for name, amount in most.items() if name not in base.limits}
        if not added and base == Resources():
            return _LEAST
        # Without a request of its own a pod requests its limit: every builder would ask for all that one may have.
        requests = {**dict.fromkeys(added, "0"), **base.requests}
        return base.model_copy(update={"requests": requests, "limits": {**added, **base.limits}})


_ANYBODY = Tenant(namespaces=("*",))
"""The safe default."""
_LEAST = Resources(requests={"cpu": "50m", "memory": "64Mi"})
"""Of a builder of which nobody has said anything. A limit is left to LimitRanges, which give one to what has none."""


def _duration(text: str | None) -> str | None:
    if text is not None and not parse_duration(text):
        raise ValueError("must be longer than 0s: write 90s, 30m or 1h30m")
    return text


def exceeds(amount: str | int, most: str | int) -> bool:
    """Return whether `amount` of a resource is more than `most`; an amount that cannot be read is more than any."""
    have, limit = quantity(amount), quantity(most)
    return have is None or limit is None or have > limit
