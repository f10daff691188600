"""How an image is stored, and where: compression, child tags, further registries with Secrets of their own."""

import pytest

from multiarchbuild.plan.cache import own_hash
from tests.support.images import docker_config
from tests.support.poll import until
from tests.support.tenant import AMD64, BOTH, Tenant, condition, inline

pytestmark = pytest.mark.e2e

ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def test_an_image_for_two_registries_with_child_tags_and_zstandard(tenant: Tenant) -> None:
    secure = tenant.target.facts.secure_registry
    if secure is None:
        pytest.skip("needs a second registry, which the local cluster has")
    tenant.secret("mirror", "kubernetes.io/dockerconfigjson", __dockerconfigjson=docker_config(secure))
    mirror = f"{secure.host}/{tenant.namespace}/mirror"
    output = {
        "compression": {"type": "Zstd", "level": 3, "force": True},
        "childTags": True,
        "destinations": [{"image": mirror, "secretRefs": [{"name": "mirror"}]}],
        "tags": ["latest", "v1"],
    }
    build = tenant.build(source=inline("FROM busybox:1.36\nRUN uname -m > /machine\n"), platforms=BOTH, output=output)
    image = build.succeeded()["image"]
    assert image["destinations"] == [mirror]
    for repository in (tenant.image(), mirror):
        assert {tenant.images.digest(f"{repository}:{tag}") for tag in ("latest", "v1")} == {image["digest"]}
        entries = tenant.images.manifest(f"{repository}:latest")["manifests"]
        slugs = [platform.partition("/")[2] for platform in BOTH]
        children = [*slugs, *(f"{slug}-attestation" for slug in slugs)]
        assert [tenant.images.digest(f"{repository}:v1-{child}") for child in children] == [
            entry["digest"] for entry in entries
        ]
        for entry in entries[:2]:
            manifest = tenant.images.manifest(f"{repository}@{entry['digest']}")
            assert {layer["mediaType"] for layer in manifest["layers"]} == {ZSTD}
    with_secret = [pod for pod in build.pods() if "destination-0-0" in str(pod["spec"]["volumes"])]
    assert {pod["metadata"]["labels"]["multiarch.build/role"] for pod in with_secret} == {"build", "publish"}


def test_a_destination_that_refuses_ends_the_run_before_anything_is_built(tenant: Tenant) -> None:
    secure = tenant.target.facts.secure_registry
    if secure is None:
        pytest.skip("needs a registry with a password, which the local cluster has")
    mirror = f"{secure.host}/{tenant.namespace}/mirror"
    status = tenant.build(output={"destinations": [{"image": mirror}]}).failed("PushDenied")
    assert f"Pushing to {mirror} was denied" in condition(status, "Ready")["message"]
    assert not tenant.images.exists(f"{tenant.image()}:latest")


def test_a_plain_manifest_runs_as_an_image(tenant: Tenant) -> None:
    build = tenant.build(platforms=[AMD64], output={"format": "Manifest"}, attestations={"provenance": "Disabled"})
    image = build.succeeded()["image"]
    manifest = tenant.images.manifest(f"{tenant.image()}:latest")
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert image["platforms"][0]["digest"] == image["digest"] == tenant.images.digest(f"{tenant.image()}:latest")


def test_what_a_build_has_published_is_listed_once_its_result_is_told(tenant: Tenant) -> None:
    build = tenant.build(output={"expire": "1h"}, cache={"expire": "1h"})
    build.succeeded()
    uid, name = build.get()["metadata"]["uid"], build.get()["metadata"]["name"]
    listed = f"{tenant.image()}:cache-{own_hash(tenant.namespace, name, uid)}-used"
    until("it is listed", lambda: tenant.images.exists(listed))
