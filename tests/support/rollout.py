"""A DaemonSet of the chart whose pods are replaced, while their nodes are watched."""

import json
from collections.abc import Collection
from typing import Any

from hack.target import Target
from multiarchbuild.api.nodes import verified_by

from .poll import until
from .watch import gone, recording


def pods_of(target: Target, namespace: str, selector: str) -> list[dict[str, Any]]:
    """Return the pods that `selector` finds, without those that end."""
    out = target.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json")
    return [pod for pod in json.loads(out)["items"] if "deletionTimestamp" not in pod["metadata"]]


def restarted_while_labelled(
    target: Target, namespace: str, daemonset: str, selector: str, labels: dict[str, str], of: Collection[str] = ()
) -> None:
    """Replace the pods of a DaemonSet, and assert that no node is without any of `labels` at any time.

    Args:
        target: The cluster.
        namespace: Of the DaemonSet.
        daemonset: Its name.
        selector: Finds its pods.
        labels: Labels with their values.
        of: The nodes that have them, where that is not so of all.
    """
    names = set(of or target.nodes)
    before = pods_of(target, namespace, selector)
    with recording(target, "nodes") as nodes:
        until("the watch shows all nodes", lambda: len(nodes.seen) == len(target.nodes))
        target.kubectl("rollout", "restart", f"daemonset/{daemonset}", "-n", namespace)
        target.kubectl("rollout", "status", f"daemonset/{daemonset}", "-n", namespace, "--timeout=300s")
        gone(target, *(f"pod/{pod['metadata']['name']}" for pod in before), "-n", namespace)
        pods = pods_of(target, namespace, selector)
        after = {pod["metadata"]["uid"] for pod in pods if pod["spec"]["nodeName"] in names}
        assert not after & {pod["metadata"]["uid"] for pod in before}

        def answered_by(label: str) -> set[str | None]:
            found = [node["metadata"] for node in nodes.seen.values() if node["metadata"]["name"] in names]
            return {meta["annotations"].get(verified_by(label)) for meta in found}

        # Until then, the watch may not have shown what the old pods have written at their end.
        until("the new pods answer for the labels", lambda: all(answered_by(label) == after for label in labels))
    without = [
        (change.object["metadata"]["name"], label, change.object["metadata"]["labels"].get(label))
        for change in nodes.changes
        for label, value in labels.items()
        if change.object["metadata"]["name"] in names and change.object["metadata"]["labels"].get(label) != value
    ]
    assert without == [], "nodes that were without a label, for a moment at least"
