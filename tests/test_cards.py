"""What every card keeps, for every fixture patient and exchange, and whatever a chart says."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.fhir_endpoint import FixturePatient
from cds_service.modes import Mode
from tests.exchanges import EXCHANGES, TODAY, Exchange, Json, now, put, request, send
from tests.invariants import cards_of, drafts_of, strict_json, texts, violations, without_uuids

requirement = pytest.mark.requirement
Whole = Callable[[str], Json]
ALL = "lytic-lesion-raised-alp"  # two cards, five suggestions
TOPICS = "https://alp-review.example/CodeSystem/topics"
# Cards that advise a referral and offer no order.
ADVICE = {
    "antiresorptiveWithHypophosphatasia info",
    "lyticLesionAbnormalMyelomaScreen warning",
}


@pytest.fixture
def name(fixture_patient: FixturePatient) -> str:
    return str(fixture_patient.patient["id"])


def card(client: FlaskClient, body: Json) -> Json:
    """The first card of an answer."""
    found: Json = send(client, body).get_json()["cards"][0]
    return found


# -- every card --------------------------------------------------------------------------------


@requirement("JSN-02", "JSN-03", "JSN-04", "JSN-05", "JSN-06", "JSN-09", "RSP-03", "RSP-04")
@requirement("RSP-06", "CAR-01", "CAR-02", "CAR-03", "CAR-04", "CAR-05", "CAR-06", "CAR-07")
@requirement("CAR-08", "CAR-09", "CAR-10", "CAR-11", "CAR-13", "SRC-01", "SRC-04", "SUG-01")
@requirement("SUG-02", "SUG-04", "SUG-05", "ACT-01", "ACT-02", "ACT-03", "ACT-06", "ACT-08")
@requirement("OVR-01", "OVR-02", "COD-01", "SYS-02", "EXT-01", "FVR-04", "FBK-13")
def test_every_card_of_a_fixture_patient_keeps_the_checklist(
    client: FlaskClient, whole: Whole, name: str
) -> None:
    answer = send(client, whole(name))

    assert violations(strict_json(answer.data)) == []


@requirement("ACT-03", "ACT-06")
def test_every_draft_is_for_this_patient_and_this_encounter_and_from_today(
    client: FlaskClient, whole: Whole, fixture_patient: FixturePatient, name: str
) -> None:
    answer = send(client, whole(name)).get_json()

    assert bool(list(drafts_of(answer))) == bool({*fixture_patient.expect} - ADVICE)
    for draft in drafts_of(answer):
        assert draft["subject"] == {"reference": f"Patient/{name}"}
        assert draft["encounter"] == {"reference": "Encounter/e1"}
        assert (draft["status"], draft["intent"]) == ("draft", "proposal")
        assert draft["authoredOn"] == str(TODAY)
        assert draft["code"]["coding"][0]["system"] == "http://loinc.org"


PUBLIC = "https://cds.example/alp"


@pytest.fixture(scope="module")
def published() -> FlaskClient:
    """A client of a server that knows where its pages lie."""
    return create_app(Settings(open=True, public_urls=(PUBLIC,)), now=now).test_client()


@requirement("SRC-02", "SRC-04")
def test_a_source_leads_to_the_page_of_its_topic_and_says_nothing_of_the_patient(
    published: FlaskClient, whole: Whole, fixture_patient: FixturePatient, name: str
) -> None:
    body = whole(name)
    shown = send(published, body).get_json()["cards"]

    assert len(shown) == len(fixture_patient.expect)
    for source in (x["source"] for x in shown):
        assert source["topic"]["system"] == TOPICS
        assert source["url"] == f"{PUBLIC}/topics/{source['topic']['code']}"
        assert published.get(source["url"].removeprefix(PUBLIC)).status_code == 200
        private = (name, body["hookInstance"], "e1", "dr1")
        assert not [x for x in texts(source) if any(part in x.split("/") for part in private)]


def test_a_server_that_does_not_know_its_address_gives_no_source_url(
    client: FlaskClient, whole: Whole
) -> None:
    assert "url" not in card(client, whole(ALL))["source"]


def test_nothing_is_sent_of_what_the_conformance_page_says_does_not_apply(
    client: FlaskClient, whole: Whole, name: str
) -> None:
    answer = send(client, whole(name)).get_json()

    assert set(answer) == {"cards"}  # no systemActions, no extension
    for shown in answer["cards"]:
        assert not {"links", "extension"} & set(shown)
        assert "icon" not in shown["source"]
        for suggestion in shown.get("suggestions", []):
            assert "isRecommended" not in suggestion
            assert [x["type"] for x in suggestion["actions"]] == ["create"]


@requirement("OVR-02", "SRC-04")
def test_a_topic_has_one_source_and_one_set_of_override_reasons(
    client: FlaskClient, whole: Whole
) -> None:
    bodies = [whole("low-alp-persistent"), whole("low-alp-persistent-mild"), request()]
    shown = [card(client, body) for body in bodies]

    assert len({json.dumps(x["source"]) for x in shown}) == 1
    assert len({json.dumps(x["overrideReasons"]) for x in shown}) == 1


@requirement("OVR-01", "OVR-02")
def test_a_reason_means_the_same_on_every_card(
    client: FlaskClient, patients: dict[str, FixturePatient], whole: Whole
) -> None:
    meanings: dict[str, set[str]] = {}
    for name in patients:
        for shown in send(client, whole(name)).get_json()["cards"]:
            for reason in shown["overrideReasons"]:
                meanings.setdefault(reason["code"], set()).add(json.dumps(reason))

    assert len(meanings) > 6
    assert all(len(x) == 1 for x in meanings.values())


@requirement("RSP-06")
def test_the_most_urgent_card_is_first(client: FlaskClient, whole: Whole) -> None:
    answer = send(client, whole(ALL)).get_json()

    assert [x["indicator"] for x in answer["cards"]] == ["warning", "info"]


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda x: x.name)
def test_every_card_of_an_exchange_keeps_the_checklist(
    client: FlaskClient, exchange: Exchange
) -> None:
    answer = send(client, exchange.body)

    if answer.status_code == 200:
        assert violations(strict_json(answer.data)) == []


@pytest.fixture(scope="module")
def everything(open_app: Flask) -> FlaskClient:
    """A client of a server that shows every topic there is."""
    return create_app(Settings(open=True, topic_modes={"*": "on"}), now=now).test_client()


def test_with_every_topic_on_the_cards_still_keep_the_checklist(
    everything: FlaskClient, whole: Whole, name: str
) -> None:
    assert violations(send(everything, whole(name)).get_json()) == []


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_a_topic_that_is_not_on_shows_no_card_and_is_still_explained(
    whole: Whole, mode: Mode
) -> None:
    settings = Settings(open=True, topic_modes={"lowAlpPersistent": mode})
    client = create_app(settings, now=now).test_client()
    body = whole("low-alp-persistent")
    explained = send(client, body, "/explain/alp-review").get_json()["verdicts"]

    assert send(client, body).get_json() == {"cards": []}
    found = next(x for x in explained if x["topic"] == "lowAlpPersistent")
    assert (found["verdict"], found["by"]) == ("suppressed", mode)


# -- what a chart says -------------------------------------------------------------------------

SAID = ("text", "display", "conclusion", "valueString", "unit", "description", "family")
WORDY = (
    *("low-alp-unconfirmed", "low-alp-persistent", "low-alp-microkatal", "raised-alp-jaundice"),
    *("raised-alp-bone-source", "raised-alp-with-cancer", ALL),
)
UGLY = {
    "a script": "<script>alert(1)</script>",
    "an image": "<img src=x onerror=alert(1)>",
    "an unfinished tag": "<a href=javascript:alert(1)",
    "a link": "[x](javascript:alert(1))",
    "a picture": "![x](https://evil.example/x.png)",
    "emphasis": "**x** __x__ ~~x~~ `x`",
    "a table": "| a | b |\n|---|---|\n| c | d |",
    "a heading": "\n\n# Stop the drug\n\n---\n",
    "a comment": "<!-- x",
    "an address": "https://evil.example/x",
    "a placeholder": "{val} {unit} {{context.patientId}}",
    "the other way": "\u202egnp.exe\u2066",
    "a terminal": "\x1b[31mred\x1b[0m",
    "very much": "x " * 600,
}


def ugly(value: Any, more: str) -> Any:
    """The chart with more at the end of everything that is said in words."""
    if isinstance(value, list):
        return [ugly(x, more) for x in value]
    if not isinstance(value, dict):
        return value
    return {
        name: item + more if name in SAID and isinstance(item, str) else ugly(item, more)
        for name, item in value.items()
    }


@requirement("CAR-01", "CAR-02", "CAR-04", "SRC-01")
@pytest.mark.parametrize("more", UGLY.values(), ids=UGLY)
def test_words_of_the_chart_reach_no_summary_and_no_markup(
    client: FlaskClient, whole: Whole, more: str
) -> None:
    shown = 0
    for name in WORDY:
        body = whole(name)
        answer = send(client, {**body, "prefetch": ugly(body["prefetch"], more)})
        assert (answer.status_code, violations(answer.get_json())) == (200, []), name
        for one in answer.get_json()["cards"]:
            shown += 1
            assert more.strip() not in one["summary"]
            assert len(one["detail"]) < 6000
            assert not re.search(
                r"(?m)^(#|---|\|)|[\x00-\x08\x0b-\x1f\u202a-\u202e]", one["detail"]
            )
            assert "evil.example/x" not in one["detail"].replace("\\", "")
    assert shown


UNITS = ["U/L", "u/l", "<b>U/L</b>", "U/L](x)", "U/L **x**", "U/L`", "U/L|x", "U/L\n\n# x"]


@requirement("CAR-04")
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_in_a_detail_is_escaped(client: FlaskClient, unit: str) -> None:
    body = request()
    for n in range(4):
        put(f"prefetch.results.entry.{n}.resource.valueQuantity.unit", unit)(body)
    found = card(client, body)

    assert violations({"cards": [found]}) == []
    lines = [x for x in found["detail"].split("\n") if x.startswith("- ALP")]
    assert len(lines) == 4
    assert all(re.fullmatch(r"- ALP [\d.]+ \S.* on \d{4}-\d\d-\d\d, .*\)", x) for x in lines)


DATES = ["0001-01-01", "0001", "9999-12-31", "9999", "0000-00-00", "2026-02-30", "2026-13", "x"]


def dated(value: Any, date: str, position: int, seen: list[int]) -> Any:
    """The chart with its date number `position` replaced."""
    if isinstance(value, list):
        return [dated(x, date, position, seen) for x in value]
    if isinstance(value, dict):
        return {name: dated(x, date, position, seen) for name, x in value.items()}
    if not isinstance(value, str) or not re.match(r"\d{4}(-\d\d)*(T|\Z)", value):
        return value
    seen.append(1)
    return date if len(seen) - 1 == position else value


@requirement("ERR-08")
@pytest.mark.parametrize("date", DATES)
def test_a_date_at_the_end_of_time_or_of_none_costs_that_date(
    client: FlaskClient, whole: Whole, date: str
) -> None:
    for name in ("low-alp-persistent", "pregnant-raised-alp", "lytic-lesion-raised-alp"):
        prefetch = whole(name)["prefetch"]
        seen: list[int] = []
        dated(prefetch, date, -1, seen)
        for position in range(0, len(seen), 8):
            body = {**whole(name), "prefetch": dated(prefetch, date, position, [])}
            answer = send(client, body)
            assert (answer.status_code, violations(answer.get_json())) == (200, []), position
        body = {**whole(name), "prefetch": every_date(prefetch, date)}
        assert send(client, body).status_code == 200


def every_date(value: Any, date: str) -> Any:
    if isinstance(value, list):
        return [every_date(x, date) for x in value]
    if isinstance(value, dict):
        return {name: every_date(x, date) for name, x in value.items()}
    is_date = isinstance(value, str) and re.match(r"\d{4}(-\d\d)*(T|\Z)", value)
    return date if is_date else value


def test_a_fixture_and_its_explanation_agree_on_today(client: FlaskClient, whole: Whole) -> None:
    explained = send(client, whole(ALL), "/explain/alp-review").get_json()

    assert explained["asOf"] == str(TODAY)
    shown = {"cards": without_uuids(explained["cards"])}
    assert cards_of(shown) == (
        "lyticLesionWithoutMyelomaScreen warning",
        "raisedAlpSourceUnknown info",
    )
