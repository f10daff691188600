"""How an image is stored: the compression of its layers, and a manifest in the place of an index."""

import gzip
from typing import Any

import pytest

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.results import Published
from multiarchbuild.oci.index import INDEX, MANIFEST, find_image
from tests.steps.conftest import Pod, Pods, Services

TAR, GZIP, ZSTD = (f"application/vnd.oci.image.layer.v1.tar{suffix}" for suffix in ("", "+gzip", "+zstd"))
DOCKERFILE = "FROM busybox:1.36\nRUN seq 1 20000 > /numbers\n"


def app(pod: Pods, output: dict[str, Any], **parts: Any) -> Pod:
    made = pod(source={"inline": {"files": {"Dockerfile": DOCKERFILE}}}, **parts)
    made.spec["output"] = {**made.spec["output"], **output}
    return made


def layers(built: Pod, services: Services) -> list[dict[str, Any]]:
    """Return the layers of an image: that of busybox, and that of its RUN."""
    client = services.client(built.image)
    image = find_image(client.get(built.built().digest), Platform.parse("linux/amd64"))
    found: list[dict[str, Any]] = client.get(image.descriptor["digest"]).content["layers"]
    return found


@pytest.mark.parametrize("reproducible", [True, False])
@pytest.mark.parametrize(
    ("kind", "media_type"), [("Gzip", GZIP), ("Zstd", ZSTD), ("Estargz", GZIP), ("Uncompressed", TAR)]
)
def test_layers_are_compressed_as_asked_for(
    pod: Pods, services: Services, *, kind: str, media_type: str, reproducible: bool
) -> None:
    output = {"compression": {"type": kind, "force": True}}
    found = layers(app(pod, output, reproducible=reproducible), services)
    assert [layer["mediaType"] for layer in found] == [media_type] * 2
    lazy = ["containerd.io/snapshot/stargz/toc.digest" in layer.get("annotations", {}) for layer in found]
    assert lazy == [kind == "Estargz"] * 2


def test_the_layers_of_base_images_stay_as_they_are_unless_forced(pod: Pods, services: Services) -> None:
    built = app(pod, {"compression": {"type": "Zstd"}}, reproducible=False)
    built.spec["source"] = {"inline": {"files": {"Dockerfile": DOCKERFILE + "# of no other test\nRUN seq 9 > /own"}}}
    found = layers(built, services)
    assert [found[0]["mediaType"], found[-1]["mediaType"]] == [GZIP, ZSTD]


def test_a_higher_level_makes_a_smaller_layer(pod: Pods, services: Services) -> None:
    sizes = []
    for level in (1, 9):
        built = app(pod, {"compression": {"type": "Gzip", "level": level}})
        (_, own) = layers(built, services)
        content = b"".join(services.client(built.image).blob(own["digest"]))
        assert b"19999\n20000\n" in gzip.decompress(content)
        sizes.append(own["size"])
    assert sizes[1] < sizes[0]


PLAIN = {"provenance": "Disabled", "sbom": False}


def test_a_manifest_in_the_place_of_an_index(pod: Pods, services: Services) -> None:
    output = {"format": "Manifest", "annotations": {"org.example.team": "a, b"}}
    built = app(pod, output, attestations=PLAIN)
    result = built.run("publish", "--tag=latest", built={"linux/amd64": built.built().digest})
    assert isinstance(result, Published)
    tagged = services.client(built.image).resolve("latest")
    assert (tagged.media_type, tagged.digest) == (MANIFEST, result.digest)
    assert tagged.content["annotations"]["org.example.team"] == "a, b"
    assert [platform.digest for platform in result.platforms] == [result.digest]


def test_an_index_without_attestations_lists_images_only(pod: Pods, services: Services) -> None:
    built = app(pod, {}, attestations=PLAIN)
    assert isinstance(built.run("publish", "--tag=latest", built={"linux/amd64": built.built().digest}), Published)
    tagged = services.client(built.image).resolve("latest")
    assert tagged.media_type == INDEX
    assert [entry["platform"]["architecture"] for entry in tagged.content["manifests"]] == ["amd64"]
