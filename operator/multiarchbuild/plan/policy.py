"""What the people who run the operator decide for all builds. The operator reads it from one YAML file at its start."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from multiarchbuild.api.base import Model
from multiarchbuild.api.inputs import Registry
from multiarchbuild.api.scheduling import Resources

BUILDKIT_IMAGE = "moby/buildkit:v0.32.2-rootless"
"""Pinned: at least 0.31.2 is needed for the security fixes of July 2026."""


class Isolation(StrEnum):
    """How buildkitd is kept from its node."""

    ROOTLESS = "Rootless"
    PRIVILEGED = "Privileged"


class Images(Model):
    """Images that the operator's pods run."""

    step: Annotated[str, Field(min_length=1)] = "ghcr.io/multiarchbuild/multiarchbuild:latest"
    """The operator's own image, which holds the steps."""
    buildkit: Annotated[str, Field(min_length=1)] = BUILDKIT_IMAGE
    """BuildKit."""
    frontend: Annotated[str, Field(max_length=512, pattern=r"^(builtin|[a-z0-9][A-Za-z0-9._:/@-]*)?$")] = ""
    """What reads Dockerfiles: empty for what their `# syntax=` line names, `builtin` for BuildKit's own frontend, which
    needs nothing to be pulled, or the image of a frontend."""
    pull_policy: str = "IfNotPresent"
    """imagePullPolicy of both."""


class Emulation(Model):
    """Where QEMU may be used."""

    allowed: bool = True
    """Whether any platform may be emulated."""
    bundled: bool = True
    """Whether the QEMU in BuildKit's image may be used on nodes without the label multiarch.build/qemu-<arch>=true."""


class Policy(Model):
    """Operator policy."""

    model_config = ConfigDict(extra="forbid")

    images: Images = Images()
    """Images that the operator's pods run."""
    isolation: Isolation = Isolation.ROOTLESS
    """How buildkitd is kept from its node."""
    emulation: Emulation = Emulation()
    """Where QEMU may be used."""
    registries: tuple[Registry, ...] = ()
    """How registries are reached; what is not named is reached by HTTPS with the system's CAs."""
    ca_bundle: str = ""
    """PEM certificates that steps and BuildKit trust besides the system's, for registries and git."""
    default_resources: Resources = Resources()
    """Resources of a builder whose build names none."""
