"""What the page reads of logs and records, without a browser."""

import json
from typing import Any

import pytest

from multiarchbuild.api.answers import NONCE_ENV, TAKEN, answer_line
from multiarchbuild.cli import inspect
from multiarchbuild.cli.errors import CliError
from multiarchbuild.cli.ui import pages
from multiarchbuild.cli.ui.reading import Reader
from tests.ui.stage import INDEX, MANIFEST, Object, Stage, build, pod

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
