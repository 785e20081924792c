"""The what-if page: a site file as a form. What it says of a change is what a server with the
downloaded file answers, and it writes nothing.
"""

import gc
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec
import pytest
import requests
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page

from cds_service.app import create_app
from cds_service.chart_requests import hook_request
from cds_service.config import Settings, fixtures_dir
from cds_service.content import Content
from cds_service.content_files import SiteFile
from cds_service.fhir_endpoint import load_patients
from cds_service.loading import load_content
from cds_service.modes import Mode
from cds_service.site import Site, SiteText
from cds_service.site_toml import site_toml
from cds_service.what_if import WhatIf
from tests.browser import is_too_wide, kept_out, opened
from tests.exchanges import now
from tests.loopback import ROOT, Running, running
from tests.screenshots import PICTURES, take

HOOKS = ROOT / "hooks"
PATIENTS = fixtures_dir() / "patients"
CAP = {"limits.low_cap": "28", "limits.surely_low": "20"}  # the mildly low are low no longer
MILD = "low-alp-persistent-mild"
CardsSaid = dict[str, list[tuple[str, str, str]]]
Ask = Callable[[dict[str, str]], str]


@pytest.fixture(scope="module")
def content() -> Content:
    return load_content(HOOKS)


def open_client(site: str | None = None, folder: Path | None = None, **modes: Mode) -> FlaskClient:
    """A client of the open server, with the text of a site file, and modes as asked for."""
    path = None
    if site is not None and folder is not None:
        path = folder / "our-site.toml"
        path.write_text(site, "utf-8")
    return create_app(Settings(open=True, site_file=path, topic_modes=modes), now=now).test_client()


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return open_client()


@pytest.fixture(scope="module")
def ask(client: FlaskClient) -> Ask:
    """The text of the page, blanks as one."""

    def page(query: dict[str, str]) -> str:
        answer = client.get("/what-if", query_string=query)
        assert answer.mimetype == "text/html"
        return read(answer.text)

    return page


def read(html: str) -> str:
    """What a page says, without its markup."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def value_of(html: str, key: str) -> str:
    """What a field of the page holds."""
    found = re.search(rf'<input id="{re.escape(key)}"[^>]* value="([^"]*)"', html)
    if found is None:
        [inside] = re.findall(rf'<select id="{re.escape(key)}".*?</select>', html, re.DOTALL)
        found = re.search(r"<option selected>(\w+)<", inside)
    assert found is not None
    return unescape(found[1])


# -- the form ----------------------------------------------------------------------------------


def test_every_limit_and_mode_is_a_field_that_holds_what_is_in_force(
    client: FlaskClient, content: Content
) -> None:
    html = client.get("/what-if").text
    for family in content.families:
        for name, here in family.knowledge.limits.values.items():
            assert value_of(html, f"limits.{name}") == f"{here.value:f}"
        for row in (*family.limits.values(), *content.limits.values()):
            assert row.says[1:] in unescape(html)
    for code, mode in content.modes.items():
        assert value_of(html, f"modes.{code}") == mode
    assert len(re.findall('name="(?:limits|modes)', html)) == len(content.modes) + len(
        {x for family in content.families for x in family.knowledge.limits.values}
    )
    assert "What changes" not in html


def test_a_field_says_what_is_shipped_its_unit_and_which_topics_use_it(client: FlaskClient) -> None:
    html = client.get("/what-if").text
    [row] = [x for x in html.split("<li") if 'id="limits.stated_low"' in x]
    said = read("<li" + row)
    assert "U/L" in said and "shipped: 30 U/L; used by" in said
    assert {"LOW-1", "LOW-2"} <= set(re.findall(r"[A-Z]{3}-\d", said))
    group = html[: html.index('id="limits.stated_low"')].rpartition("<details")[2]
    assert "Which limits hold" in group and "shared/limits.toml" in group


def test_the_form_starts_from_the_site_file_and_keeps_the_rest_of_it(tmp_path: Path) -> None:
    client = open_client(SITE, tmp_path)
    html = client.get("/what-if").text
    assert value_of(html, "limits.low_cap") == "42"
    assert value_of(html, "modes.pagetAlpReview") == "off"
    assert "What changes" not in html

    text = client.get("/what-if.toml", query_string={"limits.look_back": "700"}).text
    assert parsed(text) == msgspec.structs.replace(
        parsed(SITE), limits={"low_cap": 42, "look_back": 700}
    )
    back = client.get("/what-if.toml", query_string={"limits.low_cap": "40"}).text
    assert parsed(back).limits == {} and parsed(back).codes == parsed(SITE).codes


def test_the_form_starts_from_the_modes_that_the_command_line_asked_for() -> None:
    client = open_client(lowAlpPersistent="shadow")
    assert value_of(client.get("/what-if").text, "modes.lowAlpPersistent") == "shadow"
    assert parsed(client.get("/what-if.toml").text).modes == {"lowAlpPersistent": "shadow"}
    html = client.get("/what-if", query_string={"modes.lowAlpPersistent": "on"}).text
    assert "modes.lowAlpPersistent shadow → on" in read(html)
    assert "comes" in read(html)


# -- what comes of it --------------------------------------------------------------------------


def test_a_card_that_goes_is_told_with_the_deciding_question_of_both_verdicts(ask: Ask) -> None:
    said = ask(CAP | {"patient": MILD})
    assert "limits.low_cap 40 U/L → 28 U/L" in said
    assert "0 cards come, 3 go, 0 change, for 3 of 29 fixture patients." in said
    question = "Is the latest ALP (off antiresorptives) low, and at most 365 d old?"
    asked = "Is the ALP persistently low, off antiresorptives?"
    assert f"fired : {asked} yes since: {question} yes" in said
    assert f"not met : {asked} no since: {question} no" in said
    assert said.index("\N{MINUS SIGN} goes Persistently low ALP") < said.index(
        "Other fixture patients"
    )
    assert said.count("goes Persistently low ALP") == 1
    assert "low-alp-unconfirmed at patient-view" in said


def test_a_topic_that_is_switched_on_comes_and_one_switched_off_goes(ask: Ask) -> None:
    said = ask({"modes.lowAlpPersistent": "off"})
    assert "modes.lowAlpPersistent on → off" in said
    assert "suppressed : Every condition held; switched off." in said and "by off" not in said
    assert "+ comes" not in said


def test_a_card_that_only_changes_says_how(ask: Ask) -> None:
    said = ask({"limits.low_apart": "3000", "patient": "low-alp-raised-plp"})
    before, after = said.split("~ changes Low ALP and raised PLP ")[1].split(" info ")[:2]
    assert before.startswith("warning Low ALP and raised PLP")
    assert after.startswith("Low ALP and raised PLP")
    assert "= stays" not in said


def test_a_card_that_stays_is_shown_of_the_chosen_patient_only(ask: Ask) -> None:
    chosen = {"patient": "low-alp-persistent", "service": "alp-review"}
    said = ask({"limits.raised_times": "5", **chosen})
    assert "= stays Persistently low ALP" in said
    assert said.count("= stays") == 1


def test_of_a_chosen_patient_the_chosen_service_is_shown(ask: Ask) -> None:
    chosen = {"patient": "low-alp-persistent", "service": "antiresorptive-safety-sign"}
    said = ask(chosen)
    assert "Cards at antiresorptive-safety-sign (order-sign)" in said
    assert "Cards at alp-review" not in said
    elsewhere = ask(chosen | {"patient": MILD})
    assert "Cards at alp-review (patient-view)" in elsewhere


def test_a_change_that_moves_no_card_says_so(ask: Ask) -> None:
    said = ask({"limits.grown_woman": "17.5"})
    assert "No card of any of the 29 fixture patients changes." in said
    assert "grown_woman = 17.5" in said


@pytest.mark.parametrize(
    ("typed", "is_far"),
    [("500", True), ("75.1", True), ("75", False), ("8.4", False), ("8.3", True), ("0", True)],
)
def test_a_limit_far_from_the_shipped_one_is_taken_with_a_warning(
    client: FlaskClient, typed: str, is_far: bool
) -> None:
    answer = client.get("/what-if", query_string={"limits.very_low": typed})
    assert answer.status_code == 200
    said = read(answer.text)
    assert (f"25 U/L → {typed} U/L far from the shipped value, 25 U/L" in said) == is_far
    assert ("Far from the shipped value, 25 U/L." in said) == is_far
    field = answer.text[answer.text.index('id="limits.very_low"') :].partition(">")[0]
    assert ("far-limits.very_low" in field) == is_far
    assert said.count("ar from the shipped value") == 2 * is_far


def test_a_count_below_one_is_no_defect(ask: Ask) -> None:
    assert "fewest_low_readings = 0.5" in ask({"limits.fewest_low_readings": "0.5"})


def cards_at(url: str) -> CardsSaid:
    """Topic, indicator and summary of every card that a real server gives each fixture patient."""
    services = requests.get(f"{url}/cds-services", timeout=30).json()["services"]
    found = {}
    for patient in load_patients(PATIENTS, datetime.now(UTC).date()):
        for ordering in (None, *patient.orders):
            hook = "patient-view" if ordering is None else ordering.hook
            drafted = {} if ordering is None else ordering.context
            identity = patient.patient["id"]
            body = hook_request(identity, hook, drafted, f"{url}/fhir")
            [service] = [x["id"] for x in services if x["hook"] == hook]
            answer = requests.post(f"{url}/cds-services/{service}", json=body, timeout=30)
            found[f"{identity} {service}"] = [
                (x["source"]["topic"]["code"], x["indicator"], x["summary"])
                for x in answer.json()["cards"]
            ]
    return found


@pytest.fixture(scope="module")
def in_force(server: Running) -> CardsSaid:
    return cards_at(server.url)


def test_what_is_said_is_what_a_server_with_the_downloaded_file_answers(
    server: Running, in_force: CardsSaid, content: Content, tmp_path: Path
) -> None:
    query = {**CAP, "limits.raised_times": "2.5", "modes.bonePainWithoutMyelomaScreen": "on"}
    download = requests.get(f"{server.url}/what-if.toml", params=query, timeout=30)
    assert download.headers["Content-Disposition"] == 'attachment; filename="site.toml"'
    site = tmp_path / "site.toml"
    site.write_bytes(download.content)

    what_if = WhatIf(content, lambda: datetime.now(UTC), PATIENTS)
    compared = what_if.compared(what_if.proposal(query))
    said = [
        {f"{x.call.patient} {x.call.service}": [(y.topic, y.indicator, y.summary) for y in cards]
         for x in compared for cards in [getattr(x, when)]}
        for when in ("before", "after")
    ]  # fmt: skip
    assert said[0] == in_force
    with running("--demo", CDS_SITE_FILE=str(site)) as changed:
        assert said[1] == cards_at(changed.url)
    assert said[0] != said[1]


# -- what is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "typed", "why"),
    [
        ("limits.low_cap", "forty", "must be a number from 0 on"),
        ("limits.low_cap", "-1", "must be a number from 0 on"),
        ("limits.low_cap", "", "must be a number from 0 on"),
        ("limits.low_cap", "nan", "must be a number from 0 on"),
        ("limits.low_cap", "1e3", "must be a number from 0 on"),
        ("limits.low_cap", "4\n[modes]", "must be a number from 0 on"),
        ("limits.low_cap", "9" * 30, "must be a number from 0 on"),
        ("limits.low_cap", '"><script>1</script>', "must be a number from 0 on"),
        ("limits.look_back", "73051", "must be at most 73050 d"),
        ("modes.lowAlpPersistent", "quiet", "Invalid enum value 'quiet'"),
    ],
)
def test_what_cannot_be_is_named_and_what_was_typed_stays(
    client: FlaskClient, key: str, typed: str, why: str
) -> None:
    answer = client.get("/what-if", query_string={key: typed, "limits.look_back_": "", **KEPT})
    html = answer.text
    assert answer.status_code == 422
    assert f'<a href="#{key}"><code>{key}</code></a> {why}' in html.replace("&#39;", "'")
    assert f'id="{key}" name="{key}"' in html
    field = html[html.index(f'id="{key}" name="{key}"') :].partition(">")[0]
    assert 'aria-invalid="true"' in field and f"wrong-{key}" in field
    assert value_of(html, "limits.raised_times") == KEPT["limits.raised_times"]
    if key.startswith("limits."):
        assert value_of(html, key) == typed.strip()[:21]
    assert "<script>1" not in html and "What changes" not in html

    refused = client.get("/what-if.toml", query_string={key: typed})
    assert refused.status_code == 422
    assert refused.json is not None
    assert refused.json["issue"][0]["diagnostics"] == f"{key}: {why}"


KEPT = {"limits.raised_times": "1.75"}


def test_every_wrong_number_is_named_at_once(ask: Ask) -> None:
    said = ask({"limits.low_cap": "x", "limits.surely_low": "y", "limits.lo_cap": "1"})
    for key in ("limits.low_cap", "limits.surely_low"):
        assert f"{key} must be a number from 0 on" in said
    assert "limits.lo_cap does not exist in the content; did you mean low_cap?" in said


@pytest.mark.parametrize(
    "key", ["limits.nope", 'limits.a"b', "limits.\n[modes]", "modes.nope", "modes." + "x" * 99]
)
def test_a_field_that_does_not_exist_is_refused(client: FlaskClient, key: str) -> None:
    answer = client.get("/what-if", query_string={key: "1"})
    assert answer.status_code == 422
    assert client.get("/what-if.toml", query_string={key: "1"}).status_code == 422


def test_a_patient_that_does_not_exist_is_named_as_wrong_and_not_repeated(
    client: FlaskClient,
) -> None:
    query = {"patient": "<b>zyxmark", "service": "<b>zyxmark"}
    answer = client.get("/what-if", query_string=query)
    assert answer.status_code == 422
    assert "patient is no fixture patient" in read(answer.text)
    assert "zyxmark" not in answer.text


def test_a_query_is_bounded(client: FlaskClient) -> None:
    for path in ("/what-if", "/what-if.toml"):
        assert client.get(path, query_string="a=" + "x" * 16_000).status_code == 413


def test_the_whole_form_as_a_browser_sends_it_without_script_is_answered(
    client: FlaskClient, content: Content
) -> None:
    html = client.get("/what-if").text
    names = re.findall('name="((?:limits|modes)[^"]*)"', html)
    query = {name: value_of(html, name) for name in names} | {"patient": "", "limits.low_cap": "28"}
    answer = client.get("/what-if", query_string=query)
    assert answer.status_code == 200
    assert "[limits]\nlow_cap = 28\n</code>" in answer.text
    assert f"/what-if.toml?{urlencode({'limits.low_cap': '28'})}" in answer.text


# -- the text of a site file -------------------------------------------------------------------

SITE = """\
time_zone = "Pacific/Auckland"

[prefetch]
"lab results" = "alp"

[codes.obs-ggt]
codings = [{ system = "urn:our-lab", code = "G\\\\1\\"", display = "GGT \\u00e9\\u007f" }]
texts = ["gamma", "tab\\there"]

[orders]
ggt = false
plp = { codings = [{ system = "urn:our-lab", code = "PLP" }], text = "Vitamin B6" }

[limits]
low_cap = 42

[modes]
pagetAlpReview = "off"

[labels]
plp = "Vitamin B6 \\U0001F9EA"
"""


def parsed(text: str) -> SiteFile:
    return Site(SiteText("site.toml", text.encode())).file


def test_a_site_file_is_written_as_it_was_read() -> None:
    written = site_toml(parsed(SITE))
    assert parsed(written) == parsed(SITE)
    assert '""' not in written.replace('\\"', "")
    assert parsed(site_toml(SiteFile())) == SiteFile()
    odd = {'a"b': "alp", "c\n[d]": "alp", "": "alp", "\x7f\x00\u2028": "alp"}
    assert parsed(site_toml(SiteFile(prefetch=odd))).prefetch == odd


# -- what it leaves alone ----------------------------------------------------------------------


def test_nothing_is_written_and_nothing_in_force_is_changed(
    server: Running, in_force: CardsSaid
) -> None:
    def state() -> object:
        files = [*HOOKS.rglob("*.toml"), *PATIENTS.glob("*"), *ROOT.glob("*.*")]
        version = requests.get(f"{server.url}/version", timeout=30).json()
        return version, {x: x.stat().st_mtime_ns for x in files}

    before = state()
    query = {"modes.lowAlpPersistent": "off", "limits.raised_times": "9"}
    said = requests.get(f"{server.url}/what-if", params=query, timeout=30)
    assert "card" in said.text and said.ok
    assert requests.get(f"{server.url}/what-if.toml", params=query, timeout=30).ok
    assert (state(), cards_at(server.url)) == (before, in_force)
    for path in ("/what-if", "/what-if.toml"):
        assert requests.post(server.url + path, timeout=30).status_code == 405


def test_what_was_compared_last_is_kept_and_no_content_is(content: Content) -> None:
    def held() -> int:
        gc.collect()
        return sum(isinstance(x, Content) for x in gc.get_objects())

    what_if = WhatIf(content, now, PATIENTS, most_kept=2)
    asked = [what_if.proposal({"limits.low_cap": cap}) for cap in ("37", "38", "39")]
    before = held()
    first = what_if.compared(asked[0])
    second = what_if.compared(asked[1])
    assert what_if.compared(asked[0]) is first
    third = what_if.compared(asked[2])
    assert what_if.compared(asked[0]) is first and what_if.compared(asked[2]) is third
    assert what_if.compared(asked[1]) is not second
    assert held() == before


def test_the_next_day_everything_is_asked_anew(content: Content) -> None:
    clock = [datetime(2026, 11, 24, 23, tzinfo=UTC)]
    what_if = WhatIf(content, lambda: clock[0], PATIENTS)
    proposal = what_if.proposal({})
    today = what_if.compared(proposal)
    clock[0] = datetime(2026, 11, 25, 1, tzinfo=UTC)
    tomorrow = what_if.compared(proposal)
    summaries = [[x.summary for one in found for x in one.after] for found in (today, tomorrow)]
    assert summaries[0] != summaries[1]
    assert [[x.topic for x in one.after] for one in today] == [
        [x.topic for x in one.after] for one in tomorrow
    ]


@pytest.mark.parametrize("path", ["/what-if", "/what-if.toml", "/static/what-if.css"])
def test_it_is_there_on_the_open_server_only(client: FlaskClient, path: str) -> None:
    closed = create_app(Settings(), now=now).test_client()
    assert closed.get(path, headers={"Accept": "text/html"}).status_code == 404
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy)
    assert {x.partition(" ")[2] for x in policy} <= {"'none'", "'self'"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


# -- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running("--demo") as process:
        yield process


def test_without_script_a_limit_is_changed_and_the_file_downloaded(
    browser: Browser, server: Running
) -> None:
    with opened(browser, server.url, java_script_enabled=False) as seen:
        page = seen.page
        page.goto(f"/what-if?patient={MILD}&service=alp-review")
        page.get_by_text("Low ALP", exact=True).click()
        page.get_by_label("An adult's ALP is low only below this").fill("28")
        page.get_by_label("Below this an adult's ALP is low,").fill("20")
        with page.expect_navigation():
            page.get_by_role("button", name="Compare").first.click()

        assert page.get_by_role("heading", name="What changes").is_visible()
        moved = page.locator("#patient-cards tbody tr").inner_text()
        assert "goes" in moved and "no card" in moved
        with page.expect_download() as download:
            page.get_by_role("link", name="Download site.toml").click()
        assert download.value.suggested_filename == "site.toml"
        text = download.value.path().read_text("utf-8")
        assert parsed(text).limits == {"low_cap": 28, "surely_low": 20}


def test_with_the_keyboard_alone_a_mode_is_changed_and_the_address_holds_only_that(
    page: Page,
) -> None:
    page.goto("/what-if")
    reach(page, "summary")
    page.keyboard.press("Enter")
    reach(page, '[id="modes.lowAlpPersistent"]')
    page.keyboard.type("off")
    assert page.locator("li.changed").count() == 1
    reach(page, "p:last-child > button")
    page.keyboard.press("Enter")
    page.wait_for_url("**/what-if?*")

    assert parse_qs(urlsplit(page.url).query) == {"modes.lowAlpPersistent": ["off"]}
    assert "goes" in page.locator("#all-patients").inner_text()


def reach(page: Page, selector: str) -> None:
    """Goes on with Tab until an element has the focus, and sees that it shows."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("(x) => document.activeElement.matches(x)", selector):
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(style) not in ("none", "")
            return
    pytest.fail(f"Tab does not lead to {selector}")


@pytest.mark.parametrize(
    ("query", "width"),
    [
        ("", 1400),
        (f"?{urlencode({**CAP, 'patient': MILD, 'modes.lowAlpUnconfirmed': 'off'})}", 320),
        ("?limits.low_cap=x&patient=nobody", 800),
    ],
)
def test_it_keeps_nobody_out_and_fits_a_narrow_screen(page: Page, query: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"/what-if{query}")
    assert kept_out(page) == []
    page.set_viewport_size({"width": 320, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach((x) => { x.open = true })")
    assert not is_too_wide(page)


def test_a_warning_is_seen_and_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto("/what-if?limits.very_low=500")
    assert page.locator("#changes .far").is_visible()
    assert page.locator('[id="far-limits.very_low"]').is_visible()
    page.evaluate("document.querySelectorAll('details').forEach((x) => { x.open = true })")
    assert not is_too_wide(page) and kept_out(page) == []


def test_an_opened_group_of_fields_keeps_nobody_out(page: Page) -> None:
    page.goto("/what-if")
    for group in (0, 1):
        page.locator("summary").nth(group).click()
    assert page.locator("form li:visible").count() > 23
    assert kept_out(page) == []


# -- its picture -------------------------------------------------------------------------------


def test_a_picture_is_taken_and_one_of_a_page_that_is_not_there_is_not(
    browser: Browser, server: Running, tmp_path: Path
) -> None:
    [picture] = [x for x in PICTURES if x.name == "what-if"]
    header = take(browser, server.url, picture, tmp_path).read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">II", header[16:]) == (picture.width, picture.height)
    for wrong in (replace(picture, path="/nope"), replace(picture, element=".nope")):
        with pytest.raises(ValueError, match="what-if: "):
            take(browser, server.url, wrong, tmp_path)
