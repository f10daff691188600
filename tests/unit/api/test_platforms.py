"""Platforms as docker buildx writes them."""

import pytest

from multiarchbuild.api.platforms import SUPPORTED, Platform

TABLE = (
    # as written, as normalised, in names, in a descriptor
    ("linux/amd64", "linux/amd64", "amd64", {"os": "linux", "architecture": "amd64"}),
    ("linux/amd64/v3", "linux/amd64/v3", "amd64-v3", {"os": "linux", "architecture": "amd64", "variant": "v3"}),
    ("linux/arm64", "linux/arm64", "arm64", {"os": "linux", "architecture": "arm64"}),
    ("linux/arm64/v8", "linux/arm64", "arm64", {"os": "linux", "architecture": "arm64"}),
    ("linux/arm/v7", "linux/arm/v7", "arm-v7", {"os": "linux", "architecture": "arm", "variant": "v7"}),
    ("linux/386", "linux/386", "386", {"os": "linux", "architecture": "386"}),
)


@pytest.mark.parametrize(("text", "normalised", "slug", "descriptor"), TABLE, ids=[row[0] for row in TABLE])
def test_a_platform_is_normalised(text: str, normalised: str, slug: str, descriptor: dict[str, str]) -> None:
    platform = Platform.parse(text)
    assert (str(platform), platform.slug, platform.descriptor()) == (normalised, slug, descriptor)


def test_different_platforms_have_different_names() -> None:
    platforms = {Platform.parse(text) for text in SUPPORTED}
    assert len(platforms) == len(SUPPORTED) - 1  # linux/arm64/v8 is linux/arm64
    assert len({platform.slug for platform in platforms}) == len(platforms)
    assert {Platform.parse(str(platform)) for platform in platforms} == platforms


@pytest.mark.parametrize(
    "text", ["", "amd64", "linux", "windows", "windows/386", "linux/arm", "linux/x86_64", "LINUX/AMD64"]
)
def test_an_unknown_platform_is_refused_with_those_that_are_known(text: str) -> None:
    with pytest.raises(ValueError, match="is not supported: use one of linux/amd64, "):
        Platform.parse(text)
