"""The playground in a browser: every fixture fired, verdicts opened, a card set aside, a file
dropped, and nothing of a chart live.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page

from cds_service.fhir_endpoint import load_patients
from tests.browser import is_too_wide, kept_out, opened
from tests.conftest import NAMES, PATIENTS
from tests.exchanges import LOW, TODAY, Json, bundle, drop, request
from tests.loopback import Running, running
from tests.test_hostile_text import DRUG, HOSTILE, called, live_in

CHARTS: dict[str, Any] = {x: json.loads((PATIENTS / f"{x}.json").read_text("utf-8")) for x in NAMES}
PERSISTENT = "low-alp-persistent"
FIRED = f"/?patient={PERSISTENT}&service=alp-review"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """The fixture patients behind the server's own FHIR endpoint, as `demo` starts it."""
    with running("--demo") as started:
        yield started


def cards(page: Page) -> list[str]:
    """The cards on the page as "topic indicator", as the words on them say."""
    found: list[str] = page.eval_on_selector_all(
        "article.card",
        "all => all.map(x => `${x.dataset.topic} ${x.querySelector('.severity').textContent}`)",
    )
    return found


def verdict(page: Page, topic: str) -> str:
    found = page.locator(f"[data-topic={topic}] .verdict").inner_text()
    return found.partition(" ")[2].strip()


def fill(page: Page, field: str, text: str) -> None:
    """As pasting does; typing takes a while."""
    page.eval_on_selector(field, "(field, text) => { field.value = text; }", text)


def paste(page: Page, text: str) -> None:
    page.goto("/")
    fill(page, "#pasted", text)
    with page.expect_navigation():
        page.locator("#own").get_by_role("button", name="Fire").click()


# -- firing ------------------------------------------------------------------------------------


def test_every_fixture_patient_is_fired_and_shows_the_cards_it_is_owed(page: Page) -> None:
    page.goto("/")
    services = page.locator("#service option").all_inner_texts()
    for name, chart in CHARTS.items():
        owed = {"patient-view": chart["expect"]}
        owed |= {x["hook"]: x["expect"] for x in chart.get("orders", ())}
        for hook, expected in owed.items():
            [service] = [x for x in services if x.endswith(f"({hook})")]
            page.select_option("#patient", name)
            page.select_option("#service", label=service)
            with page.expect_navigation():
                page.locator("form[method=get] button").click()
            assert cards(page) == list(expected), f"{name}, {hook}"
            assert set(page.locator(".check").all_inner_texts()) == {"holds"}, name
            assert page.locator(".topic[data-verdict=fired]").count() == len(expected)


def test_the_list_of_patients_fires_what_each_row_names(page: Page) -> None:
    page.goto("/")
    assert page.locator(".patients tbody tr").count() == len(NAMES)
    with page.expect_navigation():
        page.get_by_role("link", name=f"order-sign of {PERSISTENT}", exact=True).click()
    assert cards(page) == CHARTS[PERSISTENT]["orders"][1]["expect"]
    assert page.locator("#answer ~ .facts").inner_text().count("order-sign") == 1


def test_a_verdict_opens_to_questions_limits_and_the_resource_behind_them(page: Page) -> None:
    page.goto(FIRED)
    topic = page.locator("[data-topic=lowAlpPersistent].topic")
    assert not topic.locator(".asked").first.is_visible()
    topic.locator("summary").first.click()
    said = topic.inner_text()
    assert "Is the ALP persistently low, off antiresorptives?" in said
    assert "how many low readings make a persistently low ALP: 2 (shared/limits.toml)" in said
    assert "35 to 104, limits of the report" in said
    topic.get_by_role("link", name=re.compile("Observation.")).first.click()
    shown = page.locator("pre:focus")
    assert json.loads(shown.inner_text())["resourceType"] == "Observation"
    place = shown.get_attribute("id")
    page.locator("details.resource", has=shown).get_by_role("link", name="Back").click()
    focused = page.locator(":focus")
    assert focused.get_attribute("href") == f"#{place}"
    assert focused.bounding_box() is not None


def test_what_is_behind_a_question_is_shown_once_in_a_topic(page: Page) -> None:
    page.goto(FIRED)
    for number in range(page.locator(".topic").count()):
        topic = page.locator(".topic").nth(number)
        shown = in_full(topic)
        assert len(shown) == len(set(shown))
        for link in topic.locator("a.above").all():
            place = (link.get_attribute("href") or "")[1:]
            line = link.locator("xpath=..").text_content() or ""
            first = topic.locator(f"[id='{place}']").text_content() or ""
            assert line.replace("shown above", "").split() == first.split()
            assert topic.locator(f"li:has(> .asked > [href='#{place}']) > ul").count() == 0
    topic = page.locator("[data-topic=lowAlpPersistent].topic")
    assert topic.locator("a.above").count() > 0
    topic.locator("summary").first.click()
    [box] = [x for x in [topic.bounding_box()] if x is not None]
    assert box["height"] < 7000


def in_full(topic: Locator) -> list[str]:
    """Each question of a topic that is shown with what is behind it, without its places."""
    found: list[str] = topic.locator(".asked[id]").evaluate_all(
        "all => all.map(x => x.parentElement.innerHTML)"
    )
    return [re.sub(r'(id|href)="#?asked-[^"]+"', "", x) for x in found]


def test_the_question_that_decided_stands_first(page: Page) -> None:
    page.goto("/?patient=mild-single-rise&service=alp-review")
    topic = page.locator("[data-topic=raisedAlpSourceUnknown].topic")
    topic.locator("summary").first.click()
    asked = topic.locator(".asked")
    assert "Is the ALP raised: clearly, or for weeks?" in asked.first.inner_text()
    assert topic.locator(".decided .asked").first.inner_text() == asked.first.inner_text()
    assert "Decided here" in topic.inner_text()
    fired = page.goto(FIRED)
    assert fired is not None and fired.ok
    assert page.locator("[data-verdict=fired] .decided").count() == 0


def test_a_silent_topic_says_what_would_have_to_differ(page: Page) -> None:
    page.goto("/?patient=mild-single-rise&service=alp-review")
    topic = page.locator("[data-topic=raisedAlpSourceUnknown].topic")
    topic.locator("summary").first.click()
    said = topic.locator(".differs").inner_text()
    assert "“Is the ALP raised: clearly, or for weeks?” would have to be yes; it is no." in said
    assert re.search(r"above its upper limit\? yes \(\S+ ALP 150 IU/L, limits 40 to 129, ", said)
    assert "compared with" in said


def test_the_exchange_is_what_a_client_would_get(page: Page, server: Running) -> None:
    page.goto(FIRED)
    sent = json.loads(page.input_value("#request"))
    assert sent["fhirServer"] == f"{server.url}/fhir" and sent["prefetch"]["alp"]["entry"]
    answer = json.loads(page.locator("#response").inner_text())
    assert [x["source"]["topic"]["code"] for x in answer["cards"]] == ["lowAlpPersistent"]
    rows = page.locator(".headers tbody tr").all_inner_texts()
    found = dict(x.split("\t") for x in rows)
    assert found["Content-Type"] == "application/json" and found["Cache-Control"] == "no-store"
    assert re.fullmatch(r"[0-9a-f-]{36}", found["X-Request-ID"])
    times = page.locator(".times tbody th").all_inner_texts()
    assert times[:2] == ["waiting for its turn", "reading the request"]
    assert times[-1].startswith("in all")


def test_a_narrow_panel_is_320_pixels_wide(page: Page) -> None:
    page.goto(FIRED)
    wide = page.locator(".panel").bounding_box()
    page.get_by_label("narrow").check()
    narrow = page.locator(".panel").bounding_box()
    assert wide is not None and narrow is not None
    assert narrow["width"] == 320 < wide["width"]


# -- data of one's own -------------------------------------------------------------------------


def test_a_request_that_is_pasted_is_fired_by_its_hook(page: Page) -> None:
    paste(page, json.dumps(request(LOW)))
    assert cards(page) == ["lowAlpPersistent info"]


def test_a_bundle_that_is_pasted_is_a_whole_chart(page: Page) -> None:
    [chart] = [x for x in load_patients(PATIENTS, TODAY) if x.patient["id"] == PERSISTENT]
    paste(page, json.dumps(chart.bundle))
    assert cards(page) == list(chart.expect)
    assert page.input_value("#pasted") == json.dumps(chart.bundle)


def test_a_file_that_is_dropped_is_fired_at_once(page: Page) -> None:
    page.goto("/")
    data = page.evaluate_handle(
        """text => { const data = new DataTransfer();
        data.items.add(new File([text], "request.json", {type: "application/json"}));
        return data; }""",
        json.dumps(request(LOW)),
    )
    with page.expect_navigation():
        page.dispatch_event("#own", "drop", {"dataTransfer": data})
    assert cards(page) == ["lowAlpPersistent info"]


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("{nonsense", "400", "The body is not JSON."),
        ('{"hook":\n nonsense', "400", "Line 2, column 2: Expecting value."),
        ("{}", "", "hook is none of patient-view, order-select, order-sign"),
        ('{"hook": "patient-wiew"}', "", "hook is none of"),
        (json.dumps({"hook": "patient-view"}), "422", "hookInstance"),
        (json.dumps(request(LOW) | {"hook": "order-sign"}), "422", "draftOrders"),
        (json.dumps({"resourceType": "Bundle", "type": "collection"}), "", "no Patient"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_what_is_wrong_is_said_and_what_was_typed_is_kept(
    page: Page, text: str, status: str, said: str
) -> None:
    paste(page, text)
    alert = page.get_by_role("alert").inner_text()
    assert said in alert and status in alert
    assert page.input_value("#pasted") == text
    assert cards(page) == []


def test_data_that_is_required_and_missing_is_explained_with_its_412(page: Page) -> None:
    body = request(LOW)
    drop("prefetch.results")(body)
    paste(page, json.dumps(body))
    assert "412" in page.get_by_role("alert").inner_text()
    assert verdict(page, "lowAlpPersistent") == "data missing"
    assert set(page.locator(".check").all_inner_texts()) == {"holds"}


def test_a_request_can_be_changed_and_fired_again(page: Page) -> None:
    page.goto(FIRED)
    changed = re.sub(r'"value": 2[0-9]\b', '"value": 70', page.input_value("#request"))
    fill(page, "#request", changed)
    with page.expect_navigation():
        page.get_by_role("button", name="Fire this").click()
    assert "lowAlpPersistent warning" not in cards(page)


# -- feedback ----------------------------------------------------------------------------------


def override(page: Page, reason: str) -> None:
    page.get_by_label("Override, because").select_option(label=reason)
    with page.expect_navigation():
        page.get_by_role("button", name="Override").click()


def test_a_card_that_is_overridden_is_silent_in_the_next_answer(page: Page) -> None:
    page.goto("/?patient=lytic-lesion-normal-alp&service=alp-review")
    assert cards(page) == ["lyticLesionWithoutMyelomaScreen warning"]
    override(page, "Remind me later")
    said = page.get_by_role("status").inner_text()
    assert "is silent now" in said and re.search(r"silent until \d{4}-\d\d-\d\d", said)
    assert cards(page) == []
    assert verdict(page, "lyticLesionWithoutMyelomaScreen") == "suppressed"
    page.goto("/?patient=lytic-lesion-normal-alp&service=alp-review")
    assert cards(page) == []


def test_the_browser_asks_for_a_reason_where_one_is_needed(page: Page) -> None:
    page.goto("/?patient=extreme-alp&service=alp-review")
    page.get_by_role("button", name="Override").click()
    assert page.evaluate("document.activeElement.matches('.override select')")
    assert page.get_by_role("status").count() == 0
    with page.expect_navigation():
        page.get_by_role("button", name="Fire this").click()
    assert urlsplit(page.url).query == ""
    assert cards(page) == CHARTS["extreme-alp"]["expect"]


def test_a_suggestion_that_is_accepted_is_reported(page: Page) -> None:
    page.goto(FIRED)
    with page.expect_navigation():
        page.get_by_role("button", name="Accept: Order PLP").click()
    said = page.get_by_role("status").inner_text()
    assert "Feedback taken: accepted" in said and "as before" in said


def test_without_script_the_page_still_fires_shows_and_silences(
    browser: Browser, server: Running
) -> None:
    with opened(browser, server.url, java_script_enabled=False) as seen:
        page = seen.page
        page.goto("/?patient=raised-alp-with-cancer&service=alp-review")
        card = page.locator("article.card")
        assert card.locator(".severity").inner_text().lower() == "warning"
        assert verdict(page, "raisedAlpWithCancer") == "fired"
        assert not page.get_by_role("button", name="Copy as curl").is_visible()
        override(page, "Cause is known")
        assert card.count() == 0
        assert "silent" in page.get_by_role("status").inner_text()


# -- taken along -------------------------------------------------------------------------------


def test_a_saved_fixture_gets_the_same_cards_when_it_is_dropped_back(
    page: Page, tmp_path: Path
) -> None:
    page.goto(FIRED)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as fixture").click()
    file = tmp_path / saved.value.suggested_filename
    saved.value.save_as(file)
    [fixture] = load_patients(tmp_path, TODAY)
    assert file.name == f"{PERSISTENT}.json" and fixture.patient["id"] == PERSISTENT
    assert fixture.expect == tuple(CHARTS[PERSISTENT]["expect"])
    page.goto("/")
    page.set_input_files("#file", file)
    with page.expect_navigation():
        page.locator("#own").get_by_role("button", name="Fire").click()
    assert cards(page) == CHARTS[PERSISTENT]["expect"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_saved_fixture_of_an_order_holds_the_order_and_fires_the_same(
    page: Page, tmp_path: Path, number: int
) -> None:
    owed = CHARTS[PERSISTENT]["orders"][number]
    page.goto("/")
    with page.expect_navigation():
        page.get_by_role("link", name=f"{owed['hook']} of {PERSISTENT}", exact=True).click()
    sent = json.loads(page.input_value("#request"))
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as fixture").click()
    file = tmp_path / saved.value.suggested_filename
    saved.value.save_as(file)
    [fixture] = load_patients(tmp_path, TODAY)
    assert fixture.expect == tuple(CHARTS[PERSISTENT]["expect"])
    [order] = fixture.orders
    assert (order.hook, order.expect) == (owed["hook"], tuple(owed["expect"]))
    page.goto("/")
    page.set_input_files("#file", file)
    with page.expect_navigation():
        page.locator("#own").get_by_role("button", name="Fire").click()
    assert cards(page) == owed["expect"]
    again = json.loads(page.input_value("#request"))
    assert again["hook"] == owed["hook"]
    drafts, selected = again["context"]["draftOrders"], again["context"].get("selections")
    assert drafts["entry"][0]["resource"] == sent["context"]["draftOrders"]["entry"][0]["resource"]
    assert selected == sent["context"].get("selections")


def test_the_curl_command_gets_the_same_cards(browser: Browser, server: Running) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    granted = ["clipboard-read", "clipboard-write"]
    with opened(browser, server.url, permissions=granted) as seen:
        seen.page.goto(FIRED)
        seen.page.get_by_role("button", name="Copy as curl").click()
        seen.page.get_by_role("button", name="Copied").wait_for()
        copied = seen.page.evaluate("navigator.clipboard.readText()")
        assert copied == seen.page.locator("#curl").text_content()
    said = subprocess.run(["bash", "-c", copied], capture_output=True, check=True, timeout=60)
    answer = json.loads(said.stdout)
    assert [x["source"]["topic"]["code"] for x in answer["cards"]] == ["lowAlpPersistent"]


def test_the_sandbox_is_opened_with_patient_and_service(page: Page, server: Running) -> None:
    page.goto(FIRED)
    link = page.get_by_role("link", name="Open in the CDS Hooks Sandbox").get_attribute("href")
    parts = urlsplit(link or "")
    assert parts.netloc == "sandbox.cds-hooks.org"
    assert dict(parse_qsl(parts.query)) == {
        "fhirServiceUrl": f"{server.url}/fhir",
        "patientId": PERSISTENT,
        "serviceDiscoveryURL": f"{server.url}/cds-services",
        "screen": "patient-view",
        "hook": "patient-view",
    }


# -- for everybody -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", FIRED, "/?patient=nobody", "/topics", "/topics/lowAlpPersistent"]
)
def test_no_page_keeps_anybody_out(page: Page, path: str) -> None:
    page.goto(path)
    page.eval_on_selector_all(".topic", "all => all.forEach(x => { x.open = true; })")
    assert kept_out(page) == []


@pytest.mark.parametrize("width", [320, 360])
@pytest.mark.parametrize("path", ["/", FIRED, "/topics"])
def test_a_small_screen_is_not_scrolled_sideways(page: Page, path: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 600})
    page.goto(path)
    page.eval_on_selector_all("details", "all => all.forEach(x => { x.open = true; })")
    assert not is_too_wide(page)


def test_the_caption_of_the_patients_is_as_wide_as_a_small_screen(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 600})
    page.goto("/")
    box = page.locator(".patients caption").bounding_box()
    assert box is not None and box["width"] > 250


def is_answer_in_sight(page: Page) -> bool:
    found: bool = page.locator("#answer").evaluate(
        "x => x.getBoundingClientRect().top >= 0 && x.getBoundingClientRect().bottom <= innerHeight"
    )
    return found


@pytest.mark.parametrize("way", ["form", "list", "own", "again"])
def test_the_answer_is_in_sight_once_a_hook_was_fired(page: Page, way: str) -> None:
    page.set_viewport_size({"width": 420, "height": 700})
    page.emulate_media(reduced_motion="reduce")
    page.goto("/")
    if way == "own":
        fill(page, "#pasted", json.dumps(request(LOW)))
        page.locator("#own").get_by_role("button", name="Fire").click()
    elif way == "list":
        name = f"patient-view of {PERSISTENT}"
        page.get_by_role("link", name=name, exact=True).click()
    else:
        page.locator("form[method=get] button").click()
    if way == "again":
        page.get_by_role("button", name="Fire this").click()
    page.locator("#answer").wait_for()
    assert is_answer_in_sight(page)


def test_what_is_printed_is_whole_and_without_forms(page: Page) -> None:
    page.goto(FIRED)
    page.emulate_media(media="print")
    for hidden in ("#choose", "#pasted", "#request", "button"):
        assert not page.locator(hidden).first.is_visible(), hidden
    topic = page.locator(".topic[data-verdict=fired]")
    assert topic.locator(".asked").first.is_visible()
    assert not page.locator(".topic[data-verdict=not-met] .asked").first.is_visible()
    for whole in ("#curl", "#response"):
        assert page.locator(whole).is_visible(), whole
        cut = "x => x.scrollHeight > x.clientHeight + 1 || x.scrollWidth > x.clientWidth + 1"
        assert not page.locator(whole).evaluate(cut), whole


def test_what_was_closed_is_closed_again_after_printing(page: Page) -> None:
    page.goto(FIRED)
    is_open = "document.querySelector('.topic[data-verdict=fired]').open"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(is_open) is True
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(is_open) is False


def tab_to(page: Page, what: str) -> None:
    """Goes on with the Tab key until an element that matches is reached; fails after a round."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("what => document.activeElement.matches(what)", what):
            return
    raise AssertionError(f"the keyboard does not reach {what}")


def test_the_keyboard_alone_fires_opens_and_overrides(page: Page) -> None:
    page.goto("/")
    tab_to(page, "#patient")
    page.keyboard.type("low-alp-raised-plp")
    tab_to(page, "form[method=get] button")
    page.keyboard.press("Enter")
    page.locator("article.card").wait_for()
    assert cards(page) == CHARTS["low-alp-raised-plp"]["expect"]
    tab_to(page, "#panel-wide")
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("narrow").is_checked()
    tab_to(page, "button[name=override]")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab_to(page, ".topic summary")
    page.keyboard.press("Enter")
    assert page.locator(".topic").first.locator(".asked").first.is_visible()
    page.locator("body").press("Home")
    page.evaluate("document.activeElement.blur()")
    tab_to(page, ".override select")
    page.keyboard.type("Remind")
    tab_to(page, "button[name=override]")
    page.keyboard.press("Enter")
    page.get_by_role("status").wait_for()
    assert cards(page) == []


# -- hostile text ------------------------------------------------------------------------------

EVERYTHING = " ".join(x for x in HOSTILE.values() if len(x) < 1000)
LONG = " ".join(x for x in HOSTILE.values() if len(x) >= 1000)
_KEPT = ("resourceType", "id", "reference", "system", "code", "status", "use", "comparator")


def poisoned(found: Any, name: str = "") -> Any:
    """The same JSON with hostile text in every text that the server need not know to go on."""
    if isinstance(found, dict):
        return {k: poisoned(v, k) for k, v in found.items()}
    if isinstance(found, list):
        return [poisoned(x, name) for x in found]
    if isinstance(found, str) and found.startswith(("Hypophosphatasia", "alendronic acid")):
        return f"{found} {EVERYTHING}"
    is_date = isinstance(found, str) and re.match(r"\d{4}(-\d\d|\Z)", found)
    return found if not isinstance(found, str) or name in _KEPT or is_date else EVERYTHING


def quoting(text: str) -> Iterator[tuple[str, Json]]:
    """Services and requests whose card repeats a text: of a diagnosis, of a draft order."""
    quoted = request(LOW)
    more = [called(f"Hypophosphatasia. {text}"), {**DRUG, "id": "d1"}]
    quoted["prefetch"]["more"] = bundle(more)
    yield "alp-review", quoted
    ordered = request(LOW) | {"hook": "order-sign"}
    drug = {"text": f"alendronic acid {text}", "coding": []}
    draft = {**DRUG, "id": "d2", "status": "draft", "medicationCodeableConcept": drug}
    ordered["context"]["draftOrders"] = bundle([draft])
    yield "antiresorptive-safety-sign", ordered


def hostile() -> Json:
    """A patient whose every text is hostile, and who gets a card all the same."""
    _, body = next(quoting(EVERYTHING))
    body["prefetch"] = poisoned(body["prefetch"])
    for entry in body["prefetch"]["results"]["entry"]:
        resource = entry["resource"]
        resource["valueQuantity"]["unit"] = "U/L"
        resource["code"]["text"] = LONG
    patient = body["prefetch"]["patient"]
    patient |= {"gender": "female", "name": [{"text": LONG, "family": EVERYTHING}]}
    more = {
        **body["prefetch"]["results"]["entry"][0]["resource"],
        "id": "o90",
        "status": EVERYTHING,
    }
    odd = {"resourceType": "Observation", "id": LONG, "subject": {"reference": EVERYTHING}}
    body["prefetch"]["results"]["entry"] += [{"resource": more}, {"resource": odd}]
    body["prefetch"][EVERYTHING] = {"resourceType": EVERYTHING}
    return body


def test_hostile_text_is_live_nowhere_on_the_page(page: Page) -> None:
    paste(page, json.dumps(next(quoting("x"))[1]))
    tags = "[...new Set([...document.querySelectorAll('*')].map(x => x.localName))].sort()"
    expected = set(page.evaluate(tags))
    paste(page, json.dumps(hostile()))
    assert cards(page) == ["antiresorptiveWithHypophosphatasia info"]
    page.eval_on_selector_all("details", "all => all.forEach(x => { x.open = true; })")
    assert set(page.evaluate(tags)) <= expected
    assert page.evaluate("document.querySelectorAll('[onerror],[onload],[style]').length") == 0
    links = page.eval_on_selector_all("a", "all => all.map(x => x.protocol)")
    assert set(links) == {"http:"}
    shown = page.locator("main").inner_text()
    unseen = [x for x in live_in(shown.replace("\t", " ")) if x.startswith("0x")]
    assert unseen == []
    assert not is_too_wide(page)
    page.set_viewport_size({"width": 320, "height": 600})
    assert not is_too_wide(page)


def test_no_detail_of_a_hostile_patient_is_live_in_a_client_that_renders_raw_html(
    browser: Browser, server: Running
) -> None:
    """As the CDS Hooks Sandbox does; the text is put into a page without any policy."""
    details: list[str] = []
    for text in HOSTILE.values():
        for service, body in quoting(text):
            answer = requests.post(f"{server.url}/cds-services/{service}", json=body, timeout=30)
            details += [x["detail"] for x in answer.json()["cards"]]
    assert sum("The entry reads: Hypophosphatasia" in x for x in details) == len(HOSTILE)
    assert sum("alendronic acid" in x for x in details) == len(HOSTILE)
    with opened(browser, server.url) as seen:
        for detail in details:
            seen.page.evaluate("text => { document.body.innerHTML = text; }", detail)
            assert seen.page.evaluate("document.body.children.length") == 0, detail
            assert seen.page.evaluate("document.body.textContent.length") > 100


def test_a_card_that_repeats_hostile_text_shows_it_as_text(page: Page) -> None:
    [_, (_, body)] = quoting(EVERYTHING)
    paste(page, json.dumps(body))
    detail = page.locator(".detail").first
    assert "alendronic acid <script>alert(1)</script>" in detail.inner_text()
    assert detail.locator("a, img, script, svg, h1, table, blockquote, code").count() == 0
