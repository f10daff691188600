"""Bodies of requests, by their length and in chunks."""

import io
from email.message import Message
from http.server import BaseHTTPRequestHandler

import pytest

from tests.support.bodies import body_of

CHUNKED = {"Transfer-Encoding": "chunked"}


@pytest.mark.parametrize(
    ("headers", "sent", "body"),
    [
        ({}, b"", b""),
        ({"Content-Length": "4"}, b"abcd", b"abcd"),
        (CHUNKED, b"0\r\n\r\n", b""),
        (CHUNKED, b"4\r\nabcd\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n", b"abcd0123456789abcdef"),
        (CHUNKED, b"4;name=value\r\na\r\nb\r\n0\r\nTrailer: x\r\n\r\n", b"a\r\nb"),
    ],
)
def test_a_body_is_read_to_its_end_and_no_further(headers: dict[str, str], sent: bytes, body: bytes) -> None:
    request = BaseHTTPRequestHandler.__new__(BaseHTTPRequestHandler)
    request.headers, request.rfile = Message(), io.BytesIO(sent + b"GET /next")
    for name, value in headers.items():
        request.headers[name] = value
    assert body_of(request) == body
    assert request.rfile.read() == b"GET /next"
