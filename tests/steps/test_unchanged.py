"""Whether a build would make the published image again: asked of real registries and BuildKit's provenance."""

import json
from typing import Any

import pytest

from multiarchbuild.api.requests import LastImage
from multiarchbuild.api.results import Built, Published, Resolved, Source
from multiarchbuild.oci.client import Client
from tests.steps.conftest import Pod, Pods, Services

BASE = "library/base"


def inline(dockerfile: str) -> dict[str, Any]:
    return {"inline": {"files": {"Dockerfile": dockerfile}}}


def copied(services: Services, reference: str, name: str = "library/busybox", tag: str = "1.36") -> None:
    """Let `reference` name what `name:tag` does."""
    repository, _, own = reference.partition(":")
    origin, target = services.client(name), services.client(repository)
    manifest = origin.resolve(tag)
    for entry in manifest.content.get("manifests", [{"digest": manifest.digest}]):
        child = origin.get(entry["digest"])
        for blob in (child.content["config"], *child.content["layers"]):
            content = b"".join(origin.blob(blob["digest"]))
            target.put_blob(blob["digest"], content, len(content))
        target.put(child, child.digest)
    target.put(manifest, own)


def published(app: Pod, source: Source | None = None) -> LastImage:
    """Build and publish; return what a next run compares with."""
    built = app.run("build", "--platform=linux/amd64", source=source)
    assert isinstance(built, Built), built
    came = app.run("publish", "--tag=latest", built={"linux/amd64": built.digest})
    assert isinstance(came, Published), came
    return LastImage(digest=came.digest, tags=("latest",), source=source or Source())


def compared(app: Pod, last: LastImage) -> Resolved:
    outcome = app.run("resolve", f"--last={last.model_dump_json(by_alias=True, exclude_none=True)}")
    assert isinstance(outcome, Resolved), outcome
    return outcome


@pytest.mark.parametrize("provenance", ["Min", "Max"])
@pytest.mark.parametrize("reproducible", [False, True])
def test_what_was_made_from_the_same_is_found_unchanged(pod: Pods, provenance: str, *, reproducible: bool) -> None:
    dockerfile = "FROM busybox:1.36 AS a\nRUN true\nFROM scratch\nCOPY --from=a /bin/true /\n"
    app = pod(source=inline(dockerfile), attestations={"provenance": provenance}, reproducible=reproducible)
    came = compared(app, published(app))
    assert (came.unchanged, came.changed) == (True, "")


def test_an_image_of_nothing_but_the_source(pod: Pods) -> None:
    app = pod(source=inline("FROM scratch\nCOPY Dockerfile /\n"))
    assert compared(app, published(app)).unchanged


def test_a_base_image_that_has_moved(pod: Pods, services: Services) -> None:
    copied(services, f"{BASE}:moves")
    app = pod(source=inline("FROM base:moves\nRUN true\n"))
    last = published(app)
    assert compared(app, last).unchanged
    index = services.client(BASE).resolve("moves")
    document = json.loads(index.raw)
    document["annotations"] = {"org.example": "other"}
    moved = type(index)(index.media_type, json.dumps(document).encode())
    services.client(BASE).put(moved, "moves")
    came = compared(app, last)
    assert not came.unchanged
    assert "base:moves is sha256:" in came.changed


def test_a_base_that_is_named_by_its_digest_is_always_the_same(pod: Pods, services: Services) -> None:
    digest = services.client("library/busybox").resolve("1.36").digest
    app = pod(source=inline(f"FROM busybox:1.36@{digest}\nRUN true\n"))
    assert compared(app, published(app)).unchanged


def test_a_base_of_a_registry_with_a_port(pod: Pods, services: Services) -> None:
    copied(services, f"{BASE}:port")
    app = pod(source=inline(f"FROM {services.registry}/{BASE}:port\nRUN true\n"))
    assert compared(app, published(app)).unchanged


def _retag(client: Client, app: Pod) -> None:
    client.put(client.resolve("latest"), "other")
    app.spec["source"] = inline("FROM busybox:1.36\nRUN echo other\n")
    published(app)


def test_a_tag_that_names_something_else(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nRUN true\n"))
    last = published(app)
    _retag(services.client(app.image), app)
    came = compared(app, last)
    assert not came.unchanged
    assert f"{app.image}:latest is sha256:" in came.changed
    assert "gone" in compared(app, last.model_copy(update={"tags": ("none",)})).changed


def test_an_image_that_is_gone(pod: Pods) -> None:
    app = pod()
    came = compared(app, LastImage(digest=f"sha256:{'0' * 64}", tags=("latest",)))
    assert not came.unchanged
    assert came.changed.startswith("cannot be checked")


def test_a_destination_that_lacks_it(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nRUN true\n"))
    last = published(app)
    app.spec["output"] = {**app.spec["output"], "destinations": [{"image": f"{services.registry}/{app.image}-copy"}]}
    assert "does not have" in compared(app, last).changed
    published(app)
    assert not compared(app, last).changed
    copy = services.client(f"{app.image}-copy")
    platform = copy.get(last.digest).content["manifests"][0]["digest"]
    assert copy.delete(platform), "as a cleanup does, of what has no tag"
    assert f"-copy does not have {platform}" in compared(app, last).changed


def test_files_that_add_downloads_and_images_without_provenance_can_not_be_asked(pod: Pods, services: Services) -> None:
    app = pod(source=inline(f"FROM scratch\nADD http://{services.registry}/v2/ /file\n"))
    came = compared(app, published(app))
    assert "cannot be checked" in came.changed
    app = pod(attestations={"provenance": "Disabled"})
    assert "no provenance" in compared(app, published(app)).changed


def test_a_branch_that_has_moved(pod: Pods, services: Services) -> None:
    first = services.git.commit("again", {"Dockerfile": "FROM busybox:1.36\nRUN true\n"})
    app = pod(source={"git": {"url": services.git.url("again")}})
    last = published(app, Source(commit=first))
    came = compared(app, last)
    assert (came.unchanged, came.source.commit) == (True, first)
    second = services.git.commit("again", {"Dockerfile": "FROM busybox:1.36\nRUN true\n", "f": "2"})
    came = compared(app, last)
    assert (came.unchanged, came.source.commit) == (False, second)
    assert f"the source is {second}" in came.changed
