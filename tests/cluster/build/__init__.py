"""What the local cluster is made of, built from source and cached by content.

Two things are made: *programs* (Kubernetes, etcd, containerd, BuildKit, ... compiled from the Go modules in
``tests/cluster/programs``) and *images* (stand-ins for well-known images, made from Debian's packages, for amd64 and
arm64). Both live in a cache directory outside the checkout and are keyed by what they are made from, so a second call
returns at once and a changed version builds only what changed.

Everything is published by rename after it is complete and on disk: an interrupted build leaves nothing that a later
call would use. One lock per cache admits one builder at a time.
"""

from tests.cluster.build.errors import BuildError
from tests.cluster.build.images import ImageStore, ensure_images
from tests.cluster.build.orchestrate import Built, ensure
from tests.cluster.build.preflight import preflight
from tests.cluster.build.programs import ensure_programs
from tests.cluster.build.progress import Progress

__all__ = [
    "BuildError",
    "Built",
    "ImageStore",
    "Progress",
    "ensure",
    "ensure_images",
    "ensure_programs",
    "preflight",
]
