"""The resource as a whole, as it is read from the API server."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from .base import StoredModel
from .spec import Spec
from .status import Status

GROUP = "multiarch.build"
VERSION = "v1alpha1"
KIND = "MultiArchBuild"
PLURAL = "multiarchbuilds"
SHORT_NAME = "mab"

REBUILD_ANNOTATION = f"{GROUP}/rebuild-requested-at"
"""Annotation whose value, an RFC 3339 time, asks for a run."""
CANCEL_ANNOTATION = f"{GROUP}/cancel"
"""Annotation whose value, a run id, ends that run."""
FLUX_RECONCILE_ANNOTATION = "reconcile.fluxcd.io/requestedAt"
"""Flux's request to reconcile; echoed in status.lastHandledReconcileAt."""


class Metadata(StoredModel):
    """What the operator reads of the metadata."""

    name: str
    namespace: str
    uid: str
    generation: int
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None
    annotations: dict[str, str] = Field(default_factory=dict)


class MultiArchBuild(StoredModel):
    """One source that becomes one image for several platforms."""

    metadata: Metadata
    spec: Spec
    status: Annotated[Status, Field(default_factory=Status)]
