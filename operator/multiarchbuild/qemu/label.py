"""The part without privileges: what runs here runs in every container of the node."""

import threading
from collections.abc import Callable, Mapping, Sequence

from multiarchbuild.api.nodes import qemu_label
from multiarchbuild.nodes.kubernetes import Api
from multiarchbuild.nodes.label import Labels, keep_labelled
from multiarchbuild.nodes.labeller import Labeller

from .architectures import Architecture
from .probe import failure


def label(wanted: Sequence[Architecture], labeller: Labeller, stop: threading.Event, api: Api) -> int:
    """Verify and label the node until `stop`, then remove the labels; return the exit code.

    Args:
        wanted: Architectures; native ones are skipped.
        labeller: This pod.
        stop: Ends it.
        api: The API server.
    """
    foreign = [architecture for architecture in wanted if not architecture.native]

    def verify() -> tuple[Labels, str]:
        labels, failures = verified(foreign, failure)
        return labels, "; ".join(f"{name} does not run: {why}" for name, why in failures.items())

    return keep_labelled(labeller, verify, {qemu_label(entry.name): None for entry in foreign}, stop, api)


def verified(
    architectures: Sequence[Architecture], check: Callable[[Architecture], str]
) -> tuple[Labels, Mapping[str, str]]:
    """Return the labels of a node, and why each architecture that does not run there does not."""
    failures = {entry.name: why for entry in architectures if (why := check(entry))}
    labels = {qemu_label(entry.name): None if entry.name in failures else "true" for entry in architectures}
    return labels, failures
