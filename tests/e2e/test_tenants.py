"""What strangers on a real cluster can learn of each other's secrets: nothing, anywhere."""

import base64
import json
import secrets
import zlib
from collections.abc import Iterator

import pytest

from hack.install import NAMESPACE
from hack.target import Target
from tests.support.git import TOKEN, GitServer
from tests.support.signing import key_pair
from tests.support.tenant import AMD64, Build, Status, Tenant, condition

pytestmark = pytest.mark.e2e

DOCKERFILE = (
    "FROM busybox:1.36\nRUN --mount=type=secret,id=npm,required=true sha256sum /run/secrets/npm | cut -c 1-64 > /used\n"
)


def forms(secret: str) -> list[bytes]:
    """Return how a secret may be written."""
    return [secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")]


def test_no_secret_of_a_build_is_anywhere_but_in_its_step(
    tenant: Tenant, target: Target, git_server: GitServer
) -> None:
    repository = git_server.repository(f"{tenant.namespace}.git")
    repository.commit({"Dockerfile": DOCKERFILE})
    npm, pair = f"canary-{secrets.token_hex(16)}", key_pair()
    tenant.secret("reader", bearerToken=TOKEN)
    tenant.secret("npm", token=npm)
    keys = pair.secret()
    tenant.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": keys})
    build = tenant.build(
        source={"git": {"url": repository.bearer_url, "secretRef": {"name": "reader"}}},
        build={"secrets": [{"id": "npm", "secretKeyRef": {"name": "npm", "key": "token"}}]},
        output={"signing": {"secretRef": {"name": "key"}}},
        attestations={"provenance": "Max"},
        cache={"mode": "Max"},
    )
    status = build.succeeded()
    private = [keys["cosign.password"], *(line for line in keys["cosign.key"].splitlines()[1:-1] if len(line) > 20)]
    canaries = [each for text in (TOKEN, npm, *private) for each in forms(text)]
    told = {**_cluster(tenant, target, build), **_registry(tenant, status)}
    leaks = [(where, each) for where, text in told.items() for each in canaries if each in text]
    assert leaks == []
    assert {where.partition(" ")[0] for where in told} >= {"log", "object", "operator", "metrics", "manifest", "blob"}
    # The secret was there, and it was used.
    assert tenant.images.file(f"{tenant.image()}@{status['image']['platforms'][0]['digest']}", "/used").strip()


def _cluster(tenant: Tenant, target: Target, build: Build) -> dict[str, bytes]:
    """Return all that the cluster says of the build, but for the Secrets themselves."""
    told = {}
    for pod in build.pods():
        name = pod["metadata"]["name"]
        for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
            told[f"log {name} {container['name']}"] = tenant.kubectl("logs", name, "-c", container["name"]).encode()
    for kind in ("multiarchbuilds", "pods", "configmaps", "events.events.k8s.io"):
        told[f"object {kind}"] = tenant.kubectl("get", kind, "-o", "json").encode()
    selector = "app.kubernetes.io/name=multiarchbuild"
    told["operator"] = target.kubectl("logs", "-n", NAMESPACE, "-l", selector, "--tail=-1").encode()
    (operator,) = target.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "name").split()
    proxy = f"/api/v1/namespaces/{NAMESPACE}/pods/{operator.partition('/')[2]}:8080/proxy/metrics"
    told["metrics"] = target.kubectl("get", "--raw", proxy).encode()
    return told


def _registry(tenant: Tenant, status: Status) -> dict[str, bytes]:
    """Return every manifest and blob that the published index leads to, unpacked, and its signatures."""
    image, digest = status["image"]["ref"].split("@")
    told: dict[str, bytes] = {}
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


def test_a_stranger_can_not_use_the_secrets_of_another_namespace(tenant: Tenant, target: Target) -> None:
    other = f"{tenant.namespace}-other"
    target.kubectl("create", "namespace", other)
    try:
        Tenant(target, other).secret("npm", token="of the other")
        source = {"inline": {"files": {"Dockerfile": DOCKERFILE}}}
        secret = {"id": "npm", "secretKeyRef": {"name": "npm", "key": "token"}}
        status = tenant.build(platforms=[AMD64], source=source, build={"secrets": [secret]}).failed("SecretNotFound")
        assert "npm" in condition(status, "Ready")["message"]
    finally:
        target.kubectl("delete", "namespace", other, "--wait=false")


def test_every_volume_and_every_container_of_a_run_has_a_bound(tenant: Tenant) -> None:
    status = tenant.build(platforms=[AMD64]).succeeded()
    for pod in tenant.list("pods", f"multiarch.build/run={status['run']['id']}"):
        folders = [volume for volume in pod["spec"]["volumes"] if "emptyDir" in volume]
        assert folders
        assert all(volume["emptyDir"]["sizeLimit"] for volume in folders)
        assert all(container["resources"] for container in pod["spec"]["containers"])
