"""A browser for tests of pages; they are skipped where no Chromium is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("playwright")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
TIMEOUT_MS = 60_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window; its microphone is a fake."""
    with sync_playwright() as playwright:
        fakes = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *fakes])
        yield started
        started.close()


@contextmanager
def tab(browser: Browser) -> Iterator[Page]:
    """A tab in which no script fails, and which asks one host alone."""
    context = browser.new_context()
    opened = context.new_page()
    opened.set_default_timeout(TIMEOUT_MS)
    failed: list[Any] = []
    opened.on("pageerror", lambda error: failed.append(error))
    hosts = set[str]()
    opened.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    yield opened
    context.close()
    assert not failed
    assert len({host for host in hosts if host}) <= 1


def assert_accessible(page: Page) -> None:
    """Check a page by axe-core, and that it is no wider than its window."""
    found = Axe().run(page).response["violations"]
    assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
