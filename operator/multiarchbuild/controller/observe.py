"""What is there now: the build, its pods and ConfigMaps, read from the API server, and the nodes."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from multiarchbuild.plan.children import UID_LABEL, Node, config_map_from, node_from, pod_from
from multiarchbuild.plan.decide import Children

from .kube import CONFIG_MAPS, NODES, PODS, Kube

NODES_SECONDS: Final = 60.0
"""How long a list of nodes is good for when no event says otherwise."""


async def children_of(kube: Kube, namespace: str, uid: str) -> Children:
    """Return the pods and ConfigMaps that the build with this uid controls. Raises `KubeError`."""
    selector = f"{UID_LABEL}={uid}"
    pods, config_maps = await asyncio.gather(
        kube.list(PODS, namespace, label_selector=selector),
        kube.list(CONFIG_MAPS, namespace, label_selector=selector, metadata_only=True),
    )
    return Children(
        pods=tuple(pod_from(manifest) for manifest in pods if _controlled_by(manifest, uid)),
        config_maps=tuple(config_map_from(manifest) for manifest in config_maps if _controlled_by(manifest, uid)),
    )


class Nodes:
    """The nodes of the cluster, listed again when an event has said that they changed.

    Nothing is written to nodes, so that unlike for builds and their children a moment's delay is no hazard,
    and a list of a thousand nodes for each look at each build would be one.
    """

    def __init__(self, kube: Kube, clock: Callable[[], float]) -> None:
        """Know nothing yet; `clock` returns seconds."""
        self._kube, self._clock = kube, clock
        self._nodes: tuple[Node, ...] = ()
        self._listed_at: float | None = None
        self._lock = asyncio.Lock()

    def changed(self) -> None:
        """Forget what is known."""
        self._listed_at = None

    async def get(self) -> tuple[Node, ...]:
        """Return all nodes. Raises `KubeError`."""
        async with self._lock:
            asked_at = self._clock()
            if self._listed_at is None or asked_at - self._listed_at > NODES_SECONDS:
                self._listed_at = asked_at  # set first: a change during the list counts
                try:
                    manifests = await self._kube.list(NODES, None, resource_version="0")
                except BaseException:
                    self._listed_at = None
                    raise
                self._nodes = tuple(map(node_from, manifests))
            return self._nodes


def _controlled_by(manifest: Mapping[str, Any], uid: str) -> bool:
    """Tell a child from something that only wears its label."""
    references = manifest["metadata"].get("ownerReferences", ())
    return any(reference["uid"] == uid and reference.get("controller") for reference in references)
