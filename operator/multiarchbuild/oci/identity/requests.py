"""One request to a provider, and what it says where it refuses."""

import html
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from multiarchbuild.api.foreign import NonsenseError, parse_json, parse_object
from multiarchbuild.oci.errors import DeniedError, RefusedError
from multiarchbuild.oci.http import Answer, ask


class StatusError(DeniedError):
    """The server does not accept the request, and would not another time."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_TOKENS = re.compile(r"ey[\w-]+\.[\w-]+\.[\w-]*|[A-Za-z0-9+/=_-]{80,}")
"""What may be a token: no message quotes one."""
LONGEST = 10 * 365 * 24 * 3600
"""Seconds that a login is believed to be good for at most."""
_LOOKED_AT = 4096
"""Characters in which tokens are looked for."""
_READ = 16 * _LOOKED_AT
"""Characters of which white space is removed before."""


def form(http: urllib3.PoolManager, url: str, fields: Mapping[str, str]) -> Answer:
    """Send a form, whose fields are secrets."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return send(http, "POST", url, headers, urlencode(fields))


def send(
    http: urllib3.PoolManager, method: str, url: str, headers: Mapping[str, str], body: str | bytes = ""
) -> Answer:
    """Send a request; no redirect is followed, which would carry the body anywhere.

    Raises:
        StatusError: it is refused, and would be again.
        RefusedError: the server has an error of its own.
        urllib3.exceptions.HTTPError: there is no answer.
    """
    answer = ask(http, method, url, headers=headers, body=body or None, redirect=False)
    if answer.status in (HTTPStatus.OK, HTTPStatus.CREATED):
        return answer
    said = said_by(answer.body.decode(errors="replace"))
    host = urlsplit(url).netloc
    message = f"{host} answered {answer.status} {quoted(answer.reason)}".rstrip() + (f": {said}" if said else "")
    if HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in _TRANSIENT:
        raise StatusError(message, answer.status)
    raise RefusedError(message)


def document(answer: Answer) -> dict[str, Any]:
    """Return the object in an answer.

    Raises:
        RefusedError: there is none.
    """
    try:
        return parse_object(answer.body, f"the answer of {urlsplit(answer.url).netloc}")
    except NonsenseError as error:
        raise RefusedError(str(error)) from error


def text(found: Mapping[str, Any], name: str, url: str) -> str:
    """Return a field of an answer.

    Raises:
        RefusedError: it is missing.
    """
    value = found.get(name)
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        raise RefusedError(f"{urlsplit(url).netloc} sent no {name}")
    return value


def seconds(found: Mapping[str, Any], name: str, otherwise: int) -> int:
    """Return how long something is good for, `otherwise` where the answer does not say it."""
    try:
        return min(max(int(found[name]), 1), LONGEST)
    except (KeyError, TypeError, ValueError):
        return otherwise


def said_by(body: str) -> str:
    """Return what a provider says in a body of JSON or XML, without anything that may be a token."""
    try:
        found = parse_json(body, "the answer")
    except NonsenseError:
        parts = [html.unescape(each) for each in re.findall(r"<(?:Code|Message)>([^<]*)</", body)]
        said = ": ".join(parts) if parts else body if not body.lstrip().startswith("<") else ""
    else:
        said = _said(found)
    return quoted(said)


def quoted(said: str) -> str:
    """Return another's words for a message: one line, at most 400 characters, without anything that may be a token."""
    printable = "".join(each if each.isprintable() else " " for each in said[:_READ])
    return _TOKENS.sub("…", " ".join(printable.split())[:_LOOKED_AT])[:400]


def _said(found: Any) -> str:
    if not isinstance(found, dict):
        return ""
    nested = found.get("error")
    if isinstance(nested, dict):
        return _said(nested)
    if isinstance(errors := found.get("errors"), list):
        return "; ".join(_said(each) for each in errors)
    words = [
        found.get(name) for name in ("__type", "error", "code", "status", "error_description", "message", "Message")
    ]
    return ": ".join(str(word) for word in words if isinstance(word, str) and word)
