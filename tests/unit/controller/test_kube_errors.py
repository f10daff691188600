"""Which error an answer of the API server becomes, on answers that a real one gave."""

from typing import Any

import pytest

from multiarchbuild.controller.kube import (
    BUILDS,
    NODES,
    PODS,
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    Transient,
    error_of,
)


def status(reason: str, message: str = "", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "reason": reason, "message": message, "details": details}


@pytest.mark.parametrize(
    ("code", "answer", "kind"),
    [
        (400, status("BadRequest"), Invalid),
        (401, status("Unauthorized"), Transient),
        (403, status("Forbidden"), Forbidden),
        (404, status("NotFound"), NotFound),
        (404, {}, NotFound),
        (409, status("AlreadyExists"), AlreadyExists),
        (409, status("Conflict"), Conflict),
        (410, status("Expired"), Transient),
        (413, {}, Invalid),
        (415, status("UnsupportedMediaType"), Invalid),
        (422, status("Invalid"), Invalid),
        (429, status("TooManyRequests"), Transient),
        (500, status("InternalError"), Transient),
        (503, {}, Transient),
        (504, status("Timeout"), Transient),
    ],
)
def test_kind(code: int, answer: dict[str, Any], kind: type[KubeError]) -> None:
    assert type(error_of(code, answer, "", "GET /x")) is kind


def test_a_quota_that_lost_a_race_is_no_child_that_exists() -> None:
    message = 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'
    assert type(error_of(409, status("Conflict", message), "", "POST /x")) is Conflict


def test_the_server_says_when_to_come_back() -> None:
    header = error_of(429, {}, "7", "GET /x")
    body = error_of(503, status("ServiceUnavailable", retryAfterSeconds=3), "", "GET /x")
    date = error_of(503, {}, "Wed, 21 Oct 2026 07:28:00 GMT", "GET /x")
    assert [error.retry_after for error in (header, body, date) if isinstance(error, Transient)] == [7, 3, 0]


def test_a_namespace_that_goes_away_is_told_from_a_refusal() -> None:
    going = error_of(403, status("Forbidden", causes=[{"reason": "NamespaceTerminating"}]), "", "POST /x")
    refused = error_of(403, status("Forbidden", "exceeded quota: q"), "", "POST /x")
    assert isinstance(going, Forbidden)
    assert going.namespace_terminating
    assert isinstance(refused, Forbidden)
    assert not refused.namespace_terminating
    assert str(refused) == "exceeded quota: q"


def test_an_answer_without_words_is_described() -> None:
    assert str(error_of(502, {}, "", "GET /api/v1/nodes")) == "GET /api/v1/nodes: HTTP 502"


def test_paths() -> None:
    assert NODES.path() == "/api/v1/nodes"
    assert PODS.path("ns", "p", "status") == "/api/v1/namespaces/ns/pods/p/status"
    assert BUILDS.path("ns") == "/apis/multiarch.build/v1alpha1/namespaces/ns/multiarchbuilds"
    assert PODS.path("ns", "../secrets") == "/api/v1/namespaces/ns/pods/..%2Fsecrets"
