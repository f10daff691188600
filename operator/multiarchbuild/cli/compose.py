"""The options that users of `docker buildx build` know, as a MultiArchBuild."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiarchbuild.api.formats import CompressionType
from multiarchbuild.api.platforms import SUPPORTED
from multiarchbuild.api.resource import GROUP, KIND, REBUILD_ANNOTATION, VERSION
from multiarchbuild.oci.names import Repository

from .errors import UsageError

_SHORT = {"amd64": "linux/amd64", "arm64": "linux/arm64"}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about a build of a folder."""

    tags: Sequence[str]
    platforms: Sequence[str] = ()
    name: str = ""
    dockerfile: str = "Dockerfile"
    """Path below the folder."""
    target: str = ""
    args: Sequence[str] = ()
    labels: Sequence[str] = ()
    annotations: Sequence[str] = ()
    contexts: Sequence[str] = ()
    secrets: Sequence[str] = ()
    registry_secrets: Sequence[str] = ()
    signing_secret: str = ""
    signing_keyless: bool = False
    provenance: str = ""
    sbom: bool = False
    compression: str = ""
    format: str = ""
    destinations: Sequence[str] = ()
    cache: bool = True
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def output(self) -> tuple[str, list[str]]:
        """Repository and tags.

        Raises:
            UsageError: there is no tag, or they name several repositories.
        """
        if not self.tags:
            raise UsageError("name the image with --tag registry/name:tag: a multi-platform image lives in a registry")
        pairs = [_split(tag) for tag in self.tags]
        repositories = sorted({repository for repository, _ in pairs})
        if len(repositories) > 1:
            raise UsageError(f"--tag must always name the same repository; it names {' and '.join(repositories)}")
        return repositories[0], list(dict.fromkeys(tag for _, tag in pairs))

    @property
    def resource_name(self) -> str:
        """Name of the resource: the last part of the repository unless the user says otherwise.

        Raises:
            UsageError: that is no name for an object.
        """
        name = self.name or re.sub("[._-]+", "-", self.output[0].rpartition("/")[2])
        if not _NAME.fullmatch(name) or len(name) > 253:  # noqa: PLR2004 - RFC 1123
            raise UsageError(f"{name!r} is not a valid Kubernetes name: use letters, digits, '-' and '.' with --name")
        return name


def manifest(options: Options, source: str, *, request: str | None = None) -> dict[str, Any]:
    """Return the resource that builds the artifact `source`; `request` asks for a run whatever ran before.

    Raises:
        UsageError: an option is malformed.
    """
    repository, tags = options.output
    build: dict[str, Any] = {
        "dockerfile": options.dockerfile,
        "target": options.target,
        "args": dict(_argument(text, options.environment) for text in options.args),
        "labels": dict(_pair(text, "--label") for text in options.labels),
        "contexts": dict(_pair(text, "--build-context") for text in options.contexts),
        "secrets": [_secret(text) for text in options.secrets],
    }
    output: dict[str, Any] = {
        "image": repository,
        "tags": tags,
        "annotations": dict(_pair(text, "--annotation") for text in options.annotations),
        "secretRefs": [{"name": name} for name in options.registry_secrets],
        "signing": _signing(options),
        "compression": _compression(options.compression) if options.compression else {},
        "format": options.format.capitalize(),
        "destinations": [_destination(text) for text in options.destinations],
    }
    attestations = {"provenance": options.provenance.capitalize(), "sbom": options.sbom}
    spec: dict[str, Any] = {
        "platforms": platforms(options.platforms),
        "source": {"oci": {"image": source}},
        "build": {key: value for key, value in build.items() if value},
        "output": {key: value for key, value in output.items() if value},
    }
    if any(attestations.values()):
        spec["attestations"] = {key: value for key, value in attestations.items() if value}
    if not options.cache:
        spec["cache"] = {"import": False}
    metadata: dict[str, Any] = {"name": options.resource_name}
    if request:
        metadata["annotations"] = {REBUILD_ANNOTATION: request}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": spec}


def platforms(given: Sequence[str]) -> list[str]:
    """Return the platforms in options that may each name several, separated by commas.

    Raises:
        UsageError: there is none, or one that cannot be built.
    """
    names = [name.strip() for text in given for name in text.split(",")]
    found = list(dict.fromkeys(_SHORT.get(name, name) for name in names if name))
    if not found:
        raise UsageError("name the platforms with --platform, such as linux/amd64,linux/arm64")
    if wrong := next((name for name in found if name not in SUPPORTED), None):
        raise UsageError(f"platform {wrong!r} is not supported: use some of {', '.join(SUPPORTED)}")
    return found


def dockerfile(folder: Path, given: str | None, here: Path) -> str:
    """Return the path below `folder` of the Dockerfile that `--file` names, as with docker relative to `here`.

    Raises:
        UsageError: it is not inside the folder.
    """
    if given is None:
        return "Dockerfile"
    if given == "-":
        raise UsageError("a Dockerfile from standard input is not supported: write it into the folder")
    path = (here / given).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UsageError(f"--file {given}: the Dockerfile must be inside {folder}, which is all that the builder gets")
    return path.relative_to(folder.resolve()).as_posix()


def _split(tag: str) -> tuple[str, str]:
    if "@" in tag:
        raise UsageError(f"--tag {tag}: name a tag; the digest is the result of the build")
    name, colon, text = tag.rpartition(":")
    repository, label = (name, text) if colon and "/" not in text else (tag, "latest")
    if not repository or not label:
        raise UsageError(f"--tag {tag}: write registry/name:tag")
    return str(Repository.parse(repository)), label


def _argument(text: str, environment: Mapping[str, str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--build-arg {text}: write NAME=value, or NAME to take it from the environment")
    if equals:
        return name, value
    if name not in environment:
        raise UsageError(f"--build-arg {name}: the environment has no variable {name}: write {name}=value")
    return name, environment[name]


def _pair(text: str, option: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        raise UsageError(f"{option} {text}: write name=value")
    return name, value


def _signing(options: Options) -> dict[str, Any]:
    if options.signing_keyless:
        if options.signing_secret:
            raise UsageError("--signing-secret and --signing-keyless are two ways to sign: give one of them")
        return {"keyless": True}
    return {"secretRef": {"name": options.signing_secret}} if options.signing_secret else {}


def _secret(text: str) -> dict[str, Any]:
    """Return the entry for `id=npm,secret=NAME/key`."""
    fields = dict(part.strip().partition("=")[::2] for part in text.split(","))
    name, slash, key = fields.get("secret", "").partition("/")
    if set(fields) != {"id", "secret"} or not fields["id"] or not name or not (slash and key):
        raise UsageError(
            f"--secret {text}: write id=ID,secret=NAME/KEY for the key of a Secret in the namespace; "
            "the builder cannot read files of this machine"
        )
    return {"id": fields["id"], "secretKeyRef": {"name": name, "key": key}}


def _compression(text: str) -> dict[str, Any]:
    """Return the entry for `zstd,level=3,force=true`, in which the names may be buildx's."""
    kind, *rest = (part.strip() for part in text.split(","))
    kinds = {str(each).lower(): str(each) for each in CompressionType}
    wrong = UsageError(
        f"--compression {text}: write {', '.join(kinds)}, and after it ,level=N or ,force=true where it is needed"
    )
    if kind not in kinds:
        raise wrong
    found: dict[str, Any] = {"type": kinds[kind]}
    for part in rest:
        name, _, value = part.partition("=")
        if name in {"level", "compression-level"} and value.isdecimal():
            found["level"] = int(value)
        elif name in {"force", "force-compression"} and value in {"true", "false"}:
            found["force"] = value == "true"
        else:
            raise wrong
    return found


def _destination(text: str) -> dict[str, Any]:
    """Return the entry for `mirror.example.com/app,secret=NAME`."""
    image, *rest = (part.strip() for part in text.split(","))
    pairs = [part.partition("=") for part in rest]
    if (
        not image
        or "@" in image
        or ":" in image.rpartition("/")[2]
        or any(name != "secret" or not value for name, _, value in pairs)
    ):
        raise UsageError(
            f"--destination {text}: write registry/name without a tag, which are those of --tag, and ,secret=NAME for "
            "a Secret in the namespace"
        )
    entry: dict[str, Any] = {"image": str(Repository.parse(image))}
    return entry | ({"secretRefs": [{"name": value} for *_, value in pairs]} if pairs else {})
