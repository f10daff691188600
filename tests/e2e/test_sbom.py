"""What is in each image, told by a generator that BuildKit runs beside the build."""

import json

import pytest

from tests.support import sbom
from tests.support.tenant import BOTH, Tenant, inline

pytestmark = pytest.mark.e2e

DOCKERFILE = 'FROM busybox:1.36\nRUN echo "1.0-$(uname -m)" > /release\n'


def test_the_index_lists_an_sbom_of_each_platform(tenant: Tenant) -> None:
    repository, _, tag = sbom.image(tenant.target).rpartition(":")
    source = {"inline": {"files": sbom.GENERATOR}}
    tenant.build("generator", source=source, output={"image": repository, "tags": [tag]}).succeeded()

    builds = [tenant.build(name, source=inline(DOCKERFILE), attestations={"sbom": True}) for name in ("one", "other")]
    one, other = (build.succeeded() for build in builds)
    assert one["image"]["digest"] == other["image"]["digest"], "this SBOM has no times in it"
    entries = tenant.images.manifest(one["image"]["ref"])["manifests"]
    assert len(entries) == 2 * len(BOTH)
    versions = []
    for image, attestation in zip(entries[:2], entries[2:], strict=True):
        assert attestation["annotations"]["vnd.docker.reference.digest"] == image["digest"]
        layers = tenant.images.manifest(f"{tenant.image()}@{attestation['digest']}")["layers"]
        found = {layer["annotations"]["in-toto.io/predicate-type"]: layer["digest"] for layer in layers}
        assert found.keys() == {sbom.SPDX, "https://slsa.dev/provenance/v1"}
        statement = json.loads(tenant.images.blob(f"{tenant.image()}@{found[sbom.SPDX]}"))
        assert statement["subject"][0]["digest"]["sha256"] == image["digest"].partition(":")[2]
        versions.append(sbom.packages(statement))
    assert versions == [{"app": "1.0-x86_64"}, {"app": "1.0-aarch64"}]
