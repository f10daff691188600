"""Pictures of `kubectl mab ui`, for the docs and for who works on it: `python -m tests.ui.pictures FOLDER [--all]`."""

import argparse
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Page

from tests.ui.chromium import browser, served
from tests.ui.stage import Stage, furnished

PAGES: Final = {
    "builds": "/",
    "build": "/builds/team-a/shop",
    "running": "/builds/team-a/checkout",
    "failed": "/builds/team-a/search",
}
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
DOCS: Final[tuple[tuple[str, Literal["light", "dark"], int], ...]] = (
    ("builds", "light", 1280),
    ("build", "light", 1280),
    ("build", "dark", 1280),
)
"""Those that the docs show."""


def settled(page: Page) -> None:
    """Wait until everything that the page asks for has arrived."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="each page, light and dark, wide and narrow")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    every = [(name, scheme, width) for name in PAGES for scheme in SCHEMES for width in (1280, 420)]
    chosen = tuple(every) if arguments.all else DOCS
    with Stage().serving() as stage, browser() as chromium:
        furnished(stage)
        with served(stage) as url:
            for name, scheme, width in chosen:
                context = chromium.new_context(
                    color_scheme=scheme, viewport={"width": width, "height": 560 if name == "builds" else 900}
                )
                page = context.new_page()
                page.goto(url + PAGES[name])
                settled(page)
                file = arguments.folder / f"ui-{name}-{scheme}{'' if width > 1000 else '-narrow'}.png"
                page.screenshot(path=file, full_page=arguments.all)
                context.close()


if __name__ == "__main__":
    main()
