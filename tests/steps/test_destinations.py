"""One build in several repositories: the same digest everywhere, and tags only where all have it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published
from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.errors import NotFoundError
from multiarchbuild.oci.names import Repository
from tests.steps.conftest import PASSWORD, USER, Faulty, Pod, Pods, Services, docker_config
from tests.steps.servers import Answer
from tests.support.signing import key_pair


def plain(image: str) -> Client:
    return Client(Repository.parse(image), pool(None), plain_http=True)


def app_to(pod: Pods, image: str, *destinations: dict[str, Any], **output: Any) -> Pod:
    dockerfile = "FROM busybox:1.36\nRUN head -c 65536 /dev/urandom > /random\n"
    app = pod(source={"inline": {"files": {"Dockerfile": dockerfile}}})
    if not image.startswith(app.services.registry):
        app.services = replace(app.services, others=({"host": image.partition("/")[0], "plainHttp": True},))
    app.spec["output"] = {"image": image, "destinations": list(destinations), **output}
    return app


def test_an_image_has_the_same_digest_in_every_registry(pod: Pods, services: Services, tmp_path: Path) -> None:
    secure = f"{services.secure}/team/copied"
    app = app_to(
        pod,
        f"{services.registry}/team/copied",
        {"image": secure, "secretRefs": [{"name": "mirror"}]},
        {"image": f"{services.registry}/mirror/copied"},
        signing={"secretRef": {"name": "key"}},
        childTags=True,
    )
    app.secrets = {"destinations/0/0": docker_config(services.secure, USER, PASSWORD), "signing": key_pair().secret()}
    built = {"linux/amd64": app.built().digest}
    result = app.run("publish", "--tag=latest", "--tag=v1", built=built)
    assert isinstance(result, Published), result
    clients = [
        plain(f"{services.registry}/team/copied"),
        services.secure_client("team/copied", tmp_path / "ca.crt"),
        plain(f"{services.registry}/mirror/copied"),
    ]
    for client in clients:
        index = client.resolve("latest")
        assert index.digest == client.resolve("v1").digest == result.digest
        assert client.resolve("latest-amd64").digest == index.content["manifests"][0]["digest"]
        for entry in index.content["manifests"]:
            manifest = client.get(entry["digest"]).content
            assert all(client.has_blob(blob["digest"]) for blob in (manifest["config"], *manifest["layers"]))
        assert client.resolve(f"{result.digest.replace(':', '-')}.sig").raw
    again = app.run("publish", "--tag=latest", "--tag=v1", built=built)
    assert again == result


def test_blobs_are_mounted_where_the_registry_can(pod: Pods, faulty: Faulty) -> None:
    registry = faulty()
    app = app_to(pod, f"{registry.host}/team/mounted", {"image": f"{registry.host}/mirror/mounted"})
    assert isinstance(app.run("publish", "--tag=v1", built={"linux/amd64": app.built().digest}), Published)
    assert plain(f"{registry.host}/mirror/mounted").resolve("v1").raw
    asked = [each for each in registry.asked if "/v2/mirror/mounted/blobs/uploads/" in each]
    assert [each for each in asked if "mount=sha256" in each]
    assert not [each for each in asked if each.startswith("PUT")]


def test_without_mounting_blobs_are_sent(pod: Pods, faulty: Faulty) -> None:
    def fault(method: str, path: str) -> Answer | None:
        return (403, {}, b"") if method == "POST" and "mount=" in path and "/mirror/" in path else None

    registry = faulty(fault=fault)
    app = app_to(pod, f"{registry.host}/team/sent", {"image": f"{registry.host}/mirror/sent"})
    assert isinstance(app.run("publish", "--tag=v1", built={"linux/amd64": app.built().digest}), Published)
    assert [each for each in registry.asked if each.startswith("PUT /v2/mirror/sent/blobs/uploads/")]


def test_no_tag_moves_before_all_have_the_image(pod: Pods, faulty: Faulty) -> None:
    def fault(method: str, path: str) -> Answer | None:
        return (405, {}, b"") if method == "PUT" and "/mirror/refusing/manifests/" in path else None

    registry = faulty(fault=fault)
    app = app_to(pod, f"{registry.host}/team/refusing", {"image": f"{registry.host}/mirror/refusing"})
    failure = app.failed("publish", "--tag=v1", built={"linux/amd64": app.built().digest})
    assert failure.reason is Reason.REGISTRY_REFUSED
    assert f"{registry.host}/mirror/refusing" in failure.message
    with pytest.raises(NotFoundError):
        plain(f"{registry.host}/team/refusing").resolve("v1")


@pytest.mark.parametrize(
    ("secrets", "reason"),
    [
        ({}, Reason.SECRET_NOT_FOUND),
        ({"destinations/0/0": docker_config("HOST", USER, "wrong")}, Reason.PUSH_DENIED),
    ],
)
def test_a_destination_is_asked_before_anything_is_built(
    pod: Pods, services: Services, secrets: dict[str, dict[str, str]], reason: Reason
) -> None:
    image = f"{services.secure}/team/denied"
    app = app_to(pod, f"{services.registry}/team/denied", {"image": image, "secretRefs": [{"name": "mirror"}]})
    app.secrets = {
        path: {key: text.replace("HOST", services.secure) for key, text in keys.items()}
        for path, keys in secrets.items()
    }
    failure = app.failed("build", "--platform=linux/amd64")
    assert failure.reason is reason
    assert (image if secrets else "output.destinations[0].secretRefs[0]") in failure.message
