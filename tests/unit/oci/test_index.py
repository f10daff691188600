import json
from typing import Any

import pytest

from multiarchbuild.api.platforms import Platform
from multiarchbuild.oci.index import INDEX, MANIFEST, Manifest, assemble, find_image, stored_size

AMD64, ARM64, ARMV7 = (Platform.parse(f"linux/{name}") for name in ("amd64", "arm64", "arm/v7"))


def image(digest: str, platform: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"mediaType": MANIFEST, "digest": f"sha256:{digest}", "size": 1460, **more, "platform": platform}


def attestation(digest: str, of: str) -> dict[str, Any]:
    annotations = {
        "vnd.docker.reference.digest": f"sha256:{of}",
        "vnd.docker.reference.type": "attestation-manifest",
    }
    platform = {"architecture": "unknown", "os": "unknown"}
    return {
        "mediaType": MANIFEST,
        "digest": f"sha256:{digest}",
        "size": 837,
        "annotations": annotations,
        "platform": platform,
    }


def index(*manifests: dict[str, Any]) -> Manifest:
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
    return Manifest(INDEX, json.dumps(document, indent=2).encode())


AMD64_BUILT = index(image("a1", {"architecture": "amd64", "os": "linux"}), attestation("a2", "a1"))
ARM64_BUILT = index(image("b1", {"architecture": "arm64", "os": "linux"}), attestation("b2", "b1"))


def test_images_come_first_and_their_attestations_after_in_the_same_order() -> None:
    made = assemble([find_image(ARM64_BUILT, ARM64), find_image(AMD64_BUILT, AMD64)], {})
    digests = [entry["digest"] for entry in made.content["manifests"]]
    assert digests == ["sha256:b1", "sha256:a1", "sha256:b2", "sha256:a2"]


def test_descriptors_are_those_of_the_builder_byte_for_byte() -> None:
    made = assemble([find_image(AMD64_BUILT, AMD64), find_image(ARM64_BUILT, ARM64)], {}).raw.decode()
    for built in (AMD64_BUILT, ARM64_BUILT):
        entries = built.raw.decode().split('"manifests": [\n')[1].split("\n  ]")[0].split(",\n    {")
        for entry in entries:
            assert entry.removeprefix("    {") in made


def test_fields_that_nobody_here_knows_are_kept() -> None:
    built = index(image("a1", {"architecture": "amd64", "os": "linux"}, artifactType="x/y", urls=["u"]))
    (entry,) = assemble([find_image(built, AMD64)], {}).content["manifests"]
    assert list(entry) == ["mediaType", "digest", "size", "artifactType", "urls", "platform"]


def test_the_same_input_makes_the_same_bytes() -> None:
    images = [find_image(AMD64_BUILT, AMD64)]
    first, second = assemble(images, {"b": "2", "a": "1"}), assemble(images, {"a": "1", "b": "2"})
    assert first.digest == second.digest
    assert first.content["annotations"] == {"a": "1", "b": "2"}


def test_a_builder_of_several_platforms_gives_each() -> None:
    built = index(
        image("a1", {"architecture": "amd64", "os": "linux"}),
        image("c1", {"architecture": "arm", "os": "linux", "variant": "v7"}),
        attestation("c2", "c1"),
        attestation("a2", "a1"),
    )
    images = [find_image(built, ARMV7), find_image(built, AMD64)]
    digests = [entry["digest"] for entry in assemble(images, {}).content["manifests"]]
    assert digests == ["sha256:c1", "sha256:a1", "sha256:c2", "sha256:a2"]


def test_arm64_is_arm64_with_its_only_variant_too() -> None:
    built = index(image("b1", {"architecture": "arm64", "os": "linux", "variant": "v8"}))
    assert find_image(built, ARM64).descriptor["digest"] == "sha256:b1"


def test_a_plain_manifest_gets_a_descriptor_with_its_platform() -> None:
    raw = json.dumps({"schemaVersion": 2, "config": {"size": 3}, "layers": [{"size": 4}, {"size": 5}]}).encode()
    built = Manifest(MANIFEST, raw)
    found = find_image(built, ARMV7)
    assert found.attestations == ()
    assert found.descriptor == {
        "mediaType": MANIFEST,
        "digest": built.digest,
        "size": len(raw),
        "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
    }
    assert stored_size(built.content) == 12


def test_a_missing_platform_is_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"has no image for linux/arm64; it has linux/amd64"):
        find_image(AMD64_BUILT, ARM64)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"[]", b"", b"\xff"], ids=["deep", "list", "empty", "bytes"])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        _ = Manifest(INDEX, raw).content


@pytest.mark.parametrize("size", [-1, 2**63, 10**400, 1.5, "7", None, True])
def test_a_size_that_cannot_be_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match="not a number of bytes"):
        stored_size({"config": {"size": 5}, "layers": [{"size": size}]})


def test_a_manifest_for_windows_keeps_the_version_that_its_config_names() -> None:
    windows = Platform.parse("windows/amd64")
    alone = Manifest(MANIFEST, b"{}")
    config = {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.2527", "os.features": ["win32k"]}
    assert find_image(alone, windows, config).descriptor["platform"] == config
    assert find_image(alone, windows, {"os": "windows"}).descriptor["platform"] == windows.descriptor()
    assert find_image(alone, AMD64).descriptor["platform"] == AMD64.descriptor()
