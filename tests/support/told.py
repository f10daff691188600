"""All that others can read of a build: what may hold none of its secrets."""

import json
import zlib
from collections.abc import Iterator

from hack.install import NAMESPACE
from hack.target import Target

from .tenant import Build, Status, Tenant

Told = dict[str, bytes]
"""What is told, by where."""


def by_cluster(tenant: Tenant, build: Build) -> Told:
    """Return all that the cluster says of the build, but for the Secrets themselves."""
    told = {}
    for pod in build.pods():
        name = pod["metadata"]["name"]
        for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
            told[f"log {name} {container['name']}"] = tenant.kubectl("logs", name, "-c", container["name"]).encode()
    for kind in ("multiarchbuilds", "pods", "configmaps", "events.events.k8s.io"):
        told[f"object {kind}"] = tenant.kubectl("get", kind, "-o", "json").encode()
    return told


def by_operator(target: Target) -> Told:
    """Return the log and the metrics of the installed operator."""
    selector = "app.kubernetes.io/name=multiarchbuild"
    log = target.kubectl("logs", "-n", NAMESPACE, "-l", selector, "--tail=-1").encode()
    (operator,) = target.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "name").split()
    proxy = f"/api/v1/namespaces/{NAMESPACE}/pods/{operator.partition('/')[2]}:8080/proxy/metrics"
    return {"operator": log, "metrics": target.kubectl("get", "--raw", proxy).encode()}


def by_registry(tenant: Tenant, status: Status) -> Told:
    """Return every manifest and blob that the published index leads to, unpacked, and its signatures."""
    image, digest = status["image"]["ref"].split("@")
    told: Told = {}
    for reference in (f"@{digest}", f":{digest.replace(':', '-')}.sig"):
        told.update(_walk(tenant, image, reference))
    return told


def _walk(tenant: Tenant, image: str, reference: str) -> Iterator[tuple[str, bytes]]:
    raw = tenant.images.raw(image + reference)
    yield f"manifest {reference}", raw
    manifest = json.loads(raw)
    for entry in manifest.get("manifests", ()):
        yield from _walk(tenant, image, f"@{entry['digest']}")
    for entry in (*manifest.get("layers", ()), *filter(None, [manifest.get("config")])):
        content = tenant.images.blob(f"{image}@{entry['digest']}")
        zipped = content[:2] == b"\x1f\x8b"
        yield f"blob {entry['digest']}", zlib.decompress(content, 31) if zipped else content


def is_complete(told: Told) -> bool:
    """Return whether nothing was left out."""
    kinds = {"log", "object", "operator", "metrics", "manifest", "blob"}
    return {where.partition(" ")[0] for where in told} == kinds
