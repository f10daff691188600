"""SBOMs: made by a generator that BuildKit runs, and listed in the index as they are."""

import json
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published
from tests.steps.conftest import Pod, Pods, Services
from tests.support.sbom import GENERATOR, SPDX, packages

FILES = {"Dockerfile": "FROM busybox:1.36\nCOPY release /release\n", "release": "1.2.3"}
BUILD = ("build", "--platform=linux/amd64")


def generator(pod: Pods, services: Services, **files: str) -> str:
    """Build a generator and return its image."""
    made = pod(source={"inline": {"files": {**GENERATOR, **files}}})
    made.spec["output"] = {"image": f"{services.registry}/sbom-generator"}
    return f"{services.registry}/sbom-generator@{made.built().digest}"


def app(pod: Pods, sbom: str, **parts: Any) -> Pod:
    made = pod(**{"source": {"inline": {"files": FILES}}, "attestations": {"sbom": True}, **parts})
    made.sbom = sbom
    return made


def published(app: Pod) -> tuple[str, Published]:
    """Return the digest of what BuildKit has pushed, and what publish made of it."""
    pushed = app.built().digest
    outcome = app.run("publish", built={"linux/amd64": pushed})
    assert isinstance(outcome, Published), outcome
    return pushed, outcome


def layers(services: Services, image: str, index: str) -> dict[str, dict[str, Any]]:
    """Return what attests to the only image of an index, by the type of the predicate."""
    client = services.client(image)
    _, attestation = client.get(index).content["manifests"]
    found = client.get(attestation["digest"]).content["layers"]
    return {layer["annotations"]["in-toto.io/predicate-type"]: layer for layer in found}


def test_an_sbom_stands_beside_the_provenance_and_stays_as_it_was_made(pod: Pods, services: Services) -> None:
    made = app(pod, generator(pod, services))
    pushed, index = published(made)
    _, again = published(made)
    assert again.digest == index.digest, "as this SBOM has no times in it"
    old, new = layers(services, made.image, pushed), layers(services, made.image, index.digest)
    assert new.keys() == old.keys() == {SPDX, "https://slsa.dev/provenance/v1"}
    assert new[SPDX] == old[SPDX]
    statement = json.loads(services.client(made.image).small_blob(new[SPDX]["digest"]))
    assert statement["predicateType"] == SPDX
    assert statement["subject"][0]["digest"]["sha256"] == index.platforms[0].digest.partition(":")[2]
    assert packages(statement) == {"app": "1.2.3"}


def test_without_being_asked_for_no_generator_is_pulled(pod: Pods, services: Services) -> None:
    made = app(pod, f"{services.registry}/no/generator:1", attestations={"provenance": "Min"})
    assert SPDX not in layers(services, made.image, made.built().digest)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("docker/buildkit-syft-scanner:no-such", Reason.SBOM_GENERATOR_FAILED),
        ("no.such.invalid/generator:1", Reason.REGISTRY_UNREACHABLE),
    ],
)
def test_a_generator_that_can_not_be_pulled_is_told(pod: Pods, image: str, reason: Reason) -> None:
    failure = app(pod, image).failed(*BUILD)
    assert failure.reason is reason
    assert f"{image}, which the operator's policy names in images.sbom, cannot be pulled" in failure.message
    assert "attestations.sbom" in failure.message


def test_a_generator_that_writes_nothing_is_told_and_nothing_is_published(pod: Pods, services: Services) -> None:
    made = app(pod, generator(pod, services, scan="true"))
    failure = made.failed("publish", built={"linux/amd64": made.built().digest})
    assert failure.reason is Reason.SBOM_GENERATOR_FAILED
    assert "left no SBOM for linux/amd64" in failure.message


def test_a_generator_that_fails_is_told_with_its_last_lines(pod: Pods, services: Services) -> None:
    failure = app(pod, generator(pod, services, scan="echo broken; exit 3")).failed(*BUILD)
    assert failure.reason is Reason.SBOM_GENERATOR_FAILED
    assert "failed with exit code 3" in failure.message
    assert "broken" in failure.log_tail
