"""The resource as a whole, as it is read from the API server."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from . import group
from .base import Model
from .spec import Spec
from .status import Status

GROUP, VERSION = group.GROUP, group.VERSION
KIND, PLURAL, SHORT_NAME = group.KIND, group.PLURAL, group.SHORT_NAME

REBUILD_ANNOTATION = f"{GROUP}/rebuild-requested-at"
"""Annotation whose value, an RFC 3339 time, asks for a run."""
CANCEL_ANNOTATION = f"{GROUP}/cancel"
"""Annotation whose value, a run id, ends that run."""
FLUX_RECONCILE_ANNOTATION = "reconcile.fluxcd.io/requestedAt"
"""Flux's request to reconcile; echoed in status.lastHandledReconcileAt."""

READ_ANNOTATIONS = (REBUILD_ANNOTATION, CANCEL_ANNOTATION, FLUX_RECONCILE_ANNOTATION)
"""Every annotation of a build that a decision looks at."""


class Metadata(Model):
    """What the operator reads of the metadata."""

    name: str
    namespace: str
    uid: str
    generation: int
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None
    annotations: dict[str, str] = Field(default_factory=dict)


class MultiArchBuild(Model):
    """One source that becomes one image for several platforms."""

    metadata: Metadata
    spec: Spec
    status: Annotated[Status, Field(default_factory=Status)]
