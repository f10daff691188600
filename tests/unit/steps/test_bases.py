"""Which images a build took files from, and whether they are for what is built."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from multiarchbuild.api.platforms import Platform
from multiarchbuild.oci.index import INDEX, MANIFEST, digest_of
from multiarchbuild.steps.bases import Pulled, WrongBase, moving, pulled, wrong_base
from multiarchbuild.steps.progress import Progress
from tests.steps.record import ERRORS, FOLDER

ARM64, AMD64 = Platform.parse("linux/arm64"), Platform.parse("linux/amd64")


class Store:
    """The content of a buildkitd."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, document: Mapping[str, Any]) -> str:
        raw = json.dumps(document).encode()
        self.blobs[digest_of(raw)] = raw
        return digest_of(raw)

    def image(self, **config: str) -> str:
        """Add an image of one platform, as a plain manifest."""
        return self.add({"mediaType": MANIFEST, "config": {"digest": self.add(config)}, "layers": []})

    def index(self, *platforms: str) -> str:
        """Add an index."""
        entries = [{"platform": Platform.parse(each).descriptor(), "digest": "sha256:0"} for each in platforms]
        return self.add({"mediaType": INDEX, "manifests": entries})

    def wrong(self, digest: str | None, *wanted: str) -> WrongBase | None:
        image = Pulled("r.test/base", digest, tuple(map(Platform.parse, wanted)), explicit=False)
        return wrong_base([image], self.blobs.get, lambda _name: None)


@pytest.mark.parametrize(
    ("config", "wanted", "fits"),
    [
        ({"os": "linux", "architecture": "amd64"}, "linux/amd64", True),
        ({"os": "linux", "architecture": "amd64"}, "linux/arm64", False),
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, "linux/arm64", True),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "linux/arm64", False),
        ({"os": "linux", "architecture": "arm", "variant": "v6"}, "linux/arm/v7", True),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "linux/arm/v6", False),
        ({"os": "linux", "architecture": "arm"}, "linux/arm/v6", True),
        ({"os": "linux", "architecture": "386"}, "linux/amd64", False),
        ({"os": "windows", "architecture": "amd64"}, "linux/amd64", False),
        # What does not say what it is for, such as an artifact, is not judged.
        ({}, "linux/arm64", True),
        ({"os": "unknown", "architecture": "unknown"}, "linux/arm64", True),
    ],
)
def test_a_plain_manifest_is_for_what_its_config_says(config: dict[str, str], wanted: str, *, fits: bool) -> None:
    store = Store()
    assert (store.wrong(store.image(**config), wanted) is None) == fits


def test_an_index_has_to_have_the_very_platform() -> None:
    store = Store()
    index = store.index("linux/amd64", "linux/arm/v7")
    assert store.wrong(index, "linux/amd64") is None
    # BuildKit takes it for arm64 too.
    wrong = store.wrong(index, "linux/arm64")
    assert wrong is not None
    assert "r.test/base has no image for linux/arm64, only for linux/amd64, linux/arm/v7" in str(wrong)


def test_what_nobody_has_is_not_judged() -> None:
    assert Store().wrong(f"sha256:{'0' * 64}", "linux/arm64") is None
    assert Store().wrong(None, "linux/arm64") is None


def steps_of(*names: str, only: str = "linux/arm64") -> Progress:
    progress = Progress(only)
    for number, name in enumerate(names):
        list(progress.feed(json.dumps({"vertexes": [{"digest": str(number), "name": name}]})))
    return progress


DIGEST = f"sha256:{'1' * 64}"


@pytest.mark.parametrize(
    ("name", "image", "digest", "platforms", "explicit"),
    [
        (f"[linux/arm64 2/3] FROM r.test/x:1@{DIGEST}", "r.test/x:1", DIGEST, (ARM64,), False),
        (f"[linux/amd64 build 1/3] FROM r.test/x:1@{DIGEST}", "r.test/x:1", DIGEST, (AMD64,), True),
        (f"FROM r.test/x:1@{DIGEST}", "r.test/x:1", DIGEST, (ARM64,), False),
        ("[context base] r.test/x:1", "r.test/x:1", None, (ARM64,), False),
        (f"[context base] r.test/x@{DIGEST}", "r.test/x", DIGEST, (ARM64,), False),
    ],
)
def test_every_way_to_name_an_image_is_known(
    name: str, image: str, digest: str | None, platforms: tuple[Platform, ...], *, explicit: bool
) -> None:
    assert list(pulled(steps_of(name), [ARM64])) == [Pulled(image, digest, platforms, explicit)]


@pytest.mark.parametrize(
    "name",
    [
        "[linux/arm64 2/3] RUN echo FROM x",
        "[internal] load build definition from Dockerfile",
        "[context base] load metadata for r.test/x:1",
        "exporting to image",
        "[linux/arm64 2/3] COPY --from=build /x /x",
    ],
)
def test_other_steps_pull_nothing(name: str) -> None:
    assert list(pulled(steps_of(name), [ARM64])) == []


def test_what_buildkit_builds_on_a_base_of_another_architecture_is_seen() -> None:
    progress = Progress("linux/arm64")
    for line in (FOLDER / "base-other-architecture.txt").read_text().splitlines():
        list(progress.feed(line))
    (image,) = pulled(progress, [ARM64])
    assert (image.image, image.platforms) == (f"{ERRORS}/only-amd64/x:latest", (ARM64,))
    assert any(warning.rule == "InvalidBaseImagePlatform" for warning in progress.warnings)


def test_what_may_move_is_what_no_text_pins() -> None:
    one, two = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    images = [
        Pulled("docker.io/library/node:20", one, (AMD64,), explicit=False),
        Pulled("docker.io/library/node:20", one, (ARM64,), explicit=False),
        Pulled("r.test:5000/base", two, (AMD64,), explicit=False),
        Pulled("https://example.com/context", None, (AMD64,), explicit=False),
    ]
    assert moving(images, "FROM node:20\n") == (f"docker.io/library/node:20@{one}", f"r.test:5000/base:latest@{two}")
    assert moving(images, f"FROM node:20@{one}\n") == (f"r.test:5000/base:latest@{two}",)
