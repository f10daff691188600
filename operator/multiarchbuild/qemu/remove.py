"""Ends the DaemonSet before its rights go: without them its pods could not take their labels back."""

from multiarchbuild.nodes.kubernetes import Api, ApiError
from multiarchbuild.nodes.log import say


def remove(namespace: str, name: str, seconds: float) -> int:
    """Delete the DaemonSet and wait until its pods have ended; return the exit code."""
    try:
        gone = Api().delete_daemonset(namespace, name, seconds)
    except ApiError as error:
        say(f"error: {error}")
        return 1
    if not gone:
        say(f"error: pods of {namespace}/{name} are still there after {seconds:.0f} s: see kubectl get pods")
        return 1
    say(f"{namespace}/{name} and its pods are gone")
    return 0
