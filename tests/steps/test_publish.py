from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, Published
from tests.steps.conftest import Pod, Pods, Services
from tests.support.signing import key_pair, verified


def inline(dockerfile: str) -> dict[str, Any]:
    return {"inline": {"files": {"Dockerfile": dockerfile}}}


def build_two(app: Pod) -> list[str]:
    """Build each platform by itself, as two pods do; return the arguments for publish."""
    arguments = []
    for platform in ("linux/arm64", "linux/amd64"):
        outcome = app.run("build", f"--platform={platform}")
        assert isinstance(outcome, Built), outcome
        arguments.append(f"--built={platform}={outcome.digest}")
    return arguments


def published(outcome: object) -> Published:
    assert isinstance(outcome, Published), outcome
    return outcome


def tag_digest(services: Services, image: str, tag: str) -> str | None:
    response = services.client(image).http.request(
        "HEAD",
        f"http://{services.registry}/v2/{image}/manifests/{tag}",
        headers={"Accept": "application/vnd.oci.image.index.v1+json"},
    )
    return response.headers.get("Docker-Content-Digest") if response.status == 200 else None


def test_two_images_become_one_index_with_its_tags(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    app.spec["output"] = {**app.spec["output"], "annotations": {"org.example.b": "2", "org.example.a": "1"}}
    arguments = build_two(app)
    result = published(app.run("publish", *arguments, "--tag=latest", "--tag=v1"))
    client = services.client(app.image)
    index = client.get(result.digest)
    entries = index.content["manifests"]
    assert [entry["platform"]["architecture"] for entry in entries] == ["arm64", "amd64", "unknown", "unknown"]
    assert [entry.get("annotations", {}).get("vnd.docker.reference.digest") for entry in entries[2:]] == [
        entry["digest"] for entry in entries[:2]
    ]
    pushed = [client.get(argument.rpartition("=")[2]) for argument in arguments]
    for built in pushed:
        lines = built.raw.decode().split('"manifests": [\n')[1].split("\n  ]")[0]
        for entry in lines.split(",\n    {"):
            assert entry.removeprefix("    {") in index.raw.decode()
    assert {tag_digest(services, app.image, tag) for tag in ("latest", "v1")} == {result.digest}
    assert [platform.platform for platform in result.platforms] == ["linux/arm64", "linux/amd64"]
    assert all(platform.size > 0 for platform in result.platforms)


def test_publishing_again_changes_nothing(pod: Pods) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    arguments = build_two(app)
    first = published(app.run("publish", *arguments, "--tag=latest"))
    assert published(app.run("publish", *arguments, "--tag=latest")) == first


def signed(pod: Pods, **keys: str) -> Pod:
    """Return a pod whose index is signed by the key in a Secret."""
    app = pod({"signing": keys}, source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    app.spec["output"] = {**app.spec["output"], "signing": {"secretRef": {"name": "cosign-key"}}}
    return app


def test_the_index_is_signed_and_openssl_agrees(pod: Pods, services: Services) -> None:
    pair = key_pair()
    app = signed(pod, **pair.secret())
    result = published(app.run("publish", *build_two(app), "--tag=latest"))
    client = services.client(app.image)
    manifest = client.resolve(f"{result.digest.replace(':', '-')}.sig")
    assert manifest.digest == result.signature
    image = f"{services.registry}/{app.image}"
    whose = verified(
        manifest.content, lambda digest: b"".join(client.blob(digest)), {"ours": pair}, image, result.digest
    )
    assert whose == ["ours"]
    assert tag_digest(services, app.image, "latest") == result.digest


def test_publishing_again_signs_once_and_another_key_adds_its_own(pod: Pods, services: Services) -> None:
    pair, other = key_pair(), key_pair()
    app = signed(pod, **pair.secret())
    arguments = build_two(app)
    first = published(app.run("publish", *arguments, "--tag=latest"))
    assert published(app.run("publish", *arguments, "--tag=latest")) == first
    app.secrets = {"signing": other.secret()}
    second = published(app.run("publish", *arguments, "--tag=latest"))
    client = services.client(app.image)
    content = client.get(second.signature or "").content
    image, pairs = f"{services.registry}/{app.image}", {"first": pair, "second": other}
    whose = verified(content, lambda digest: b"".join(client.blob(digest)), pairs, image, first.digest)
    assert whose == ["first", "second"]


UNUSABLE: dict[str, tuple[dict[str, str], Reason, str]] = {
    "no Secret": ({}, Reason.SECRET_NOT_FOUND, "names the Secret 'cosign-key'"),
    "another key": ({"tls.key": "x"}, Reason.SECRET_INVALID, "it needs the key `cosign.key` and has `tls.key`"),
    "wrong password": (
        {**key_pair().secret(), "cosign.password": "guess"},
        Reason.SECRET_INVALID,
        "`cosign.password` is not the password of `cosign.key`",
    ),
    "no key": ({"cosign.key": "x"}, Reason.SECRET_INVALID, "no private key in PEM"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_without_a_key_no_tag_moves(name: str, pod: Pods, services: Services) -> None:
    keys, reason, said = UNUSABLE[name]
    app = signed(pod, **keys)
    failure = app.failed("publish", *build_two(app), "--tag=latest")
    assert failure.reason is reason
    assert "output.signing.secretRef" in failure.message
    assert said in failure.message
    assert tag_digest(services, app.image, "latest") is None


def test_without_a_signature_no_tag_moves(pod: Pods, services: Services) -> None:
    app = signed(pod, **key_pair().secret())
    arguments = build_two(app)
    client = services.client(app.image)
    unsigned = pod(source=app.spec["source"])
    index = client.get(published(unsigned.run("publish", *arguments)).digest)
    client.put(index, f"{index.digest.replace(':', '-')}.sig")
    failure = app.failed("publish", *arguments, "--tag=latest")
    assert failure.reason is Reason.REGISTRY_ERROR
    assert "names something else than signatures: delete it" in failure.message
    assert tag_digest(services, app.image, "latest") is None


def test_what_has_gone_moves_no_tag(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    arguments = build_two(app)
    gone = f"--built=linux/386=sha256:{'0' * 64}"
    failure = app.failed("publish", *arguments, gone, "--tag=latest")
    assert failure.reason is Reason.REGISTRY_ERROR
    assert "linux/386" in failure.message
    assert tag_digest(services, app.image, "latest") is None


def test_a_builder_that_made_another_platform_is_told(pod: Pods) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    digest = app.built().digest
    failure = app.failed("publish", f"--built=linux/arm64={digest}", "--tag=latest")
    assert "has no image for linux/arm64; it has linux/amd64" in failure.message


def test_an_image_without_attestations_is_a_plain_manifest(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"), attestations={"provenance": "disabled"})
    result = published(app.run("publish", *build_two(app), "--tag=latest"))
    entries = services.client(app.image).get(result.digest).content["manifests"]
    assert [entry["platform"] for entry in entries] == [
        {"architecture": "arm64", "os": "linux"},
        {"architecture": "amd64", "os": "linux"},
    ]
