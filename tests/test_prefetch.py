"""What a prefetch may hold, and what is read of the client's FHIR server beside it."""

import json
import logging
import re
import time
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.fhir_endpoint import FhirEndpoint, FixturePatient, moved
from tests.exchanges import (
    EXCHANGES,
    EXPLAIN,
    FIRES,
    GRANT,
    LOW,
    NORMAL,
    OUTCOME,
    RESULTS,
    Exchange,
    Json,
    add,
    alp,
    bundle,
    changed,
    drop,
    now,
    on_every_alp,
    on_result,
    put,
    request,
    result,
    send,
)
from tests.invariants import cards_of, drafts_of, texts, violations, without_uuids
from tests.loopback import (
    Fault,
    FhirServer,
    counting,
    drips,
    hangs,
    links_to,
    redirects_to,
    refuses,
    says,
    serving,
    truncates,
)

requirement = pytest.mark.requirement
Whole = Callable[[str], Json]
WARNED = "low-alp-persistent"
EVERY = pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda x: x.name)


def diagnostics(answer: TestResponse) -> str:
    """What a 412 says is lacking; it has no cards."""
    assert answer.status_code == 412, answer.get_data(as_text=True)
    found = answer.get_json()
    assert "cards" not in found and found["resourceType"] == "OperationOutcome"
    return str(found["issue"][0]["diagnostics"])


def keys_named(text: str) -> set[str]:
    """The prefetch keys in a 412's diagnostics, each followed by its reason in parentheses."""
    return set(re.findall(r"(\w+) \(", text.partition(": ")[2]))


def sources(client: FlaskClient, body: Json) -> dict[str, Json]:
    """What the explanation says of every key."""
    answer = send(client, body, EXPLAIN)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return {x["key"]: x for x in answer.get_json()["data"]}


# -- exchanges ---------------------------------------------------------------------------------


@requirement("PFD-03", "PFD-05", "PFD-06", "PFD-07", "PFD-09", "PFD-10", "PFD-12", "PFD-14")
@requirement("REQ-13", "FVR-03", "ERR-05", "JSN-07", "JSN-10")
@EVERY
def test_each_exchange_gets_what_it_is_owed(client: FlaskClient, exchange: Exchange) -> None:
    answer = send(client, exchange.body)

    assert answer.status_code == exchange.status
    if exchange.status == 200:
        assert cards_of(answer.get_json()) == exchange.cards
        assert violations(answer.get_json()) == []
    if exchange.status == 412:
        assert keys_named(diagnostics(answer)) <= {"patient", "alp"}


@EVERY
def test_the_explanation_answers_whatever_would_be_evaluated_or_lacks_data(
    client: FlaskClient, exchange: Exchange
) -> None:
    answer = send(client, exchange.body, EXPLAIN)
    found = answer.get_json()

    if exchange.status in (400, 422):
        assert answer.status_code == exchange.status and "issue" in found
        return
    assert (answer.status_code, found["status"]) == (200, exchange.status)
    assert cards_of(found) == exchange.cards
    fired = [x["topic"] for x in found["verdicts"] if x["verdict"] == "fired"]
    assert sorted(fired) == sorted(x.split()[0] for x in exchange.cards)


def whys(value: Any) -> set[tuple[Any, Any]]:
    """Every (reference or place, why) anywhere in an explanation."""
    if isinstance(value, list):
        return set().union(*map(whys, value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*map(whys, value.values()))
    if "why" in value:
        found.add((value.get("reference", value.get("where")), value["why"]))
    return found


UNUSABLE = [x for x in EXCHANGES if x.unusable]
FURTHER = [
    (
        "an object for a list that is read",
        on_result(0, "referenceRange", {"low": {"value": 30, "unit": "U/L", "code": "U/L"}}),
        ("results.entry[0]: Observation.referenceRange", "not a list, read as a list of one"),
    ),
    (
        "a text for a number",
        on_result(5, "valueQuantity.value", "9.4"),
        ("results.entry[5]: Observation.valueQuantity.value", "wrong shape, read as absent"),
    ),
    ("an entry of nothing", add(RESULTS, {}), ("results.entry[24]", "no resource")),
    (
        "a resource of no type",
        add(RESULTS, {"resource": {"id": "x"}}),
        ("results.entry[24]", "not a resource with a type"),
    ),
]


@pytest.mark.parametrize("exchange", UNUSABLE, ids=lambda x: x.name)
def test_the_explanation_names_what_was_unusable(client: FlaskClient, exchange: Exchange) -> None:
    found = send(client, exchange.body, EXPLAIN).get_json()

    assert set(exchange.unusable) <= whys(found)


@requirement("FVR-03", "PFD-16")
@pytest.mark.parametrize(("change", "why"), [x[1:] for x in FURTHER], ids=[x[0] for x in FURTHER])
def test_an_odd_element_costs_that_element_and_is_named(
    client: FlaskClient, change: Callable[[Json], object], why: tuple[str, str]
) -> None:
    body = changed(change)

    assert cards_of(send(client, body).get_json()) == FIRES
    assert why in whys(send(client, body, EXPLAIN).get_json())


def test_results_that_nobody_can_use_are_data_unusable_and_not_normal(client: FlaskClient) -> None:
    body = changed(
        *on_every_alp("valueQuantity.unit", "arb"), *on_every_alp("valueQuantity.code", "arb")
    )
    verdicts = send(client, body, EXPLAIN).get_json()["verdicts"]

    found = {x["topic"]: x["verdict"] for x in verdicts}
    assert found["lowAlpPersistent"] == found["lowAlpUnconfirmed"] == "data-unusable"


def test_of_a_lack_of_data_every_topic_says_data_missing(client: FlaskClient) -> None:
    found = send(client, changed(drop("prefetch")), EXPLAIN).get_json()

    assert {x["verdict"] for x in found["verdicts"]} == {"data-missing"}
    assert found["cards"] == []


def test_what_was_odd_in_an_inferred_answer_is_said_once_beside_its_key(
    client: FlaskClient,
) -> None:
    found = send(client, changed(add(RESULTS, {})), EXPLAIN).get_json()
    odd = {"where": "results.entry[24]", "why": "no resource"}

    said = {x["key"] for x in found["data"] if odd in x["skipped"]}
    assert "alp" in said and "*" not in said


@pytest.mark.parametrize("name", ["results", "our ALP", 'the "ALP"', "a\\b\n"])
def test_the_explanation_prints_the_line_that_would_declare_the_site_s_key(
    client: FlaskClient, name: str
) -> None:
    body = changed(drop("prefetch.results"), put(f"prefetch.{name}", None))
    hints = send(client, body, EXPLAIN).get_json()["hint"]

    assert {"prefetch": {name: "alp"}} in [tomllib.loads(x) for x in hints]


def test_a_lone_resource_under_a_site_s_key_is_no_answer_to_a_search(client: FlaskClient) -> None:
    body = changed(drop("prefetch.results"), put("prefetch.person", {"resourceType": "Patient"}))

    assert send(client, body, EXPLAIN).get_json()["hint"] == []


# -- one key -----------------------------------------------------------------------------------

ALP_BUNDLE = bundle([alp(n, value, 5 + 40 * n) for n, value in enumerate(LOW)])
EMPTY = [
    None,
    {"resourceType": "Bundle"},
    {"resourceType": "Bundle", "entry": []},
    {"resourceType": "Bundle", "entry": None},
    {"resourceType": "Bundle", "type": "searchset", "total": 0},
    {"resourceType": "Bundle", "link": [{"relation": "self", "url": "x"}]},
]


def declared(alp_value: object = ALP_BUNDLE) -> Json:
    """A good request whose ALP results stand under discovery's name."""
    return changed(drop("prefetch.results"), put("prefetch.alp", alp_value))


@requirement("PFD-03", "PFD-04")
@pytest.mark.parametrize("value", EMPTY)
def test_null_and_every_empty_bundle_mean_looked_and_found_nothing(
    client: FlaskClient, value: object
) -> None:
    body = declared(value)

    assert send(client, body).get_json() == {"cards": []}
    assert sources(client, body)["alp"]["state"] == "answered"
    problems = changed(put("prefetch.conditions", value))
    expected = send(client, changed(put("prefetch.conditions", None))).get_json()
    assert without_uuids(send(client, problems).get_json()) == without_uuids(expected)


@requirement("PFD-02", "PFD-12", "REQ-11")
@pytest.mark.parametrize("value", [*EMPTY, OUTCOME])
def test_what_is_empty_under_a_name_of_the_site_s_own_answers_nothing(
    client: FlaskClient, value: object
) -> None:
    answer = send(client, changed(put("prefetch.results", value)))

    assert keys_named(diagnostics(answer)) == {"alp"}


WRONG_FOR_A_SEARCH: list[object] = [
    *("x", 5, True, [], {}, {"resourceType": 5}, {"resourceType": "Bundel"}),
    {"resourceType": "Patient", "id": "p1"},
    ALP_BUNDLE["entry"][0]["resource"],
    [ALP_BUNDLE],
    json.dumps(ALP_BUNDLE),
    {"response": {"status": "200"}, "resource": ALP_BUNDLE},
]


@requirement("PFD-16", "PFD-12", "PFD-14", "REQ-14", "ERR-05")
@pytest.mark.parametrize("value", WRONG_FOR_A_SEARCH, ids=lambda x: json.dumps(x)[:40])
def test_what_is_no_bundle_does_not_answer_a_search(client: FlaskClient, value: object) -> None:
    assert keys_named(diagnostics(send(client, declared(value)))) == {"alp"}


WRONG_FOR_A_READ: list[object] = [
    *(None, "x", 5, [], {}, {"resourceType": "Bundle"}, {"resourceType": "Observation"}, OUTCOME),
    {"resourceType": "Patient", "id": "p2"},
    {"resourceType": "Patient", "id": "P1"},
    {"response": {"status": "200"}, "resource": {"resourceType": "Patient", "id": "p1"}},
]


@requirement("PFD-16", "PFD-05", "PFD-12", "REQ-13", "REQ-14")
@pytest.mark.parametrize("value", WRONG_FOR_A_READ, ids=lambda x: json.dumps(x)[:40])
def test_what_is_not_this_patient_does_not_answer_the_read(
    client: FlaskClient, value: object
) -> None:
    answer = send(client, changed(put("prefetch.patient", value)))

    assert keys_named(diagnostics(answer)) == {"patient"}


@requirement("PFD-02", "PFD-12", "PFD-14", "ERR-05")
@pytest.mark.parametrize("key", ["patient", "alp"])
def test_a_required_key_left_out_is_412_naming_it(
    client: FlaskClient, whole: Whole, key: str
) -> None:
    body = whole(WARNED)
    del body["prefetch"][key]

    assert keys_named(diagnostics(send(client, body))) == {key}


@requirement("PFD-05", "PFD-06")
@pytest.mark.parametrize("key", ["patient", "alp"])
def test_a_required_key_that_failed_is_412_naming_it(
    client: FlaskClient, whole: Whole, key: str
) -> None:
    body = whole(WARNED)
    body["prefetch"][key] = OUTCOME

    assert keys_named(diagnostics(send(client, body))) == {key}


NOT_READ: list[object] = [
    {"resourceType": "Bundle", "entry": "x"},
    {"resourceType": "Bundle", "entry": [None, 5, "x", [], {}]},
    {"resourceType": "Bundle", "entry": [{"resource": json.dumps(ALP_BUNDLE["entry"][0])}]},
    {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "MedicationOrder"}}]},
    {"resourceType": "Bundle", "entry": [{"resource": OUTCOME}]},
    {"resourceType": "Bundle", "entry": [{"resource": OUTCOME, "search": {"mode": "outcome"}}]},
]


@requirement("PFD-16", "PFD-12", "PFD-14")
@pytest.mark.parametrize("value", NOT_READ, ids=lambda x: json.dumps(x)[:70])
def test_a_bundle_of_which_nothing_can_be_read_answers_nothing(
    client: FlaskClient, whole: Whole, value: object
) -> None:
    assert keys_named(diagnostics(send(client, declared(value)))) == {"alp"}

    body = whole(WARNED)
    body["prefetch"]["conditions"] = value
    card = send(client, body).get_json()["cards"][0]
    assert card["indicator"] == "info"
    assert "**Not checked:** problem list." in card["detail"]


@requirement("PFD-04", "PFD-07")
def test_a_message_that_nothing_was_found_is_an_answer(client: FlaskClient, whole: Whole) -> None:
    none_found = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "warning", "code": "processing"}],
    }
    body = whole(WARNED)
    body["prefetch"]["medications"] = {
        "resourceType": "Bundle",
        "total": 0,
        "entry": [{"resource": none_found, "search": {"mode": "outcome"}}],
    }

    assert cards_of(send(client, body).get_json()) == ("lowAlpPersistent warning",)
    assert sources(client, body)["medications"]["state"] == "answered"


@requirement("PFD-07")
def test_a_message_beside_results_does_not_cost_the_results(client: FlaskClient) -> None:
    body = declared({**ALP_BUNDLE, "entry": [{"resource": OUTCOME}, *ALP_BUNDLE["entry"]]})

    assert cards_of(send(client, body).get_json()) == FIRES


OTHERS: list[object] = [
    {"reference": "Patient/somebody-else"},
    {"reference": "https://ehr.example.org/fhir/Patient/p11"},
    [{"reference": "Patient/somebody-else"}],
    "Patient/somebody-else",
    7,
]


@requirement("REQ-13", "PFD-14")
@pytest.mark.parametrize("subject", OTHERS, ids=json.dumps)
@pytest.mark.parametrize("key", ["conditions", "medications"])
def test_what_belongs_to_other_patients_does_not_answer_a_key(
    client: FlaskClient, whole: Whole, key: str, subject: object
) -> None:
    body = whole(WARNED)
    kept = body["prefetch"]["conditions"]["entry"]
    body["prefetch"][key] = bundle([{**x["resource"], "subject": subject} for x in kept[:2]])
    without = whole(WARNED)
    del without["prefetch"][key]

    assert cards_of(send(client, body).get_json()) == cards_of(send(client, without).get_json())
    assert sources(client, body)[key]["why"] == "all of it belongs to other patients"


@requirement("REQ-13")
@pytest.mark.parametrize("element", ["subject", "patient"])
@pytest.mark.parametrize("value", OTHERS, ids=json.dumps)
def test_other_people_s_results_are_unusable_and_no_card(
    client: FlaskClient, element: str, value: object
) -> None:
    strangers = [{**x["resource"], element: value} for x in ALP_BUNDLE["entry"]]
    if element != "subject":
        for one in strangers:
            del one["subject"]
    body = declared(bundle(strangers))

    assert send(client, body).get_json() == {"cards": []}
    verdicts = send(client, body, EXPLAIN).get_json()["verdicts"]
    found = {x["topic"]: x["verdict"] for x in verdicts}
    assert found["lowAlpPersistent"] == found["raisedAlpSourceUnknown"] == "data-unusable"


@requirement("REQ-13")
@pytest.mark.parametrize(("patient_id", "cards"), [("p1", FIRES), ("p2", ())])
def test_a_url_in_a_bundle_means_the_patient_who_stands_there(
    client: FlaskClient, patient_id: str, cards: tuple[str, ...]
) -> None:
    url = "urn:uuid:6f2c1f0e-0d5a-4a55-9d0e-3c1b6f3f8a11"
    results = bundle(
        [{**x["resource"], "subject": {"reference": url}} for x in ALP_BUNDLE["entry"]]
    )
    results["entry"].append(
        {"fullUrl": url, "resource": {"resourceType": "Patient", "id": patient_id}}
    )

    assert cards_of(send(client, declared(results)).get_json()) == cards


@requirement("PFD-06", "PFD-16")
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (ALP_BUNDLE, None, "answered"),
        (ALP_BUNDLE, "x", "answered"),
        (ALP_BUNDLE, OUTCOME, "failed"),
        (ALP_BUNDLE, {**ALP_BUNDLE, "link": [{"relation": "next"}]}, "incomplete"),
        (None, "x", "answered"),
        (OUTCOME, {**ALP_BUNDLE, "link": [{"relation": "next"}]}, "failed"),
    ],
)
def test_of_two_answers_to_a_key_the_worse_counts_in_either_order(
    tmp_path: Path, one: object, other: object, expected: str
) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[prefetch]\nour-alp = "alp"\n', encoding="utf-8")
    client = create_app(Settings(open=True, site_file=site), now=now).test_client()
    for first, second in ((one, other), (other, one)):
        body = changed(drop("prefetch.results"))
        body["prefetch"] |= {"our-alp": first, "alp": second}

        assert sources(client, body)["alp"]["state"] == expected


@requirement("PFD-05")
def test_a_failure_under_a_site_s_own_name_is_said(client: FlaskClient) -> None:
    body = changed(put("prefetch.results", OUTCOME))

    assert ("results", "an OperationOutcome was sent") in whys(
        send(client, body, EXPLAIN).get_json()
    )


@requirement("ERR-05")
@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("alp", OUTCOME, "an OperationOutcome was sent"),
        ("alp", {**ALP_BUNDLE, "link": [{"relation": "next", "url": "?page=2"}]}, "one page"),
        ("alp", "x", "the value is not what the key asks for"),
        ("patient", {"resourceType": "Patient", "id": "p2"}, "does not hold the patient"),
        ("patient", ALP_BUNDLE["entry"][0]["resource"], "does not hold the patient"),
    ],
)
def test_a_412_says_why_each_key_could_not_be_had(
    client: FlaskClient, key: str, value: object, why: str
) -> None:
    body = declared()
    body["prefetch"][key] = value

    assert f"{key} ({why}" in diagnostics(send(client, body))


PAGED = [
    [{"relation": "next"}],
    [{"relation": "next", "url": ""}],
    [{"relation": "next", "url": None}],
    [{"relation": "next", "url": 5}],
    [{"relation": "next", "url": "https://ehr.example.org/fhir?page=2"}],
    [{"relation": "self", "url": "x"}, {"relation": "next", "url": "?page=2"}],
    {"relation": "next", "url": "https://ehr.example.org/fhir?page=2"},
    [5, {"relation": "next", "url": "https://ehr.example.org/fhir?page=2"}],
    [{"relation": "next", "url": "?page=2", "extension": 5}, {"relation": 5}],
]


@requirement("PFD-09", "PFD-12")
@pytest.mark.parametrize("link", PAGED, ids=json.dumps)
def test_a_first_page_of_the_required_results_is_412(client: FlaskClient, link: object) -> None:
    answer = send(client, declared({**ALP_BUNDLE, "link": link}))

    assert keys_named(diagnostics(answer)) == {"alp"}


@requirement("PFD-09")
def test_a_first_page_of_the_problem_list_does_not_prove_that_nothing_is_on_it(
    client: FlaskClient, whole: Whole
) -> None:
    body = whole(WARNED)
    body["prefetch"]["conditions"]["link"] = PAGED[0]
    answer = send(client, body).get_json()

    assert cards_of(answer) == FIRES  # a warning otherwise
    assert "**Not checked:** problem list." in answer["cards"][0]["detail"]


@requirement("PFD-08")
def test_a_bundle_may_hold_other_types_and_they_are_used(client: FlaskClient, whole: Whole) -> None:
    body = whole("raised-alp-source-unknown")
    moved_over = body["prefetch"]["conditions"]["entry"]
    for entry in moved_over:
        entry["search"] = {"mode": "include"}
    body["prefetch"]["alp"]["entry"] += moved_over
    body["prefetch"]["conditions"] = None

    expected = send(client, whole("raised-alp-source-unknown")).get_json()
    assert without_uuids(send(client, body).get_json()) == without_uuids(expected)


@requirement("PFD-10")
def test_a_bundle_needs_no_type_total_urls_or_metadata(client: FlaskClient, whole: Whole) -> None:
    body = whole(WARNED)
    expected = send(client, body).get_json()
    for key, value in body["prefetch"].items():
        if "entry" in value:
            entries = [{"resource": x["resource"]} for x in value["entry"]]
            body["prefetch"][key] = {"resourceType": "Bundle", "entry": entries}

    assert without_uuids(send(client, body).get_json()) == without_uuids(expected)


@requirement("PFD-11")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("status", "cancelled"),
        ("status", "entered-in-error"),
        ("code.coding.0.code", "2345-7"),
        ("subject.reference", "Patient/p2"),
        ("effectiveDateTime", "2001-01-01"),
        ("valueQuantity.value", None),
    ],
)
def test_a_result_that_the_query_would_not_have_brought_changes_nothing(
    client: FlaskClient, path: str, value: object
) -> None:
    sent = changed(add(RESULTS, {"resource": alp(99, 5, 3)}), values=NORMAL)
    position = len(sent["prefetch"]["results"]["entry"]) - 1
    put(f"{RESULTS}.{position}.resource.{path}", value)(sent)

    assert send(client, sent).get_json() == {"cards": []}


@requirement("REQ-13")
@pytest.mark.parametrize("reference", ["Patient/p1", "urn:uuid:p1", "http://x/Patient/p1", None])
def test_a_result_of_this_patient_is_used_however_it_says_so(
    client: FlaskClient, reference: str | None
) -> None:
    change = on_every_alp("subject", {"reference": reference} if reference else None)

    assert cards_of(send(client, changed(*change)).get_json()) == FIRES


# -- optional keys -----------------------------------------------------------------------------

# key, patient, the card that remains, and what it says was not checked
DEGRADED = [
    ("labs", WARNED, "lowAlpPersistent info", "laboratory results"),
    ("labs", "lytic-lesion-normal-alp", "lyticLesionWithoutMyelomaScreen info", "laboratory"),
    ("conditions", WARNED, "lowAlpPersistent info", "problem list"),
    ("conditions", "raised-alp-jaundice", "raisedAlpHepatobiliary info", "problem list"),
    ("medications", WARNED, "lowAlpPersistent info", "drug history"),
    ("medications", "raised-alp-with-cancer", "raisedAlpWithCancer info", "drug history"),
    ("administrations", WARNED, "lowAlpPersistent warning", "administered drugs"),
    ("reports", WARNED, "lowAlpPersistent warning", "diagnostic reports"),
    ("orders", WARNED, "lowAlpPersistent warning", "orders"),
    ("procedures", WARNED, "lowAlpPersistent warning", "procedures"),
    ("encounters", WARNED, "lowAlpPersistent warning", "encounters"),
]
WAYS_TO_LACK: dict[str, Callable[[Json, str], object]] = {
    "left out": lambda prefetch, key: prefetch.pop(key),
    "failed": lambda prefetch, key: prefetch.update({key: OUTCOME}),
    "malformed": lambda prefetch, key: prefetch.update({key: "x"}),
    "first page": lambda prefetch, key: prefetch[key].update(link=PAGED[0]),
}


@requirement("PFD-02", "PFD-05", "PFD-06", "PFD-09", "PFD-16")
@pytest.mark.parametrize("way", WAYS_TO_LACK)
@pytest.mark.parametrize(("key", "name", "card", "title"), DEGRADED)
def test_an_optional_key_that_is_lacking_is_named_and_may_cap_the_card(
    client: FlaskClient, whole: Whole, way: str, key: str, name: str, card: str, title: str
) -> None:
    body = whole(name)
    WAYS_TO_LACK[way](body["prefetch"], key)
    answer = send(client, body).get_json()

    assert cards_of(answer) == (card,)
    unchecked = re.findall(r"\*\*Not checked:\*\* (.*)", answer["cards"][0]["detail"])
    assert len(unchecked) == 1 and title in unchecked[0]


@requirement("TPL-14")
@pytest.mark.parametrize("key", [*dict.fromkeys(x[0] for x in DEGRADED)])
def test_every_query_is_asked_because_a_topic_reads_it(
    client: FlaskClient, whole: Whole, patients: dict[str, FixturePatient], key: str
) -> None:
    def judged(body: Json) -> Any:
        found = send(client, body, EXPLAIN).get_json()
        return without_uuids([found["verdicts"], found["cards"]])

    def differs(name: str) -> bool:
        body = whole(name)
        del body["prefetch"][key]
        return bool(judged(body) != judged(whole(name)))

    assert any(map(differs, patients))


@requirement("TPL-14")
def test_a_rare_test_of_years_ago_is_read_from_the_query_for_it(
    client: FlaskClient, whole: Whole
) -> None:
    def suggested(body: Json) -> set[str]:
        return {x["code"]["text"] for x in drafts_of(send(client, body).get_json())}

    body = whole(WARNED)
    before = suggested(body)
    gene = result(1, "77084-2", "ALPL gene", "1", 1, 3000)
    gene["subject"] = {"reference": f"Patient/{WARNED}"}
    body["prefetch"]["longterm"] = bundle([gene])

    gone = before - suggested(body)
    assert len(gone) == 1 and "ALPL" in gone.pop()


@requirement("PFD-14")
def test_a_row_that_cannot_do_without_a_key_says_data_missing(
    client: FlaskClient, whole: Whole
) -> None:
    body = whole("raised-alp-source-unknown")
    del body["prefetch"]["labs"]
    verdicts = send(client, body, EXPLAIN).get_json()["verdicts"]

    found = next(x for x in verdicts if x["topic"] == "raisedAlpSourceUnknown")
    assert found["verdict"] == "data-missing"
    assert "laboratory results" in found["reason"]["text"]


# -- the client's FHIR server ------------------------------------------------------------------


def asking(fhir: FhirServer, name: str = WARNED, **more: Any) -> Json:
    """A request without prefetch that says where the chart is."""
    body = changed(drop("prefetch"), put("context.patientId", name), put("fhirServer", fhir.base))
    return {**body, **more}


@requirement("FHR-02", "FHR-08", "FHR-09", "PFD-15")
def test_the_token_goes_with_every_page(fetching: FlaskClient, fhir: FhirServer) -> None:
    answer = send(fetching, asking(fhir, fhirAuthorization=GRANT))

    assert cards_of(answer.get_json()) == ("lowAlpPersistent warning",)
    assert any("_offset=" in x.path for x in fhir.asked)
    assert {x.authorization for x in fhir.asked} == {"Bearer opaque"}
    assert {x.accept for x in fhir.asked} == {"application/fhir+json"}
    assert {x.method for x in fhir.asked} == {"GET"}


@requirement("FHR-01")
def test_an_allowed_server_without_a_token_is_read_without_one(
    fetching: FlaskClient, fhir: FhirServer
) -> None:
    assert send(fetching, asking(fhir)).status_code == 200
    assert {x.authorization for x in fhir.asked} == {None}


@requirement("FHR-05", "PFD-12")
@pytest.mark.parametrize("seconds", [0, -1])
def test_an_expired_token_is_not_used(
    fetching: FlaskClient, fhir: FhirServer, seconds: int
) -> None:
    answer = send(fetching, asking(fhir, fhirAuthorization={**GRANT, "expires_in": seconds}))

    assert keys_named(diagnostics(answer)) == {"patient", "alp"}
    assert fhir.asked == []


FULL = "patient/Patient.read patient/Observation.read"
TYPES = {
    *("Patient", "Observation", "Condition", "MedicationRequest", "MedicationAdministration"),
    *("DiagnosticReport", "ServiceRequest", "Procedure", "Encounter"),
}


@requirement("FHR-10", "PFD-01")
@pytest.mark.parametrize(
    ("scope", "types"),
    [
        ("user/*.read", TYPES),
        ("patient/*.rs launch openid", TYPES),
        ("system/*.cruds", TYPES),
        ("user/*.*", TYPES),
        ("openid fhirUser", TYPES),  # nothing that says which types
        (FULL, {"Patient", "Observation"}),
        (f"{FULL} user/Condition.rs", {"Patient", "Observation", "Condition"}),
        (f"{FULL} user/Condition.write", {"Patient", "Observation"}),
        (f"{FULL} user/Condition.cud", {"Patient", "Observation"}),
        ("user/Patient.rs user/Observation.rs?category=laboratory", {"Patient", "Observation"}),
        ("patient/Patient.r patient/Observation.rs", {"Patient", "Observation"}),
    ],
)
def test_what_the_scopes_do_not_cover_is_not_asked_for(
    fetching: FlaskClient, fhir: FhirServer, scope: str, types: set[str]
) -> None:
    answer = send(fetching, asking(fhir, fhirAuthorization={**GRANT, "scope": scope}))

    assert (answer.status_code, set(fhir.types)) == (200, types)


@requirement("FHR-10", "PFD-12")
def test_a_scope_that_lacks_a_required_type_is_412(fetching: FlaskClient, fhir: FhirServer) -> None:
    given = {**GRANT, "scope": "user/Patient.read user/Condition.read"}
    answer = send(fetching, asking(fhir, fhirAuthorization=given))

    assert keys_named(diagnostics(answer)) == {"alp"}
    assert "Observation" not in fhir.types


@requirement("PFD-03")
def test_what_was_looked_for_and_not_found_is_not_asked_again(
    fetching: FlaskClient, fhir: FhirServer, whole: Whole
) -> None:
    body = {**whole(WARNED), "fhirServer": fhir.base}
    body["prefetch"] |= {"conditions": None, "reports": {"resourceType": "Bundle"}}

    assert send(fetching, body).status_code == 200
    assert fhir.asked == []


@requirement("PFD-09")
def test_the_rest_of_a_first_page_is_fetched(
    client: FlaskClient, fetching: FlaskClient, fhir: FhirServer, whole: Whole
) -> None:
    body = {**whole(WARNED), "fhirServer": fhir.base}
    expected = send(client, body).get_json()
    for key in ("alp", "conditions"):
        first = body["prefetch"][key]
        first |= {"entry": first["entry"][:1], "link": [{"relation": "next", "url": "?page=2"}]}
    found = send(fetching, body).get_json()

    assert without_uuids(found) == without_uuids(expected)
    assert set(fhir.types) == {"Observation", "Condition"}


@requirement("PFD-05", "PFD-06")
@pytest.mark.parametrize("key", ["alp", "conditions"])
def test_what_the_client_failed_to_get_is_fetched_from_an_allowed_server(
    client: FlaskClient, fetching: FlaskClient, fhir: FhirServer, whole: Whole, key: str
) -> None:
    body = {**whole(WARNED), "fhirServer": fhir.base}
    expected = send(client, body).get_json()
    body["prefetch"][key] = OUTCOME

    assert without_uuids(send(fetching, body).get_json()) == without_uuids(expected)


@requirement("FHR-07")
@pytest.mark.parametrize("end", ["", "/", "//"])
def test_the_base_url_may_end_with_slashes(
    fetching: FlaskClient, fhir: FhirServer, end: str
) -> None:
    assert send(fetching, asking(fhir, fhirServer=fhir.base + end)).status_code == 200
    assert f"/fhir/Patient/{WARNED}" in [x.path for x in fhir.asked]


@requirement("FHR-07", "FHR-09")
def test_ids_are_encoded(fetching: FlaskClient, fhir: FhirServer) -> None:
    assert send(fetching, asking(fhir, name="p%2F1&x=y|é")).status_code == 412
    paths = [x.path for x in fhir.asked]

    assert "/fhir/Patient/p%252F1%26x%3Dy%7C%C3%A9" in paths
    assert all("patient=p%252F1%26x%3Dy%5C%7C%C3%A9&" in x for x in paths if "?" in x)


@requirement("FHR-09", "HOK-03")
@pytest.mark.parametrize("name", ["a,b", "a\\,b", "a$b", "a|b"])
def test_an_id_with_a_sign_of_the_search_syntax_asks_for_one_patient(
    fetching: FlaskClient, fhir: FhirServer, name: str
) -> None:
    send(fetching, asking(fhir, name=name))

    values = [parse_qs(urlsplit(x.path).query)["patient"] for x in fhir.asked if "?" in x.path]
    unescaped = r"(?<!\\)(?:\\\\)*[,|$]"
    assert values and not any(re.search(unescaped, x) for found in values for x in found)


@requirement("PRF-04", "REQ-17")
def test_nothing_is_kept_from_one_call_to_the_next(patients: dict[str, FixturePatient]) -> None:
    chart = patients[WARNED].bundle
    with serving(lambda base: FhirEndpoint([chart], base)) as server:
        client = create_app(Settings(open=True, fhir_servers=(server.base,)), now=now).test_client()
        first = cards_of(send(client, asking(server)).get_json())
        server.endpoint = FhirEndpoint([moved(chart, timedelta(days=-2000).days)], server.base)
        second = cards_of(send(client, asking(server)).get_json())

    assert (first, second) == (("lowAlpPersistent warning",), ())


# -- a FHIR server that fails ------------------------------------------------------------------


def lacking(whole: Whole, fhir: FhirServer, key: str) -> Json:
    """A request with all but one key, which is left to be fetched with a token."""
    body = {**whole(WARNED), "fhirServer": fhir.base, "fhirAuthorization": GRANT}
    del body["prefetch"][key]
    return body


FAULTS: dict[str, Fault] = {
    "hangs": hangs,
    "drips": drips,
    **{f"answers {x}": refuses(x) for x in (401, 403, 404, 500, 503)},
    "stops in the middle": truncates,
    "says nothing": says(b""),
    "speaks HTML": says(b"<html>Sign in</html>"),
    "sends an OperationOutcome": says(json.dumps(OUTCOME).encode()),
    "sends a list": says(b"[]"),
    "sends a resource of another kind": says(b'{"resourceType":"Parameters","id":"x"}'),
    "sends a result": says(json.dumps(alp(9, 70, 5)).encode()),
    "sends half a surrogate pair for a type": says(b'{"resourceType":"\\ud83d"}'),
    "nests": says(b'{"resourceType":"Bundle","entry":' + b"[" * 9999 + b"]" * 9999 + b"}"),
}


@requirement("PFD-13", "PFD-14", "FHR-08", "FHR-11", "PRF-02", "ERR-08")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("kind", "key"), [("Patient", "patient"), ("Observation", "alp")])
def test_a_required_key_that_the_server_fails_to_give_is_412_in_time(
    impatient: FlaskClient, fhir: FhirServer, whole: Whole, fault: str, kind: str, key: str
) -> None:
    fhir.faults[kind] = FAULTS[fault]
    began = time.monotonic()
    answer = send(impatient, lacking(whole, fhir, key))

    assert keys_named(diagnostics(answer)) == {key}
    assert time.monotonic() - began < 3  # half a second is allowed


@requirement("PFD-06", "FHR-11", "FHR-08")
@pytest.mark.parametrize("fault", FAULTS)
def test_an_optional_key_that_the_server_fails_to_give_is_named_on_the_card(
    impatient: FlaskClient, fhir: FhirServer, whole: Whole, fault: str
) -> None:
    fhir.faults["Condition"] = FAULTS[fault]
    answer = send(impatient, lacking(whole, fhir, "conditions"))

    assert (answer.status_code, cards_of(answer.get_json())) == (200, FIRES)
    assert "**Not checked:** problem list." in answer.get_json()["cards"][0]["detail"]
    assert fhir.types == ["Condition"]


@requirement("PFD-09")
def test_what_was_sent_of_a_failing_server_s_patient_is_not_lost(
    impatient: FlaskClient, fhir: FhirServer, whole: Whole
) -> None:
    fhir.faults["Condition"] = refuses(500)
    body = {**whole(WARNED), "fhirServer": fhir.base}
    body["prefetch"]["conditions"]["link"] = PAGED[0]
    found = sources(impatient, body)["conditions"]

    assert (found["state"], found["used"]) == ("incomplete", 3)


@requirement("PFD-09")
def test_a_second_page_that_holds_a_failure_leaves_the_first(
    fetching: FlaskClient, fhir: FhirServer, whole: Whole
) -> None:
    first = whole(WARNED)["prefetch"]["conditions"]
    next_page = {"relation": "next", "url": f"{fhir.base}/Condition?_offset=3"}
    pages = {
        True: {**first, "link": [next_page]},
        False: {"resourceType": "Bundle", "entry": [{"resource": OUTCOME}]},
    }
    fhir.faults["Condition"] = lambda to, _: to.give(
        json.dumps(pages["_offset=" not in to.path]).encode()
    )
    found = sources(fetching, lacking(whole, fhir, "conditions"))["conditions"]

    assert fhir.types == ["Condition", "Condition"]
    assert (found["state"], found["used"]) == ("incomplete", len(first["entry"]))


@requirement("PFD-16", "ERR-08")
@pytest.mark.parametrize("depth", [800, 900, 940, 960, 980])
def test_a_page_that_is_nested_too_deeply_is_no_data(
    fetching: FlaskClient, fhir: FhirServer, whole: Whole, depth: int
) -> None:
    odd = b'{"resource":{"resourceType":"Condition","id":5,"x":' + b"[" * depth + b"]" * depth
    fhir.faults["Condition"] = says(b'{"resourceType":"Bundle","entry":[' + odd + b"}}]}")
    body = lacking(whole, fhir, "conditions")
    shown = cards_of(send(fetching, body).get_json())

    answered = sources(fetching, body)["conditions"]["state"] == "answered"
    assert shown == (("lowAlpPersistent warning",) if answered else FIRES)
    assert sources(fetching, body)["conditions"]["used"] == int(answered)


ODD_PAGES = {
    "half a surrogate pair in a URL": b'{"fullUrl":"\\ud83d","resource":{}}',
    "bytes that are no UTF-8 in a URL": b'{"fullUrl":"\xff","resource":{}}',
    "bytes that are no UTF-8 in an id": b'{"resource":{"resourceType":"Condition","id":"\xff"}}',
    "a number of 6,000 digits": b'{"resource":{"resourceType":"Condition","x":'
    + b"1" * 6000
    + b"}}",
    "an entry that is none": b"5",
}


@requirement("ERR-08")
@pytest.mark.parametrize("name", ODD_PAGES)
def test_an_odd_page_of_the_server_is_never_the_client_s_fault(
    fetching: FlaskClient, fhir: FhirServer, whole: Whole, name: str
) -> None:
    fhir.faults["Condition"] = says(b'{"resourceType":"Bundle","entry":[' + ODD_PAGES[name] + b"]}")
    answer = send(fetching, lacking(whole, fhir, "conditions"))

    assert answer.status_code == 200
    assert cards_of(answer.get_json())[0].startswith("lowAlpPersistent")


# -- other origins -----------------------------------------------------------------------------


@requirement("FHR-06")
@pytest.mark.parametrize("lead", [links_to, redirects_to])
def test_the_server_cannot_lead_to_another_origin(
    impatient: FlaskClient, fhir: FhirServer, whole: Whole, lead: Callable[[str], Fault]
) -> None:
    with counting() as (elsewhere, callers):
        fhir.faults["Observation"] = lead(f"{elsewhere}/fhir/Observation?page=2")
        answer = send(impatient, lacking(whole, fhir, "alp"))

        assert keys_named(diagnostics(answer)) == {"alp"}
    assert callers == [] and fhir.types == ["Observation"]


@requirement("FHR-01", "FHR-06", "PFD-12")
@pytest.mark.parametrize("grant", [{}, {"fhirAuthorization": GRANT}], ids=["bare", "with token"])
@pytest.mark.parametrize(
    "spelling",
    [
        "{url}/fhir",
        "{url}",
        "{allowed}@{netloc}/fhir",
        "{url}/fhir?{allowed}",
        "{url}/fhir#{allowed}",
        "{url}\\@{allowed_netloc}/fhir",
    ],
)
def test_a_server_that_is_not_listed_is_never_contacted(
    impatient: FlaskClient, fhir: FhirServer, spelling: str, grant: Json
) -> None:
    with counting() as (url, callers):
        address = spelling.format(
            url=url,
            netloc=urlsplit(url).netloc,
            allowed=fhir.base.removesuffix("/fhir"),
            allowed_netloc=urlsplit(fhir.base).netloc,
        )
        answer = send(impatient, asking(fhir, fhirServer=address, **grant))

        assert keys_named(diagnostics(answer)) == {"patient", "alp"}
    assert callers == [] and fhir.asked == []


@requirement("FHR-06")
@pytest.mark.parametrize(
    "address",
    ["", "x", "//", "http://", "http://[::1", "file:///etc/passwd", "http://a:99999/", "\0"],
)
def test_an_address_that_is_none_is_not_used(
    impatient: FlaskClient, fhir: FhirServer, address: str
) -> None:
    answer = send(impatient, asking(fhir, fhirServer=address))

    assert keys_named(diagnostics(answer)) == {"patient", "alp"}
    assert fhir.asked == []


@requirement("FHR-06")
def test_another_path_of_an_allowed_host_is_not_allowed(
    impatient: FlaskClient, fhir: FhirServer
) -> None:
    for end in ("er", "/../other", "/tenant-b"):
        answer = send(impatient, asking(fhir, fhirServer=fhir.base + end))
        assert answer.status_code == 412
    assert fhir.asked == []


# -- secrets -----------------------------------------------------------------------------------

MARK = "Zyxmark"


@requirement("FHR-03", "FHR-04", "ERR-04", "ERR-07", "SEC-07")
@pytest.mark.parametrize(
    "case", ["good", "412", "server fails", "other origin", "422", "400", "explained", "unusable"]
)
def test_no_name_id_or_token_of_a_call_is_logged_or_told_in_an_error(
    impatient: FlaskClient, fhir: FhirServer, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    body = marked(fhir)
    text, path = "", EXPLAIN if case == "explained" else "/cds-services/alp-review"
    if case in ("412", "server fails", "other origin"):
        del body["prefetch"]
    if case == "server fails":
        fhir.faults["Patient"] = refuses(500)
    if case == "other origin":
        fhir.faults["Observation"] = links_to(f"http://127.0.0.1:9/{MARK}")
    if case == "unusable":
        fhir.faults["Condition"] = says(f'{{"resourceType":"{MARK}","id":"{MARK}"}}'.encode())
    if case == "422":
        body["context"]["userId"] = MARK
    if case == "400":
        text = json.dumps(body)[:-9]
    with caplog.at_level(logging.DEBUG):
        answer = send(impatient, text or body, path, Authorization=f"Bearer {MARK}")

    assert answer.status_code == {"412": 412, "server fails": 412, "other origin": 412}.get(
        case, int(case) if case.isdigit() else 200
    )
    if answer.status_code != 200:
        assert MARK not in answer.get_data(as_text=True)
    assert not [x for x in caplog.records if MARK in str(x.__dict__) or MARK in x.getMessage()]


def marked(fhir: FhirServer) -> Json:
    """A request that names the mark wherever a client may put something of the patient's."""
    body = changed(
        put("context.patientId", f"{MARK}-1"),
        put("context.encounterId", f"{MARK}-2"),
        put("context.userId", f"Practitioner/{MARK}"),
        put("hookInstance", MARK),
        put("fhirServer", fhir.base),
        put("fhirAuthorization", {**GRANT, "access_token": MARK, "subject": MARK}),
        put("prefetch.patient.id", f"{MARK}-1"),
        put("prefetch.patient.name", [{"family": MARK, "given": [MARK]}]),
        put("prefetch.conditions.entry.0.resource.code.text", MARK),
        put(f"prefetch.{MARK}", MARK),
    )
    for entry in body["prefetch"]["results"]["entry"] + body["prefetch"]["conditions"]["entry"]:
        entry["resource"]["subject"] = {"reference": f"Patient/{MARK}-1"}
    assert sum(MARK in x for x in texts(body)) > 30
    return body


def test_the_marks_are_where_a_card_would_show_them(
    impatient: FlaskClient, fhir: FhirServer
) -> None:
    assert MARK in send(impatient, marked(fhir)).get_data(as_text=True)


def test_a_request_of_this_module_is_good(client: FlaskClient) -> None:
    assert cards_of(send(client, declared()).get_json()) == FIRES
    assert cards_of(send(client, request()).get_json()) == FIRES
