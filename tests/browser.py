"""Debian's Chromium, driven by Playwright, and what axe-core finds on a page."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, ended with the block."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield found
        finally:
            found.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser of all tests; skips where it is not installed."""
    if not CHROMIUM.exists():
        pytest.skip("chromium is not installed")
    with chromium() as found:
        yield found


def violations(page: Page) -> list[str]:
    """What axe-core objects to on a page, each with the places."""
    found = Axe().run(page).response["violations"]
    return [f"{x['id']}: {[node['html'] for node in x['nodes']]}" for x in found]
