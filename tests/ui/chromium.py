"""A real browser, and the page served for it. `python -m tests.ui.chromium` installs it before the tests begin."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web
from playwright.sync_api import Browser, sync_playwright

from multiarchbuild.cli.ui.reading import Builds, Reader
from multiarchbuild.cli.ui.server import application
from tests.cluster.build import packages
from tests.support.ports import free_port
from tests.ui.stage import Stage

PACKAGES: Final = ("chromium-headless-shell", "fonts-dejavu-core")
"""Debian's: Playwright's own download would be another source of programs."""
_PROGRAM: Final = "/usr/bin/chromium-headless-shell"


@contextmanager
def served(stage: Stage) -> Iterator[str]:
    """Serve the page for a stage; yield its URL."""
    port, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()
    app = application(Reader(stage.cluster), Builds(stage.cluster, everywhere=True), port=port, everywhere=True)
    runner = web.AppRunner(app)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()

    starting = loop.create_task(start())
    threading.Thread(target=loop.run_forever, daemon=True).start()
    assert ready.wait(10), starting
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)


@contextmanager
def browser() -> Iterator[Browser]:
    """A real Chromium, without a window."""
    packages.ensure(PACKAGES)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=_PROGRAM, args=["--no-sandbox"])


if __name__ == "__main__":
    packages.ensure(PACKAGES)
