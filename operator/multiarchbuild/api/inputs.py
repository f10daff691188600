"""What the operator hands to the steps of a run, in the run's ConfigMap."""

from typing import Annotated

from pydantic import Field

from .base import Model
from .spec import Spec


class Registry(Model):
    """How one registry is reached (operator policy)."""

    host: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$")]
    """Host, with port where it is not the default, as image names write it."""
    plain_http: bool = False
    """Speak HTTP instead of HTTPS."""
    mirrors: tuple[str, ...] = ()
    """Hosts that are asked first for base images."""
    ca_bundle: str = ""
    """PEM certificates that are trusted for this registry, besides the system's and those for all."""


class Inputs(Model):
    """Everything that the steps of one run have in common."""

    namespace: str
    """Namespace of the build."""
    name: str
    """Name of the build."""
    run: str
    """Id of the run."""
    spec: Spec
    """The spec this run builds; the content of inline files is in `files` instead."""
    files: dict[str, str] = Field(default_factory=dict)
    """Key of the ConfigMap by path of the inline file."""
    registries: tuple[Registry, ...] = ()
    """How registries are reached."""
    frontend: str = ""
    """What reads the Dockerfile (policy): empty for what its `# syntax=` line names; `builtin`; or an image."""
    sbom_generator: str = ""
    """Image that makes SBOMs (policy)."""
    proxy: dict[str, str] = Field(default_factory=dict)
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the RUNs (policy); none without a proxy."""
    traced: bool = False
    """Whether BuildKit sends traces (policy)."""
    builder_id: str = ""
    """URI of who vouches for the builders, in signed provenance (policy)."""
