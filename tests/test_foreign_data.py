"""Data that nobody here wrote: every patient is answered, every topic has a verdict, and nothing is
lost without a word.
"""

import tomllib
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from datetime import date
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.exchanges import (
    EXPLAIN,
    RESULTS,
    SERVICE,
    TODAY,
    Change,
    Json,
    add,
    bundle,
    changed,
    on_every_alp,
    put,
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
)
from tests.invariants import without_uuids

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
    lacking = {"patient"} & ({"patient"} if name in WITHOUT_A_PATIENT else set())
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
