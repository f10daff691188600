"""Signatures: made in the publish pod with the key of a Secret, before any tag moves, and verified by openssl."""

import json

import pytest

from tests.support.signing import KeyPair, key_pair, verified
from tests.support.tenant import BOTH, Build, Status, Tenant, condition

pytestmark = pytest.mark.e2e

SECRET = "cosign-key"
SIGNED = {"signing": {"secretRef": {"name": SECRET}}}


def store(tenant: Tenant, **keys: str) -> None:
    """Make the Secret with the key, or change it."""
    tenant.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": keys})


def signers(build: Build, status: Status, **pairs: KeyPair) -> list[str]:
    """Return whose signatures the image has."""
    image, digest = status["image"]["ref"].split("@")
    images, tag = build.tenant.images, f"{image}:{digest.replace(':', '-')}.sig"
    assert images.digest(tag) == status["image"]["signature"]
    return verified(images.manifest(tag), lambda blob: images.blob(f"{image}@{blob}"), pairs, image, digest)


def test_an_image_is_signed_with_the_key_of_a_secret(tenant: Tenant) -> None:
    pair = key_pair()
    store(tenant, **pair.secret())
    # Provenance tells when it was made, and no index is like another.
    build = tenant.build(output=SIGNED, attestations={"provenance": "disabled"})
    status = build.succeeded()
    assert signers(build, status, ours=pair) == ["ours"]
    assert tenant.images.digest(f"{tenant.image()}:latest") == status["image"]["digest"]
    # The key is where nothing of the user's is executed, and nowhere else.
    mounting = [pod for pod in build.pods() if SECRET in json.dumps(pod["spec"])]
    assert [pod["metadata"]["labels"]["multiarch.build/role"] for pod in mounting] == ["publish"]

    build.rebuild()
    again = build.succeeded(after=status["run"]["id"])
    assert again["image"] == status["image"], "the same bytes, and the signature that they have already"


def test_without_its_password_no_tag_moves_and_with_it_nothing_is_built_again(tenant: Tenant) -> None:
    pair = key_pair()
    store(tenant, **{**pair.secret(), "cosign.password": "guess"})
    build = tenant.build(output=SIGNED)
    status = build.failed("SecretInvalid")
    message = condition(status, "Ready")["message"]
    assert "The Secret 'cosign-key' of output.signing.secretRef cannot be used" in message
    assert "`cosign.password` is not the password of `cosign.key`" in message
    assert "image" not in status
    assert not tenant.images.exists(f"{tenant.image()}:latest")

    store(tenant, **pair.secret())
    before = {entry["platform"]: entry["digest"] for entry in status["run"]["platforms"]}
    build.rebuild()
    mended = build.succeeded(after=status["run"]["id"])
    assert {entry["platform"]: entry["digest"] for entry in mended["run"]["platforms"]} == before
    assert before.keys() == set(BOTH)
    roles = [
        pod["metadata"]["labels"]["multiarch.build/role"]
        for pod in build.pods()
        if pod["metadata"]["labels"]["multiarch.build/run"] == mended["run"]["id"]
    ]
    assert roles == ["publish"]
    assert signers(build, mended, ours=pair) == ["ours"]
