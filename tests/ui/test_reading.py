"""What the page reads of logs and records, without a browser."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from multiarchbuild.api.answers import NONCE_ENV, TAKEN, answer_line
from multiarchbuild.cli import inspect
from multiarchbuild.cli.errors import CliError, NotFoundError, UnreachableError
from multiarchbuild.cli.ui import pages, reading, server
from multiarchbuild.cli.ui.reading import Builds, Reader
from multiarchbuild.cli.watch import watch
from tests.ui.stage import INDEX, MANIFEST, Object, Stage, build, furnished, pod

NONCE = "1" * 32


def test_of_a_kept_builder_the_log_of_this_run_is_shown() -> None:
    with Stage().serving() as stage:
        made = build("kept", "")
        run = made["status"]["run"]["id"]
        owned = pod(made, "linux/amd64")
        name, request = "kept-00000000-amd64-1", f"kept-{run}-amd64-1"
        owned["metadata"]["name"] = name
        handed = {"name": request, "number": 2, "at": "2026-01-01T00:00:00Z"}
        owned["metadata"]["annotations"] |= {
            "multiarch.build/template": "t",
            "multiarch.build/request": json.dumps(handed),
        }
        owned["spec"]["containers"][0]["env"] = [{"name": NONCE_ENV, "value": NONCE}]
        stage.pods.append(owned)
        stage.put(made)
        taken = answer_line(NONCE, request, TAKEN.encode())
        stage.say(
            name, "#1 [1/1] RUN before", "#1 DONE 0.1s", taken, "#1 [1/1] RUN now", "==> 0/1 steps done, 0 cached"
        )
        reader = Reader(stage.cluster)
        part = reader.log("team-a", "kept", name, "")
        assert part.lines == ("#1 [1/1] RUN now",)
        stage.say(name, "#1 DONE 0.3s")
        assert reader.log("team-a", "kept", name, part.since).lines == ("#1 DONE 0.3s",)
        view = reader.run("team-a", "kept")
        assert view is not None
        assert [step.name for step in view.record.builders[0].steps] == ["[1/1] RUN now"]


def test_a_run_whose_record_is_not_in_the_registry_is_read_from_its_log() -> None:
    with Stage().serving() as stage:
        made = build("lost")
        image = f"127.0.0.1:{stage.port}/team-a/lost"
        gone = f"sha256:{'0' * 64}"
        made["status"]["image"] = {"ref": f"{image}@{gone}", "digest": gone}
        made["status"]["history"][0] |= {"digest": gone, "record": gone}
        stage.pods.append(pod(made, "linux/amd64", ended=True))
        stage.say(stage.pods[0]["metadata"]["name"], "#1 [1/1] RUN it", "#1 DONE 1.0s")
        stage.put(made)
        view = Reader(stage.cluster).run("team-a", "lost")
        assert view is not None
        assert "404" in view.note
        assert [step.name for step in view.record.builders[0].steps] == ["[1/1] RUN it"]


def _image(stage: Stage, layers: list[Object], config: Any, predicates: list[Object], annotations: Any) -> None:
    """Put a build on the stage whose image consists of what others wrote."""
    made = build("forged")
    image = f"127.0.0.1:{stage.port}/team-a/forged"
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": stage.store("config", config)}
    entry = stage.store(MANIFEST, {**document, "layers": layers})
    about = {"vnd.docker.reference.digest": entry["digest"], "vnd.docker.reference.type": "attestation-manifest"}
    attestation = stage.store(MANIFEST, {**document, "layers": predicates})
    manifests = [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}, {**attestation, "annotations": about}]
    index = stage.store(INDEX, {"mediaType": INDEX, "manifests": manifests, "annotations": annotations})
    made["status"]["image"] = {"ref": f"{image}@{index['digest']}", "digest": index["digest"]}
    stage.put(made)


LAYER = {"digest": f"sha256:{'1' * 64}", "size": 5}
PREDICATE = {"digest": f"sha256:{'2' * 64}", "size": 5, "annotations": {"in-toto.io/predicate-type": "a"}}


@pytest.mark.parametrize(
    ("part", "forged"),
    [
        ("layers", [{**LAYER, "size": 10**400}]),
        ("layers", [{**LAYER, "size": "5"}]),
        ("layers", [{"size": 5}]),
        ("layers", [[]]),
        ("config", {"history": [{"created_by": "RUN \ud800"}]}),
        pytest.param("config", b'{"history":' + b"[" * 100_000, id="deep"),
        ("config", [1]),
        ("predicates", [{**PREDICATE, "annotations": {"in-toto.io/predicate-type": 5}}]),
        ("predicates", [{**PREDICATE, "size": "5"}]),
        ("predicates", [{**PREDICATE, "annotations": ["a"]}]),
        ("annotations", ["a"]),
        ("annotations", {"a": [1], "b": "\ud800"}),
    ],
)
@pytest.mark.parametrize("layers", [True, False])
def test_an_image_that_others_forged_is_shown_or_refused(part: str, forged: Any, *, layers: bool) -> None:
    parts = {"layers": [LAYER], "config": {"history": []}, "predicates": [PREDICATE], "annotations": {}}
    with Stage().serving() as stage:
        _image(stage, **{**parts, part: forged})
        try:
            found = inspect.report("forged", lambda: stage.cluster, plain_http=False, layers=layers)
        except CliError as error:
            assert "is not an image" in str(error)  # noqa: PT017 - either will do
        else:
            assert pages.image(found, "").encode()
            assert inspect.lines(found)


def test_what_was_deleted_while_the_api_server_was_away_leaves_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = list[UnreachableError]()

    def broken(*arguments: Any, **options: Any) -> Any:
        for change in watch(*arguments, **options):
            yield change
            if failures:
                raise failures.pop()

    monkeypatch.setattr(reading, "watch", broken)
    monkeypatch.setattr(reading, "_PAUSE", 0.01)
    with Stage().serving() as stage:
        furnished(stage, builds=3)
        builds = Builds(stage.cluster, everywhere=True)
        name = next(iter(stage.builds))
        _until(lambda: len(builds.all().changed) == len(stage.builds))
        kept = stage.builds.pop(name)
        failures.append(UnreachableError("away"))
        other = next(iter(stage.builds.values()))

        def left() -> bool:
            stage.put(other)
            return kept["metadata"]["uid"] not in {each.document["metadata"]["uid"] for each in builds.all().changed}

        _until(left)
        assert kept["metadata"]["uid"] in builds.since(0).gone


def _until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_means_another_path_is_not_asked_for(name: str) -> None:
    with Stage().serving() as stage:
        with pytest.raises(NotFoundError, match="not a name"):
            stage.cluster.get(name)
        with pytest.raises(NotFoundError, match="not a name"):
            stage.cluster.within(name).get("shop")
        assert stage.asked == []


async def _answers(stage: Stage, path: str, host: str = "", port: int = 80) -> tuple[int, str, str]:
    app = server.application(Reader(stage.cluster), Builds(stage.cluster, everywhere=True), port=port, everywhere=True)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(path, headers={"Host": host})
        return answer.status, answer.headers.get("Content-Security-Policy", ""), await answer.text()


def test_a_fault_of_the_page_is_a_page_with_the_same_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("<script>")

    monkeypatch.setattr(pages, "page", fail)
    with Stage().serving() as stage:
        furnished(stage, builds=3)
        status, policy, text = asyncio.run(_answers(stage, "/builds/team-a/shop", "127.0.0.1"))
    assert status == 500
    assert policy.startswith("default-src 'none'")
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("host", "port", "status"),
    [
        ("127.0.0.1", 80, 200),
        ("localhost:80", 80, 200),
        ("localhost", 81, 421),
        ("evil.example", 80, 421),
        ("", 80, 421),
    ],
)
def test_a_browser_leaves_port_80_out(host: str, port: int, status: int) -> None:
    with Stage().serving() as stage:
        assert asyncio.run(_answers(stage, "/rows", host, port))[0] == status


def test_a_page_of_a_server_before_this_one_gets_the_whole_list() -> None:
    with Stage().serving() as stage:
        furnished(stage, builds=3)
        builds = Builds(stage.cluster, everywhere=True)
        now = builds.all()
        assert len(now.changed) == len(stage.builds)
        assert builds.since(now.version) == reading.Change(now.version, (), (), whole=False)
        for version in (5, now.version + 1_000_000):
            assert builds.since(version).whole
            assert len(builds.since(version).changed) == len(stage.builds)


def test_a_list_that_was_not_read_yet_takes_nothing_away() -> None:
    with Stage().serving() as stage:
        stage.put(build("a"))
        cluster = stage.cluster
    builds = Builds(cluster, everywhere=True)
    assert builds.since(5) == reading.Change(5, (), (), whole=False)
