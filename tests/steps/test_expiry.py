"""What expires in a real registry: only what a build has published itself, once nothing uses it."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from multiarchbuild.api.results import Published
from multiarchbuild.oci import referrers, signing
from multiarchbuild.oci.client import Client, pool
from multiarchbuild.oci.index import INDEX, MANIFEST, Manifest, digest_of
from multiarchbuild.oci.names import Repository
from multiarchbuild.plan.cache import own_hash
from multiarchbuild.plan.expiry import TYPE
from multiarchbuild.steps import expiry, tagged
from tests.cluster import build
from tests.cluster.layout import cache_directory
from tests.steps.conftest import Pod, Pods, Services
from tests.steps.servers import FaultyRegistry, listens, registry_config, running, wait
from tests.support.ports import free_port
from tests.support.signing import key_pair

EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
LIST = f"cache-{own_hash('team', 'app', 'u1')}-used"
ELSEWHERE = f"cache-{own_hash('team', 'app', 'in another cluster')}-used"
CACHE = f"cache-{own_hash('team', 'app')}"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that lets delete."""
    folder, port = tmp_path_factory.mktemp("expiry"), free_port()
    config = json.loads(registry_config(port, folder / "storage"))
    config["storage"]["delete"] = {"enabled": True}
    (folder / "registry.json").write_text(json.dumps(config))
    program = str(build.ensure(cache_directory({})).programs["registry"])
    with running(program, "serve", str(folder / "registry.json"), log=folder / "log"):
        wait(lambda: listens(port))
        yield f"127.0.0.1:{port}"


@pytest.fixture
def registry(upstream: str) -> Iterator[FaultyRegistry]:
    """Before that registry, whatever a test has it answer."""
    registry = FaultyRegistry(upstream)
    with registry.serving():
        yield registry


class Clock:
    """The time that operator and nodes have."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.node_is_ahead = timedelta()

    def node(self) -> datetime:
        return self.now + self.node_is_ahead

    def forward(self, hours: float) -> None:
        self.now += timedelta(hours=hours)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(expiry, "_node_time", clock.node)
    return clock


class App:
    """A build with expiry in the registry."""

    def __init__(self, pod: Pods, registry: FaultyRegistry, clock: Clock, **output: Any) -> None:
        self.pod: Pod = pod()
        self.pod.services = replace(self.pod.services, others=({"host": registry.host, "plainHttp": True},))
        self.clock, self.image = clock, f"{registry.host}/{self.pod.image}"
        self.pod.spec["output"] = {"image": self.image, "expire": "2h", **output}
        real = Repository.parse(f"{registry.upstream}/{self.pod.image}")
        self.client = Client(real, pool(None), plain_http=True)
        self.version = 0
        self.built = ""

    def publish(self, *arguments: str, listed: str = LIST, tag: str = "latest", knows_time: bool = True) -> str:
        """Build and publish another version; return the digest of the index."""
        self.version += 1
        dockerfile = f"FROM scratch\nCOPY Dockerfile /{self.version}\n"
        self.pod.spec["source"] = {"inline": {"files": {"Dockerfile": dockerfile}}}
        self.built = self.pod.built().digest
        self.pod.handed_at = self.clock.now if knows_time else None
        told = ("publish", *([f"--tag={tag}"] if tag else []), *([f"--list={listed}"] if listed else []), *arguments)
        outcome = self.pod.run(*told, built={"linux/amd64": self.built})
        assert isinstance(outcome, Published), outcome
        return outcome.digest

    def expired(self) -> str:
        """Publish something and let it expire, so that the next run deletes it; return its digest."""
        old = self.publish()
        self.publish()
        self.clock.forward(3)
        self.publish()  # finds that nothing names it
        self.clock.forward(3)
        return old

    def children(self, digest: str) -> list[str]:
        return [entry["digest"] for entry in self.client.get(digest).content["manifests"]]

    def has(self, *digests: str) -> bool:
        return all(map(self.client.exists, digests))

    def tags(self) -> set[str]:
        return {tag for page in self.client.tag_pages() for tag in page}

    def index_over(self, *digests: str, **more: Any) -> Manifest:
        """Return an index over manifests that are there."""
        manifests = [self.client.get(digest) for digest in digests]
        entries = [{"mediaType": m.media_type, "digest": m.digest, "size": len(m.raw)} for m in manifests]
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **more}
        return Manifest(INDEX, json.dumps(document).encode())

    def artifact(self, text: str) -> Manifest:
        """Push something that nothing names; return it."""
        self.client.put_blob(digest_of(b"{}"), b"{}", 2)
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": [EMPTY]}
        manifest = Manifest(MANIFEST, json.dumps({**document, "annotations": {"text": text}}).encode())
        self.client.put(manifest, manifest.digest)
        return manifest

    def leave_list(self, tag: str, content: bytes) -> None:
        for blob in (content, b"{}"):
            self.client.put_blob(digest_of(blob), blob, len(blob))
        self.client.put(referrers.alone(referrers.Artifact(TYPE, content, {})), tag)


@pytest.fixture
def app(pod: Pods, registry: FaultyRegistry, clock: Clock) -> App:
    return App(pod, registry, clock)


def test_a_superseded_image_goes_with_all_that_is_about_it(pod: Pods, registry: FaultyRegistry, clock: Clock) -> None:
    app = App(pod, registry, clock, signing={"secretRef": {"name": "key"}})
    app.pod.secrets = {"signing": key_pair().secret()}
    first = app.publish()
    builders, children = app.built, app.children(first)
    about = [str(each["digest"]) for of in (first, *children) for each in referrers.everything(app.client, of)]
    signed = {signing.tag(of) for of in (first, children[0])}
    assert len(about) >= 3, "the record, and a signature each of the index and its image"
    assert app.has(*about)
    assert signed <= app.tags()
    clock.forward(3)
    second = app.publish()
    assert app.has(first), "it was not seen unused before"
    clock.forward(1.5)
    third = app.publish()
    assert app.has(first), "it was seen unused not long ago"
    clock.forward(1)
    fourth = app.publish()
    assert not app.has(first)
    assert not any(map(app.has, about))
    assert not {tag for tag in app.tags() for of in (first, *children) if tag.startswith(referrers.tag(of))}
    assert app.has(builders, *children), "another build may have found them there and be about to publish them"
    for digest in (second, third, fourth):
        assert app.has(digest, *app.children(digest))
        assert {signing.tag(of) for of in (digest, app.children(digest)[0])} <= app.tags()


def test_what_a_tag_or_a_status_or_an_index_names_stays(app: App, clock: Clock) -> None:
    tagged_, source, kept, nested, unused = (app.publish() for _ in range(5))
    app.client.put(app.client.get(tagged_), "v1")
    app.client.put(app.client.get(source), "source-main")
    inner = app.index_over(nested)
    app.client.put(inner, inner.digest)
    app.client.put(app.index_over(inner.digest), "all")
    for _ in range(3):
        clock.forward(3)
        newest = app.publish(f"--keep={kept}")
    assert not app.has(unused)
    for digest in (tagged_, source, kept, nested, newest):
        assert app.has(digest, *app.children(digest))


def test_an_image_that_is_built_again_is_not_taken_for_the_old_one(app: App) -> None:
    first = app.expired()
    app.version = 0
    assert app.publish() == first
    assert app.has(first, *app.children(first))


def test_what_the_build_has_not_published_stays(app: App) -> None:
    before = app.publish(listed="")
    pushed = app.artifact("a folder")
    app.client.put(pushed, f"source-{'a' * 32}")
    old = app.expired()
    # Whoever may push has it named as what is about an image that expires.
    foreign = app.artifact("foreign")
    app.client.put(app.index_over(foreign.digest), referrers.tag(old))
    app.client.put(app.artifact("no signature"), signing.tag(old))
    app.publish()
    assert not app.has(old)
    assert app.has(before, *app.children(before), pushed.digest, foreign.digest, app.artifact("no signature").digest)


def test_an_image_that_is_pushed_by_its_digest_alone_stays_and_so_do_others_then(app: App, clock: Clock) -> None:
    old = app.expired()
    alone = app.publish(tag="")
    for _ in range(2):
        clock.forward(3)
        app.publish(tag="")
    assert app.has(alone, old)


def test_a_list_that_may_not_be_overwritten_is_told(
    app: App, registry: FaultyRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    said = json.dumps({"errors": [{"message": "the tag is immutable"}]}).encode()
    registry.fault = lambda method, path: (400, {}, said) if method == "PUT" and LIST in path else None
    app.publish()
    assert "Allow overwriting of tags that begin with cache-." in capfd.readouterr().out


def test_an_image_without_an_index_stays_as_builders_find_it_there(
    pod: Pods, registry: FaultyRegistry, clock: Clock
) -> None:
    app = App(pod, registry, clock, format="Manifest")
    app.pod.spec["attestations"] = {"provenance": "Disabled"}
    old = app.expired()
    app.publish()
    assert app.has(old)


Change = Callable[[list[str]], tuple[int, bytes]]
LISTINGS: dict[str, Change] = {
    "it is not found": lambda _: (404, b""),
    "it is a page of a proxy": lambda _: (200, b"<html>"),
    "it has no tags": lambda _: (200, b'{"name": "team/app"}'),
    "it is empty": lambda _: (200, b'{"tags": []}'),
    "it lacks the tag that was moved": lambda tags: (200, json.dumps({"tags": [LIST, *tags][:1]}).encode()),
    "it has a tag that is not there": lambda tags: (200, json.dumps({"tags": [*tags, "gone"]}).encode()),
}


def test_where_the_tags_are_not_listed_as_they_must_be_nothing_is_deleted(app: App, registry: FaultyRegistry) -> None:
    old = app.expired()
    for what, change in LISTINGS.items():

        def fault(_: str, path: str, change: Change = change) -> Any:
            if "/tags/list" not in path:
                return None
            status, body = change(sorted(app.tags()))
            return status, {"Content-Type": "application/json"}, body

        registry.fault = fault
        app.publish()
        assert app.has(old), what
    assert not [asked for asked in registry.asked if asked.startswith("DELETE") and "/manifests/" in asked]
    registry.fault = lambda *_: None
    app.publish()
    assert not app.has(old)


def test_a_tag_that_is_moved_to_it_meanwhile_saves_an_image(app: App, registry: FaultyRegistry) -> None:
    old = app.expired()
    looked = 0

    def fault(_: str, path: str) -> None:
        nonlocal looked
        looked += "/tags/list" in path
        if looked == 2:
            app.client.put(app.client.get(old), "v1")

    registry.fault = fault
    app.publish()
    assert looked >= 2
    assert app.has(old, *app.children(old))


def test_the_result_is_told_before_anything_is_looked_at(app: App, registry: FaultyRegistry) -> None:
    app.expired()
    told = list[str]()

    def fault(_: str, path: str) -> None:
        if "/tags/list" in path:
            (log,) = [log for log in app.pod.root.glob("*/dev/termination-log") if int(log.parts[-3]) == newest]
            told.append(json.loads(log.read_text())["result"]["kind"])

    registry.fault = fault
    newest = len(list(app.pod.root.iterdir())) + 1  # the build comes before
    app.publish()
    assert told[:1] == ["published"]


def test_whatever_the_registry_answers_the_run_succeeds(app: App, registry: FaultyRegistry) -> None:
    old = app.expired()
    for status in (401, 405, 429, 503):

        def fault(method: str, path: str, status: int = status) -> Any:
            return (status, {}, b"{}") if "/tags/" in path or method == "DELETE" or LIST in path else None

        registry.fault = fault
        before = len(registry.asked)
        app.publish()
        assert app.has(old), status
        asked = registry.asked[before:]
        assert len([each for each in asked if LIST in each]) <= 2, "nothing is asked for again and again"


def test_a_registry_that_never_ends_its_answers_does_not_keep_the_pod(
    app: App, registry: FaultyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.expired()
    left = list[int]()
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr(expiry, "_HARD_SECONDS", 0.5)
    registry.fault = lambda _, path: time.sleep(1) if "/tags/list" in path else None
    app.publish()
    assert left == [0]
    rest(registry)
    left.clear()

    def fault(_: str, path: str) -> None:
        if "/tags/list" in path:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    registry.fault = fault
    app.publish()
    assert left[0] == 0, "a pod that is deleted meanwhile has not failed"
    rest(registry)


def rest(registry: FaultyRegistry) -> None:
    """Let what goes on end: here the process does not, and the next test would be met."""
    registry.fault = lambda _method, _path: (503, {}, b"{}")
    for thread in threading.enumerate():
        if thread.name == expiry.THREAD:
            thread.join(30)
            assert not thread.is_alive()
    registry.fault = lambda _method, _path: None


def test_where_the_clocks_differ_nothing_is_deleted_or_counted(app: App, clock: Clock) -> None:
    old = app.expired()
    clock.node_is_ahead = timedelta(minutes=10)
    app.publish()
    clock.node_is_ahead = timedelta()
    app.publish(knows_time=False)
    assert app.has(old)
    clock.now -= timedelta(hours=5)
    app.publish()
    clock.forward(3)
    app.publish()
    assert app.has(old), "its list was of the future, and began anew"


def test_what_another_build_lists_stays(app: App) -> None:
    old = app.expired()
    entries = {old: {"at": "2026-01-01T00:00:00Z", "expire": 10**15}}
    app.leave_list(ELSEWHERE, json.dumps({"entries": entries}).encode())
    app.publish()
    assert app.has(old)


def test_a_list_that_cannot_be_read_protects_everything(app: App, capfd: pytest.CaptureFixture[str]) -> None:
    old = app.expired()
    app.leave_list(ELSEWHERE, b'{"entries": {"a": 1}}')
    app.publish()
    assert app.has(old)
    assert "has a format that this version cannot read" in capfd.readouterr().out


def test_a_repository_with_too_many_tags_is_left_alone_and_signatures_do_not_count(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = app.expired()
    for number in range(3):
        app.client.put(app.artifact(str(number)), f"v{number}")
        app.client.put(app.artifact(str(number)), f"sha256-{number:064}.sig")
    monkeypatch.setattr(tagged, "MOST_TAGS", 4)
    app.publish()
    assert app.has(old), "latest, the list and three more"
    monkeypatch.setattr(tagged, "MOST_TAGS", 5)
    app.publish()
    assert not app.has(old)


class Caches(App):
    """A build whose caches expire."""

    def __init__(self, pod: Pods, registry: FaultyRegistry, clock: Clock) -> None:
        super().__init__(pod, registry, clock)
        self.pod.spec["cache"] = {"expire": "2h"}
        self.pod.spec["output"].pop("expire")
        self.written = 0

    def cache(self, branch: str) -> str:
        """Write another cache of a branch; return its tag."""
        self.written += 1
        tag = f"{CACHE}-{branch}-linux-amd64"
        self.client.put(self.artifact(f"cache {self.written}"), tag)
        return tag

    def run(self, tag: str, *imported: str) -> None:
        self.publish(f"--cache={self.image}:{tag}", *(f"--cache-from={self.image}:{each}" for each in imported))

    def caches(self) -> set[str]:
        return {tag for tag in self.tags() if tag.startswith("cache-") and not tag.endswith("-used")}


def test_caches_of_branches_that_are_not_built_any_more_expire(
    pod: Pods, registry: FaultyRegistry, clock: Clock
) -> None:
    app = Caches(pod, registry, clock)
    main, feature, shared, moved = (app.cache(branch) for branch in ("main", "feature", "shared", "moved"))
    never, theirs = app.cache("never"), "cache-00000000000000000000-main-linux-amd64"
    app.client.put(app.artifact("theirs"), theirs)
    for tag in (main, feature, shared, moved):
        app.run(tag)
    app.cache("moved")  # somebody else has written it
    listed = {name: {"at": "2025-01-01T00:00:00Z", "expire": 1} for name in (shared, theirs)}
    app.leave_list(ELSEWHERE, json.dumps({"entries": listed}).encode())
    clock.forward(1.5)
    app.run(feature, main)
    clock.forward(1.5)
    app.run(feature)
    assert app.caches() == {main, feature, shared, moved, never, theirs}, "main was read 1.5 h ago"
    clock.forward(1.5)
    app.run(feature)
    assert app.caches() == {feature, shared, moved, never, theirs}


def test_where_a_tag_cannot_be_deleted_alone_its_manifest_goes_unless_another_tag_names_it(
    pod: Pods, registry: FaultyRegistry, clock: Clock
) -> None:
    app = Caches(pod, registry, clock)
    registry.fault = lambda method, path: (
        (400, {}, b"{}") if method == "DELETE" and "/manifests/sha256:" not in path else None
    )
    alone, double, main = app.cache("alone"), app.cache("double"), app.cache("main")
    app.client.put(app.client.resolve(double), "v1")
    for tag in (alone, double, main):
        app.run(tag)
    clock.forward(3)
    app.run(main)
    assert app.caches() == {double, main}


def test_a_registry_that_lets_nobody_delete_fails_no_run(
    pod: Pods, services: Services, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    registry = FaultyRegistry(
        services.registry, fault=lambda method, _path: (405, {}, b"{}") if method == "DELETE" else None
    )
    with registry.serving():
        app = App(pod, registry, clock)
        old = app.expired()
        app.publish()
        assert app.has(old)
    assert "Let the credentials delete, or use the registry's own cleanup." in capfd.readouterr().out


def test_without_expiry_nothing_is_written_beside_the_image(app: App, clock: Clock) -> None:
    app.pod.spec["output"].pop("expire")
    first = app.publish(listed="")
    clock.forward(1000)
    app.publish(listed="")
    assert app.has(first)
    assert {tag for tag in app.tags() if not tag.startswith("sha256-")} == {"latest"}
