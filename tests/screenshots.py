"""Takes the pictures of docs/pictures/ of a demo server: make screenshots.

Dates are those of the day; all else is the same from one time to the next.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, Page

from tests.browser import CHROMIUM, chromium
from tests.loopback import ROOT, running

FOLDER = ROOT / "docs" / "pictures"
MOST_BYTES = 300_000
MARGIN = 16  # pixels around an element
_FIRED = "/?patient=low-alp-persistent&service=alp-review"
_CHANGED = "/what-if?patient=low-alp-persistent-mild&service=alp-review&limits.low_cap=31"


@dataclass(frozen=True)
class Picture:
    """The upper part of a page in a window of a width, or an element of it by its selector; what
    `opened` selects is clicked before.
    """

    name: str
    path: str
    width: int
    height: int
    element: str = ""
    opened: tuple[str, ...] = ()


PICTURES = (
    Picture("playground-420", _FIRED, 420, 1600),
    Picture("playground-900", _FIRED, 900, 1400),
    Picture("playground-1400", _FIRED, 1400, 1200),
    Picture("trend", _FIRED, 900, 1400, element=".trend"),
    Picture("topic", "/topics/lowAlpPersistent", 900, 1200),
    Picture("what-if", _CHANGED, 900, 1090),
    Picture("docs", "/docs", 900, 1200),
)


def take(browser: Browser, url: str, picture: Picture, folder: Path) -> Path:
    """The file of a picture; raises ValueError when there is nothing to take or it grows too
    large.
    """
    context = browser.new_context(
        base_url=url,
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    answer = page.goto(picture.path)
    if answer is None or not answer.ok:
        raise ValueError(f"{picture.name}: {picture.path} is answered {answer and answer.status}")
    for selector in picture.opened:
        page.locator(selector).first.click()
    file = folder / f"{picture.name}.png"
    file.write_bytes(_taken(page, picture))
    context.close()
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{picture.name}: the picture has over {MOST_BYTES} bytes")
    return file


def _taken(page: Page, picture: Picture) -> bytes:
    if not picture.element:
        return page.screenshot(animations="disabled", caret="hide")
    found = page.locator(picture.element).first
    box = found.bounding_box() if found.count() else None
    if box is None:
        raise ValueError(f"{picture.name}: {picture.path} shows no {picture.element}")
    around: FloatRect = {
        "x": max(box["x"] - MARGIN, 0),
        "y": max(box["y"] - MARGIN, 0),
        "width": box["width"] + 2 * MARGIN,
        "height": box["height"] + 2 * MARGIN,
    }
    return page.screenshot(full_page=True, clip=around, animations="disabled", caret="hide")


def main(names: Sequence[str]) -> None:
    """Takes the pictures of these names, or all."""
    known = {x.name: x for x in PICTURES}
    if unknown := [x for x in names if x not in known]:
        sys.exit(f"There is no picture {', '.join(unknown)}; there are {', '.join(known)}")
    if not CHROMIUM.exists():
        sys.exit(f"Pictures need Debian's Chromium, {CHROMIUM}")
    FOLDER.mkdir(exist_ok=True)
    failed = []
    with running("--demo") as server, chromium() as browser:
        for name in names or known:
            try:
                print(take(browser, server.url, known[name], FOLDER).relative_to(ROOT))
            except ValueError as error:
                failed.append(str(error))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
