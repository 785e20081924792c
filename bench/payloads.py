"""Patient-view requests of four sizes, dated to a day, and charts of any size: a woman of 68, whose
ALP is low again and again, or normal, beside common results and problems.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

Json = dict[str, Any]

FIRES = "lowAlpPersistent"  # what a firing request is answered with, and nothing else
PATIENT = "p1"
_EHR = "https://ehr.example.org/fhir"
_LOW, _NORMAL = (28.0, 29.0, 27.0, 28.5), (71.0, 68.0, 66.0, 70.0)
_DAYS = 7000  # results go back so far, and then begin anew at another hour
_OTHERS = (
    ("2160-0", "Creatinine", "mg/dL", 0.9),
    ("17861-6", "Calcium", "mg/dL", 9.4),
    ("718-7", "Hemoglobin", "g/dL", 13.1),
    ("2885-2", "Protein total", "g/dL", 7.2),
    ("1751-7", "Albumin", "g/dL", 4.1),
    ("2777-1", "Phosphate", "mg/dL", 3.9),
    ("1742-6", "ALT", "U/L", 22.0),
    ("1920-8", "AST", "U/L", 25.0),
    ("1975-2", "Bilirubin total", "mg/dL", 0.6),
)
_PROBLEMS = (
    ("38341003", "Hypertensive disorder"),
    ("44054006", "Diabetes mellitus type 2"),
    ("13645005", "COPD"),
    ("55822004", "Hyperlipidemia"),
    ("90560007", "Gout"),
    ("195967001", "Asthma"),
)


@dataclass(frozen=True)
class Size:
    """How much a chart holds."""

    name: str
    alp: int
    others: int
    problems: int

    @property
    def observations(self) -> int:
        return self.alp + self.others


SIZES = (
    Size("small", 2, 0, 1),
    Size("typical", 4, 20, 6),
    Size("large", 20, 180, 40),
    Size("xl", 50, 950, 100),
)
TYPICAL = SIZES[1]


@dataclass(frozen=True)
class Payload:
    """A request; whether it is owed the card FIRES, or none."""

    name: str
    fires: bool
    body: bytes

    @property
    def cards(self) -> list[str]:
        """The topics of the cards that it is owed."""
        return [FIRES] if self.fires else []


def payloads(today: date) -> Iterator[Payload]:
    """Each size, once firing and once quiet."""
    for fires in (True, False):
        for size in SIZES:
            name = f"{size.name}, {'firing' if fires else 'quiet'}"
            yield Payload(name, fires, request(size, fires, today))


def chart_of(observations: int, today: date) -> Payload:
    """A firing request with so many observations, one in twenty an ALP; two at least."""
    alp = max(2, observations // 20)
    size = Size("chart", alp, observations - alp, 6)
    return Payload(f"{observations} observations", True, request(size, True, today))


def request(size: Size, fires: bool, today: date) -> bytes:
    """A patient-view request with the chart prefetched, under a site's own keys."""
    patient, results, problems = chart(size, fires, today)
    prefetch = {
        "patient": patient,
        "observations": _bundle(results),
        "conditions": _bundle(problems),
    }
    return _encoded({**_call(), "prefetch": prefetch})


def to_fetch(base: str) -> Payload:
    """A request without data: all is to be read from a FHIR server that has the firing chart."""
    return Payload("fetched", True, _encoded({**_call(), "fhirServer": base}))


def chart(size: Size, fires: bool, today: date) -> tuple[Json, list[Json], list[Json]]:
    """The patient, the results and the problems of a chart."""
    born = str(date(today.year - 68, today.month, 1))
    name = [{"family": "Test", "given": ["Pat"]}]
    patient = {
        "resourceType": "Patient",
        "id": PATIENT,
        "gender": "female",
        "birthDate": born,
        "name": name,
    }
    results = list(_results(size, fires, today))
    problems = [_problem(n, *_PROBLEMS[n % len(_PROBLEMS)], today) for n in range(size.problems)]
    return patient, results, problems


def _call() -> Json:
    return {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/dr1", "patientId": PATIENT, "encounterId": "e1"},
    }


def _results(size: Size, fires: bool, today: date) -> Iterator[Json]:
    values = _LOW if fires else _NORMAL
    for n in range(size.alp):
        value = values[n % len(values)]
        yield _result(n, ("6768-6", "Alkaline phosphatase", "U/L", value), 40 * n, today)
    for n in range(size.others):
        yield _result(size.alp + n, _OTHERS[n % len(_OTHERS)], 7 * n, today)


def _result(number: int, of: tuple[str, str, str, float], days: int, today: date) -> Json:
    """A laboratory Observation; the newest of a kind is five days old."""
    code, name, unit, value = of
    category = "http://terminology.hl7.org/CodeSystem/observation-category"
    day, hour = today - timedelta(days=5 + days % _DAYS), 8 + days // _DAYS
    quantity = {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "category": [{"coding": [{"system": category, "code": "laboratory"}]}],
        "code": {
            "coding": [{"system": "http://loinc.org", "code": code, "display": name}],
            "text": name,
        },
        "subject": {"reference": f"Patient/{PATIENT}"},
        "effectiveDateTime": f"{day}T{hour % 24:02}:00:00Z",
        "valueQuantity": quantity,
    }


def _problem(number: int, code: str, name: str, today: date) -> Json:
    status = "http://terminology.hl7.org/CodeSystem/condition-"
    return {
        "resourceType": "Condition",
        "id": f"c{number}",
        "clinicalStatus": {"coding": [{"system": f"{status}clinical", "code": "active"}]},
        "verificationStatus": {"coding": [{"system": f"{status}ver-status", "code": "confirmed"}]},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": code, "display": name}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "recordedDate": str(today - timedelta(days=900)),
    }


def _bundle(resources: Sequence[Json]) -> Json:
    entries = [
        {
            "fullUrl": f"{_EHR}/{x['resourceType']}/{x['id']}",
            "resource": x,
            "search": {"mode": "match"},
        }
        for x in resources
    ]
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(entries),
        "entry": entries,
    }


def _encoded(body: Json) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
