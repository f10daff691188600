"""`kubectl mab doctor`: what builds need, asked of the API server, and what is missing."""

import argparse
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from rich.text import Text

from multiarchbuild import __version__
from multiarchbuild.api.nodes import (
    APP_ARMOR_LABEL,
    APP_ARMOR_PROFILE_LABEL,
    PROFILE_LABEL,
    PROFILE_VERSION,
    QEMU_PREFIX,
)
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import GROUP, PLURAL, VERSION
from multiarchbuild.api.scheduling import Resources
from multiarchbuild.plan.policy import Policy
from multiarchbuild.pods import builder, volumes

from . import checks, compose, console
from .checks import Facts, Finding, Level, Node, Operator, Profiles
from .errors import CliError, NotFoundError, RefusedError
from .kube import CORE, Cluster, Object

DEFAULT_PLATFORMS: Final = ("linux/amd64,linux/arm64",)
_RIGHTS: Final = (
    *((verb, GROUP, PLURAL) for verb in ("get", "list", "watch", "create", "patch")),
    *(("list", "", "pods"), ("get", "", "pods/log")),
)
"""What docs/cli.md says that a user needs."""
_OPERATORS: Final = (("labelSelector", "app.kubernetes.io/name=multiarchbuild"),)
_MARKS: Final = {Level.OK: "green", Level.UNKNOWN: "cyan", Level.WARNING: "yellow", Level.MISSING: "red"}
_PROBE_SECONDS: Final = 300
"""How long a pod of a probe may take, its image included."""


def run(cluster: Cluster, arguments: argparse.Namespace) -> int:
    """Print what the checks find; return 1 where something is missing.

    Raises:
        CliError: the API server does not answer, or refuses what everybody may ask.
    """
    platforms = [Platform.parse(name) for name in compose.platforms(arguments.platform or DEFAULT_PLATFORMS)]
    facts = look(cluster, platforms, probe=arguments.probe)
    found = checks.findings(facts, checks.BEFORE_INSTALLATION if arguments.before_installation else checks.CHECKS)
    if arguments.output:
        content = [
            {"check": each.check, "level": str(each.level), "message": each.message, "remedy": each.remedy}
            for each in found
        ]
        console.document({"kind": "Findings", "items": content}, arguments.output)
    else:
        console.show(lines(found))
    return int(any(each.level is Level.MISSING for each in found))


def lines(found: Sequence[Finding]) -> list[Text]:
    """Return what is printed: a line for each finding, and below it what to do."""
    shown = []
    for each in found:
        line = Text(f"{each.level:<8}", style=_MARKS[each.level])
        shown.append(line.append(f" {each.check}: {each.message}", style="default"))
        if each.remedy:
            shown.append(Text(f"         → {each.remedy}"))
    return shown


def look(cluster: Cluster, platforms: Sequence[Platform], *, probe: bool = False) -> Facts:
    """Return what the API server says.

    Raises:
        CliError: it does not answer.
    """
    nodes = _nodes(cluster)
    return Facts(
        kubernetes=str(cluster.request("GET", "version")["gitVersion"]),
        namespace=cluster.namespace,
        version=__version__,
        platforms=platforms,
        served=_served(cluster),
        operators=_operators(cluster),
        nodes=nodes,
        exists=_exists(cluster),
        refusal=_refusal(cluster),
        enforced=_enforced(cluster),
        rights={f"{verb} {resource}": _may(cluster, verb, group, resource) for verb, group, resource in _RIGHTS},
        probes=dict(_probes(cluster, nodes or ())) if probe else {},
    )


def _served(cluster: Cluster) -> bool:
    try:
        listed = cluster.request("GET", f"apis/{GROUP}/{VERSION}")["resources"]
    except RefusedError:
        return False
    return any(entry["name"] == PLURAL for entry in listed)


def _operators(cluster: Cluster) -> list[Operator] | None:
    try:
        items = cluster.request("GET", "apis/apps/v1/deployments", query=_OPERATORS)["items"]
    except RefusedError:
        return None
    return [
        Operator(
            item["metadata"]["namespace"],
            item["metadata"]["labels"].get("app.kubernetes.io/version", ""),
            item.get("status", {}).get("readyReplicas", 0) > 0,
        )
        for item in items
    ]


def _nodes(cluster: Cluster) -> list[Node] | None:
    try:
        items = cluster.request("GET", f"{CORE}/nodes")["items"]
    except RefusedError:
        return None
    return [_node(item) for item in items if item["metadata"]["labels"].get("kubernetes.io/os") == "linux"]


def _node(item: Mapping[str, Any]) -> Node:
    labels, info = item["metadata"]["labels"], item["status"]["nodeInfo"]
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in item["status"].get("conditions", ()))
    return Node(
        name=item["metadata"]["name"],
        architecture=labels.get("kubernetes.io/arch", ""),
        ready=ready and not item["spec"].get("unschedulable", False),
        os_image=info["osImage"],
        kernel=info["kernelVersion"],
        qemu=frozenset(
            label.removeprefix(QEMU_PREFIX)
            for label, value in labels.items()
            if label.startswith(QEMU_PREFIX) and value == "true"
        ),
        app_armor=labels.get(APP_ARMOR_LABEL) == "true",
        profiles=_profiles(labels),
    )


def _exists(cluster: Cluster) -> bool:
    """Return whether the namespace exists, as far as one may know."""
    try:
        cluster.request("GET", f"{CORE}/namespaces/{cluster.namespace}")
    except NotFoundError:
        return False
    except RefusedError:
        return True
    return True


def _profiles(labels: Mapping[str, str]) -> Profiles:
    if labels.get(APP_ARMOR_PROFILE_LABEL) == PROFILE_VERSION:
        return Profiles.BOTH
    return Profiles.SECCOMP if labels.get(PROFILE_LABEL) == PROFILE_VERSION else Profiles.NONE


def _enforced(cluster: Cluster) -> str | None:
    with suppress(RefusedError):
        labels = cluster.request("GET", f"{CORE}/namespaces/{cluster.namespace}")["metadata"].get("labels", {})
        return str(labels.get("pod-security.kubernetes.io/enforce", ""))
    return None


def _refusal(cluster: Cluster) -> str | None:
    """Return what admission says of a builder's pod, which is not created."""
    try:
        cluster.request("POST", cluster.path(CORE, "pods"), query=(("dryRun", "All"),), body=_pod(_name()))
    except NotFoundError:
        return None  # there is no such namespace
    except RefusedError as error:
        return None if "cannot create resource" in str(error) else str(error)
    return ""


def _may(cluster: Cluster, verb: str, group: str, resource: str) -> bool:
    name, _, subresource = resource.partition("/")
    attributes = {"namespace": cluster.namespace, "verb": verb, "group": group, "resource": name}
    body: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {**attributes, "subresource": subresource}},
    }
    answer = cluster.request("POST", "apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
    return bool(answer["status"]["allowed"])


def _name() -> str:
    """Return the name of a pod that nobody else has, not even where it is not created."""
    return f"mab-doctor-{uuid.uuid4().hex[:8]}"


def _pod(name: str, node: str = "") -> Object:
    """Return a pod with the rights of a rootless builder, which makes a user namespace as one does."""
    container = builder.container(Policy(), Resources(), [], volumes.socket())
    kept = {key: container[key] for key in ("image", "imagePullPolicy", "securityContext")}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "activeDeadlineSeconds": _PROBE_SECONDS,
        "containers": [
            {
                "name": "probe",
                "command": ["rootlesskit", "true"],
                "terminationMessagePolicy": "FallbackToLogsOnError",
                **kept,
            }
        ],
    }
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _probes(cluster: Cluster, nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """Yield each node that is ready and why no user namespace could be made there, or an empty text."""
    made: dict[str, str] = {}
    try:
        for node in nodes:
            if node.ready:
                name = _name()
                cluster.request("POST", cluster.path(CORE, "pods"), body=_pod(name, node.name))
                made[node.name] = name
        for node_name, name in made.items():
            if (outcome := _outcome(cluster, name)) is not None:
                yield node_name, outcome
    finally:
        for name in made.values():
            with suppress(CliError):
                cluster.request("DELETE", cluster.path(CORE, "pods", name))


def _outcome(cluster: Cluster, name: str) -> str | None:
    """Return why the pod failed, an empty text where it did not, or None where it could not try in time."""
    end = time.monotonic() + _PROBE_SECONDS
    while time.monotonic() < end:
        status = cluster.request("GET", cluster.path(CORE, "pods", name))["status"]
        containers: list[dict[str, Any]] = status.get("containerStatuses", [])
        state: dict[str, Any] = containers[0].get("state", {}) if containers else {}
        if status.get("phase") == "Succeeded":
            return ""
        if status.get("reason") == "DeadlineExceeded":
            return None
        if status.get("phase") == "Failed":
            said = state.get("terminated", {}).get("message", "") or status.get("message", "")
            return said.strip().splitlines()[-1] if said.strip() else "rootlesskit failed without a message"
        if (reason := state.get("waiting", {}).get("reason", "")) in {"ErrImagePull", "ImagePullBackOff"}:
            return f"the image of BuildKit could not be pulled ({reason})"
        time.sleep(1)
    return None
