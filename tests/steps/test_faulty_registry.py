"""Registries that are busy, slow, keep blobs elsewhere, or allow less than others."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, Published
from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.errors import NotFoundError
from multiarchbuild.oci.names import Repository
from tests.cluster import build
from tests.cluster.layout import cache_directory
from tests.steps.conftest import Faulty, Pod, Pods, Services
from tests.steps.servers import Answer, listens, registry_config, running, wait
from tests.support.ports import free_port
from tests.support.signing import key_pair

DOCKERFILE = "FROM {base}/library/busybox:1.36\nRUN head -c 65536 /dev/urandom > /random\n"


def app_in(pod: Pods, host: str, name: str, **output: Any) -> Pod:
    """Return a pod that builds from a base image in the registry at `host`, and pushes there."""
    app = pod(source={"inline": {"files": {"Dockerfile": DOCKERFILE.format(base=host)}}})
    app.spec["output"] = {"image": f"{host}/team/{name}", **output}
    app.services = replace(app.services, others=({"host": host, "plainHttp": True},))
    app.spec["build"] = {"args": {"UNIQUE": name}}
    return app


def run(app: Pod, tag: str = "latest") -> Published:
    """Build and publish; both must succeed."""
    built = app.run("build", "--platform=linux/amd64")
    assert isinstance(built, Built), built
    published = app.run("publish", f"--tag={tag}", built={"linux/amd64": built.digest})
    assert isinstance(published, Published), published
    return published


def test_a_busy_registry_is_asked_again_when_it_says(pod: Pods, faulty: Faulty) -> None:
    refused: set[str] = set()
    lock = threading.Lock()

    def fault(method: str, path: str) -> Answer | None:
        what = f"{method} {path.split('/')[-2]}"
        with lock:
            if what in refused:
                return None
            refused.add(what)
        return 429, {"Retry-After": "1"}, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}'

    run(app_in(pod, faulty(fault=fault).host, "busy"))
    assert {"POST uploads", "PUT manifests", "GET manifests"} <= refused


def test_slow_blobs_only_take_longer(pod: Pods, faulty: Faulty) -> None:
    registry = faulty(pause=0.25)
    began = time.monotonic()
    run(app_in(pod, registry.host, "slow"))
    assert time.monotonic() - began > 2, "no blob was slow"


def test_blobs_that_are_kept_in_a_store_for_get_only(pod: Pods, faulty: Faulty, services: Services) -> None:
    asked: list[str] = []
    redirected: list[bool] = []

    def store(method: str, _path: str) -> Answer | None:
        asked.append(method)
        return None if method == "GET" else (403, {}, b"signed for another method")

    behind = faulty(fault=store)

    def redirect(method: str, path: str) -> Answer | None:
        # BuildKit follows a HEAD to the store and takes its 403 for that of the registry; the steps do not.
        if not redirected or method not in {"GET", "HEAD"} or "/blobs/sha256:" not in path:
            return None
        exists = pool(None).request("HEAD", f"http://{services.registry}{path}")
        return (307, {"Location": f"http://{behind.host}{path}"}, b"") if exists.status == 200 else None

    key = key_pair()
    app = app_in(pod, faulty(fault=redirect).host, "stored", signing={"secretRef": {"name": "key"}})
    app.secrets = {"signing": key.secret()}
    built = {"linux/amd64": app.built().digest}
    redirected.append(True)
    first, second = (app.run("publish", "--tag=v1", built=built) for _ in range(2))
    assert isinstance(first, Published), first
    assert second == first
    assert set(asked) == {"GET"}


def test_an_immutable_tag_is_named(pod: Pods, faulty: Faulty, services: Services) -> None:
    def fault(method: str, path: str) -> Answer | None:
        if method != "PUT" or not path.endswith("/manifests/v1"):
            return None
        exists = pool(None).request("HEAD", f"http://{services.registry}{path}", headers={"Accept": "*/*"})
        said = b'{"errors": [{"code": "TAG_INVALID", "message": "The image tag already exists and is immutable"}]}'
        return (400, {}, said) if exists.status == 200 else None

    app = app_in(pod, faulty(fault=fault).host, "immutable")
    built = app.built()
    assert isinstance(app.run("publish", "--tag=v1", built={"linux/amd64": built.digest}), Published)
    failure = app.failed("publish", "--tag=v1", built={"linux/amd64": built.digest})
    assert failure.reason is Reason.REGISTRY_REFUSED
    assert 'tag "v1" already exists and is immutable' in failure.message


@pytest.mark.parametrize("step", ["build", "publish"])
def test_credentials_that_may_push_and_not_pull_are_told(pod: Pods, faulty: Faulty, step: str) -> None:
    denied: list[bool] = [step == "build"]

    def fault(method: str, path: str) -> Answer | None:
        pulls = method in {"GET", "HEAD"} and "/team/" in path
        return (403, {}, b"") if pulls and denied[0] else None

    app = app_in(pod, faulty(fault=fault).host, f"push-only-{step}")
    if step == "build":
        failure = app.failed("build", "--platform=linux/amd64")
    else:
        built = app.built()
        denied[0] = True
        failure = app.failed("publish", built={"linux/amd64": built.digest})
    assert failure.reason is Reason.PUSH_DENIED
    assert "may pull from this repository and push to it" in failure.message


# Cleanup


@dataclass(frozen=True)
class Cleaned:
    """A registry with storage of its own."""

    host: str
    storage: Path
    config: Path
    program: str

    def client(self, name: str) -> Client:
        return Client(Repository.parse(f"{self.host}/{name}"), pool(None), plain_http=True)

    def collect(self) -> None:
        """Run the garbage collector of distribution v3."""
        command = [self.program, "garbage-collect", "--delete-untagged", str(self.config)]
        subprocess.run(command, check=True, capture_output=True)

    def delete_untagged(self, name: str) -> None:
        """Delete each manifest that has no tag, as distribution v2 and simple cleanup jobs do, by the API."""
        manifests = self.storage / "docker/registry/v2/repositories" / name / "_manifests"
        tagged = {(tag / "current/link").read_text() for tag in (manifests / "tags").iterdir()}
        for revision in (manifests / "revisions/sha256").iterdir():
            if (digest := f"sha256:{revision.name}") not in tagged:
                pool(None).request("DELETE", f"http://{self.host}/v2/{name}/manifests/{digest}")


@pytest.fixture
def cleaned(tmp_path: Path) -> Iterator[Cleaned]:
    built, port, storage = build.ensure(cache_directory({})), free_port(), tmp_path / "storage"
    config, content = tmp_path / "registry.json", json.loads(registry_config(port, storage))
    content["storage"]["delete"] = {"enabled": True}
    config.write_text(json.dumps(content))
    built.images.copy_to(storage)
    program = str(built.programs["registry"])
    with running(program, "serve", str(config), log=tmp_path / "log"):
        wait(lambda: listens(port))
        yield Cleaned(f"127.0.0.1:{port}", storage, config, program)


def superseded(pod: Pods, cleaned: Cleaned, name: str, **output: Any) -> str:
    """Publish two images after each other under one tag; return the digest of the first."""
    app = app_in(pod, cleaned.host, name, **output)
    first = run(app).digest
    app.spec["build"] = {"labels": {"version": "2"}}
    run(app)
    assert cleaned.client(f"team/{name}").resolve("latest").digest != first
    return first


def missing(client: Client) -> list[str]:
    """Return the architectures of what the index under `latest` lists and the registry no longer has."""
    gone = []
    for entry in client.resolve("latest").content["manifests"]:
        try:
            manifest = client.get(entry["digest"]).content
            assert all(client.has_blob(blob["digest"]) for blob in (manifest["config"], *manifest["layers"]))
        except NotFoundError:
            gone.append(entry["platform"]["architecture"])
    return gone


def test_the_garbage_collector_leaves_an_index_whole_and_takes_what_was_superseded(pod: Pods, cleaned: Cleaned) -> None:
    first = superseded(pod, cleaned, "collected")
    cleaned.collect()
    client = cleaned.client("team/collected")
    assert not client.exists(first)
    assert missing(client) == []


def test_with_child_tags_an_index_survives_that_whatever_has_no_tag_is_deleted(pod: Pods, cleaned: Cleaned) -> None:
    client = cleaned.client("team/with")
    first = superseded(pod, cleaned, "with", childTags=True)
    cleaned.delete_untagged("team/with")
    assert not client.exists(first)
    assert missing(client) == []
    tags = [client.resolve(tag).digest for tag in ("latest-amd64", "latest-amd64-attestation")]
    assert tags == [entry["digest"] for entry in client.resolve("latest").content["manifests"]]

    superseded(pod, cleaned, "without")
    cleaned.delete_untagged("team/without")
    assert missing(cleaned.client("team/without")) == ["amd64", "unknown"], "child tags are of no use"
