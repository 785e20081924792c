"""The picture of results and the page of the API in a browser: what fits, what is read out, what
the keyboard reaches, and what is printed.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import combinations

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import is_too_wide, kept_out, opened
from tests.exchanges import TODAY, Json, alp, bundle, problem
from tests.loopback import Running, running
from tests.test_trend import CHARTS, HOSTILE, drug

WIDTHS = (1200, 600, 320)
FIXTURES = ("low-alp-microkatal", "after-cardiac-surgery", "pregnant-raised-alp")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running("--demo") as started:
        yield started


def called(resources: list[Json]) -> str:
    """The request that sends a chart under our own keys."""

    def of(*kinds: str) -> Json:
        return bundle([{"id": "x", **x} for x in resources if x["resourceType"] in kinds])

    patient = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1956-11-01"}
    prefetch = {
        "patient": patient,
        "alp": of("Observation"),
        "labs": of("Observation"),
        "conditions": of("Condition"),
        "medications": of("MedicationRequest"),
    }
    context = {"userId": "Practitioner/dr1", "patientId": "p1"}
    asked = {"hook": "patient-view", "hookInstance": "0d5c1b8e-9f55-4c6e-8f0c-6a5a3f3f2b10"}
    return json.dumps({**asked, "context": context, "prefetch": prefetch})


def fire(page: Page, resources: list[Json]) -> None:
    page.goto("/")
    page.fill("#pasted", called(resources))
    page.click("#own button.main")
    page.wait_for_selector("figure.trend")
    page.wait_for_load_state()  # its style too: without, both drawings are seen


def at_each(page: Page, *widths: int) -> Iterator[int]:
    """The page at each width in turn: both drawings are in it, and its style shows one."""
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        yield width


def boxes(page: Page) -> Mapping[str, list[tuple[str, float, float, float, float]]]:
    """The rectangles of the texts of each drawing that is seen."""
    found: dict[str, list[tuple[str, float, float, float, float]]] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.trend > svg')]
        .filter(svg => svg.getBoundingClientRect().width > 0)
        .map(svg => [svg.getAttribute('class'), [svg, ...svg.querySelectorAll('text')].map(x => {
            const box = x.getBoundingClientRect();
            return [x.textContent, box.left, box.top, box.right, box.bottom];
        })]))"""
    )
    return found


@pytest.mark.parametrize(
    "name", ["nothing", "one", "one day", "twenty years", "katal", "close", "odd"]
)
def test_one_drawing_is_seen_and_no_text_in_it_lies_over_another(page: Page, name: str) -> None:
    fire(page, CHARTS[name])
    for width in at_each(page, *WIDTHS):
        told_apart(page, width)


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_patient_s_drawing_is_whole_at_any_width(page: Page, name: str) -> None:
    page.goto(f"/?patient={name}&service=alp-review")
    for width in at_each(page, 1400, 800, 360):
        told_apart(page, width)


def told_apart(page: Page, width: int) -> None:
    """Sees to it that no text of the one drawing that is seen is cut off or covered."""
    [(kind, (sheet, *texts))] = boxes(page).items()
    assert kind == ("narrow" if width < 640 else "wide")
    _, left, top, right, bottom = sheet
    for text, a, b, c, d in texts:
        assert left - 1 <= a and c <= right + 1 and top - 1 <= b and d <= bottom + 1, text
    for one, other in combinations(texts, 2):
        meets = (
            one[1] < other[3] - 1 and other[1] < one[3] - 1
            and one[2] + 4 < other[4] - 4 and other[2] + 4 < one[4] - 4
        )  # fmt: skip  # the height of a line is more than that of its letters
        assert not meets, (one, other)
    assert not is_too_wide(page)


def test_the_picture_keeps_nobody_out(page: Page) -> None:
    fire(page, CHARTS["odd"])
    page.click(".trend summary")
    for width in at_each(page, *WIDTHS):
        assert kept_out(page, colours=width == WIDTHS[0]) == [], width
        assert not is_too_wide(page), width
    name = f"ALP and GGT over time, as of {TODAY}"
    images = page.get_by_role("img", name=name[:21])
    assert images.count() == 1  # the other drawing is not there for a screen reader either


def test_the_keyboard_opens_the_tables_and_scrolls_them(page: Page) -> None:
    fire(page, CHARTS["odd"])
    page.locator(".trend summary").focus()
    page.keyboard.press("Enter")
    assert page.locator(".trend table").first.is_visible()
    page.keyboard.press("Tab")
    focused = "document.activeElement.getAttribute"  # not by Chromium's own grace
    assert page.evaluate(f"[{focused}('class'), {focused}('tabindex')]") == ["scroll", "0"]


def test_the_tables_are_printed_though_closed(page: Page) -> None:
    fire(page, CHARTS["odd"])
    seen = "document.querySelector('.trend td').checkVisibility()"
    assert not page.evaluate(seen)
    page.emulate_media(media="print")
    assert page.evaluate(seen)


def test_a_fixture_patient_s_values_are_drawn_without_a_script(
    browser: Browser, server: Running
) -> None:
    with opened(browser, server.url, java_script_enabled=False) as seen:
        seen.page.goto("/?patient=edta-contaminated-sample&service=alp-review")
        assert "EDTA pattern" in seen.page.locator(".trend .reasons").inner_text()
        assert seen.page.locator(".trend svg.wide").is_visible()
        assert not seen.page.locator(".trend svg.narrow").is_visible()


def test_hostile_text_of_a_chart_is_harmless_in_the_picture(page: Page) -> None:
    page.on("dialog", lambda dialog: pytest.fail("a script of the chart ran"))
    for text in HOSTILE:
        broken = problem(1, "125605004", text)
        value = {**alp(2, 50, 5), "valueQuantity": {"value": 5, "unit": text}}
        fire(page, [alp(1, 50, 10), value, broken, drug(1, f"Zoledronic acid {text}", str(TODAY))])
        assert page.locator(".trend script, .trend img, .trend a, .trend [style]").count() == 0
        assert not is_too_wide(page)


# -- the page of the API -----------------------------------------------------------------------


def test_the_page_of_the_api_keeps_nobody_out(page: Page) -> None:
    page.goto("/docs")
    page.evaluate("document.querySelectorAll('details').forEach(x => x.open = true)")
    for width in at_each(page, *WIDTHS):
        assert kept_out(page, colours=width == WIDTHS[0]) == [], width
        assert not is_too_wide(page), width


def test_a_link_to_a_schema_opens_it(page: Page) -> None:
    page.goto("/docs")
    card = page.locator("#schema-Discovery")
    assert not card.is_visible()
    page.locator("section:has(> #discover) summary").click()
    page.locator("section:has(> #discover) a[href='#schema-Discovery']").click()
    assert card.is_visible()


def test_a_command_is_copied_with_the_keyboard(browser: Browser, server: Running) -> None:
    with opened(browser, server.url, permissions=["clipboard-read", "clipboard-write"]) as seen:
        seen.page.goto("/docs")
        seen.page.locator("[data-copies='curl-discover']").focus()
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_function(
            "document.querySelector('[data-copies=curl-discover]').textContent == 'Copied'"
        )
        copied = seen.page.evaluate("navigator.clipboard.readText()")
        assert copied == f"curl -sS {server.url}/cds-services"


def test_without_a_script_there_is_no_button_that_does_nothing(
    browser: Browser, server: Running
) -> None:
    with opened(browser, server.url, java_script_enabled=False) as seen:
        seen.page.goto("/docs")
        assert not seen.page.locator("button").first.is_visible()
        assert seen.page.locator("#curl-discover").is_visible()
