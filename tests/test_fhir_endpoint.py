"""The read-only FHIR endpoint: search, paging, reads, and an answer for whatever is asked."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.operationoutcome import OperationOutcome
from hypothesis import given
from hypothesis import strategies as st

from cds_service.fhir_endpoint import FhirEndpoint, load_patients

BASE = "http://127.0.0.1:8000/fhir"
FOLDER = Path(__file__).parent.parent / "fixtures" / "patients"
HOST = "https://elsewhere.example/r4"
LOINC = "http://loinc.org"


def entry(kind: str, identity: str, subject: str | None = None, **elements: Any) -> dict[str, Any]:
    about = {} if subject is None else {"subject": {"reference": subject}}
    resource = {"resourceType": kind, "id": identity, **about, **elements}
    return {"fullUrl": f"{HOST}/{kind}/{identity}", "resource": resource}


def coded(tokens: str) -> dict[str, Any]:
    """A concept with a coding for each system|code of the text."""
    pairs = [token.rpartition("|")[::2] for token in tokens.split()]
    return {"coding": [{"system": x, "code": y} if x else {"code": y} for x, y in pairs]}


def result(identity: str, subject: str, tokens: str, **elements: Any) -> dict[str, Any]:
    return entry("Observation", identity, subject, code=coded(tokens), **elements)


def drug(kind: str, identity: str, **elements: Any) -> dict[str, Any]:
    return entry(kind, identity, P1, medicationCodeableConcept=coded("urn:drugs|d1"), **elements)


P1 = "Patient/p1"
LAB, VITAL = [coded("urn:cat|laboratory")], [coded("urn:cat|vital-signs")]
ACTIVE, RESOLVED = coded("urn:st|active"), coded("urn:st|resolved")
MORNING = {"start": "2025-05-02T08:00:00Z"}
AMENDED = {"status": "amended", "effectiveDateTime": "2025-05-02T09:00:00Z"}
ONE = {
    "entry": [
        entry("Patient", "p1"),
        result("o1", P1, f"{LOINC}|1", category=LAB, status="final", effectiveDateTime="2025-03"),
        result("o2", f"{HOST}/{P1}", f"{LOINC}|2 urn:local|1", category=LAB, **AMENDED),
        result("o3", f"{P1}/_history/4", "1", category=VITAL, status="final"),
        result("o4", P1, f"{LOINC}|3,4", status="final", effectivePeriod=MORNING),
        result("o5", P1, f"{LOINC}|5", effectiveInstant="2025-04-30T10:00:00Z"),
        entry("Condition", "c1", P1, code=coded("urn:dx|a"), clinicalStatus=ACTIVE),
        entry("Condition", "c2", P1, clinicalStatus=RESOLVED),
        drug("MedicationRequest", "m1", status="completed", authoredOn="2024-01-01"),
        drug("MedicationRequest", "m2", status="active", authoredOn="2025-01-01"),
        drug("MedicationAdministration", "a1", effectivePeriod={"end": "2025-06-01"}),
        drug("MedicationAdministration", "a2", effectiveDateTime="2025-07-01"),
        entry("ServiceRequest", "s1", P1, status="draft", authoredOn="2025-02-02"),
        entry("ServiceRequest", "s2", P1, status="revoked", authoredOn="2025-02-03"),
        entry("Procedure", "r1", P1, performedDateTime="2024"),
        entry("Procedure", "r2", P1, performedPeriod={"start": "2025-01-01"}),
        entry("Encounter", "e1", P1, period={"start": "2024-01-01"}),
        entry("Encounter", "e2", P1, period={"start": "2025-01-01"}),
        entry("DiagnosticReport", "d1", P1, category=LAB),
        entry("DiagnosticReport", "d2", category=LAB),
        entry("Slot", "x1"),
    ]
}
TWO = {
    "entry": [
        entry("Patient", "p2"),
        result("o6", "Patient/p2", f"{LOINC}|1", effectiveDateTime="2025-03-15"),
    ]
}
SMALL = FhirEndpoint([ONE, TWO], BASE + "/")
REAL = FhirEndpoint([x.bundle for x in load_patients(FOLDER, date(2026, 11, 24))], BASE)


def asked(
    endpoint: FhirEndpoint, target: str, body: bytes | None = None
) -> tuple[int, dict[str, Any]]:
    path, _, query = target.partition("?")
    method = "GET" if body is None else "POST"
    status, answer = endpoint.answer(method, path, query, body or b"")
    found: dict[str, Any] = json.loads(answer)
    return status, found


def ids(bundle: dict[str, Any]) -> list[str]:
    return [x["resource"]["id"] for x in bundle.get("entry", [])]


def link(bundle: dict[str, Any], relation: str) -> str | None:
    return next((x["url"] for x in bundle["link"] if x["relation"] == relation), None)


def pages(endpoint: FhirEndpoint, target: str) -> Iterator[dict[str, Any]]:
    """Each page, by the links the pages give."""
    url: str | None = f"{BASE}/{target}"
    for _ in range(100):
        assert url is not None
        assert url.startswith(f"{BASE}/")
        assert url.count("_offset") <= 1
        status, page = asked(endpoint, url.removeprefix(f"{BASE}/"))
        assert status == 200
        yield page
        url = link(page, "next")
        if url is None:
            return
    pytest.fail("the pages do not end")


ALL = "o1 o2 o3 o4 o5 o6"
SEARCHES = [
    ("Observation", ALL),
    ("Patient", "p1 p2"),
    ("Patient?_id=p2", "p2"),
    ("Patient?_id=p2,p1,p9", "p1 p2"),
    ("Observation?patient=p1", "o1 o2 o3 o4 o5"),
    ("Observation?patient=Patient/p1", "o1 o2 o3 o4 o5"),
    ("Observation?patient=Patient%2Fp1", "o1 o2 o3 o4 o5"),
    (f"Observation?patient={BASE}/Patient/p2", "o6"),
    (f"Observation?patient={HOST}/Patient/p2", "o6"),
    ("Observation?patient=https://third.example/Patient/p2", ""),
    ("Observation?subject=p2", "o6"),
    ("Observation?subject=Patient/p2", "o6"),
    ("Observation?subject=Group/p2", ""),
    ("Observation?patient=p1,p2", ALL),
    ("Observation?patient=p1&patient=p2", ""),
    ("Observation?patient=p", ""),
    ("DiagnosticReport?patient=", "d1 d2"),
    ("DiagnosticReport?patient=Patient/", ""),
    ("Observation?code=1", "o1 o2 o3 o6"),
    ("Observation?code=http://loinc.org|1", "o1 o6"),
    ("Observation?code=http%3A%2F%2Floinc.org%7C1", "o1 o6"),
    ("Observation?code=|1", "o3"),
    ("Observation?code=%7C1", "o3"),
    ("Observation?code=urn:local|1", "o2"),
    ("Observation?code=urn:local|", "o2"),
    ("Observation?code=urn:other|1", ""),
    ("Observation?code=|", ""),
    ("Observation?code=2,urn:local|9,5", "o2 o5"),
    ("Observation?code=2%2C5", "o2 o5"),
    ("Observation?code=1&code=2", "o2"),
    ("Observation?code=3\\,4", "o4"),
    ("Observation?code=3,4", ""),
    ("Observation?category=laboratory", "o1 o2"),
    ("Observation?category=urn:cat|vital-signs", "o3"),
    ("Observation?status=final", "o1 o3 o4"),
    ("Observation?status=final,amended", "o1 o2 o3 o4"),
    ("Observation?status=urn:any|amended", "o2"),
    ("Observation?_id=o4", "o4"),
    ("Observation?patient=p1&code=1&status=final", "o1 o3"),
    ("Observation?_format=json&_pretty=true&_elements=id&_total=accurate&_summary=text", ALL),
    ("Observation?date=2025-05-02", "o2"),
    ("Observation?date=ge2025-04-30", "o2 o4 o5"),
    ("Observation?date=gt2025-04-30&date=lt2025-05-03", "o2 o4"),
    ("Observation?date=le2025-03-15", "o1 o6"),
    ("Observation?date=lt2025-03-15", "o1"),
    ("Observation?date=gt2025-03-15&date=eb2025-05", "o1 o5"),
    ("Observation?date=2025-03", "o1 o6"),
    ("Observation?date=eq2025-03-15", "o6"),
    ("Observation?date=ne2025-03", "o2 o4 o5"),
    ("Observation?date=sa2025-05", ""),
    ("Observation?date=sa2025-03", "o2 o4 o5"),
    ("Observation?date=2025-03-15,2025-04-30", "o5 o6"),
    ("Observation?date=ge2025-04-30T10:00:00Z", "o2 o4 o5"),
    ("Encounter?date=ge2026-01-01", "e1 e2"),
    ("Encounter?date=lt2024-06", "e1"),
    ("MedicationRequest?authoredon=lt2024-06", "m1"),
    ("MedicationAdministration?effective-time=eb2025-06-15", "a1"),
    ("ServiceRequest?authored=2025-02-03", "s2"),
    ("Condition?clinical-status=active", "c1"),
    ("Condition?clinical-status=urn:st|resolved", "c2"),
    ("Condition?code=a", "c1"),
    ("MedicationRequest?code=urn:drugs|d1", "m1 m2"),
    ("MedicationRequest?code=d2", ""),
    ("MedicationRequest?status=active", "m2"),
    ("ServiceRequest?status=active,draft,on-hold", "s1"),
    ("Observation?_sort=date", "o1 o6 o5 o4 o2 o3"),
    ("Observation?_sort=-date", "o2 o4 o5 o6 o1 o3"),
    ("Observation?_sort=_lastUpdated", ALL),
    ("Observation?_sort=-_lastUpdated", ALL),
    ("Observation?_sort=-_lastUpdated,date", "o1 o6 o5 o4 o2 o3"),
    ("Observation?_sort=", ALL),
    ("MedicationRequest?_sort=-authoredon", "m2 m1"),
    ("MedicationRequest?_sort=authoredon", "m1 m2"),
    ("MedicationAdministration?_sort=-effective-time", "a2 a1"),
    ("MedicationAdministration?_sort=effective-time", "a1 a2"),
    ("ServiceRequest?_sort=-authored", "s2 s1"),
    ("Procedure?_sort=-date", "r2 r1"),
    ("Procedure?_sort=date", "r1 r2"),
    ("Encounter?_sort=-date", "e2 e1"),
    ("Slot?patient=p1", ""),
    ("Slot", "x1"),
    ("Medication", ""),
    ("MedicationStatement?patient=p1", ""),
    ("AllergyIntolerance?patient=p1", ""),
]


@pytest.mark.parametrize(("target", "expected"), SEARCHES)
def test_a_search_finds_what_it_asks_for_and_no_more(target: str, expected: str) -> None:
    status, bundle = asked(SMALL, target)

    assert status == 200
    assert ids(bundle) == expected.split()
    assert bundle["total"] == len(expected.split())
    assert ("entry" in bundle) == bool(expected)  # FHIR has no empty list


@pytest.mark.parametrize(("target", "expected"), SEARCHES)
def test_a_search_by_form_finds_the_same(target: str, expected: str) -> None:
    kind, _, query = target.partition("?")

    assert asked(SMALL, f"{kind}/_search", query.encode()) == asked(SMALL, target)


@pytest.mark.parametrize(
    ("query", "form", "expected"),
    [
        ("patient=p2", b"patient=p1&code=2", "o2"),
        ("patient=p1", b"code=2", "o2"),
        ("code=1&code=2", b"code=5", "o5"),
        ("", b"patient=p1&_sort=-date&_count=2", "o2 o4"),
        ("patient=p2", b"", "o6"),
        ("", b"patient=Patient%2Fp2&_format=%C3%A9+x", "o6"),
    ],
)
def test_the_form_wins_over_the_query_and_the_rest_is_merged(
    query: str, form: bytes, expected: str
) -> None:
    _, bundle = asked(SMALL, f"Observation/_search?{query}", form)

    assert ids(bundle) == expected.split()


@pytest.mark.parametrize(
    ("page_size", "target", "sizes"),
    [
        (None, "Observation", [6]),
        (None, "Observation?_count=2", [2, 2, 2]),
        (None, "Observation?_count=4&_sort=-date", [4, 2]),
        (None, "Observation?_count=6", [6]),
        (None, "Observation?_count=99", [6]),
        (2, "Observation?_sort=-date", [2, 2, 2]),
        (2, "Observation?_count=500&patient=p1&_sort=date", [2, 2, 1]),
        (2, "Observation?_count=1", [1] * 6),
        (2, "Patient", [2]),
        (None, "Observation?_count=" + "9" * 5000, [6]),
        (2, "Observation?code=http%3A%2F%2Floinc.org%7C1,3%5C,4,5&_sort=-date", [2, 2]),
    ],
)
def test_pages_hold_every_match_once_in_order(
    page_size: int | None, target: str, sizes: list[int]
) -> None:
    found = list(pages(FhirEndpoint([ONE, TWO], BASE, page_size), target))
    whole = ids(asked(SMALL, target.replace("_count", "_total"))[1])

    assert [len(ids(page)) for page in found] == sizes
    assert [x for page in found for x in ids(page)] == whole
    assert {page["total"] for page in found} == {len(whole)}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("Observation?_count=0", ""),
        ("Observation?_summary=count", ""),
        ("Observation?_summary=count&_count=2", ""),
        ("Observation?_offset=4", "o5 o6"),
        ("Observation?_offset=99", ""),
    ],
)
def test_a_last_page_has_no_next_link(target: str, expected: str) -> None:
    _, bundle = asked(SMALL, target)

    assert ids(bundle) == expected.split()
    assert bundle["total"] == 6
    assert link(bundle, "next") is None


def test_the_charts_by_two_are_the_charts() -> None:
    by_two = FhirEndpoint([x.bundle for x in load_patients(FOLDER, date(2026, 11, 24))], BASE, 2)
    target = "Observation?patient=after-cardiac-surgery&category=laboratory&_sort=-date&_count=400"
    collected = [x for page in pages(by_two, target) for x in ids(page)]

    assert collected == ids(asked(REAL, target)[1])
    assert len(collected) == len(set(collected)) > 20


def test_a_search_by_form_pages_by_absolute_links() -> None:
    endpoint = FhirEndpoint([ONE, TWO], BASE, 2)
    _, first = asked(endpoint, "Observation/_search", b"patient=p1&_sort=-date")
    url = link(first, "next")

    assert url is not None
    assert url.startswith(f"{BASE}/Observation?")
    assert ids(asked(endpoint, url.removeprefix(f"{BASE}/"))[1]) == ["o5", "o1"]


def test_the_self_link_says_what_was_used() -> None:
    _, bundle = asked(SMALL, "Observation?code=|1&_pretty=x&_sort=-date")

    assert link(bundle, "self") == f"{BASE}/Observation?code=%7C1&_sort=-date"


def test_a_match_has_its_url_here_and_its_mode() -> None:
    _, bundle = asked(SMALL, "Patient?_id=p1")

    assert bundle["entry"][0]["fullUrl"] == f"{BASE}/Patient/p1"
    assert bundle["entry"][0]["search"] == {"mode": "match"}


@pytest.mark.parametrize("kind", ["Patient", "Observation", "Condition", "Medication", "Encounter"])
def test_a_search_answers_a_valid_searchset(kind: str) -> None:
    _, bundle = asked(REAL, kind)

    assert Bundle.model_validate(bundle).type == "searchset"


@pytest.mark.parametrize("path", ["Patient/p1", "/Patient/p1", "Patient/p1/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_answers_the_resource(method: str, path: str) -> None:
    status, body = SMALL.answer(method, path, "")

    assert status == 200
    assert json.loads(body) == {"resourceType": "Patient", "id": "p1"}


def test_metadata_declares_version_types_and_parameters() -> None:
    status, found = asked(SMALL, "metadata")
    declared = {
        x["type"]: {y["name"]: y["type"] for y in x["searchParam"]}
        for x in found["rest"][0]["resource"]
    }

    assert status == 200
    CapabilityStatement.model_validate(found)
    assert found["fhirVersion"] == "4.0.1"
    assert declared["Observation"] == {
        **{"_id": "token", "patient": "reference", "subject": "reference"},
        **{"code": "token", "category": "token", "status": "token", "date": "date"},
    }
    assert "clinical-status" in declared["Condition"]
    assert declared["Patient"] == {"_id": "token"}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "Patient/p9", 404),
        ("GET", "Observation/p1", 404),
        ("GET", "Nothing", 404),
        ("GET", "Nothing/1", 404),
        ("GET", "patient/p1", 404),
        ("GET", "Patient/p1/_history/1", 404),
        ("GET", "Patient/_search", 404),
        ("POST", "Nothing/_search", 404),
        ("GET", "Observation?code:in=x", 400),
        ("GET", "Observation?patient:missing=true", 400),
        ("GET", "Observation?_count=abc", 400),
        ("GET", "Observation?_count=-1", 400),
        ("GET", "Observation?_count=1.5", 400),
        ("GET", "Observation?_count=\uff11", 400),
        ("GET", "Observation?_offset=-1", 400),
        ("GET", "Observation?_summary=most", 400),
        ("GET", "Observation?date=soon", 400),
        ("GET", "Observation?date=ge2026-13-01", 400),
        ("GET", "Observation?date=ap2026-01-01", 400),
        ("GET", "Observation?date=2026-01-01,", 400),
        ("GET", "Observation?date:missing=true", 400),
        ("GET", "Observation?unheard-of=1", 400),
        ("GET", "Observation?clinical-status=active", 400),
        ("GET", "Observation?_include=Observation:patient", 400),
        ("GET", "Observation?_lastUpdated=ge2026-01-01", 400),
        ("GET", "Condition?status=active", 400),
        ("GET", "Patient?name=a", 400),
        ("GET", "Patient?date=2026-01-01", 400),
        ("POST", "Patient", 405),
        ("POST", "Patient/p1", 405),
        ("POST", "_search", 405),
        ("POST", "metadata", 405),
        ("PUT", "Patient/p1", 405),
        ("PATCH", "Patient/p1", 405),
        ("DELETE", "Patient/p1", 405),
        ("get", "Patient/p1", 405),
    ],
)
def test_what_cannot_be_answered_is_an_operation_outcome(
    method: str, target: str, status: int
) -> None:
    path, _, query = target.partition("?")
    found, body = SMALL.answer(method, path, query)

    assert found == status
    assert OperationOutcome.model_validate_json(body).issue[0].severity == "error"


@pytest.mark.parametrize("prefer", ["handling=lenient", "respond-async, handling = Lenient"])
def test_what_is_not_supported_is_left_out_where_the_client_prefers_that(prefer: str) -> None:
    status, body = SMALL.answer("GET", "Patient", "name=Nobody&_count=1", b"", prefer)

    assert (status, ids(json.loads(body))) == (200, ["p1"])
    assert link(json.loads(body), "self") == f"{BASE}/Patient?_count=1"
    for query in ("_count=abc", "_id:not=p1"):
        assert SMALL.answer("GET", "Patient", query, b"", prefer)[0] == 400


@pytest.mark.parametrize("prefer", ["", "handling=strict", "return=minimal"])
def test_what_is_not_supported_is_refused_with_what_is(prefer: str) -> None:
    status, body = SMALL.answer("POST", "Patient/_search", "", b"name=Nobody", prefer)

    assert status == 400
    assert "_id" in json.loads(body)["issue"][0]["diagnostics"]
    assert b"Nobody" not in body


def test_the_base_answers_what_metadata_answers() -> None:
    assert SMALL.answer("GET", "", "") == SMALL.answer("GET", "metadata", "")


def test_two_resources_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="Patient/p1"):
        FhirEndpoint([ONE, ONE], BASE)


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("code=%ff%fe", b""),
        ("code=x", b"_format=\xff"),
        ("code=\ud800", b""),
        ("_id=\ud800&_count=1", b"_sort=\xff"),
        ("", "code=\ud800".encode("utf-8", "surrogatepass")),
    ],
)
def test_text_that_is_no_utf8_finds_nothing(query: str, body: bytes) -> None:
    status, answer = SMALL.answer("POST", "Observation/_search", query, body)

    assert status == 200
    assert json.loads(answer)["total"] == 0


ODD_TEXT = st.one_of(
    st.text(),
    st.text(st.characters(categories=["Cs", "Cc", "Nd"])),
    st.sampled_from(
        ["%", "%ff%fe", "&&=", ";", "|", "\\,", "_count=\uff11", "_offset=-1", "[x]=1"]
    ),
)
KNOWN = st.sampled_from(["Patient", "Observation", "metadata", "Observation/_search", "_search"])
NAMES = st.sampled_from(
    ["patient", "subject", "code", "status", "_id", "_sort", "_count", "_offset"]
)
QUERIES = st.one_of(
    ODD_TEXT,
    st.lists(st.tuples(NAMES, ODD_TEXT)).map(lambda pairs: "&".join(f"{a}={b}" for a, b in pairs)),
)


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", ""]),
    st.one_of(KNOWN, ODD_TEXT, st.lists(ODD_TEXT).map("/".join)),
    QUERIES,
    st.one_of(st.binary(), QUERIES.map(lambda text: text.encode("utf-8", "surrogatepass"))),
)
def test_nothing_that_is_asked_raises(method: str, path: str, query: str, body: bytes) -> None:
    status, answer = SMALL.answer(method, path, query, body)

    assert status in (200, 400, 404, 405)
    assert json.loads(answer)["resourceType"]
