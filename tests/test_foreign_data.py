"""Data that nobody here wrote: every patient is answered, every topic has a verdict, and nothing is
lost without a word.
"""

import tomllib
from collections import Counter
from collections.abc import Callable
from datetime import date

import pytest
from flask.testing import FlaskClient

from tests.exchanges import (
    FIRES,
    SERVICE,
    TODAY,
    Change,
    Json,
    bundle,
    changed,
    send,
)
from tests.foreign_data import (
    DATA,
    OUTCOMES,
    PAGE,
    ROOT,
    Server,
    ahrq_request,
    bundles,
    called,
    entries_of,
    hl7_examples,
    page,
    rejected,
)
from tests.invariants import cards_of, without_uuids

requirement = pytest.mark.requirement
Whole = Callable[[str], Json]
SERVICE_FILE = ROOT / "hooks" / "alp_review" / "service.toml"
TOPICS = set(tomllib.loads(SERVICE_FILE.read_text("utf-8"))["precedence"]["order"])
BUNDLES = sorted(x.name.removesuffix(".json.gz") for x in (DATA / "bundles").glob("*.json.gz"))
BUNDLES.remove("ahrq-cdshooks-unhealthy")
KEY_OF = {
    **{"Condition": "conditions", "MedicationRequest": "medications", "Procedure": "procedures"},
    **{"MedicationAdministration": "administrations", "DiagnosticReport": "reports"},
    **{"ServiceRequest": "orders", "Encounter": "encounters", "Patient": "patient"},
}
HL7_TYPES = sorted({*KEY_OF, "Observation"} - {"MedicationAdministration", "Encounter"})


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


def reviewed(server: Server, body: Json, day: date = TODAY) -> Json:
    """The explanation of a call that is answered, and answered alike, with a verdict for every
    topic.
    """
    answer, explained = server.answer(SERVICE, body, day), server.explained(body, day)
    assert answer.status_code == explained["status"] == 200, answer.get_data(as_text=True)
    assert without_uuids(explained["cards"]) == without_uuids(answer.get_json()["cards"])
    assert explained["asOf"] == str(day)
    assert {x["topic"] for x in explained["verdicts"]} == TOPICS
    assert len(explained["verdicts"]) == len(TOPICS)
    for verdict in explained["verdicts"]:
        assert verdict["verdict"] in OUTCOMES
        assert verdict["reason"]["code"] and verdict["reason"]["text"]
    return explained


def count_of(value: Json) -> int:
    """How many resources a prefetch value holds."""
    return len(value.get("entry", [])) if value["resourceType"] == "Bundle" else 1


def aside(explained: Json) -> dict[str, list[str]]:
    """Where something belongs to no key, and why."""
    found: dict[str, list[str]] = {}
    for x in explained["data"]:
        for note in x["skipped"] if x["key"] == "*" else ():
            found.setdefault(note["where"], []).append(note["why"])
    return found


# -- through our own templates -----------------------------------------------------------------


@requirement("PFD-15", "ERR-08", "FVR-03")
@pytest.mark.parametrize("origin", [*BUNDLES, "hl7-r4-examples", "synthea"])
def test_every_patient_gets_a_verdict_for_every_topic(server: Server, origin: str) -> None:
    patients = [x for x in server.patients if x.origin == origin]
    assert bool(patients) == (origin not in WITHOUT_A_PATIENT)

    for patient in patients:
        for day in {patient.newest, TODAY}:
            explained = reviewed(server, patient.body(), day)
            used = {x["key"]: x["used"] for x in explained["data"] if x["key"] != "*"}
            assert used == {k: count_of(x) for k, x in patient.prefetch.items()}, patient.name
            assert aside(explained) == {}, patient.name


def test_there_are_as_many_patients_as_the_readme_says(server: Server) -> None:
    counted = Counter(x.origin for x in server.patients)

    assert counted.pop("synthea") == 40
    assert counted.pop("hl7-r4-examples") == 22
    assert set(counted.values()) == {1} and {*counted} == {*BUNDLES} - WITHOUT_A_PATIENT


# -- a whole Bundle under a name that nobody knows ---------------------------------------------

WITHOUT_A_PATIENT = {"hl7-ghp-lab-ALP", "hl7-lri", "hl7-nested-ALP-GGT"}
WITH_ALP = {"hl7-ghp-lab-ALP", "hl7-nested-ALP-GGT", "synthea-zwsp"}


def found_in(name: str) -> list[Json]:
    return [x["resource"] for x in entries_of(bundles()[name])]


def patient_of(name: str) -> str:
    """The id of the Patient of a Bundle, or of whom its results are about."""
    found = found_in(name)
    own = [x["id"] for x in found if x["resourceType"] == "Patient"]
    about = [x["subject"]["reference"] for x in found if "reference" in x.get("subject", {})]
    return str([*own, *about][0]).removeprefix("Patient/")


@requirement("PFD-15", "ERR-05")
@pytest.mark.parametrize("name", BUNDLES)
def test_a_whole_bundle_answers_what_it_holds_and_412_names_the_rest(
    server: Server, name: str
) -> None:
    answer = server.answer(SERVICE, called(patient_of(name), {"their chart": bundles()[name]}))
    lacking = {"patient"} if name in WITHOUT_A_PATIENT else set()
    lacking |= {"alp"} if name not in WITH_ALP else set()

    assert answer.status_code == (412 if lacking else 200)
    if lacking:
        said = answer.get_json()["issue"][0]["diagnostics"]
        assert {x for x in ("patient", "alp") if f"{x} (" in said} == lacking


@requirement("PFD-15", "FVR-05")
@pytest.mark.parametrize("name", BUNDLES)
def test_every_resource_of_a_whole_bundle_is_accounted_for(server: Server, name: str) -> None:
    explained = server.explained(called(patient_of(name), {"their chart": bundles()[name]}))
    used = {x["key"]: x["used"] for x in explained["data"]}
    others = aside(explained)

    assert {x["topic"] for x in explained["verdicts"]} == TOPICS
    for kind, sent in Counter(x["resourceType"] for x in found_in(name)).items():
        keys = ("alp", "labs") if kind == "Observation" else (KEY_OF.get(kind, ""),)
        accounted = sum(used.get(x, 0) for x in keys)
        accounted += sum(int(why.split()[0]) for why in others.get(kind, []) if why[0].isdigit())
        accounted += sum(where.startswith(f"{kind}/") for where in others)
        assert accounted == sent, kind


@requirement("PFD-15")
@pytest.mark.parametrize("name", sorted(WITHOUT_A_PATIENT & WITH_ALP))
def test_the_laboratory_reports_of_hl7_are_read_once_there_is_a_patient(
    server: Server, name: str
) -> None:
    about = {x["subject"]["reference"] for x in found_in(name) if "subject" in x}
    for reference in sorted(about):
        patient_id = reference.removeprefix("Patient/")
        patient = {"resourceType": "Patient", "id": patient_id, "birthDate": "1970-01-01"}
        body = called(patient_id, {"patient": patient, "their results": bundles()[name]})
        explained = reviewed(server, body)

        assert [x["used"] for x in explained["data"] if x["key"] == "alp"] != [0]


# -- strangers in a chart ----------------------------------------------------------------------


def with_entry(body: Json, resource: Json) -> Json:
    """The call with one more resource among its results."""
    labs = body["prefetch"]["labs"]
    more = {**labs, "entry": [*labs["entry"], {"resource": resource}]}
    return {**body, "prefetch": {**body["prefetch"], "labs": more}}


def cards(client: FlaskClient, body: Json) -> Json:
    answer = send(client, body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found: Json = without_uuids(answer.get_json())
    return found


@requirement("PFD-11", "FVR-03")
@pytest.mark.parametrize("kind", HL7_TYPES)
@pytest.mark.parametrize("name", ["low-alp-persistent", "mild-single-rise"])
def test_an_example_of_hl7_in_a_chart_changes_no_card(
    client: FlaskClient, whole: Whole, name: str, kind: str
) -> None:
    examples = [x for x in hl7_examples() if x["resourceType"] == kind]
    assert examples
    body = whole(name)
    expected = cards(client, body)
    assert bool(expected["cards"]) == (name == "low-alp-persistent")

    for example in examples:
        assert cards(client, with_entry(body, example)) == expected, example["id"]


@requirement("PFD-11")
def test_what_thirty_nine_others_have_changes_no_card(server: Server) -> None:
    [one] = [x for x in server.synthea if x.id.startswith("ebd50853")]
    day = date(2020, 6, 11)  # of the latest ALP
    theirs = [y for x in server.synthea if x is not one for y in x.prefetch["alp"]["entry"]]
    alp = {**one.prefetch["alp"], "entry": [*one.prefetch["alp"]["entry"], *theirs]}
    alone, among = (
        reviewed(server, called(one.id, {**one.prefetch, "alp": x}), day)
        for x in (one.prefetch["alp"], alp)
    )

    assert cards_of(alone) == ("raisedAlpSourceUnknown info",)
    assert without_uuids(among["cards"]) == without_uuids(alone["cards"])
    assert set(aside(among)) == {f"Observation/{x['resource']['id']}" for x in theirs}


@requirement("ERR-08", "FVR-03")
@pytest.mark.parametrize("kind", [x for x in HL7_TYPES if x != "Patient"])
def test_an_example_of_hl7_as_the_patient_s_own_is_read(
    client: FlaskClient, whole: Whole, kind: str
) -> None:
    body = whole("low-alp-persistent")
    for example in [x for x in hl7_examples() if x["resourceType"] == kind]:
        own = {**example, "subject": {"reference": "Patient/low-alp-persistent"}}
        cards(client, with_entry(body, own))


# -- another service's request, and older FHIR -------------------------------------------------


@requirement("PFD-12", "PFD-15")
def test_a_request_made_for_another_service_lacks_only_what_we_need(server: Server) -> None:
    answer, explained = server.answer(SERVICE, ahrq_request()), server.explained(ahrq_request())

    assert answer.status_code == explained["status"] == 412
    said = answer.get_json()["issue"][0]["diagnostics"]
    assert "alp (" in said and "patient (" not in said
    had = {x["key"]: x["used"] for x in explained["data"] if x.get("by") == "inferred"}
    assert had == {"patient": 1, "conditions": 1}


@requirement("PFD-15")
def test_that_request_with_the_empty_answer_to_our_key_is_answered(server: Server) -> None:
    body = ahrq_request()
    body["prefetch"]["alp"] = bundle([])

    assert reviewed(server, body)["cards"] == []


def results_of(body: Json) -> list[Json]:
    return [x["resource"] for x in body["prefetch"]["results"]["entry"]]


def without_status(body: Json) -> None:
    for x in results_of(body):
        del x["status"]


def with_units_in_words(body: Json) -> None:
    for x in results_of(body):
        x["valueQuantity"] = {"value": x["valueQuantity"]["value"], "unit": "units per litre"}


def with_values_in_words(body: Json) -> None:
    for x in results_of(body):
        x["valueString"] = f"{x.pop('valueQuantity')['value']} U/L"


def with_dates_as_in_dstu1(body: Json) -> None:
    for x in results_of(body):
        x["appliesDateTime"] = x.pop("effectiveDateTime")


def as_in_dstu2(body: Json) -> None:
    """Codes and objects where R4 has concepts and lists, other names, and types that went."""
    for x in results_of(body):
        x |= {"category": x["category"][0], "comments": "repeated"}
    for entry in body["prefetch"]["conditions"]["entry"]:
        x = entry["resource"]
        x |= {"clinicalStatus": "active", "verificationStatus": "confirmed"}
        x["patient"], x["dateRecorded"] = x.pop("subject"), x.pop("recordedDate")
    of_p1 = {"status": "active", "patient": {"reference": "Patient/p1"}}
    drug = {"medicationCodeableConcept": {"text": "Alendronate 70 mg"}, "dateWritten": "2026-10-01"}
    orders = [
        {"resourceType": "MedicationOrder", "id": "m1", **of_p1, **drug},
        {"resourceType": "DiagnosticOrder", "id": "d1", **of_p1},
        {"resourceType": "ProcedureRequest", "id": "r1", **of_p1},
    ]
    body["prefetch"]["their orders"] = bundle(orders)


@requirement("FVR-03", "FVR-05", "ERR-08")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_status, "status not known"),
        (with_units_in_words, "unit not known"),
        (with_values_in_words, "no usable number"),
        (with_dates_as_in_dstu1, "no usable date"),
    ],
)
def test_results_of_another_fhir_version_are_silence_that_says_why(
    server: Server, change: Change, why: str
) -> None:
    explained = reviewed(server, changed(change))
    [verdict] = [x for x in explained["verdicts"] if x["topic"] == "lowAlpPersistent"]

    assert explained["cards"] == []
    assert verdict["verdict"] == "data-unusable"
    assert rejected(verdict["evidence"]) == {(f"Observation/o{n}", why) for n in range(4)}


@requirement("FVR-03", "FVR-05")
def test_what_older_versions_name_otherwise_is_left_aside_and_named(server: Server) -> None:
    body = changed(as_in_dstu2)
    explained = reviewed(server, body)

    assert cards_of(explained) == cards_of(reviewed(server, changed())) == FIRES
    gone = ("MedicationOrder", "DiagnosticOrder", "ProcedureRequest")
    assert aside(explained) == {x: ["1 of a type that is not read"] for x in gone}
    noted = {x["why"] for key in explained["data"] for x in key["skipped"] if key["key"] != "*"}
    assert noted == {"wrong shape, read as absent"}


# -- the page ----------------------------------------------------------------------------------


def test_the_tables_of_the_page_are_what_synthea_gets(server: Server) -> None:
    is_current = page(server, PAGE.read_text("utf-8")) == PAGE.read_text("utf-8")
    assert is_current, "docs/testing.md is out of date; write it anew with: make verdicts"
