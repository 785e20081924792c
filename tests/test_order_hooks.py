"""The order hooks over HTTP: contexts, draft orders in odd shapes, what a drug is known by, the
order on the card.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.fhir_endpoint import FhirEndpoint
from tests.exchanges import (
    EXPLAIN_SELECT,
    EXPLAIN_SIGN,
    GRANT,
    NORMAL,
    SELECT,
    SERVER,
    SIGN,
    Change,
    Json,
    ago,
    alp,
    bundle,
    draft,
    drafted,
    drop,
    problem,
    put,
    selecting,
    send,
    signing,
)
from tests.exchanges import now as noon
from tests.invariants import ABOUT_ORDERS, cards_of, drafts_of, violations, without_uuids
from tests.loopback import FhirServer, hangs, redirects_to, refuses, says, serving, truncates
from tests.test_hostile_text import HOSTILE, live_in

requirement = pytest.mark.requirement
BODIES: dict[str, Callable[[], Json]] = {SELECT: selecting, SIGN: signing}
EXPLAINS = {SELECT: EXPLAIN_SELECT, SIGN: EXPLAIN_SIGN}
BOTH = pytest.mark.parametrize("path", [SELECT, SIGN])
DRAFTS = "context.draftOrders"
OWED = {
    SELECT: ("antiresorptiveWithLowAlp info",),
    SIGN: ("antiresorptiveWithPersistentLowAlp info",),
}
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
NDC = "http://hl7.org/fhir/sid/ndc"
ATC = "http://www.whocc.no/atc"
ORAL = {"coding": [{"system": RXNORM, "code": "904492"}]}


def changed(body: Json, *changes: Change) -> Json:
    for change in changes:
        change(body)
    return body


def answered(client: FlaskClient, body: Json, path: str) -> Json:
    answer = send(client, body, path)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: Json = answer.get_json()
    return found


def shown(client: FlaskClient, body: Json, path: str) -> tuple[str, ...]:
    return cards_of(answered(client, body, path))


def about(answer: Json) -> list[list[str]]:
    """The draft orders that each card names by reference."""
    return [card.get("extension", {}).get(ABOUT_ORDERS, []) for card in answer["cards"]]


def named(answer: Json) -> list[str]:
    """The line of each card that names its orders."""
    parts = [part for card in answer["cards"] for part in card["detail"].split("\n\n")]
    return [x.removeprefix("**Order:** ") for x in parts if x.startswith("**Order:** ")]


def row(explained: Json, key: str = DRAFTS) -> Json:
    """A row of the data of an explanation; one without entries when it has none."""
    rows: list[Json] = [x for x in explained["data"] if x["key"] == key]
    return rows[0] if rows else {"used": 0, "skipped": []}


def skipped(explained: Json, key: str = DRAFTS) -> list[tuple[str, str]]:
    return [(x["where"], x["why"]) for x in row(explained, key)["skipped"]]


def refusal(answer: TestResponse) -> str:
    assert answer.status_code == 422, answer.get_data(as_text=True)
    diagnostics: str = answer.get_json()["issue"][0]["diagnostics"]
    return diagnostics


def without_drug(**more: Any) -> Json:
    found = draft()
    del found["medicationCodeableConcept"]
    return found | more


# -- the context -------------------------------------------------------------------------------


@requirement("HOK-01", "DSC-06")
@BOTH
def test_the_good_call_gets_its_card(client: FlaskClient, path: str) -> None:
    assert shown(client, BODIES[path](), path) == OWED[path]


WRONG = (None, 5, True, "", "x", ["x"], {"x": "y"}, [5], [None])
REQUIRED = {
    SELECT: ("userId", "patientId", "selections", "draftOrders"),
    SIGN: ("userId", "patientId", "draftOrders"),
}
RIGHT_AFTER_ALL = {("selections", '["x"]'), ("patientId", '"x"')}


@requirement("HOK-01", "REQ-06", "ERR-02")
@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in REQUIRED.items() for name in names]
)
@pytest.mark.parametrize("explained", [False, True])
def test_a_member_of_the_context_that_is_missing_is_422_and_named(
    client: FlaskClient, path: str, name: str, explained: bool
) -> None:
    body = changed(BODIES[path](), drop(f"context.{name}"))
    where = EXPLAINS[path] if explained else path

    assert name in refusal(send(client, body, where))


@requirement("HOK-01", "HOK-05", "REQ-06")
@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        pytest.param(path, name, value, id=f"{path[14:]}-{name}-{json.dumps(value)}")
        for path, names in REQUIRED.items()
        for name in (*names, "encounterId")
        for value in WRONG
        if (name, json.dumps(value)) not in RIGHT_AFTER_ALL
        and not (name == "encounterId" and value in (None, "x"))
    ],
)
def test_a_member_of_the_context_of_another_type_is_422_and_named(
    client: FlaskClient, path: str, name: str, value: object
) -> None:
    body = changed(BODIES[path](), put(f"context.{name}", value))

    assert name in refusal(send(client, body, path))


@requirement("HOK-02")
@BOTH
@pytest.mark.parametrize(
    ("user", "status"),
    [
        ("123", 422),
        ("practitioner/1", 422),
        ("Practitioner/a b", 422),
        ("Patient/1", 200),
        ("RelatedPerson/1", 200),
        ("Practitioner/" + "a" * 200, 200),
    ],
)
def test_a_user_is_a_type_and_an_id(client: FlaskClient, path: str, user: str, status: int) -> None:
    body = changed(BODIES[path](), put("context.userId", user))

    assert send(client, body, path).status_code == status


@requirement("HOK-03", "HOK-04")
@BOTH
@pytest.mark.parametrize(
    "change",
    [
        drop("context.encounterId"),
        put("context.encounterId", None),
        put("context.encounterId", "Encounter/e1"),
        put("context.patientId", "Patient/p1"),
    ],
)
def test_ids_with_a_type_and_a_call_without_encounter_get_the_same_cards(
    client: FlaskClient, path: str, change: Change
) -> None:
    assert shown(client, changed(BODIES[path](), change), path) == OWED[path]


@requirement("HOK-10", "EXT-03", "JSN-10")
@BOTH
@pytest.mark.parametrize("new", ["x", 5, None, [1, [2]], {"com.example.x": {"a": [None]}}])
def test_more_members_and_extensions_change_nothing(
    client: FlaskClient, path: str, new: object
) -> None:
    plain = without_uuids(answered(client, BODIES[path](), path))
    for where in (
        "",
        "context.",
        f"{DRAFTS}.",
        f"{DRAFTS}.entry.0.",
        f"{DRAFTS}.entry.0.resource.",
    ):
        for name in ("extension", "foo"):
            body = changed(BODIES[path](), put(f"{where}{name}", new))
            assert without_uuids(answered(client, body, path)) == plain, where


@requirement("REQ-03")
@pytest.mark.parametrize(
    ("path", "hook"),
    [
        (SELECT, "order-sign"),
        (SIGN, "order-select"),
        (SELECT, "patient-view"),
        (SIGN, "order-dispatch"),
        ("/cds-services/alp-review", "order-sign"),
    ],
)
def test_the_hook_of_another_service_is_422_and_the_right_one_named(
    client: FlaskClient, path: str, hook: str
) -> None:
    body = {**signing(), "hook": hook}
    own = {SELECT: "order-select", SIGN: "order-sign"}.get(path, "patient-view")

    assert own in refusal(send(client, body, path))


# -- draft orders in odd shapes ----------------------------------------------------------------


@requirement("HOK-05")
@BOTH
@pytest.mark.parametrize(
    "found",
    [
        [],
        [drafted(draft())],
        "Bundle",
        7,
        False,
        {},
        {"entry": []},
        {"resourceType": "Patient", "id": "p1"},
        {"resourceType": "bundle"},
        {"resourceType": ["Bundle"]},
        draft(),
        *({"resourceType": "Bundle", "entry": x} for x in ("", "x", 0, 7, True, False)),
    ],
)
def test_draft_orders_that_are_no_bundle_are_422(
    client: FlaskClient, path: str, found: object
) -> None:
    body = changed(BODIES[path](), put(DRAFTS, found))

    assert DRAFTS in refusal(send(client, body, path))
    assert DRAFTS in refusal(send(client, body, EXPLAINS[path]))


@requirement("HOK-08")
@BOTH
@pytest.mark.parametrize("entry", [None, [], "absent"])
def test_a_bundle_without_orders_is_silence(client: FlaskClient, path: str, entry: object) -> None:
    change = drop(f"{DRAFTS}.entry") if entry == "absent" else put(f"{DRAFTS}.entry", entry)
    body = changed(BODIES[path](), change)

    assert answered(client, body, path) == {"cards": []}
    assert row(answered(client, body, EXPLAINS[path]))["used"] == 0


@requirement("HOK-05")
@BOTH
@pytest.mark.parametrize(
    "change",
    [
        drop(f"{DRAFTS}.type"),
        put(f"{DRAFTS}.type", "transaction"),
        put(f"{DRAFTS}.type", 5),
        put(f"{DRAFTS}.entry.0.fullUrl", 5),
        put(f"{DRAFTS}.entry.0.search", "x"),
        put(f"{DRAFTS}.link", "x"),
        put(f"{DRAFTS}.entry", {"resource": draft()}),
        put(f"{DRAFTS}.entry", [None, "x", 5, {}, {"resource": None}, {"resource": draft()}]),
        put(f"{DRAFTS}.entry", [{"resource": drafted(draft())}]),
    ],
)
def test_a_bundle_is_read_whatever_is_around_its_orders(
    client: FlaskClient, path: str, change: Change
) -> None:
    assert shown(client, changed(BODIES[path](), change), path) == OWED[path]


@requirement("HOK-05")
def test_an_entry_that_holds_no_resource_is_said(client: FlaskClient) -> None:
    odd: list[Any] = ["x", {}, {"resource": None}, {"resource": draft()}]
    body = changed(signing(), put(f"{DRAFTS}.entry", odd))

    found = answered(client, body, EXPLAIN_SIGN)
    assert row(found)["used"] == 1
    assert [why for _, why in skipped(found)] == [
        "odd Bundle, read entry by entry",
        "no resource",
        "not a resource with a type",
    ]


RESOURCE = f"{DRAFTS}.entry.0.resource"


@requirement("FVR-03")
@BOTH
@pytest.mark.parametrize(
    "change",
    [
        drop(f"{RESOURCE}.intent"),
        drop(f"{RESOURCE}.status"),
        drop(f"{RESOURCE}.subject"),
        put(f"{RESOURCE}.intent", 5),
        put(f"{RESOURCE}.status", None),
        put(f"{RESOURCE}.status", "active"),
        put(f"{RESOURCE}.status", "on-hold"),
        put(f"{RESOURCE}.category", {"text": "outpatient"}),
        put(f"{RESOURCE}.reasonCode", {"text": "Osteoporosis"}),
        put(f"{RESOURCE}.reasonCode", [{"coding": [{}]}]),
        put(f"{RESOURCE}.reasonReference", {"display": "Osteoporosis"}),
        put(f"{RESOURCE}.dosageInstruction", {"doseQuantity": {"value": 1}}),
        put(f"{RESOURCE}.medicationCodeableConcept.coding", [{}]),
        put(f"{RESOURCE}.medicationCodeableConcept.coding", {"system": RXNORM, "code": "1"}),
        put(f"{RESOURCE}.notInAnyVersion", {"x": [1]}),
    ],
)
def test_an_incomplete_or_odd_draft_is_read_as_far_as_it_goes(
    client: FlaskClient, path: str, change: Change
) -> None:
    assert shown(client, changed(BODIES[path](), change), path) == OWED[path]


@requirement("FVR-03")
@BOTH
@pytest.mark.parametrize(
    "order",
    [
        without_drug(),
        without_drug(medicationCodeableConcept={}),
        without_drug(medicationCodeableConcept={"coding": [{}]}),
        without_drug(medicationReference={}),
        without_drug(medicationReference={"reference": "#nowhere"}),
        {"resourceType": "MedicationRequest", "id": "d1"},
    ],
)
def test_a_draft_that_names_no_drug_is_silent_and_said(
    client: FlaskClient, path: str, order: Json
) -> None:
    body = changed(BODIES[path](), put(RESOURCE, order))

    assert answered(client, body, path) == {"cards": []}
    assert ("MedicationRequest/d1", "names no drug") in rejected(
        answered(client, body, EXPLAINS[path])
    )


def questions(explained: Json) -> Iterator[Json]:
    """Every question of every verdict, those beneath it too."""

    def below(asked: Sequence[Json]) -> Iterator[Json]:
        for one in asked:
            yield one
            yield from below(one.get("because", []))

    for verdict in explained["verdicts"]:
        yield from below(verdict["evidence"])


def rejected(explained: Json) -> set[tuple[str, str]]:
    return {(x["reference"], x["why"]) for one in questions(explained) for x in one["rejected"]}


def known_by(explained: Json, reference: str = "MedicationRequest/d1") -> set[str]:
    """What a drug was identified by, wherever it was used."""
    used = [x for one in questions(explained) for x in one["used"]]
    return {x.get("by", "") for x in used if x["reference"] == reference}


@requirement("FVR-03")
@BOTH
@pytest.mark.parametrize(
    "change",
    [
        put(f"{RESOURCE}.status", "cancelled"),
        put(f"{RESOURCE}.status", "stopped"),
        put(f"{RESOURCE}.status", "completed"),
        put(f"{RESOURCE}.status", "entered-in-error"),
        put(f"{RESOURCE}.doNotPerform", True),
        put(f"{RESOURCE}.medicationCodeableConcept", {"text": "paracetamol 500 mg"}),
    ],
)
def test_a_draft_that_gives_no_such_drug_is_silent(
    client: FlaskClient, path: str, change: Change
) -> None:
    assert answered(client, changed(BODIES[path](), change), path) == {"cards": []}


@requirement("FVR-05")
@BOTH
@pytest.mark.parametrize(
    "kind", ["MedicationOrder", "ProcedureRequest", "DeviceRequest", "NutritionOrder", "Future"]
)
def test_an_order_of_another_type_is_left_aside_and_said(
    client: FlaskClient, path: str, kind: str
) -> None:
    other = {"resourceType": kind, "id": "x1", "patient": {"reference": "Patient/p1"}}
    alone = changed(BODIES[path](), put(RESOURCE, other))
    beside = BODIES[path]()
    beside["context"]["draftOrders"]["entry"].insert(0, {"resource": other})

    assert answered(client, alone, path) == {"cards": []}
    assert shown(client, beside, path) == OWED[path]
    for body in (alone, beside):
        found = skipped(answered(client, body, EXPLAINS[path]))
        assert (DRAFTS, f"1 of a type that is not read: {kind}") in found


@requirement("HOK-05")
@BOTH
def test_another_patient_s_draft_is_left_aside_and_said(client: FlaskClient, path: str) -> None:
    body = changed(BODIES[path](), put(f"{RESOURCE}.subject.reference", "Patient/p2"))

    assert answered(client, body, path) == {"cards": []}
    found = answered(client, body, EXPLAINS[path])
    assert row(found)["used"] == 0
    assert ("MedicationRequest/d1", "belongs to another patient") in skipped(found, "*")


@BOTH
def test_what_is_drafted_is_no_record_of_anything(client: FlaskClient, path: str) -> None:
    """Osteoporosis drugs that ran would explain the low values; drafts of them never ran."""
    old = draft() | {"authoredOn": ago(900)}
    ran = old | {"id": "m1", "status": "active"}
    body = changed(BODIES[path](), put(RESOURCE, old))
    assert shown(client, body, path) == OWED[path]

    body["prefetch"]["medications"] = bundle([ran])
    assert answered(client, body, path) == {"cards": []}


# -- selections --------------------------------------------------------------------------------


@requirement("HOK-06")
@pytest.mark.parametrize(
    "selection",
    [
        "MedicationRequest/d1",
        "d1",
        f"{SERVER}/MedicationRequest/d1",
        "MedicationRequest/d1/_history/3",
        f"{SERVER}/MedicationRequest/d1/_history/3",
    ],
)
def test_a_selection_is_found_however_it_is_written(client: FlaskClient, selection: str) -> None:
    body = selecting(selections=[selection, selection])

    assert shown(client, body, SELECT) == OWED[SELECT]
    assert skipped(answered(client, body, EXPLAIN_SELECT)) == []


@requirement("HOK-06")
@pytest.mark.parametrize(
    "selection",
    [
        "MedicationRequest/d2",
        "ServiceRequest/d1",
        "d2",
        "",
        "/",
        "MedicationRequest/",
        "d1/",
        "\u2603",
    ],
)
def test_an_unknown_selection_is_ignored_and_said(client: FlaskClient, selection: str) -> None:
    body = selecting(selections=[selection])
    beside = selecting(selections=[selection, "MedicationRequest/d1"])

    assert answered(client, body, SELECT) == {"cards": []}
    assert shown(client, beside, SELECT) == OWED[SELECT]
    for sent in (body, beside):
        found = skipped(answered(client, sent, EXPLAIN_SELECT))
        assert found == [("context.selections[0]", "names no draft order that is read")]


@requirement("HOK-06")
def test_an_order_whose_id_is_only_in_its_full_url_can_be_selected(client: FlaskClient) -> None:
    for full_url, selection in (
        (f"{SERVER}/MedicationRequest/d1", "MedicationRequest/d1"),
        ("urn:uuid:6f0c8f4e-2c0b-4e0e-9d5e-0f7b6a1b9c11", "6f0c8f4e-2c0b-4e0e-9d5e-0f7b6a1b9c11"),
    ):
        body = selecting(selections=[selection])
        del body["context"]["draftOrders"]["entry"][0]["resource"]["id"]
        body["context"]["draftOrders"]["entry"][0]["fullUrl"] = full_url
        assert shown(client, body, SELECT) == OWED[SELECT]


@requirement("HOK-07")
def test_only_what_is_selected_is_spoken_of(client: FlaskClient) -> None:
    orders = draft(1), draft(2, "zoledronic acid 5 mg"), draft(3, "paracetamol 500 mg")
    for number, name in ((1, "alendronic acid 70 mg."), (2, "zoledronic acid 5 mg.")):
        body = selecting(*orders, selections=[f"MedicationRequest/d{number}"])
        found = answered(client, body, SELECT)
        assert about(found) == [[f"MedicationRequest/d{number}"]]
        assert named(found) == [name]
    for selections in (["MedicationRequest/d3"], []):
        body = selecting(*orders, selections=selections)
        assert answered(client, body, SELECT) == {"cards": []}


@requirement("HOK-07")
def test_at_signing_every_draft_is_spoken_of(client: FlaskClient) -> None:
    orders = draft(1), draft(2, "zoledronic acid 5 mg"), draft(3, "paracetamol 500 mg")
    found = answered(client, signing(*orders), SIGN)

    assert about(found) == [["MedicationRequest/d1", "MedicationRequest/d2"]]
    assert named(found) == ["alendronic acid 70 mg; zoledronic acid 5 mg."]


@requirement("HOK-01")
@pytest.mark.parametrize("value", [None, "absent"])
def test_a_selection_without_orders_and_orders_is_no_card_and_no_error(
    client: FlaskClient, value: object
) -> None:
    """The CDS Hooks Sandbox, when its tab is clicked again."""
    names = ("context.draftOrders", "context.selections")
    changes = [drop(x) if value == "absent" else put(x, None) for x in names]
    body = changed(selecting(), *changes)

    assert answered(client, body, SELECT) == {"cards": []}
    found = skipped(answered(client, body, EXPLAIN_SELECT))
    assert found == [(DRAFTS, "not sent, and no selections either")]


# -- what the drug is known by -----------------------------------------------------------------


def test_the_explanation_says_which_drafts_are_of_another_drug(client: FlaskClient) -> None:
    found = answered(client, signing(draft(), draft(2, "paracetamol 500 mg")), EXPLAIN_SIGN)

    assert rejected(found) == {("MedicationRequest/d2", "of another drug")}


@BOTH
@pytest.mark.parametrize(
    ("concept", "by"),
    [
        ({"text": "alendronic acid 70 mg"}, "words"),
        ({"coding": [{"display": "Alendronate"}]}, "words"),
        ({"coding": [{"system": NDC, "code": "00006-0031-44"}], "text": "alendronate"}, "words"),
        ({"coding": [{"system": RXNORM, "code": "904492"}]}, f"code {RXNORM}|904492"),
        (
            {"coding": [{"system": NDC, "code": "1"}, {"system": ATC, "code": "M05BA04"}]},
            f"code {ATC}|M05BA04",
        ),
        ({"coding": [{"system": ATC, "code": "M05BA99"}]}, f"group of codes {ATC}|M05BA99"),
    ],
)
def test_the_explanation_says_what_the_drug_is_known_by(
    client: FlaskClient, path: str, concept: Json, by: str
) -> None:
    body = changed(BODIES[path](), put(f"{RESOURCE}.medicationCodeableConcept", concept))

    assert shown(client, body, path) == OWED[path]
    assert known_by(answered(client, body, EXPLAINS[path])) == {by}


def test_a_code_of_the_site_makes_a_drug_known(client: FlaskClient, tmp_path: Path) -> None:
    """A product code that no list of ours holds."""
    site = tmp_path / "site.toml"
    site.write_text(
        f'[codes.med-bisphosphonate]\ncodings = [{{ system = "{NDC}", code = "00006-0031-44" }}]\n'
    )
    here = create_app(Settings(open=True, site_file=site), now=noon).test_client()
    concept = {"coding": [{"system": NDC, "code": "00006-0031-44"}]}
    body = changed(signing(), put(f"{RESOURCE}.medicationCodeableConcept", concept))

    assert answered(client, body, SIGN) == {"cards": []}
    assert shown(here, body, SIGN) == OWED[SIGN]
    assert known_by(answered(here, body, EXPLAIN_SIGN)) == {f"code {NDC}|00006-0031-44"}


MEDICATION = {"resourceType": "Medication", "id": "m1", "code": ORAL}
ENZYME = {
    "resourceType": "Medication",
    "id": "enzyme",
    "code": {"coding": [{"system": RXNORM, "code": "1720276"}]},
}


@BOTH
@pytest.mark.parametrize(
    ("order", "more"),
    [
        (without_drug(contained=[MEDICATION], medicationReference={"reference": "#m1"}), {}),
        (without_drug(contained=MEDICATION, medicationReference={"reference": "#m1"}), {}),
        (
            without_drug(medicationReference={"reference": "Medication/m1"}),
            {"resource": MEDICATION},
        ),
        (
            without_drug(medicationReference={"reference": f"{SERVER}/Medication/m1"}),
            {"fullUrl": f"{SERVER}/Medication/m1", "resource": MEDICATION},
        ),
        (
            without_drug(medicationReference={"reference": "urn:uuid:m1"}),
            {"fullUrl": "urn:uuid:m1", "resource": {"resourceType": "Medication", "code": ORAL}},
        ),
    ],
)
def test_a_medication_contained_or_beside_the_order_names_the_drug(
    client: FlaskClient, path: str, order: Json, more: Json
) -> None:
    body = changed(BODIES[path](), put(RESOURCE, order))
    if more:
        body["context"]["draftOrders"]["entry"].append(more)

    assert shown(client, body, path) == OWED[path]
    assert known_by(answered(client, body, EXPLAINS[path])) == {f"code {RXNORM}|904492"}


# -- a drug that only its reference names ------------------------------------------------------

BARE = {"reference": "Medication/m1"}


@pytest.fixture(scope="module")
def _drugs() -> Iterator[FhirServer]:
    held = {"resourceType": "Bundle", "entry": [{"resource": MEDICATION}, {"resource": ENZYME}]}
    with serving(lambda base: FhirEndpoint([held], base)) as server:
        yield server


@pytest.fixture
def drugs(_drugs: FhirServer) -> Iterator[FhirServer]:
    """A FHIR server that holds two Medications; as new for every test."""
    _drugs.reset()
    yield _drugs
    _drugs.reset()


@pytest.fixture(scope="module")
def reading_app(_drugs: FhirServer) -> Flask:
    return create_app(Settings(open=True, fhir_servers=(_drugs.base,), fetch_seconds=1), now=noon)


@pytest.fixture
def reading(reading_app: Flask) -> FlaskClient:
    """The open server that may read that FHIR server."""
    return reading_app.test_client()


KEYS = ("labs", "longterm", "medications", "administrations", "orders", "procedures", "encounters")


def prefetched(body: Json, drugs: FhirServer, **more: Any) -> Json:
    """The request with every key answered, so that nothing is left to fetch but drugs."""
    body["prefetch"] |= {"alp": body["prefetch"].pop("results")} | dict.fromkeys(KEYS)
    return {**body, "fhirServer": drugs.base, **more}


def recorded(reference: Json) -> Json:
    """A signing of a drug that low values speak against, were another not on record for years."""
    body = signing()
    taken = without_drug(medicationReference=reference) | {"id": "old", "status": "active"}
    body["prefetch"]["taken"] = bundle([taken | {"authoredOn": ago(900)}])
    return body


def ordered(reference: Json) -> Json:
    return signing(without_drug(medicationReference=reference))


@pytest.mark.parametrize(
    "reference", ["Medication/m1", "{base}/Medication/m1", "Medication/m1/_history/2"]
)
def test_a_draft_s_drug_is_fetched_by_its_reference(
    reading: FlaskClient, drugs: FhirServer, reference: str
) -> None:
    body = prefetched(ordered({"reference": reference.format(base=drugs.base)}), drugs)

    assert len(answered(reading, body, SIGN)["cards"]) == 1
    assert [x.path for x in drugs.asked] == ["/fhir/Medication/m1"]
    assert known_by(answered(reading, body, EXPLAIN_SIGN)) == {f"code {RXNORM}|904492"}


def test_a_selected_draft_s_drug_is_fetched_and_no_other(
    reading: FlaskClient, drugs: FhirServer
) -> None:
    other = without_drug(medicationReference={"reference": "Medication/m2"}) | {"id": "d2"}
    body = prefetched(selecting(without_drug(medicationReference=BARE), other), drugs)

    assert about(answered(reading, body, SELECT)) == [["MedicationRequest/d1"]]
    assert [x.path for x in drugs.asked] == ["/fhir/Medication/m1"]


def test_a_recorded_drug_is_fetched_by_its_reference(
    client: FlaskClient, reading: FlaskClient, drugs: FhirServer
) -> None:
    body = prefetched(recorded(BARE), drugs)

    assert len(answered(client, body, SIGN)["cards"]) == 1
    assert answered(reading, body, SIGN) == {"cards": []}
    assert [x.path for x in drugs.asked] == ["/fhir/Medication/m1"]


def test_the_explanation_says_what_a_recorded_drug_that_was_fetched_is_known_by(
    reading: FlaskClient, drugs: FhirServer
) -> None:
    body = prefetched(recorded({"reference": "Medication/enzyme"}), drugs)

    found = answered(reading, body, EXPLAIN_SIGN)
    assert cards_of(found) == ("antiresorptiveWithHypophosphatasia warning",)
    assert known_by(found, "MedicationRequest/old") == {f"code {RXNORM}|1720276"}


def test_one_drug_that_many_entries_name_is_fetched_once(
    reading: FlaskClient, drugs: FhirServer
) -> None:
    orders = [without_drug(medicationReference=BARE) | {"id": f"d{n}"} for n in range(25)]
    orders.append(without_drug(medicationReference={"reference": "Medication/enzyme"}))
    body = prefetched(signing(*orders), drugs)

    assert len(about(answered(reading, body, SIGN))[0]) == 25
    asked = sorted(x.path for x in drugs.asked)
    assert asked == ["/fhir/Medication/enzyme", "/fhir/Medication/m1"]


@pytest.mark.parametrize("made", [ordered, recorded])
def test_a_drug_whose_medication_was_sent_is_not_fetched(
    reading: FlaskClient, drugs: FhirServer, made: Callable[[Json], Json]
) -> None:
    beside, sent = made(BARE), made(BARE)
    beside["context"]["draftOrders"]["entry"].append({"resource": MEDICATION})
    sent["prefetch"]["drugs"] = bundle([MEDICATION])
    for body in (beside, sent):
        answered(reading, prefetched(body, drugs), SIGN)
    assert drugs.asked == []


def test_so_many_drugs_are_fetched_and_no_more(reading: FlaskClient, drugs: FhirServer) -> None:
    orders = [
        without_drug(medicationReference={"reference": f"Medication/x{n}"}) | {"id": f"d{n}"}
        for n in range(40)
    ]

    assert answered(reading, prefetched(signing(*orders), drugs), SIGN) == {"cards": []}
    assert len(drugs.asked) == 20


@requirement("FHR-06")
@pytest.mark.parametrize(
    "reference",
    [
        {**BARE, "display": "alendronic acid"},
        {"reference": "https://elsewhere.example/fhir/Medication/m1"},
        {"reference": "Medication/../Patient/m1"},
        {"reference": "Medication/m1?x=1"},
        {"reference": "Medication/"},
        {"reference": "Substance/m1"},
        {"reference": "#m1"},
        {"identifier": {"value": "m1"}},
    ],
)
def test_a_drug_that_is_named_or_lies_elsewhere_is_not_fetched(
    reading: FlaskClient, drugs: FhirServer, reference: Json
) -> None:
    for body in (ordered(reference), recorded(reference)):
        answered(reading, prefetched(body, drugs), SIGN)
    assert drugs.asked == []


def test_another_patient_s_drug_is_not_fetched(reading: FlaskClient, drugs: FhirServer) -> None:
    for body in (ordered(BARE), recorded(BARE)):
        theirs = json.loads(json.dumps(body).replace('"Patient/p1"', '"Patient/p2"'))
        theirs["prefetch"]["results"] = body["prefetch"]["results"]
        answered(reading, prefetched(theirs, drugs), SIGN)
    assert "Medication" not in drugs.types


@requirement("FHR-01")
def test_a_drug_is_not_fetched_from_a_server_that_is_not_listed(
    client: FlaskClient, drugs: FhirServer
) -> None:
    assert answered(client, prefetched(ordered(BARE), drugs), SIGN) == {"cards": []}
    assert drugs.asked == []


@requirement("FHR-02", "FHR-05", "FHR-10")
@pytest.mark.parametrize(
    ("scope", "seconds", "is_asked"),
    [
        ("user/*.read", 300, True),
        ("patient/Medication.rs", 300, True),
        ("system/Medication.r openid", 300, True),
        ("user/MedicationRequest.read user/Observation.read", 300, False),
        ("patient/Medication.s", 300, False),
        ("user/*.read", 0, False),
    ],
)
def test_a_drug_is_fetched_within_what_is_granted(
    reading: FlaskClient, drugs: FhirServer, scope: str, seconds: int, is_asked: bool
) -> None:
    grant = {**GRANT, "scope": scope, "expires_in": seconds}
    for body in (ordered(BARE), recorded(BARE)):
        drugs.asked.clear()
        answered(reading, prefetched(body, drugs, fhirAuthorization=grant), SIGN)
        assert [x.authorization for x in drugs.asked] == ["Bearer opaque"] * is_asked


OTHER = json.dumps({**MEDICATION, "id": "m2"}).encode()
FAULTS = {
    "not found": refuses(404),
    "an error": refuses(500),
    "forbidden": refuses(403),
    "half an answer": truncates,
    "no JSON": says(b"<html>"),
    "a list": says(b"[]"),
    "an outcome": says(b'{"resourceType":"OperationOutcome","issue":[]}'),
    "deep JSON": says(b"[" * 5000 + b"]" * 5000),
    "a redirection": redirects_to("https://elsewhere.example/fhir/Medication/m1"),
    "nothing in time": hangs,
}


@requirement("ERR-08", "FHR-11")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("made", [ordered, recorded])
def test_a_drug_that_cannot_be_fetched_is_said_and_costs_nothing_else(
    reading: FlaskClient,
    client: FlaskClient,
    drugs: FhirServer,
    made: Callable[[Json], Json],
    fault: str,
) -> None:
    drugs.faults["Medication"] = FAULTS[fault]
    body = prefetched(made(BARE), drugs)

    found = answered(reading, body, EXPLAIN_SIGN)
    assert without_uuids(found["cards"]) == without_uuids(answered(client, body, SIGN)["cards"])
    [(where, why)] = [x for x in skipped(found, "*") if x[0].startswith("Medication/")]
    assert where == "Medication/m1" and why.startswith("could not be fetched: ")


# -- the card ----------------------------------------------------------------------------------


@requirement("EXT-05", "EXT-01", "EXT-02")
@BOTH
def test_a_card_names_its_order_in_words_and_by_reference(client: FlaskClient, path: str) -> None:
    body = BODIES[path]()
    found = answered(client, body, path)

    assert named(found) == ["alendronic acid 70 mg."]
    assert [x["extension"] for x in found["cards"]] == [{ABOUT_ORDERS: ["MedicationRequest/d1"]}]
    sent = {f"{x['resourceType']}/{x['id']}" for x in orders_of(body)}
    assert {x for card in about(found) for x in card} <= sent


def orders_of(body: Json) -> list[Json]:
    return [x["resource"] for x in body["context"]["draftOrders"]["entry"]]


@requirement("EXT-05", "JSN-02")
@BOTH
@pytest.mark.parametrize("number", ["", " ", "a/b", "a b", "d1?x", "d1#x", "\u2028", None, 5])
def test_an_order_that_no_reference_can_hold_is_named_in_words_only(
    client: FlaskClient, path: str, number: object
) -> None:
    body = changed(BODIES[path](), put(f"{RESOURCE}.id", number))
    del body["context"]["draftOrders"]["entry"][0]["fullUrl"]
    if path == SELECT:
        body["context"]["selections"] = [str(number)]
    found = answered(client, body, path)

    if path == SELECT and number in ("", "a/b", None, 5):
        assert found == {"cards": []}  # it cannot be selected either
        return
    assert cards_of(found) == OWED[path]
    assert named(found) == ["alendronic acid 70 mg."]
    assert "extension" not in found["cards"][0]


@requirement("EXT-04")
@BOTH
def test_a_card_says_the_same_without_its_extension(client: FlaskClient, path: str) -> None:
    found = answered(client, BODIES[path](), path)
    for card in found["cards"]:
        del card["extension"]

    assert violations(found) == []
    assert named(found) == ["alendronic acid 70 mg."]


@requirement("ACT-07", "ACT-08")
@BOTH
def test_nothing_is_suggested_but_to_create(client: FlaskClient, path: str) -> None:
    body = BODIES[path]()
    found = answered(client, body, path)
    actions = [a for card in found["cards"] for x in card["suggestions"] for a in x["actions"]]

    assert actions and {x["type"] for x in actions} == {"create"}
    assert all("resourceId" not in x for x in actions)
    created = [x["id"] for x in drafts_of(found)]
    assert len({*created} | {x["id"] for x in orders_of(body)}) == len(created) + 1


@requirement("ACT-08")
@BOTH
def test_a_suggestion_that_was_taken_is_not_made_again(client: FlaskClient, path: str) -> None:
    body = BODIES[path]()
    first = [x["id"] for x in drafts_of(answered(client, body, path))]
    for taken in drafts_of(answered(client, body, path)):
        body["context"]["draftOrders"]["entry"].append({"resource": taken})
    again = answered(client, body, path)

    assert len(first) == 2 and cards_of(again) == OWED[path]
    assert [*drafts_of(again)] == []
    assert "**Done or on order:** " in again["cards"][0]["detail"]


@BOTH
@pytest.mark.parametrize(
    "more",
    [{"status": "draft"}, {"status": "active", "authoredOn": ago(1)}, {}, {"intent": "plan"}],
)
def test_a_test_that_is_drafted_beside_the_drug_is_not_suggested(
    client: FlaskClient, path: str, more: Json
) -> None:
    test = {
        "resourceType": "ServiceRequest",
        "id": "s1",
        "code": {"coding": [{"system": "http://loinc.org", "code": "6768-6"}]},
        "subject": {"reference": "Patient/p1"},
    }
    body = BODIES[path]()
    body["context"]["draftOrders"]["entry"].append({"resource": test | more})
    found = answered(client, body, path)

    assert [x["code"]["coding"][0]["code"] for x in drafts_of(found)] == ["62236-5"]
    assert about(found) == [["MedicationRequest/d1"]]


@requirement("CAR-02", "CAR-04")
@BOTH
@pytest.mark.parametrize("name", HOSTILE)
def test_an_order_s_name_is_live_nowhere(client: FlaskClient, path: str, name: str) -> None:
    drug = {**ORAL, "text": f"alendronic acid {HOSTILE[name]}"}
    body = changed(BODIES[path](), put(f"{RESOURCE}.medicationCodeableConcept", drug))
    found, plain = answered(client, body, path), answered(client, BODIES[path](), path)

    assert cards_of(found) == OWED[path]
    [card], [expected] = found["cards"], plain["cards"]
    assert card["summary"] == expected["summary"]
    assert live_in(card["detail"]) == []
    [line] = named(found)
    assert line.startswith("alendronic acid") and "\n" not in line and len(line) < 500


@requirement("PRF-06")
def test_the_service_at_selection_says_that_the_warning_comes_at_signing(
    client: FlaskClient,
) -> None:
    services = {x["hook"]: x for x in client.get("/cds-services").get_json()["services"]}

    said = services["order-select"]["usageRequirements"]
    assert services["order-sign"]["id"] in said and "at signing" in said


@requirement("TPL-04", "TPL-05", "TPL-07", "TPL-08")
def test_no_template_asks_for_what_the_context_may_not_give(client: FlaskClient) -> None:
    for service in client.get("/cds-services").get_json()["services"]:
        for template in service["prefetch"].values():
            assert template.count("{{") == template.count("{{context.patientId}}") == 1


# -- whose data --------------------------------------------------------------------------------


@requirement("PFD-12", "PFD-14")
@BOTH
def test_required_data_that_is_missing_is_412_as_at_any_hook(
    client: FlaskClient, path: str
) -> None:
    for key in ("patient", "results"):
        body = changed(BODIES[path](), drop(f"prefetch.{key}"))
        assert send(client, body, path).status_code == 412
        explained = answered(client, body, EXPLAINS[path])
        assert (explained["status"], row(explained)["used"]) == (412, 1)


@BOTH
def test_a_normal_alp_is_silence(client: FlaskClient, path: str) -> None:
    body = BODIES[path]()
    body["prefetch"]["results"] = bundle([alp(n, x, 5 + 40 * n) for n, x in enumerate(NORMAL)])

    assert answered(client, body, path) == {"cards": []}


def test_an_order_may_say_itself_what_it_is_for(client: FlaskClient) -> None:
    """Paget disease, where a low ALP is what the drug is given for: the card does not come."""
    paget = {"coding": [{"system": "http://snomed.info/sct", "code": "2089002"}]}
    listed = problem(7, "2089002", "Paget disease of bone") | {"id": "why"}
    for reason, more in (
        ({"reasonCode": [paget]}, None),
        ({"reasonCode": paget}, None),
        ({"reasonReference": [{"reference": "#why"}], "contained": [{**listed}]}, None),
        ({"reasonReference": [{"reference": "Condition/why"}]}, listed),
        ({"reasonReference": [{"display": "Paget disease of bone"}]}, None),
        ({"reasonReference": [{"display": "Paget disease of bone"}, {"display": "Pain"}]}, None),
        ({"reasonReference": [{"display": "Pain"}, {"display": "Paget disease of bone"}]}, None),
    ):
        orders = [draft() | reason, *([more] if more else [])]
        assert answered(client, signing(*orders), SIGN) == {"cards": []}, reason
