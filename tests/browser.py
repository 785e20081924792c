"""Debian's Chromium, driven by Playwright: what a page is to who reads it, and what it asks for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
MILLISECONDS = 30_000  # to wait for anything, on a busy machine too


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser until the end of the block; skips where there is none."""
    if not CHROMIUM.exists():
        pytest.skip("chromium is not installed")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=as_root)
        try:
            yield started
        finally:
            started.close()


@dataclass
class Seen:
    """A page, and what it did beside being shown: what the browser complained of, and the hosts
    that it asked.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def note(self, request: Request) -> None:
        self.asked.append(request.url)


@contextmanager
def window(browser: Browser, url: str, **settings: Any) -> Iterator[BrowserContext]:
    """Where pages of a server share what they keep, until the end of the block."""
    made = browser.new_context(base_url=url, **settings)
    made.set_default_timeout(MILLISECONDS)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def warm_window(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """One in which a page stays open: Chromium has a process for the next ones then, which come in
    half of the time.
    """
    with window(browser, url) as made:
        made.new_page().goto("/livez")
        yield made


@contextmanager
def tab(window: BrowserContext, url: str) -> Iterator[Seen]:
    """A page that finds nothing of those before it; at the end it has asked nobody but the server
    of `url`, and the browser has complained of nothing.
    """
    window.clear_cookies()
    for other in window.pages:
        other.evaluate("localStorage.clear(); sessionStorage.clear()")
    seen = Seen(window.new_page())
    seen.page.on("request", seen.note)
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("console", lambda said: seen.complaints.append(said.text))
    try:
        yield seen
        assert [x for x in seen.asked if not x.startswith(f"{url}/")] == []
        # Of a page that says what was wrong, Chromium says that it has a status.
        kept = [x for x in seen.complaints if "responded with a status of" not in x]
        assert kept == []
    finally:
        seen.page.close()


@contextmanager
def opened(browser: Browser, url: str, **settings: Any) -> Iterator[Seen]:
    """A page in a window of its own."""
    with window(browser, url, **settings) as made, tab(made, url) as seen:
        yield seen


def kept_out(page: Page, *, colours: bool = True) -> list[str]:
    """What axe-core finds that would keep somebody out of the page; its colours, which take most of
    the time, are left out where they were looked at in another width.
    """
    options = {"rules": {"color-contrast": {"enabled": colours}}}
    found = Axe().run(page, options=options).response["violations"]
    return [f"{x['id']}: {n['target']} {n['failureSummary']}" for x in found for n in x["nodes"]]


def is_too_wide(page: Page) -> bool:
    """Whether it would have to be scrolled sideways."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return wide
