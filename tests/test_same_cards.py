"""However a chart arrives, whole, in part, under other names or fetched, it gets the same cards."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.fhir_endpoint import FixturePatient
from tests.exchanges import EXPLAIN, Json, now, send
from tests.invariants import cards_of, without_uuids
from tests.loopback import FhirServer

requirement = pytest.mark.requirement
AS_SENT = "History as sent by the record system: older values may be missing."
Whole = Callable[[str], Json]


@pytest.fixture
def name(fixture_patient: FixturePatient) -> str:
    return str(fixture_patient.patient["id"])


@pytest.fixture
def body(whole: Whole, name: str) -> Json:
    return whole(name)


def answered(client: FlaskClient, body: Json) -> Json:
    """The answer of the service but for the uuids."""
    answer = send(client, body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: Json = without_uuids(answer.get_json())
    return found


def under(body: Json, names: dict[str, str]) -> Json:
    """The request with its prefetch keys renamed."""
    return {**body, "prefetch": {names[key]: x for key, x in body["prefetch"].items()}}


def first_pages(fhir: FhirServer) -> list[str]:
    return [x.path for x in fhir.asked if "_offset=" not in x.path]


def apart_from_what_was_not_checked(answer: Json) -> Json:
    def cut(detail: str) -> str:
        return re.sub(r"\*\*Not checked:\*\*.*?\n\n", "", detail, flags=re.DOTALL)

    return {"cards": [{**x, "detail": cut(x["detail"])} for x in answer["cards"]]}


def without_as_sent(answer: Json) -> Json:
    def cut(detail: str) -> str:
        return detail.replace(f"**Not checked:** {AS_SENT}\n\n", "").replace(f" {AS_SENT}", "")

    return {"cards": [{**x, "detail": cut(x["detail"])} for x in answer["cards"]]}


@requirement("PFD-15")
def test_a_whole_prefetch_gets_the_cards_that_the_patient_owes(
    client: FlaskClient, fixture_patient: FixturePatient, body: Json
) -> None:
    assert cards_of(answered(client, body)) == fixture_patient.expect


@requirement("PFD-11")
def test_the_order_of_keys_and_entries_is_nothing(client: FlaskClient, body: Json) -> None:
    turned = {key: body["prefetch"][key] for key in reversed(body["prefetch"])}
    for key, value in turned.items():
        if "entry" in value:
            turned[key] = {**value, "entry": value["entry"][::-1]}

    assert answered(client, {**body, "prefetch": turned}) == answered(client, body)


@requirement("PFD-01", "PFD-02", "PFD-15")
def test_each_key_left_out_is_fetched_and_no_other(
    client: FlaskClient, fetching: FlaskClient, fhir: FhirServer, body: Json, name: str
) -> None:
    expected = answered(client, body)

    for key in body["prefetch"]:
        fhir.asked.clear()
        prefetch = {x: value for x, value in body["prefetch"].items() if x != key}
        partial = {**body, "prefetch": prefetch, "fhirServer": fhir.base}
        assert answered(fetching, partial) == expected, key
        assert len(first_pages(fhir)) == 1, key


@requirement("PFD-15", "PFD-01", "PFD-09", "FHR-09")
def test_fetching_alone_page_by_page_gets_the_same_cards(
    client: FlaskClient, fetching: FlaskClient, fhir: FhirServer, body: Json
) -> None:
    alone = {x: value for x, value in body.items() if x != "prefetch"}

    assert answered(fetching, {**alone, "fhirServer": fhir.base}) == answered(client, body)
    assert len(first_pages(fhir)) == len(body["prefetch"])
    assert len(fhir.asked) > len(body["prefetch"])  # two resources to a page
    assert not [x.path for x in fhir.asked if "{" in x.path or "%7B" in x.path]


@requirement("PFD-15")
def test_a_site_s_own_keys_get_the_same_cards_by_what_they_hold(
    client: FlaskClient, body: Json
) -> None:
    own = under(body, {key: f"site {key}" for key in body["prefetch"]})
    found, expected = answered(client, own), answered(client, body)

    without = apart_from_what_was_not_checked
    assert without(found) == without(expected)
    assert all(AS_SENT in card["detail"] for card in found["cards"])


@requirement("PFD-15", "PFD-01")
def test_a_site_s_own_keys_and_the_rest_fetched_get_the_same_cards(
    client: FlaskClient, fetching: FlaskClient, fhir: FhirServer, body: Json
) -> None:
    own = under(body, {key: f"site {key}" for key in body["prefetch"]})
    found = answered(fetching, {**own, "fhirServer": fhir.base})

    assert without_as_sent(found) == answered(client, body)
    empty = [key for key, x in body["prefetch"].items() if x.get("total") == 0]
    assert len(first_pages(fhir)) == len(empty)  # an empty Bundle without a name answers nothing


@requirement("PFD-15")
def test_one_bundle_with_the_whole_chart_gets_the_same_cards(
    client: FlaskClient, fixture_patient: FixturePatient, body: Json
) -> None:
    found = answered(client, {**body, "prefetch": {"chart": fixture_patient.bundle}})

    without = apart_from_what_was_not_checked
    assert without(found) == without(answered(client, body))


KEYS = (
    *("patient", "alp", "labs", "longterm", "conditions", "medications", "administrations"),
    *("reports", "orders", "procedures", "encounters"),
)
SITE_NAMES = {key: f"our {key}" for key in KEYS}


@pytest.fixture(scope="module")
def site_app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The open server of a site that declares its own keys."""
    path: Path = tmp_path_factory.mktemp("site") / "site.toml"
    lines = [f'"{theirs}" = "{ours}"' for ours, theirs in SITE_NAMES.items()]
    path.write_text("\n".join(["[prefetch]", *lines]), encoding="utf-8")
    return create_app(Settings(open=True, site_file=path), now=now)


@requirement("PFD-15")
def test_keys_that_the_site_file_declares_get_the_same_cards(
    client: FlaskClient, site_app: Flask, body: Json
) -> None:
    declared = under(body, SITE_NAMES)

    assert answered(site_app.test_client(), declared) == answered(client, body)


def test_the_explanation_says_how_each_key_was_had(
    fetching: FlaskClient, fhir: FhirServer, whole: Whole
) -> None:
    body = whole("low-alp-persistent")
    prefetch = {"patient": body["prefetch"]["patient"], "theirs": body["prefetch"]["alp"]}
    body |= {"prefetch": prefetch, "fhirServer": fhir.base}
    data: list[dict[str, Any]] = send(fetching, body, EXPLAIN).get_json()["data"]

    had = {x["key"]: (x["state"], x["by"]) for x in data if x["key"] != "*"}
    assert had.pop("patient") == ("answered", "prefetch")
    assert had.pop("alp") == ("answered", "inferred")
    assert set(had) == set(KEYS[2:]) and set(had.values()) == {("answered", "fetched")}


def test_the_explanation_shows_the_very_cards(client: FlaskClient, body: Json) -> None:
    explained = send(client, body, EXPLAIN).get_json()

    assert {"cards": without_uuids(explained["cards"])} == answered(client, body)
