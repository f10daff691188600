import base64
import json
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, Failure, Published
from multiarchbuild.oci import bundle, referrers
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.index import Manifest
from tests.steps.conftest import Pod, Pods, Services
from tests.support.signing import KeyPair, key_pair, openssl_verifies, verified


def inline(dockerfile: str) -> dict[str, Any]:
    return {"inline": {"files": {"Dockerfile": dockerfile}}}


def build_two(app: Pod) -> dict[str, str]:
    """Build each platform by itself, as two pods do; return what they pushed, by platform."""
    built = {}
    for platform in ("linux/arm64", "linux/amd64"):
        outcome = app.run("build", f"--platform={platform}")
        assert isinstance(outcome, Built), outcome
        built[platform] = outcome.digest
    return built


def published(outcome: object) -> Published:
    assert isinstance(outcome, Published), outcome
    return outcome


def halves(entries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the images and the attestation manifests of an index."""
    return entries[: len(entries) // 2], entries[len(entries) // 2 :]


def descriptors(index: Manifest) -> list[str]:
    """Return each descriptor as it is written in the index, but for its first brace."""
    lines = index.raw.decode().split('"manifests": [\n')[1].split("\n  ]")[0]
    return [entry.removeprefix("    {") for entry in lines.split(",\n    {")]


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
    built = build_two(app)
    result = published(app.run("publish", "--tag=latest", "--tag=v1", built=built))
    client = services.client(app.image)
    index = client.get(result.digest)
    entries = index.content["manifests"]
    assert [entry["platform"]["architecture"] for entry in entries] == ["arm64", "amd64", "unknown", "unknown"]
    assert [entry.get("annotations", {}).get("vnd.docker.reference.digest") for entry in entries[2:]] == [
        entry["digest"] for entry in entries[:2]
    ]
    for pushed in map(client.get, built.values()):
        image, attestation = descriptors(pushed)
        assert image in index.raw.decode()
        assert attestation not in index.raw.decode(), "its provenance is another one"
    assert {tag_digest(services, app.image, tag) for tag in ("latest", "v1")} == {result.digest}
    assert [platform.platform for platform in result.platforms] == ["linux/arm64", "linux/amd64"]
    assert all(platform.size > 0 for platform in result.platforms)


def test_publishing_again_changes_nothing(pod: Pods) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    built = build_two(app)
    first = published(app.run("publish", "--tag=latest", built=built))
    assert published(app.run("publish", "--tag=latest", built=built)) == first


def test_a_publish_that_is_late_does_not_move_a_tag_back(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    old = build_two(app)
    before = published(app.run("publish", "--tag=latest", built=old))
    newer = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /newer"))
    newer.spec["output"] = {"image": app.spec["output"]["image"]}
    new = build_two(newer)
    late = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    late.spec["output"] = {"image": app.spec["output"]["image"], "annotations": {"org.example.run": "late"}}

    current = published(newer.run("publish", "--tag=new", built=new)).digest
    client = services.client(app.image)

    def a_newer_run_publishes() -> None:
        client.put(client.get(current), "latest")

    outcome = late.run("publish", "--tag=latest", built=old, meanwhile=a_newer_run_publishes)
    assert isinstance(outcome, Failure), outcome
    assert outcome.reason is Reason.TAG_MOVED
    assert current in outcome.message
    assert tag_digest(services, app.image, "latest") == current != before.digest
    # Tried again, as only a run that is still wanted is, it knows what it replaces.
    again = published(late.run("publish", "--tag=latest", built=old))
    assert tag_digest(services, app.image, "latest") == again.digest


@pytest.mark.parametrize("meanwhile", ["moved to what is published", "deleted"])
def test_a_tag_that_names_nothing_else_is_moved(pod: Pods, services: Services, meanwhile: str) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    built = build_two(app)
    first = published(app.run("publish", "--tag=other", built=built))
    client = services.client(app.image)

    def change() -> None:
        if meanwhile != "deleted":
            client.put(client.get(first.digest), "latest")

    assert published(app.run("publish", "--tag=latest", built=built, meanwhile=change)) == first.model_copy(
        update={"tags": ("latest",)}
    )


@pytest.mark.parametrize("mode", ["Min", "Max"])
def test_provenance_without_what_is_of_one_build_alone(pod: Pods, services: Services, mode: str) -> None:
    dockerfile = (
        "FROM busybox:1.36 AS base\nRUN date > /date\nFROM busybox:1.36\nCOPY --from=base /date /\nCOPY Dockerfile /\n"
    )
    app = pod(source=inline(dockerfile), attestations={"provenance": mode})
    client = services.client(app.image)
    builder = build_two(app)
    index = client.get(published(app.run("publish", built=builder)).digest)
    for image, attestation in zip(*halves(index.content["manifests"]), strict=True):
        manifest = client.get(attestation["digest"]).content
        assert manifest["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
        assert manifest["subject"] == {key: image[key] for key in ("mediaType", "digest", "size")}
        (layer,) = manifest["layers"]
        statement = json.loads(client.small_blob(layer["digest"]))
        assert statement["subject"][0]["digest"]["sha256"] == image["digest"].partition(":")[2]
        metadata = statement["predicate"]["runDetails"]["metadata"]
        assert not {"invocationId", "startedOn", "finishedOn"} & metadata.keys()
        assert ("llbDefinition" in str(statement)) == (mode == "Max")
    # buildkitd still has the layers, so that only its provenance can differ.
    again = build_two(app)
    assert not set(builder.values()) & set(again.values()), "BuildKit's own are never the same"
    assert published(app.run("publish", built=again)).digest == index.digest


def test_a_build_that_need_not_be_reproducible_keeps_the_provenance_of_buildkit(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"), reproducible=False)
    built = build_two(app)
    client = services.client(app.image)
    index = client.get(published(app.run("publish", built=built)).digest).raw.decode()
    for pushed in map(client.get, built.values()):
        image, attestation = descriptors(pushed)
        assert image in index
        assert attestation in index


def signed(pod: Pods, **keys: str) -> Pod:
    """Return a pod whose index is signed by the key in a Secret."""
    app = pod({"signing": keys}, source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    app.spec["output"] = {**app.spec["output"], "signing": {"secretRef": {"name": "cosign-key"}}}
    return app


def referring(client: Client, digest: str, pair: KeyPair) -> list[dict[str, Any]]:
    """Return the statements of the bundles that refer to `digest`; openssl must take each signature."""
    found = []
    for descriptor in referrers.listed(client, digest, bundle.MEDIA_TYPE):
        manifest = client.get(descriptor["digest"]).content
        assert manifest["subject"]["digest"] == digest
        content = referrers.content(client, descriptor)
        assert content is not None
        envelope = json.loads(content)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"])
        (signature,) = envelope["signatures"]
        message = bundle.pre_authentication(payload)
        assert openssl_verifies(pair.public, message, base64.b64decode(signature["sig"]))
        found.append(json.loads(payload))
        assert descriptor["annotations"]["dev.sigstore.bundle.predicateType"] == found[-1]["predicateType"]
    return found


def test_index_and_images_are_signed_and_openssl_agrees(pod: Pods, services: Services) -> None:
    pair = key_pair()
    app = signed(pod, **pair.secret())
    result = published(app.run("publish", "--tag=latest", built=build_two(app)))
    client = services.client(app.image)
    assert client.resolve(f"{result.digest.replace(':', '-')}.sig").digest == result.signature
    image = f"{services.registry}/{app.image}"
    digests = [result.digest, *(platform.digest for platform in result.platforms)]
    for digest in digests:
        manifest = client.resolve(f"{digest.replace(':', '-')}.sig")
        whose = verified(manifest.content, lambda blob: b"".join(client.blob(blob)), {"ours": pair}, image, digest)
        assert whose == ["ours"]

        by_type = {statement["predicateType"]: statement for statement in referring(client, digest, pair)}
        assert sorted(by_type) == ["https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1"]
        subject = by_type["https://sigstore.dev/cosign/sign/v1"]["subject"]
        assert subject == [{"digest": {"sha256": digest.removeprefix("sha256:")}}]
        # One statement about all of them, wherever it is looked for.
        provenance = by_type["https://slsa.dev/provenance/v1"]
        assert [each["digest"]["sha256"] for each in provenance["subject"]] == [
            each.removeprefix("sha256:") for each in digests
        ]
        definition = provenance["predicate"]["buildDefinition"]
        assert definition["externalParameters"]["platforms"] == app.spec["platforms"]
        assert any("busybox" in each["uri"] for each in definition["resolvedDependencies"])
        assert provenance["predicate"]["runDetails"]["metadata"]["invocationId"] == "team/app/run1"
    assert tag_digest(services, app.image, "latest") == result.digest


def test_publishing_again_signs_once_and_another_key_adds_its_own(pod: Pods, services: Services) -> None:
    pair, other = key_pair(), key_pair()
    app = signed(pod, **pair.secret())
    built = build_two(app)
    first = published(app.run("publish", "--tag=latest", built=built))
    assert published(app.run("publish", "--tag=latest", built=built)) == first
    client = services.client(app.image)
    assert len(referring(client, first.digest, pair)) == 2
    app.secrets = {"signing": other.secret()}
    second = published(app.run("publish", "--tag=latest", built=built))
    content = client.get(second.signature or "").content
    image, pairs = f"{services.registry}/{app.image}", {"first": pair, "second": other}
    whose = verified(content, lambda digest: b"".join(client.blob(digest)), pairs, image, first.digest)
    assert whose == ["first", "second"]
    assert len(referrers.listed(client, first.digest, bundle.MEDIA_TYPE)) == 4


def test_without_provenance_there_is_none_to_sign(pod: Pods, services: Services) -> None:
    pair = key_pair()
    app = signed(pod, **pair.secret())
    app.spec["attestations"] = {"provenance": "Disabled"}
    result = published(app.run("publish", built=build_two(app)))
    statements = referring(services.client(app.image), result.digest, pair)
    assert [each["predicateType"] for each in statements] == ["https://sigstore.dev/cosign/sign/v1"]


def test_values_of_build_arguments_are_told_with_max_only(pod: Pods, services: Services) -> None:
    pair = key_pair()
    app = signed(pod, **pair.secret())
    app.spec["build"] = {"args": {"COLOUR": "told-with-max"}}
    told = {}
    for mode in ("min", "max"):
        app.spec["attestations"] = {"provenance": mode}
        result = published(app.run("publish", built=build_two(app)))
        told[mode] = "told-with-max" in json.dumps(referring(services.client(app.image), result.digest, pair))
    assert told == {"min": False, "max": True}


UNUSABLE: dict[str, tuple[dict[str, str], Reason, str]] = {
    "no Secret": ({}, Reason.SECRET_NOT_FOUND, "names the Secret 'cosign-key'"),
    "another key": ({"tls.key": "x"}, Reason.SECRET_INVALID, "it needs the key `cosign.key` and has `tls.key`"),
    "wrong password": (
        {**key_pair().secret(), "cosign.password": "guess"},
        Reason.SECRET_INVALID,
        "`cosign.password` is not the password of `cosign.key`",
    ),
    "no key": ({"cosign.key": "x"}, Reason.SECRET_INVALID, "is not a private key in PEM"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_without_a_key_no_tag_moves(name: str, pod: Pods, services: Services) -> None:
    keys, reason, said = UNUSABLE[name]
    app = signed(pod, **keys)
    failure = app.failed("publish", "--tag=latest", built=build_two(app))
    assert failure.reason is reason
    assert "output.signing.secretRef" in failure.message
    assert said in failure.message
    assert tag_digest(services, app.image, "latest") is None


def test_without_a_signature_no_tag_moves(pod: Pods, services: Services) -> None:
    app = signed(pod, **key_pair().secret())
    built = build_two(app)
    client = services.client(app.image)
    unsigned = pod(source=app.spec["source"])
    index = client.get(published(unsigned.run("publish", built=built)).digest)
    client.put(index, f"{index.digest.replace(':', '-')}.sig")
    failure = app.failed("publish", "--tag=latest", built=built)
    assert failure.reason is Reason.REGISTRY_ERROR
    assert "does not name signatures: delete the tag" in failure.message
    assert tag_digest(services, app.image, "latest") is None


def test_what_has_gone_moves_no_tag(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    gone = {"linux/386": f"sha256:{'0' * 64}"}
    failure = app.failed("publish", "--tag=latest", built={**build_two(app), **gone})
    assert failure.reason is Reason.REGISTRY_ERROR
    assert "linux/386" in failure.message
    assert tag_digest(services, app.image, "latest") is None


def test_a_builder_that_made_another_platform_is_told(pod: Pods) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"))
    digest = app.built().digest
    failure = app.failed("publish", "--tag=latest", built={"linux/arm64": digest})
    assert "has no image for linux/arm64; it has linux/amd64" in failure.message


def test_an_image_without_attestations_is_a_plain_manifest(pod: Pods, services: Services) -> None:
    app = pod(source=inline("FROM busybox:1.36\nCOPY Dockerfile /"), attestations={"provenance": "Disabled"})
    result = published(app.run("publish", "--tag=latest", built=build_two(app)))
    entries = services.client(app.image).get(result.digest).content["manifests"]
    assert [entry["platform"] for entry in entries] == [
        {"architecture": "arm64", "os": "linux"},
        {"architecture": "amd64", "os": "linux"},
    ]
