"""What the page reads of logs and records, without a browser."""

import json

from multiarchbuild.api.answers import NONCE_ENV, TAKEN, answer_line
from multiarchbuild.cli.ui.reading import Reader
from tests.ui.stage import Stage, build, pod

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
