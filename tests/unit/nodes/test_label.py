"""Labels of nodes: who writes them, and who removes them, while pods of a DaemonSet replace one another."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiarchbuild.nodes.kubernetes import Api
from multiarchbuild.nodes.label import Labels, keep_labelled
from multiarchbuild.nodes.labeller import Labeller
from tests.support.node_server import SECONDS, NodeServer

ONE, TWO = "multiarch.build/one", "multiarch.build/two"


class Pod:
    """A pod that labels the node, in a thread."""

    def __init__(self, server: NodeServer, folder: Path, name: str, *keys: str) -> None:
        self._server, self._keys = server, keys
        self._labeller = Labeller("node-1", name, 0.01, folder / name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.value: str | None = name
        """Of its labels. Another one for each pod, which no DaemonSet has, so that the test sees who has written."""
        self.broken = False
        self.rounds = 0
        self.code: int | None = None

    @property
    def started(self) -> bool:
        """Whether its startup probe succeeds."""
        return self._labeller.started.exists()

    def begin(self) -> "Pod":
        """Begin, and return it once the outcome of its first verification is written."""
        self._thread.start()
        self._server.until("the first verification is written", lambda: self.rounds > 1)
        return self

    def goes_on(self) -> None:
        """Wait until it has verified and written once more."""
        seen = self.rounds
        self._server.until("it has written once more", lambda: self.rounds > seen + 1)

    def end(self) -> int | None:
        """End it as the kubelet does, and return its exit code."""
        self._stop.set()
        self._thread.join(SECONDS)
        return self.code

    def restarted(self) -> "Pod":
        """Return the same pod with a new container."""
        self._stop.set()
        self._thread.join(SECONDS)
        again = Pod(self._server, self._labeller.started.parent, self._labeller.pod, *self._keys)
        again._thread.start()
        self._server.until("it has verified", lambda: again.rounds > 1)
        return again

    def _run(self) -> None:
        removed: Labels = dict.fromkeys(self._keys)
        api = Api(self._server.folder)
        self.code = keep_labelled(self._labeller, self._verify, removed, self._stop, api)

    def _verify(self) -> tuple[Labels, str]:
        self.rounds += 1
        if self.broken:
            raise RuntimeError("the probe is broken")
        return dict.fromkeys(self._keys, self.value), ""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeServer]:
    found = NodeServer(tmp_path)
    with found.serving(monkeypatch):
        yield found


@pytest.fixture
def bare(server: NodeServer) -> dict[str, dict[str, str]]:
    """Return what the node has before and afterwards."""
    return {field: dict(values) for field, values in server.node.items()}


def seen(server: NodeServer, key: str) -> list[str | None]:
    """Return the values that a label has had, without what has not changed."""
    values = [state["labels"].get(key) for state in server.states]
    return [value for index, value in enumerate(values) if index == 0 or value != values[index - 1]]


def test_a_pod_that_ends_leaves_nothing_on_the_node(
    server: NodeServer, bare: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    pod = Pod(server, tmp_path, "a", ONE, TWO).begin()
    pod.goes_on()
    assert server.node["labels"] == {**bare["labels"], ONE: "a", TWO: "a"}
    assert server.node["annotations"] == {f"{ONE}-verified-by": "a", f"{TWO}-verified-by": "a"}
    assert pod.end() == 0
    assert server.node == bare


def test_in_a_rollout_the_labels_are_there_all_the_time(
    server: NodeServer, bare: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    old = Pod(server, tmp_path, "old", ONE, TWO).begin()
    new = Pod(server, tmp_path, "new", ONE, TWO).begin()
    old.goes_on()
    assert old.end() == 0
    new.goes_on()
    assert seen(server, ONE) == seen(server, TWO) == ["old", "new"], "not missing, and never the old one's again"
    assert new.end() == 0
    assert server.node == bare


def test_a_label_that_the_later_pod_does_not_know_is_removed_by_the_one_that_does(
    server: NodeServer, tmp_path: Path
) -> None:
    old = Pod(server, tmp_path, "old", ONE, TWO).begin()
    new = Pod(server, tmp_path, "new", ONE).begin()
    old.value = None
    server.until("it still verifies its own", lambda: TWO not in server.node["labels"])
    old.value = "old"
    server.until("it still labels its own", lambda: TWO in server.node["labels"])
    old.end()
    assert (seen(server, ONE), seen(server, TWO)) == (["old", "new"], ["old", None, "old", None])
    assert f"{TWO}-verified-by" not in server.node["annotations"]
    new.end()


def test_the_label_goes_with_the_last_verification_and_comes_back(server: NodeServer, tmp_path: Path) -> None:
    pod = Pod(server, tmp_path, "a", ONE).begin()
    pod.value = None
    server.until("removed", lambda: ONE not in server.node["labels"])
    pod.goes_on()
    pod.value = "a"
    server.until("labelled again", lambda: server.node["labels"].get(ONE) == "a")
    pod.broken = True
    server.until("removed again", lambda: ONE not in server.node["labels"])
    assert server.node["annotations"] == {f"{ONE}-verified-by": "a"}, "it answers for a label that is not there too"
    pod.end()


def test_when_the_later_pod_ends_first_the_one_that_stays_labels_again(server: NodeServer, tmp_path: Path) -> None:
    old = Pod(server, tmp_path, "old", ONE).begin()
    Pod(server, tmp_path, "new", ONE).begin().end()
    server.until("labelled again", lambda: server.node["labels"].get(ONE) == "old")
    old.end()
    assert seen(server, ONE) == ["old", "new", None, "old", None]


def test_a_container_that_is_restarted_takes_nothing_from_a_later_pod(server: NodeServer, tmp_path: Path) -> None:
    old = Pod(server, tmp_path, "old", ONE).begin()
    new = Pod(server, tmp_path, "new", ONE).begin()
    again = old.restarted()
    again.goes_on()
    assert again.end() == 0
    assert seen(server, ONE) == ["old", "new"]
    new.end()


def test_a_container_that_is_restarted_labels_again(server: NodeServer, tmp_path: Path) -> None:
    pod = Pod(server, tmp_path, "a", ONE).begin().restarted()
    server.until("labelled again", lambda: server.node["labels"].get(ONE) == "a")
    pod.end()


def test_a_node_that_is_registered_again_is_labelled_again(
    server: NodeServer, bare: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    pod = Pod(server, tmp_path, "a", ONE).begin()
    with server.changed:
        server.node = {field: dict(values) for field, values in bare.items()}
    server.until("labelled again", lambda: server.node["labels"].get(ONE) == "a")
    pod.end()
    assert server.node == bare


def test_a_pod_is_not_ready_and_answers_for_nothing_before_it_could_write(
    server: NodeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Pod(server, tmp_path, "old", ONE).begin()
    server.refused = 403
    new = Pod(server, tmp_path, "new", ONE).begin()
    assert (old.started, new.started) == (True, False)
    assert old.end() == 1, "its label stays, and it says so"
    server.refused = 0
    server.until("labelled", lambda: server.node["labels"].get(ONE) == "new")
    new.goes_on()
    assert new.started
    assert new.end() == 0
    said = capsys.readouterr().out
    assert "error: the node was not labelled: refused by the test" in said
    assert "error: the labels of the node were not removed: refused by the test" in said
