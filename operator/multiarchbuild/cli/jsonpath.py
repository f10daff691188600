r"""`-o jsonpath=TEMPLATE`, with the templates that kubectl takes.

Paths are evaluated by a library (RFC 9535); what is kubectl's own is the template around them: text, `{path}`,
`{"literal"}`, `{range path}…{end}`, and keys whose dots are escaped (`.metadata.annotations.example\.com/team`).
Source: https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from jsonpath import JSONPathEnvironment, JSONPathError

from multiarchbuild.api.foreign import parse_json

from .errors import UsageError

_TOKEN: Final = re.compile(r"""\{(?P<inside>(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^{}"'])*)\}|(?P<text>[^{}]+)""")
_SEGMENT: Final = re.compile(
    r"""(?P<deep>\.\.)|\.?(?P<any>\*)|\.(?P<key>(?:\\.|[^.\[\]\\*])+)"""
    r"""|(?P<bracket>\[(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\]"'])*\])|(?P<name>(?:\\.|[^.\[\]\\*])+)"""
)
_ENVIRONMENT: Final = JSONPathEnvironment()


def render(template: str, document: Any) -> str:
    """Return what `template` makes of `document`, without a line break of its own, as kubectl does.

    Raises:
        UsageError: the template is malformed; the message shows where.
    """
    if "{" not in template:
        # kubectl also takes a bare path, such as .status.image.digest.
        template = f"{{{template if template.startswith(('.', '[', '$')) else f'.{template}'}}}"
    tokens = list(_tokens(template))
    text, rest = _block(tokens, document, document, nested=False)
    assert not rest
    return text


def _tokens(template: str) -> Iterator[tuple[str, str]]:
    """Yield (`text` or `inside`, content)."""
    position = 0
    while position < len(template):
        match = _TOKEN.match(template, position)
        if match is None:
            raise UsageError(f"--output jsonpath: the braces do not match at {template[position : position + 20]!r}")
        kind = "text" if match["text"] is not None else "inside"
        yield kind, match[kind].strip() if kind == "inside" else match[kind]
        position = match.end()


def _block(
    tokens: list[tuple[str, str]], root: Any, current: Any, *, nested: bool
) -> tuple[str, list[tuple[str, str]]]:
    """Return the text of `tokens` up to the `{end}` that closes them, and the tokens after it."""
    said: list[str] = []
    while tokens:
        (kind, content), *tokens = tokens
        if kind == "text":
            said.append(content)
        elif content[:1] in {'"', "'"}:
            said.append(_literal(content))
        elif content == "end":
            if not nested:
                raise UsageError("--output jsonpath: {end} without {range}")
            return "".join(said), tokens
        elif content.startswith("range "):
            body = tokens
            _, tokens = _block(body, root, None, nested=True)
            said += [
                _block(body, root, each, nested=True)[0]
                for each in _find(content.removeprefix("range "), root, current)
            ]
        else:
            said.append(" ".join(map(_value, _find(content, root, current))))
    if nested:
        raise UsageError("--output jsonpath: {range} needs an {end}")
    return "".join(said), tokens


def _find(path: str, root: Any, current: Any) -> list[Any]:
    path = path.strip()
    start = root if path.startswith("$") else current
    query = "$" + "".join(_segments(path.removeprefix("$").removeprefix("@"), path))
    if start is None:
        return []
    try:
        return list(_ENVIRONMENT.findall(query, start))
    except JSONPathError as error:
        raise UsageError(f"--output jsonpath: {path!r}: {error}") from error


def _segments(rest: str, path: str) -> Iterator[str]:
    """Yield the segments of kubectl's path as RFC 9535 writes them."""
    position, after_deep = 0, False
    while position < len(rest):
        match = _SEGMENT.match(rest, position)
        if match is None or (match["name"] and not (after_deep or position == 0)):
            raise UsageError(f"--output jsonpath: {path!r} is malformed at {rest[position:]!r}")
        key = match["key"] or match["name"]
        if key:
            unescaped = re.sub(r"\\(.)", r"\1", key)
            yield f"[{json.dumps(unescaped)}]"
        elif match["any"]:
            yield "[*]"
        else:
            yield match[0]
        after_deep = match["deep"] is not None
        position = match.end()


def _literal(text: str) -> str:
    try:
        return str(parse_json(f'"{text[1:-1]}"' if text[0] == "'" else text, "the text"))
    except ValueError as error:
        raise UsageError(f"--output jsonpath: {text} is not a string: {error}") from error


def _value(found: Any) -> str:
    if isinstance(found, str):
        return found
    return "" if found is None else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
