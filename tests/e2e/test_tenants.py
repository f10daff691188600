"""What strangers on a real cluster can learn of each other's secrets: nothing, anywhere."""

import base64
import secrets

import pytest

from hack.target import Target
from tests.support.git import TOKEN, GitServer
from tests.support.signing import key_pair
from tests.support.tenant import AMD64, Tenant, condition
from tests.support.told import by_cluster, by_operator, by_registry, is_complete

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
    told = {**by_cluster(tenant, build), **by_operator(target), **by_registry(tenant, status)}
    leaks = [(where, each) for where, text in told.items() for each in canaries if each in text]
    assert leaks == []
    assert is_complete(told)
    # The secret was there, and it was used.
    assert tenant.images.file(f"{tenant.image()}@{status['image']['platforms'][0]['digest']}", "/used").strip()


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
