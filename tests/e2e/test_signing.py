"""Signatures: made in the publish pod with the key of a Secret, before any tag moves, and verified by others' code."""

import json

import pytest

from tests.support.judges import VERIFIERS, signed
from tests.support.signing import KeyPair, key_pair, verified
from tests.support.tenant import BOTH, Build, Status, Tenant, condition, inline

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
    build = tenant.build(output=SIGNED, attestations={"provenance": "Disabled"})
    status = build.succeeded()
    assert signers(build, status, ours=pair) == ["ours"]
    assert tenant.images.digest(f"{tenant.image()}:latest") == status["image"]["digest"]
    # The key is where nothing of the user's is executed, and nowhere else.
    mounting = [pod for pod in build.pods() if SECRET in json.dumps(pod["spec"])]
    assert [pod["metadata"]["labels"]["multiarch.build/role"] for pod in mounting] == ["publish"]

    build.rebuild()
    again = build.succeeded(after=status["run"]["id"])
    # What differs is when it was published, and the record of how it was built.
    first, second = ({**each["image"], "publishedAt": "", "record": ""} for each in (status, again))
    assert second == first, "the same bytes, and the signature that they have already"


# ImageValidatingPolicy fetches bundles by HTTPS from a registry with a name, whatever it is told: see tests/steps.
HERE = {judge: predicates for judge, predicates in VERIFIERS.items() if judge != "kyverno-image"}


def test_those_who_verify_accept_index_and_images_by_this_key_and_no_other(tenant: Tenant) -> None:
    pair, other = key_pair(), key_pair()
    store(tenant, **pair.secret())
    build = tenant.build(output=SIGNED)
    status = build.succeeded()
    name, index = status["image"]["ref"].split("@")
    images = [entry["digest"] for entry in status["image"]["platforms"]]
    assert len(images) == len(BOTH)
    for digest in (index, *images):
        for judge, predicates in HERE.items():
            said = signed(f"{name}@{digest}", pair.public, judge)
            assert (judge, digest, said["error"]) == (judge, digest, "")
            assert set(said["predicates"]) == predicates, judge
    for judge in HERE:
        assert signed(f"{name}@{index}", other.public, judge)["error"], f"{judge} takes any key"

    # Of something else: the same would have the same digest, and the signature that it has.
    unsigned = tenant.build("unsigned", source=inline("FROM busybox:1.36\nRUN echo other > /machine\n"))
    ref = unsigned.succeeded()["image"]["ref"]
    for judge in HERE:
        assert signed(ref, pair.public, judge)["error"], f"{judge} needs no signature"


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
    before = {entry["platform"]: entry["pushed"] for entry in status["run"]["platforms"]}
    build.rebuild()
    mended = build.succeeded(after=status["run"]["id"])
    assert {entry["platform"]: entry["pushed"] for entry in mended["run"]["platforms"]} == before
    assert before.keys() == set(BOTH)
    roles = [
        pod["metadata"]["labels"]["multiarch.build/role"]
        for pod in build.pods()
        if pod["metadata"]["labels"]["multiarch.build/run"] == mended["run"]["id"]
    ]
    assert roles == ["publish"]
    assert signers(build, mended, ours=pair) == ["ours"]
