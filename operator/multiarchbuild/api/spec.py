"""`spec` of a MultiArchBuild: which source becomes which image for which platforms."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from . import limits
from .base import Model
from .durations import Duration, Expiry, parse_duration
from .formats import CompressionType, Format
from .identity import Identity
from .names import NO_NUL, ImageRepository, KeyRef, NameRef, ObjectName, relative_path
from .platforms import SUPPORTED
from .provenance import Provenance
from .rebuild import Rebuild
from .renamed import Capitalised
from .scheduling import Quantity, Scheduling
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

MAX_SPEC_BYTES: Final = 256 * 1024
"""Bytes of a spec as JSON without inline files: the bounds of its fields allow more than the run's ConfigMap holds."""

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
    secret_key_ref: KeyRef
    """Where its value is."""

    @model_validator(mode="before")
    @classmethod
    def _under_its_old_name(cls, data: Any) -> Any:
        """Take `secretRef`, as a CustomResourceDefinition or the ConfigMap of a run from before has it.

        A newer definition drops that field of stored objects: what is missing then is not the fault of this operator.
        """
        if not isinstance(data, dict) or not data.keys().isdisjoint({"secretKeyRef", "secret_key_ref"}):
            return data
        if "secretRef" not in data:
            raise ValueError(
                "secretKeyRef is missing. It was called secretRef until now: rename it in your manifest and apply that"
            )
        return {**data, "secretKeyRef": data["secretRef"]}


class Ssh(Model):
    """A key for `RUN --mount=type=ssh`."""

    secret_ref: NameRef
    """Secret with the private key under `ssh-privatekey` (type kubernetes.io/ssh-auth)."""


class Network(Capitalised):
    """Network of the RUN instructions."""

    DEFAULT = "Default"
    NONE = "None"


PARENT_SCHEME = "multiarchbuild://"
"""How a named context begins that is the image of another MultiArchBuild."""


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
                    r"((docker-image|https?)://[^\s]+|multiarchbuild://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)",
                    "each value must begin with docker-image://, http:// or https://, or be multiarchbuild:// and the "
                    "name of a MultiArchBuild in the same namespace",
                ),
            ],
        ],
        Field(max_length=16),
        keys_match(
            "[a-z0-9][a-z0-9._/:-]*",
            "each name must be that of a stage or image in lower case, of at most 128 characters",
        ),
    ] = Field(default_factory=dict)
    """Named contexts, as `--build-context`; a name replaces the stage or image of that name. multiarchbuild://NAME is
    the image that the MultiArchBuild of this name, in the same namespace, has published last; when it publishes another
    one, this one is built again."""
    identity: (
        Annotated[
            Identity,
            Rule(
                "has(self.registries) && size(self.registries) > 0",
                "name the hosts of the base images' registries in build.identity.registries",
            ),
        ]
        | None
    ) = None
    """Identity that logs in to the registries of base images, those in `registries`."""
    network: Network = Network.DEFAULT
    """Network of the RUN instructions; with None they have no network."""

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the MultiArchBuilds whose images this one is built from."""
        named = (value for value in self.contexts.values() if value.startswith(PARENT_SCHEME))
        return tuple(sorted({value.removeprefix(PARENT_SCHEME) for value in named}))

    def with_parents(self, images: Mapping[str, str]) -> Self:
        """Return what BuildKit is told, where `images` are those of the parents by their names."""
        if not self.parents:
            return self
        contexts = {
            name: f"docker-image://{images[value.removeprefix(PARENT_SCHEME)]}"
            if value.startswith(PARENT_SCHEME)
            else value
            for name, value in self.contexts.items()
        }
        return self.model_copy(update={"contexts": contexts})


_SIGNS_SO = "name a Secret with a key in output.signing.secretRef, or set output.signing.keyless, and not both"


class Signing(Model):
    """What signs the index, so that `cosign verify` and admission controllers accept it: a key, or an identity."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule("has(self.secretRef) != (has(self.keyless) && self.keyless)", _SIGNS_SO),
        )
    )

    secret_ref: NameRef | None = None
    """Secret with the private key under `cosign.key` and its password under `cosign.password`, as `cosign
    generate-key-pair k8s://NAMESPACE/NAME` makes it; a key in PKCS#8 does as well."""
    keyless: bool = False
    """Sign as the ServiceAccount of the pods, with a key that is made for one run and a certificate by the Fulcio that
    the operator's policy names (tenants[].signing.keyless)."""

    @model_validator(mode="after")
    def _says_how(self) -> Self:
        # What a build says was validated when somebody wrote it, not when an older definition has dropped a part of it.
        if self.secret_ref is None and not self.keyless:
            raise ValueError(
                "neither secretRef nor keyless is set, so that nothing would be signed. A CustomResourceDefinition of "
                f"an older version has dropped keyless: apply the build again. Otherwise {_SIGNS_SO}"
            )
        if self.secret_ref is not None and self.keyless:
            raise ValueError(_SIGNS_SO)
        return self


class Compression(Model):
    """How the layers of the image are compressed, as BuildKit's exporter takes it; those of the cache too."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "!has(self.level) || self.type != 'Uncompressed'",
                "layers that are not compressed have no level: remove compression.level",
                field=".level",
            ),
            Rule(
                "!has(self.level) || self.level <= 9 || self.type == 'Zstd' || self.type == 'Uncompressed'",
                "Gzip and Estargz have the levels 0 to 9: lower compression.level, or use Zstd, which has 0 to 22",
                field=".level",
            ),
        )
    )

    type: CompressionType
    """Gzip, which everything reads; Zstd, which is smaller and faster; Estargz for lazy pulling; or Uncompressed."""
    level: Annotated[int, Field(ge=0, le=22)] | None = None
    """How hard to try: 0 to 9 for Gzip and Estargz, 0 to 22 for Zstd; by default what BuildKit takes."""
    force: bool = False
    """Compress the layers of base images, and those from a cache, anew as well; else they stay as they are."""


class Destination(Model):
    """A further repository for the same image."""

    image: ImageRepository
    """Repository, without tag, such as mirror.example.com/team-a/app."""
    secret_refs: Annotated[tuple[NameRef, ...], Field(max_length=16), MapBy("name")] = ()
    """Secrets of type kubernetes.io/dockerconfigjson, to pull from it and push to it."""
    identity: Identity | None = None
    """Identity of a cloud that logs in to its registry, instead of a Secret."""


class Output(Model):
    """Where the image goes."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "!has(self.destinations) || self.destinations.all(each, each.image != self.image)",
                "output.image is the first destination: name only further ones in output.destinations",
                field=".destinations",
            ),
        )
    )

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
    """Annotations of the index, or of the manifest where format is Manifest."""
    compression: Compression | None = None
    """How layers are compressed; by default those of base images stay as they are and new ones are gzip."""
    format: Format = Format.INDEX
    """What the tags name: an index, or with one platform and no attestations also the manifest of the only image."""
    child_tags: bool = False
    """Give what an index lists tags too, such as latest-arm64 and latest-arm64-attestation beside latest: for
    registries whose cleanup deletes what has no tag, also where an index names it."""
    secret_refs: Annotated[tuple[NameRef, ...], Field(max_length=16), MapBy("name")] = ()
    """Secrets of type kubernetes.io/dockerconfigjson that log in to registries: where images and cache are pushed, and
    where base images, named contexts and source.oci are pulled from."""
    identity: Identity | None = None
    """Identity of a cloud that logs in to the registry of output.image, instead of a Secret; for the cache, sources and
    base images in that registry too."""
    destinations: Annotated[tuple[Destination, ...], Field(max_length=limits.DESTINATIONS), MapBy("image")] = ()
    """Further repositories, in the same or other registries, that get the same image under the same tags. No tag moves
    anywhere before all have it."""
    expire: Expiry | None = None
    """How long, at least, an index that this build has published stays in output.image once no tag names it, such as
    720h. It is deleted after a later run. By default nothing is; status.history keeps its images."""
    signing: Signing | None = None
    """What signs the index before any tag moves to it; by default nothing is signed."""


class CacheMode(Capitalised):
    """Which layers are exported: those of the image, of every stage, or none."""

    MIN = "Min"
    MAX = "Max"
    DISABLED = "Disabled"


class CacheVolume(Model):
    """A volume that outlives the pods of builders: one PersistentVolumeClaim for each platform, deleted with the build.

    The same as `cache.volume` of kpack.
    """

    size: Quantity
    """How large each volume is, such as 20Gi. BuildKit keeps at most half of it after a build. At most what the
    operator's policy allows (cacheVolumes.maxSize)."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the volumes, one of those that the operator's policy allows; by default the one that the policy
    says, else the default of the cluster."""


class Cache(Model):
    """The registry cache that runs and platforms share, and volumes with what only builders can keep."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                "!has(self.identity) || has(self.repository)",
                "name the repository that it logs in to: set cache.repository, or remove cache.identity",
                field=".identity",
            ),
            Rule(
                "!has(self.volume) || self.mode != 'Disabled'",
                "with mode Disabled nothing is cached: remove cache.volume, or set another mode",
                field=".volume",
            ),
        )
    )

    repository: ImageRepository | None = None
    """Repository of the cache; by default what the operator's policy says, else output.image, with tags that begin with
    `cache-`."""
    identity: Identity | None = None
    """Identity of a cloud that logs in to cache.repository, where it is another than that of output.image."""
    expire: Expiry | None = None
    """How long the cache of a branch stays that no run of this build uses any more, such as 720h. It is deleted after
    the next run of this build. By default nothing is deleted."""
    mode: CacheMode = CacheMode.MAX
    """Which layers are exported: Min those of the image, Max those of every stage; Disabled uses no cache."""
    import_: Annotated[bool, Field(alias="import")] = True
    """Whether steps may come from the cache. With false each one is executed anew, and the cache is written all the
    same, as with `docker build --no-cache`."""
    volume: CacheVolume | None = None
    """Keeps layers and cache mounts (`RUN --mount=type=cache`) on a volume between runs; without it they are lost with
    the pod of a builder. The operator's policy has to allow it (cacheVolumes)."""


class Attestations(Model):
    """What is attached to each image about its build."""

    provenance: Provenance = Provenance.MIN
    """SLSA provenance; Max also records build arguments and the Dockerfile. If reproducible, it tells no times."""
    sbom: bool = False
    """A list of what is in each image (SPDX), made by the generator that the operator's policy names in images.sbom."""
    record: bool = True
    """What happened in the run: steps, times, cache, warnings. Whoever may pull the image may read it."""


class History(Model):
    """How many ended runs are kept in status, with their pods."""

    successful: Annotated[int, Field(ge=0, le=10)] = 3
    """Successful runs that are kept."""
    failed: Annotated[int, Field(ge=0, le=10)] = 3
    """Failed, cancelled and superseded runs that are kept."""


def _supported(platform: str) -> str:
    if platform not in SUPPORTED:
        raise PydanticCustomError("platform_unknown", "is not one of {known}", {"known": ", ".join(SUPPORTED)})
    return platform


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
            Rule(
                "self.output.format != 'Manifest' || size(self.platforms) == 1 && has(self.attestations) && "
                "self.attestations.provenance == 'Disabled' && "
                "(!has(self.attestations.sbom) || !self.attestations.sbom)",
                "a manifest has one platform and no attestations: name one platform, set attestations.provenance to "
                "Disabled and attestations.sbom to false, or leave output.format out",
                field=".output.format",
            ),
        )
    )

    platforms: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=limits.PLATFORM),
                AfterValidator(_supported),
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
    """Set SOURCE_DATE_EPOCH from the commit (of archives and artifacts from their newest file, 2 January 1980 for what
    is older and for inline sources), rewrite the timestamps of layers, and leave out of provenance what differs between
    two builds of the same."""
    timeout: (
        Annotated[Duration, Rule("!self.matches(r'^[0hms]*$')", "a run needs time: write 90s, 30m or 1h30m")] | None
    ) = None
    """Time for a whole run, such as 90s, 30m or 1h30m; by default 1h, or what the operator's policy says."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further tries per step after infrastructure failures; failures that need the user's action are not retried.

    A missing Secret is looked for once more, whatever this says.
    """
    rebuild: Rebuild = Rebuild()
    """What starts a run beside the spec, its source and a person."""
    suspend: bool = False
    """Start no new run; a running one goes on to its end."""
    history: History = History()
    """How many ended runs are kept."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        written = self.model_dump_json(by_alias=True, exclude_none=True, exclude={"source": {"inline"}})
        if (size := len(written.encode())) > MAX_SPEC_BYTES:
            raise ValueError(
                f"has {size} bytes as JSON without inline files, of at most {MAX_SPEC_BYTES}: shorten build.args, "
                "build.labels, output.annotations or scheduling"
            )
        return self

    @property
    def timeout_delta(self) -> timedelta:
        """`timeout` as a span of time, where the operator's policy has no default of its own."""
        return parse_duration(self.timeout or DEFAULT_TIMEOUT)
