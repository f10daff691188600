"""`spec` of a MultiArchBuild: which source becomes which image for which platforms."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from . import limits
from .base import Model
from .durations import Duration, parse_duration
from .names import NO_NUL, ImageRepository, KeyRef, NameRef, relative_path
from .platforms import SUPPORTED
from .scheduling import Scheduling
from .schema import SET, MapBy, Rule, keys_match, matches, model_rules
from .source import Source

PLACEHOLDERS = ("commit", "shortCommit", "ref", "date", "time", "run")
"""What a tag may name in braces."""
CACHE_TAG_PREFIX = "cache-"
"""How the tags of the registry cache begin."""
DIGEST_TAG_PREFIX = "sha256-"
"""How the tags of signatures and other referrers begin."""
RESERVED_TAG_PREFIXES = (CACHE_TAG_PREFIX, DIGEST_TAG_PREFIX)
"""How no other tag may begin."""

DEFAULT_TIMEOUT = "1h"
"""Time for a whole run where neither spec nor the operator's policy says another."""

_PLACEHOLDER = rf"\{{({'|'.join(PLACEHOLDERS)})\}}"

Text = Annotated[str, Field(max_length=4096), NO_NUL]

Labels = Annotated[
    dict[str, Text],
    Field(max_length=64),
    keys_match(
        "[A-Za-z0-9][A-Za-z0-9._/-]*",
        "each name must be like org.opencontainers.image.source, of at most 128 characters",
    ),
]


class BuildSecret(Model):
    """A secret for `RUN --mount=type=secret,id=…`."""

    id: Annotated[
        str,
        Field(min_length=1, max_length=63),
        matches("[-._a-zA-Z0-9]+", "an id consists of letters, digits, '.', '_' and '-'"),
        Rule("self != '.' && self != '..'", "an id must not be '.' or '..': name it as the Dockerfile does"),
    ]
    """Id that the Dockerfile names."""
    secret_ref: KeyRef
    """Where its value is."""


class Ssh(Model):
    """A key for `RUN --mount=type=ssh`."""

    secret_ref: NameRef
    """Secret with the private key under `ssh-privatekey` (type kubernetes.io/ssh-auth)."""


class Network(StrEnum):
    """Network of the RUN instructions."""

    DEFAULT = "default"
    NONE = "none"


class Build(Model):
    """What `docker buildx build` takes as options."""

    dockerfile: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        NO_NUL,
        relative_path("must be a relative path inside the source, without '..'"),
    ] = "Dockerfile"
    """Path of the Dockerfile, from the root of the build context."""
    target: Annotated[
        str,
        Field(max_length=128),
        matches(
            "([A-Za-z0-9][A-Za-z0-9_.-]*)?",
            "must be the name of a stage, as after AS in the Dockerfile, or its number",
        ),
    ] = ""
    """Stage to build; by default the last one."""
    args: Annotated[
        dict[str, Text],
        Field(max_length=64),
        keys_match(
            "[A-Za-z_][A-Za-z0-9_]*",
            "each name must be a variable name such as NODE_ENV, of at most 128 characters",
        ),
    ] = Field(default_factory=dict)
    """Values of ARG. They can be read in the image's history: use secrets for what is secret."""
    labels: Labels = Field(default_factory=dict)
    """Labels of each image's config."""
    secrets: Annotated[tuple[BuildSecret, ...], Field(max_length=16), MapBy("id")] = ()
    """Secrets for RUN --mount=type=secret."""
    ssh: Ssh | None = None
    """Key for RUN --mount=type=ssh."""
    contexts: Annotated[
        dict[
            str,
            Annotated[
                str,
                Field(max_length=2048),
                NO_NUL,
                matches(
                    r"(docker-image|https?)://[^\s]+",
                    "each value must begin with docker-image://, http:// or https://",
                ),
            ],
        ],
        Field(max_length=16),
        keys_match(
            "[a-z0-9][a-z0-9._/:-]*",
            "each name must be that of a stage or image in lower case, of at most 128 characters",
        ),
    ] = Field(default_factory=dict)
    """Named contexts, as `--build-context`; a name replaces the stage or image of that name."""
    network: Network = Network.DEFAULT
    """Network of the RUN instructions; with none they have no network."""


class Signing(Model):
    """The key that signs the index, so that `cosign verify --key` and admission controllers accept it."""

    secret_ref: NameRef
    """Secret with the private key under `cosign.key` and its password under `cosign.password`, as `cosign
    generate-key-pair k8s://NAMESPACE/NAME` makes it; a key in PKCS#8 does as well."""


class Output(Model):
    """Where the image goes."""

    image: ImageRepository
    """Repository to push to, without tag, such as registry.example.com/team-a/app."""
    tags: Annotated[
        tuple[
            Annotated[
                str,
                Field(min_length=1, max_length=limits.TAG),
                matches(
                    rf"([A-Za-z0-9_]|{_PLACEHOLDER})([A-Za-z0-9_.-]|{_PLACEHOLDER})*",
                    "a tag consists of letters, digits, '_', '.', '-' and the placeholders "
                    + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS),
                ),
                Rule(
                    f"!self.startsWith('{CACHE_TAG_PREFIX}')",
                    f"a tag must not begin with {CACHE_TAG_PREFIX}: those of the layer cache do",
                ),
                Rule(
                    f"!self.startsWith('{DIGEST_TAG_PREFIX}')",
                    f"a tag must not begin with {DIGEST_TAG_PREFIX}: those of signatures do",
                ),
            ],
            ...,
        ],
        Field(max_length=limits.TAGS),
        SET,
    ] = ("latest",)
    """Tags that move to the index once it is verified. {commit}, {shortCommit}, {ref}, {date}, {time} and {run} are
    replaced; an empty list pushes by digest alone."""
    annotations: Labels = Field(default_factory=dict)
    """Annotations of the index."""
    secret_refs: Annotated[tuple[NameRef, ...], Field(max_length=16), MapBy("name")] = ()
    """Secrets of type kubernetes.io/dockerconfigjson, for push, pull and cache."""
    signing: Signing | None = None
    """Key that signs the index before any tag moves to it; by default nothing is signed."""


class CacheMode(StrEnum):
    """Which layers are exported: those of the image, of every stage, or none."""

    MIN = "min"
    MAX = "max"
    DISABLED = "disabled"


class Cache(Model):
    """The registry cache that runs and platforms share."""

    repository: ImageRepository | None = None
    """Repository of the cache; by default what the operator's policy says, else output.image, with tags that begin with
    `cache-`."""
    mode: CacheMode = CacheMode.MAX
    """Which layers are exported: min those of the image, max those of every stage; disabled uses no cache."""


class Provenance(StrEnum):
    """How much the provenance attestation tells (SLSA, by BuildKit)."""

    MIN = "min"
    MAX = "max"
    DISABLED = "disabled"


class Attestations(Model):
    """What is attached to each image about its build."""

    provenance: Provenance = Provenance.MIN
    """SLSA provenance; max also records build arguments and the Dockerfile. If reproducible, it tells no times."""
    sbom: bool = False
    """A list of what is in each image (SPDX), made by the generator that the operator's policy names in images.sbom."""


class History(Model):
    """How many ended runs are kept in status, with their pods."""

    successful: Annotated[int, Field(ge=0, le=10)] = 3
    """Successful runs that are kept."""
    failed: Annotated[int, Field(ge=0, le=10)] = 3
    """Failed, cancelled and superseded runs that are kept."""


class Spec(Model):
    """Which source becomes which image for which platforms."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "has(self.source.git) || (has(self.source.flux) && self.source.flux.kind == 'GitRepository') || "
                "!has(self.output.tags) || !self.output.tags.exists(tag, "
                "tag.contains('{commit}') || tag.contains('{shortCommit}') || tag.contains('{ref}'))",
                "the placeholders {commit}, {shortCommit} and {ref} need source.git, or source.flux with a "
                "GitRepository: use {date}, {time} or {run}",
                field=".output.tags",
            ),
            Rule(
                "!has(self.scheduling) || !has(self.scheduling.overrides) || "
                "self.scheduling.overrides.all(entry, entry.platform in self.platforms)",
                "each platform of scheduling.overrides must also be in spec.platforms",
                field=".scheduling.overrides",
            ),
            Rule(
                "self.platforms.all(name, !name.startsWith('windows/')) || has(self.scheduling) && "
                "self.scheduling.strategy == 'Cross' && (!has(self.scheduling.overrides) || "
                "self.scheduling.overrides.all(entry, !entry.platform.startsWith('windows/')))",
                "builders run on Linux: Windows platforms need scheduling.strategy Cross and a Dockerfile that "
                "builds on $BUILDPLATFORM",
                field=".platforms",
            ),
            Rule(
                "!self.reproducible || !has(self.build) || !has(self.build.args) || "
                "!('SOURCE_DATE_EPOCH' in self.build.args)",
                "SOURCE_DATE_EPOCH is set from the commit: remove it, or set spec.reproducible to false",
                field=".build.args",
            ),
        )
    )

    platforms: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=limits.PLATFORM),
                Rule(
                    f"self in [{', '.join(repr(name) for name in SUPPORTED)}]",
                    f"must be one of {', '.join(SUPPORTED)}",
                ),
            ],
            ...,
        ],
        Field(min_length=1, max_length=limits.PLATFORMS),
        SET,
        Rule(
            "!('linux/arm64' in self && 'linux/arm64/v8' in self)",
            "linux/arm64 and linux/arm64/v8 are the same platform: name one of them",
        ),
    ]
    """Platforms to build, as in `docker buildx build --platform`; the index lists them in this order."""
    source: Source
    """Where the build context comes from: exactly one of git, http, oci, flux and inline."""
    build: Build = Build()
    """What `docker buildx build` takes as options."""
    output: Output
    """Where the image goes."""
    cache: Cache = Cache()
    """The registry cache that runs and platforms share."""
    scheduling: Scheduling = Scheduling()
    """Where the builders run."""
    attestations: Attestations = Attestations()
    """What is attached to each image about its build."""
    reproducible: bool = True
    """Set SOURCE_DATE_EPOCH from the commit (of archives and artifacts from their newest file, 0 for inline sources),
    rewrite the timestamps of layers, and leave out of provenance what differs between two builds of the same."""
    timeout: (
        Annotated[Duration, Rule("!self.matches(r'^[0hms]*$')", "a run needs time: write 90s, 30m or 1h30m")] | None
    ) = None
    """Time for a whole run, such as 90s, 30m or 1h30m; by default 1h, or what the operator's policy says."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further tries per step after infrastructure failures; what the user has to mend is never retried."""
    suspend: bool = False
    """Start no new run; a running one goes on to its end."""
    history: History = History()
    """How many ended runs are kept."""

    @property
    def timeout_delta(self) -> timedelta:
        """`timeout` as a span of time, where the operator's policy has no default of its own."""
        return parse_duration(self.timeout or DEFAULT_TIMEOUT)
