"""What a watch of the command line makes of errors that the API server sends as events."""

import io
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import pytest
import urllib3

from multiarchbuild.cli import watch as module
from multiarchbuild.cli.errors import UnreachableError
from multiarchbuild.cli.kube import Cluster
from multiarchbuild.cli.watch import watch


class Server:
    """An API server with one build, whose watches say what they are told to."""

    def __init__(self, watches: Iterator[dict[str, Any]]) -> None:
        self._watches, self.lists, self.opened = watches, 0, 0

    def request(self, *_: object, **__: object) -> dict[str, Any]:
        self.lists += 1
        return {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"uid": "u", "resourceVersion": "1"}}]}

    def stream(self, *_: object, **__: object) -> urllib3.HTTPResponse:
        self.opened += 1
        line = json.dumps(next(self._watches)).encode() + b"\n"
        return urllib3.HTTPResponse(io.BytesIO(line), preload_content=False)


def error(code: int) -> dict[str, Any]:
    return {"type": "ERROR", "object": {"code": code, "message": f"no: {code}"}}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.01)


@pytest.mark.parametrize("code", [410, 429, 500])
def test_after_an_error_it_lists_again_and_goes_on(code: int) -> None:
    changed = {"type": "MODIFIED", "object": {"metadata": {"uid": "u", "resourceVersion": "2"}}}
    server = Server(iter([error(code), changed]))
    seen = list(islice(watch(cast("Cluster", server), "/builds"), 3))
    assert [change.object["metadata"]["resourceVersion"] for change in seen] == ["1", "1", "2"]
    assert server.lists == 2


@pytest.mark.parametrize("code", [410, 500])
def test_a_server_that_only_errs_is_asked_with_pauses_and_given_up_in_its_words(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    server = Server(iter([error(code)] * 100))
    with pytest.raises(UnreachableError, match=f"the watch ended: no: {code}"):
        list(watch(cast("Cluster", server), "/builds"))
    assert server.opened <= 12
