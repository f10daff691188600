"""`kubectl mab report`: what an issue about a build needs, as one Markdown text to be read before it is sent."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from multiarchbuild import __version__
from multiarchbuild.api.answers import is_answer
from multiarchbuild.api.platforms import Platform

from . import checks, doctor
from .console import as_yaml, visible
from .errors import CliError, RefusedError
from .follow import pods_of
from .kube import CORE, Cluster
from .resource import Build
from .watch import log

_FENCE: Final = "`" * 4
_LINES: Final = 60
"""Of the log of each pod."""


def write(cluster: Cluster, name: str) -> int:
    """Print the report of a build and return the exit code.

    Raises:
        CliError: there is no such build, or the API server does not answer.
    """
    found = Build(cluster.get(name))
    for title, language, text in _parts(cluster, found):
        sys.stdout.write(f"### {title}\n\n{_FENCE}{language}\n{visible(text.rstrip())}\n{_FENCE}\n\n")
    return 0


def _parts(cluster: Cluster, found: Build) -> Iterator[tuple[str, str, str]]:
    yield "kubectl mab doctor", "text", _doctor(cluster, found)
    yield f"MultiArchBuild {found.namespace}/{found.name}", "yaml", resource(found.document)
    yield "Events", "text", _events(cluster, found)
    if found.run:
        for pod, manifest in pods_of(cluster, found, found.run.id):
            yield f"Pod {pod.name}", "yaml", as_yaml(manifest.get("status", {}))
            if pod.step_started_at is not None:
                yield f"Log of {pod.name}, last {_LINES} lines", "text", _log(cluster, pod.name)


def _doctor(cluster: Cluster, found: Build) -> str:
    platforms = []
    for name in found.spec.get("platforms", ()):
        with suppress(ValueError):  # one of a newer operator
            platforms.append(Platform.parse(name))
    lines = [f"kubectl mab {__version__}"]
    try:
        findings = checks.findings(doctor.look(cluster, platforms))
        lines += [line.plain for line in doctor.lines(findings)]
    except CliError as error:
        lines.append(str(error))
    return "\n".join(lines)


def resource(document: Any) -> str:
    """Return the resource as YAML, without what says nothing about the build: who wrote which field."""
    metadata = {key: value for key, value in document["metadata"].items() if key != "managedFields"}
    annotations = dict(metadata.get("annotations", {}))
    annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    if "annotations" in metadata:
        metadata["annotations"] = annotations
    return as_yaml({**document, "metadata": metadata})


def _events(cluster: Cluster, found: Build) -> str:
    query = (("fieldSelector", f"involvedObject.name={found.name}"),)
    try:
        items: Sequence[dict[str, Any]] = cluster.request("GET", cluster.path(CORE, "events"), query=query)["items"]
    except RefusedError as error:
        return str(error)
    lines = []
    for item in items:
        when = item.get("lastTimestamp") or item.get("eventTime")
        lines.append(f"{when} {item['type']} {item['reason']}: {item.get('message', '')}")
    return "\n".join(lines)


def _log(cluster: Cluster, pod: str) -> str:
    try:
        return "\n".join(line for line in log(cluster, pod, follow=False, tail=_LINES) if not is_answer(line))
    except RefusedError as error:
        return str(error)
