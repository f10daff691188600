"""The server of the page: on this machine only, read only, and deaf to pages of others.

Whoever can connect to 127.0.0.1 may read what the user of the command may: as with `kubectl proxy`, that is everybody
who is logged in to the machine.
"""

import argparse
import asyncio
import logging
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from aiohttp import web

from multiarchbuild.cli import errors
from multiarchbuild.cli.console import say
from multiarchbuild.cli.kube import Cluster

from . import pages
from .reading import Builds, Reader

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STATIC: Final = {"style.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
_HTTP: Final = 80
"""The port that a browser leaves out of `Host`."""
_LOG: Final = logging.getLogger(__name__)


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer to our own name only, so that no page of others can read this by a name that it owns (DNS rebinding)."""
    own = request.app[PORT]
    names = {f"{name}:{own}" for name in _NAMES} | (set(_NAMES) if own == _HTTP else set())
    if (request.headers.get("Host") or "").lower() not in names:
        return web.Response(status=421, text="this page is for http://127.0.0.1 only\n", headers=HEADERS)
    if request.method not in {"GET", "HEAD"}:
        return web.Response(status=405, text="this page changes nothing\n", headers=HEADERS)
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = web.Response(status=error.status, text=pages.failure(error.reason), content_type="text/html")
    except errors.NotFoundError as error:
        response = web.Response(status=404, text=pages.failure(str(error)), content_type="text/html")
    except errors.CliError as error:
        response = web.Response(status=502, text=pages.failure(str(error)), content_type="text/html")
    except Exception as error:  # noqa: BLE001 - the boundary that keeps what others wrote from ending without a page
        _LOG.exception("%s", request.path)
        said = f"kubectl mab failed, which is a fault of its own: {error!r}. The terminal has where; please report it."
        response = web.Response(status=500, text=pages.failure(said), content_type="text/html")
    response.headers.update(HEADERS)
    return response


PORT: Final = web.AppKey("port", int)
READER: Final = web.AppKey("reader", Reader)
BUILDS: Final = web.AppKey("builds", Builds)
EVERYWHERE: Final = web.AppKey("everywhere", bool)


def application(reader: Reader, builds: Builds, *, port: int, everywhere: bool) -> web.Application:
    """Return the application; requests for another port than `port` are refused."""
    app = web.Application(middlewares=[guard])
    app[PORT], app[READER], app[BUILDS], app[EVERYWHERE] = port, reader, builds, everywhere
    app.add_routes(
        [
            web.get("/", _list),
            web.get("/rows", _rows),
            web.get("/static/{name}", _asset),
            web.get("/builds/{namespace}/{name}", _build),
            web.get("/builds/{namespace}/{name}/details", _details),
            web.get("/builds/{namespace}/{name}/log", _log),
            web.get("/builds/{namespace}/{name}/image", _image),
            web.get("/builds/{namespace}/{name}/compare", _compare),
        ]
    )
    return app


def _html(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/html")


async def _list(request: web.Request) -> web.Response:
    builds, reader = request.app[BUILDS], request.app[READER]

    def page() -> str:
        found = builds.all()
        everywhere = request.app[EVERYWHERE]
        where = "all namespaces" if everywhere else f"namespace {reader.cluster.namespace}"
        return pages.listing(found.changed, found.version, everywhere=everywhere, where=where, error=builds.error)

    return _html(await asyncio.to_thread(page))


async def _rows(request: web.Request) -> web.Response:
    builds = request.app[BUILDS]

    def changes() -> dict[str, object]:
        found = builds.since(_number(request.query.get("since", "")))
        rows = [{"id": str(each.document["metadata"]["uid"]), "html": pages.row(each)} for each in found.changed]
        told = {"version": found.version, "whole": found.whole, "gone": found.gone}
        return {**told, "rows": rows, "error": builds.error}

    return web.json_response(await asyncio.to_thread(changes))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1  # noqa: PLR2004 - digits


async def _asset(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _STATIC:
        raise web.HTTPNotFound
    return web.Response(text=pages.asset(name), content_type=_STATIC[name])


def _named(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


async def _build(request: web.Request) -> web.Response:
    return _html(await asyncio.to_thread(_shown, request, pages.page))


async def _details(request: web.Request) -> web.Response:
    return _html(await asyncio.to_thread(_shown, request, pages.details))


def _shown(request: web.Request, render: Callable[..., str]) -> str:
    reader = request.app[READER]
    view = reader.run(*_named(request), request.query.get("run", ""))
    build = view.build if view else reader.build(*_named(request))[1]
    return render(build, view)


async def _log(request: web.Request) -> web.Response:
    pod, since = request.query.get("pod", ""), request.query.get("since", "")
    try:
        part = await asyncio.to_thread(request.app[READER].log, *_named(request), pod, since)
    except errors.CliError as error:
        return web.json_response({"lines": [], "since": since, "ended": True, "error": str(error)})
    return web.json_response({"lines": part.lines, "since": part.since, "ended": part.ended, "error": ""})


async def _compare(request: web.Request) -> web.Response:
    found = await asyncio.to_thread(request.app[READER].pair, *_named(request), request.query.get("run", ""))
    return _html(pages.compared(found))


async def _image(request: web.Request) -> web.Response:
    try:
        return _html(pages.image(await asyncio.to_thread(request.app[READER].image, *_named(request)), ""))
    except errors.CliError as error:
        return _html(pages.image(None, str(error)))


def serve(cluster: Cluster, arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, and return the exit code.

    Raises:
        UsageError: the port is taken.
        CliError: the builds cannot be listed.
    """
    # What the user may not see is said at once, and not by an empty page.
    cluster.request("GET", cluster.builds_path(everywhere=arguments.all_namespaces), query=[("limit", "1")])
    reader = Reader(cluster, plain_http=arguments.plain_http)
    builds = Builds(cluster, everywhere=arguments.all_namespaces)
    asyncio.run(_serve(reader, builds, arguments))
    return 0


async def _serve(reader: Reader, builds: Builds, arguments: argparse.Namespace) -> None:
    try:
        listener = await asyncio.get_running_loop().run_in_executor(None, _bound, arguments.port)
    except OSError as error:
        raise errors.UsageError(
            f"port {arguments.port} cannot be used: {error.strerror}; choose another by --port"
        ) from error
    port = int(listener.getsockname()[1])
    runner = web.AppRunner(application(reader, builds, port=port, everywhere=arguments.all_namespaces), access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        url = f"http://127.0.0.1:{port}/"
        if arguments.name:
            url += f"builds/{reader.cluster.namespace}/{arguments.name}"
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        say("read only, for this machine; Ctrl-C ends it")
        if arguments.open:
            with suppress(webbrowser.Error):
                await asyncio.to_thread(webbrowser.open, url)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _bound(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))
