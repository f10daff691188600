"""`kubectl mab ui` and the report in a real Chromium: what people see, how fast, and what hostile builds can do."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from playwright.sync_api import Browser, BrowserContext, Page, expect

from multiarchbuild.cli.ui import write
from tests.support.pace import slowness
from tests.ui.chromium import browser, served
from tests.ui.stage import Stage, ago, build, furnished, pod

EVIL = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>\x1b[31m\x1b]0;title\x07\u202e"

WAITING = 60_000
"""Milliseconds."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage().serving() as made:
        furnished(made)
        yield made


@pytest.fixture(scope="module")
def url(stage: Stage) -> Iterator[str]:
    with served(stage) as found:
        yield found


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Let expectations wait for a busy machine: where a test says how soon, it measures."""
    expect.set_options(timeout=WAITING)
    yield
    expect.set_options(timeout=5000)


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context()
    made.set_default_timeout(WAITING)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, url: str) -> Iterator[Page]:
    """A page that has asked nobody else for anything, and on which nothing has gone wrong."""
    made, asked, wrong = context.new_page(), list[str](), list[str]()
    made.on("request", lambda request: asked.append(request.url))
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    yield made
    assert [each for each in asked if not each.startswith(f"{url}/")] == []
    assert wrong == []


def test_the_list_is_live_and_can_be_filtered(page: Page, url: str, stage: Stage) -> None:
    page.goto(url)
    expect(page.locator("#rows tr")).to_have_count(24)
    expect(page.locator("#rows tr").first).to_contain_text("checkout")
    stage.put(build("fresh", ""))
    expect(page.locator("#b-uid-fresh .state")).to_have_text("Running")
    stage.put(build("fresh", "Failed"))
    expect(page.locator("#b-uid-fresh .state")).to_have_text("Failed")
    stage.put(build("fresh"), "DELETED")
    stage.builds.pop("fresh")
    expect(page.locator("#b-uid-fresh")).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("failed search")
    expect(page.locator("#rows tr:visible")).to_have_count(1)
    expect(page.locator("#count")).to_have_text("1 of 24")


def test_a_namespace_without_builds_says_so_at_once(context: BrowserContext) -> None:
    with Stage().serving() as empty, served(empty) as url:
        page = context.new_page()
        began = time.monotonic()
        page.goto(url)
        expect(page.locator("#none")).to_contain_text("No builds yet.")
        assert time.monotonic() - began < 5 * slowness()
        empty.put(build("first"))
        expect(page.locator("#rows tr")).to_have_count(1)
        expect(page.locator("#none")).to_be_hidden()


def test_platforms_are_side_by_side_with_why_each_step_ran(page: Page, url: str) -> None:
    page.goto(f"{url}/builds/team-a/shop")
    expect(page.locator(".steps thead th")).to_have_count(3)
    row = page.locator(".steps tr", has_text="RUN npm run build")
    expect(row.locator(".took")).to_have_text(["38.4s", "53.8s"])
    expect(row.locator(".why")).to_have_text(["as build 5/6 ran", "as build 5/6 ran"])
    own = page.locator(".steps tr", has_text="importing cache manifest")
    expect(own).to_be_hidden()
    page.get_by_label("with BuildKit's own").check()
    expect(own).to_be_visible()
    expect(page.locator(".lane")).to_have_count(3)
    expect(page.locator("#more")).to_contain_text("Dockerfile:14")
    expect(page.locator("#image .layers").first).to_contain_text("COPY /app/dist /srv")
    expect(page.locator("#image")).to_contain_text("provenance 8.21 kB")
    why = page.locator("#compare tr", has_text="RUN npm run build").first
    expect(why).to_contain_text("it builds on [build 5/6] COPY . ., which ran: files that it copies have changed")


def test_a_step_leads_to_its_log_by_keyboard_and_shows_what_it_waits_for(page: Page, url: str) -> None:
    page.goto(f"{url}/builds/team-a/shop")
    expect(page.locator("#lines .l")).to_have_count(20)
    cell = page.locator(".steps tr", has_text="RUN npm run build").locator("button.cell").last
    cell.focus()
    expect(page.locator("tr.waited th")).to_have_text("[build 5/6] COPY . .")
    page.keyboard.press("Enter")
    expect(page.locator("#pod option:checked")).to_have_text("linux/arm64")
    expect(page.locator("#lines .l")).to_have_count(5)
    expect(page.locator("#lines .l").first).to_have_text("#10 [build 6/6] RUN npm run build")


def test_a_run_is_followed_as_it_goes_on(page: Page, url: str, stage: Stage) -> None:
    name = next(each["metadata"]["name"] for each in stage.pods if "checkout" in each["metadata"]["name"])
    page.goto(f"{url}/builds/team-a/checkout")
    row = page.locator(".steps tr", has_text="RUN npm run build")
    expect(row.locator("rect.running")).to_have_count(2)
    stage.say(name, "#10 9.100 built in 9.1s", "#10 DONE 9.2s", "#11 [stage-1 2/4] RUN late")
    expect(page.locator("#lines .l").last).to_have_text("#11 [stage-1 2/4] RUN late")
    expect(page.locator(".steps tr", has_text="RUN late").locator("rect.running")).to_have_count(1)


def test_what_has_the_focus_is_live_too_and_keeps_it(page: Page, url: str, stage: Stage) -> None:
    stage.put(build("focused", ""))
    page.goto(url)
    link = page.locator("#b-uid-focused a")
    link.focus()
    stage.put(build("focused", "Failed"))
    expect(page.locator("#b-uid-focused .state")).to_have_text("Failed")
    expect(link).to_be_focused()
    stage.put(build("focused"), "DELETED")
    stage.builds.pop("focused")
    name = next(each["metadata"]["name"] for each in stage.pods if "checkout" in each["metadata"]["name"])
    page.goto(f"{url}/builds/team-a/checkout")
    box = page.get_by_label("with BuildKit's own")
    box.check()
    stage.say(name, "#31 [stage-1 3/4] RUN after the box")
    expect(page.locator(".steps tr", has_text="RUN after the box")).to_be_visible()
    expect(box).to_be_focused()
    expect(box).to_be_checked()


def test_what_failed_says_what_to_do(page: Page, url: str) -> None:
    page.goto(f"{url}/builds/team-a/search")
    expect(page.locator(".callout.bad")).to_contain_text("What to do: Correct the Dockerfile or the source.")
    expect(page.locator("pre.lines")).to_contain_text("error TS2322")
    expect(page.locator(".runs tbody tr")).to_have_count(9)


def test_a_thousand_builds_and_ten_thousand_lines_are_quick(context: BrowserContext) -> None:
    with Stage().serving() as many:
        furnished(many, builds=1000)
        name = many.pods[1]["metadata"]["name"]
        many.say(
            name, *(f"#10 {number / 10:.3f} line {number} of a long log" for number in range(10_000)), "#10 needle"
        )
        with served(many) as url:
            page = context.new_page()
            page.goto(url)
            expect(page.locator("#rows tr")).to_have_count(1000)
            pace = slowness()
            began = time.monotonic()
            page.reload()
            expect(page.locator("#rows tr")).to_have_count(1000)
            listed = time.monotonic() - began
            began = time.monotonic()
            page.locator("#filter").fill("service-777")
            expect(page.locator("#rows tr:visible")).to_have_count(1)
            filtered = time.monotonic() - began
            began = time.monotonic()
            page.goto(f"{url}/builds/team-a/checkout")
            expect(page.locator("#lines .l").last).to_have_text("#10 needle")
            read = time.monotonic() - began
            began = time.monotonic()
            page.locator("#find").fill("needle")
            expect(page.locator("#matches")).to_have_text("1 of 1")
            found = time.monotonic() - began
            pace = max(pace, slowness())
            print(f"list {listed:.2f} s, filter {filtered:.2f} s, log {read:.2f} s, search {found:.2f} s")
            assert listed < 3 * pace
            assert filtered < 1 * pace
            assert read < 4 * pace
            assert found < 1.5 * pace


def hostile(stage: Stage) -> None:
    """Put a build on the stage all of whose texts are hostile."""
    made = build("evil", "")
    made["spec"]["output"]["image"] = EVIL
    made["spec"]["platforms"] = [EVIL]
    made["status"]["run"] |= {"trigger": EVIL, "source": {"ref": EVIL, "commit": EVIL}}
    made["status"]["run"]["platforms"] = [{"platform": EVIL, "phase": "Failed", "message": EVIL, "logTail": EVIL}]
    made["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": EVIL, "message": EVIL}]
    made["status"]["history"] = [
        {"id": '"><b>', "result": EVIL, "startedAt": ago(hours=2), "finishedAt": ago(hours=1), "commit": EVIL}
    ]
    owned = pod(made, "linux/amd64")
    owned["metadata"]["annotations"]["multiarch.build/mode"] = EVIL
    stage.pods.append(owned)
    name = owned["metadata"]["name"]
    stage.say(name, f"#1 [1/2] RUN {EVIL}", f"#1 0.100 {EVIL}", f"#1 0.200 {'x' * 1_000_000}", f"{EVIL}" * 100)
    stage.put(made)


def test_hostile_names_and_logs_do_nothing(context: BrowserContext, tmp_path: Path) -> None:
    with Stage().serving() as made:
        furnished(made, builds=3)
        hostile(made)
        with served(made) as url:
            page, asked = context.new_page(), list[str]()
            page.on("request", lambda request: asked.append(request.url))
            page.on("dialog", lambda dialog: pytest.fail(dialog.message))
            for path in ("/", "/builds/team-a/evil", "/builds/team-a/%3Cscript%3E", "/builds/team-a/evil?run=%3Cb%3E"):
                page.goto(url + path)
                page.wait_for_load_state("networkidle")
                assert page.evaluate("window.hacked") is None
                assert page.locator("main script, main img, main b.x").count() == 0
                assert not re.search("[\\x1b\u202e]", page.content())
            page.goto(f"{url}/builds/team-a/evil")
            expect(page.locator("#lines .l")).to_have_count(4)
            assert page.locator("#lines .l").nth(2).inner_text().endswith(" … 996,009 more characters")
            page.locator("#find").fill("<script>")
            expect(page.locator("#matches")).to_have_text("1 of 3")
            assert all(each.startswith(f"{url}/") for each in asked)
        write(made.cluster, "evil", str(tmp_path / "report.html"), run="", plain_http=False)
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("document.scripts.length") == 0
        assert page.evaluate("window.hacked") is None


def test_a_report_is_one_file_that_asks_nobody(context: BrowserContext, stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write(stage.cluster, "shop", str(file), run="", plain_http=False)
    assert stage.builds["shop"]["status"]["image"]["record"] in str(stage.asked)
    page, asked, wrong = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.goto(file.as_uri())
    expect(page.locator(".steps tr", has_text="RUN npm run build").locator(".took")).to_have_text(["38.4s", "53.8s"])
    expect(page.locator(".steps tr", has_text="importing cache")).to_be_visible()
    page.locator("summary").first.click()
    expect(page.locator("details pre").first).to_contain_text("vite build")
    assert page.evaluate("getComputedStyle(document.body).fontSize") == "14px", "its own style is let in"
    assert asked == [file.as_uri()]
    assert wrong == []
    assert file.stat().st_size < 200_000


def test_the_server_answers_to_its_own_name_and_changes_nothing(url: str) -> None:
    http = urllib3.PoolManager(retries=False)
    own = url.removeprefix("http://")
    port = own.rpartition(":")[2]
    for host, status in (
        (own, 200),
        (f"localhost:{port}", 200),
        (f"evil.example:{port}", 421),
        ("127.0.0.1", 421),
        (f"127.0.0.1.evil.example:{port}", 421),
        ("127.0.0.1:1", 421),
    ):
        assert http.request("GET", url, headers={"Host": host}).status == status, host
    assert http.request("POST", f"{url}/rows").status == 405
    answer = http.request("GET", f"{url}/nothing")
    assert answer.status == 404
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert http.request("GET", f"{url}/static/..%2f__init__.py").status == 404
    assert http.request("GET", f"{url}/builds/team-a/shop/log?pod=other-pod").json()["lines"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_nothing_is_wider_than_the_window(chromium: Browser, url: str, scheme: str) -> None:
    for width in (1280, 400):
        made = chromium.new_context(
            color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": 900}
        )
        made.set_default_timeout(WAITING)
        page = made.new_page()
        for path in ("/", "/builds/team-a/shop", "/builds/team-a/search"):
            page.goto(url + path)
            page.wait_for_load_state("networkidle")
            wide = page.evaluate(_WIDE)
            assert wide == [], f"{path} at {width}"
            assert page.evaluate(_CONTRAST) == []
        made.close()


_CONTRAST = """() => {
  const part = (v) => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (at) => {
    for (; at; at = at.parentElement) {
      const found = colour(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const bad = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!said || !element.checkVisibility()) continue;
    const pair = [colour(getComputedStyle(element).color).slice(0, 3), behind(element)].map(light);
    const ratio = (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
    if (ratio < 4.5) bad.add(`${element.tagName}.${element.className}: ${ratio.toFixed(2)}`);
  }
  return [...bad];
}"""
"""WCAG 2.2, 1.4.3: text has a contrast of 4.5 at least."""
_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("main *")]
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".scroll, .lines, svg"))
  .map((each) => `${each.tagName}.${each.className}#${each.id}`).slice(0, 5)"""
