"""What a kept pod is asked for: the builds after the one that it was created for, or the publish steps.

The pod, with all that it mounts, stays as it is. A request carries what may differ between two runs of one pod: the
inputs of the run, with the contents of inline files.
"""

from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from .base import Model
from .inputs import Inputs
from .results import Digest, Source

MAX_BYTES: Final = 200 * 1024
"""Bytes of a request as JSON; the annotations of an object may have 256 KiB together."""


class RequestHead(Model):
    """Which request it is."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the request: that of the pod that would have been created for it."""
    number: Annotated[int, Field(ge=2)]
    """Which build of this pod it is, the one that it was created for being the first."""
    at: datetime
    """When the operator handed it over, by its own clock."""


class LastImage(Model):
    """The image that a run would make again, if nothing has changed since the last one."""

    digest: Digest
    """Of the index."""
    tags: tuple[str, ...] = ()
    """Tags that this run would move to what it makes."""
    source: Source = Source()
    """What it was built from."""


class BuildRequest(RequestHead):
    """One more build."""

    seconds: Annotated[int, Field(ge=1)]
    """How long it may take, from when it is read."""
    until: datetime
    """When the run ends, by the operator's clock."""
    inputs: Inputs
    """What the run's ConfigMap says to a pod of its own."""
    last: LastImage | None = None
    """What nothing need be built for, if it would be the same again."""
    contents: dict[str, str] = Field(default_factory=dict)
    """Contents of inline files, by their key in `inputs.files`."""


class PublishRequest(RequestHead):
    """One more image to publish."""

    inputs: Inputs
    """What the run's ConfigMap says to a pod of its own."""
    arguments: tuple[str, ...] = ()
    """Arguments of the step, as they would be those of a pod of its own."""
