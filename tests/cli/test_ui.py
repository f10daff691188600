"""`kubectl mab ui` and its report with real builds: two platforms, a run that goes on, a failure."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.cli.conftest import Plugin
from tests.support.gate import Gate
from tests.support.tenant import BOTH, inline
from tests.ui.chromium import browser

pytestmark = pytest.mark.e2e

WAITING = 60_000
"""Milliseconds that the page may take to show what has happened: a busy machine, and a look each two seconds."""


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Let expectations wait for the cluster."""
    expect.set_options(timeout=WAITING)
    yield
    expect.set_options(timeout=5000)


@contextmanager
def serving(plugin: Plugin, *words: str) -> Iterator[str]:
    """Serve the page as a user does; yield its URL. Ctrl-C ends it."""
    with plugin.start("ui", "--no-open", *words) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(20)
        assert code == 130


def test_a_run_is_watched_to_its_end_and_taken_home(plugin: Plugin, gate: Gate, tmp_path: Path) -> None:
    tenant = plugin.tenant
    plain = ["--plain-http"] if tenant.target.facts.registry_insecure else []
    dockerfile = f"FROM busybox:1.36\nCOPY a /a\nRUN {gate.wait()}\nRUN echo '<b>through</b> the gate'\n"
    tenant.build("app", source=inline(dockerfile, a="1"), platforms=BOTH)
    failing = inline("FROM busybox:1.36\nRUN echo about to fail; exit 7\n")
    tenant.build("bad", source=failing, output={"image": tenant.image("bad")}, retries=0)
    with serving(plugin, *plain) as url, browser() as chromium:
        page = chromium.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.set_default_timeout(WAITING)
        page.goto(url)
        expect(page.locator("#rows tr", has_text="bad").locator(".state")).to_have_text("Failed")
        page.get_by_role("link", name="app").click()
        expect(page.locator(".steps thead th")).to_have_count(3)
        expect(page.locator(".steps rect.running")).to_have_count(len(BOTH))
        gate.open()
        expect(page.locator("h1 + .state")).to_have_text("Succeeded")
        expect(page.locator(".steps tr", has_text="COPY a /a").locator(".why").first).to_have_text("no cache to read")
        expect(page.locator(".lane")).to_have_count(len(BOTH) + 1)
        expect(page.locator("#lines")).to_contain_text("<b>through</b> the gate")
        page.reload()
        expect(page.locator("#image .layers")).to_have_count(len(BOTH))
        page.screenshot(path=tmp_path / "build.png", full_page=True)
        page.goto(f"{url}builds/{tenant.namespace}/bad")
        expect(page.locator(".callout.bad")).to_contain_text("What to do:")
        expect(page.locator(".steps rect.failed")).to_have_count(len(BOTH))
        expect(page.locator("pre.lines").first).to_contain_text("about to fail")
        assert wrong == []
    file = tmp_path / "report.html"
    assert plugin.run("report", "app", "-o", str(file), *plain).returncode == 0
    text = file.read_text(encoding="utf-8")
    assert "&lt;b&gt;through&lt;/b&gt; the gate" in text
    assert "<script" not in text
    assert re.search(r"no cache to read", text)


def test_what_the_user_may_not_see_and_a_port_that_is_taken_are_said(plugin: Plugin) -> None:
    nobody = plugin.run("ui", "--no-open", "--as", "nobody")
    assert nobody.returncode == 3
    assert "cannot list resource" in nobody.stderr
    with serving(plugin) as url:
        port = url.rstrip("/").rpartition(":")[2]
        taken = subprocess.run(
            plugin.argv("ui", "--no-open", "--port", port), env=plugin.env, capture_output=True, text=True, check=False
        )
        assert taken.returncode == 2
        assert f"port {port} cannot be used" in taken.stderr
