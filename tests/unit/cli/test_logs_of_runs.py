"""The logs of a run whose pods were kept, and serve another run by now."""

import argparse
from typing import Any

import pytest

from multiarchbuild.cli import logs
from multiarchbuild.cli.errors import NotFoundError
from tests.unit.plan.test_kept_publish import edited, ran, run_of, world
from tests.unit.plan.world import World


class Cluster:
    """Reads a world as an API server would be read."""

    def __init__(self, found: World) -> None:
        self._found = found

    def get(self, _name: str) -> dict[str, Any]:
        return {**self._found.resource, "apiVersion": "multiarch.build/v1alpha1", "kind": "MultiArchBuild"}

    def pods(self, _selector: str) -> list[dict[str, Any]]:
        return list(self._found.pods.values())


def asked(run: str) -> argparse.Namespace:
    return argparse.Namespace(name="app", run=run, follow=False, platform=[], tail=None)


def test_an_earlier_run_of_kept_pods_is_found_as_long_as_history_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = world()
    first = run_of(found).id
    edited(found)
    ran(found)
    assert first not in {pod["metadata"]["labels"]["multiarch.build/run"] for pod in found.pods.values()}
    monkeypatch.setattr(logs, "log", lambda *_, **__: iter(()))
    cluster: Any = Cluster(found)
    assert logs.show(cluster, asked(first)) == 0
    with pytest.raises(NotFoundError, match="there are no pods of run 01234567"):
        logs.show(cluster, asked("01234567"))
