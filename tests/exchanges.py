"""Requests as EHRs send them: a good one, and odd ones with the answer each is owed.

The patient is a woman of 68 whose record bears nothing else on ALP. LOW fires lowAlpPersistent; the
prefetch keys are a site's own but for `patient` and `conditions`.
"""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cds_service.fhir_endpoint import FhirEndpoint

Json = dict[str, Any]
Change = Callable[[Json], object]

TODAY = date(2026, 11, 24)
SERVICE = "/cds-services/alp-review"
EXPLAIN = "/explain/alp-review"
SERVICES = ["alp-review", "antiresorptive-safety-select", "antiresorptive-safety-sign"]
LOW, ONE_LOW, NORMAL = (28.0, 29.0, 27.0, 28.5), (28.0, 64, 66, 63), (71, 68, 66, 70)
FIRES = ("lowAlpPersistent info",)
SERVER = "https://ehr.example.org/fhir"
OUTCOME: Json = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "timeout"}],
}
GRANT: Json = {
    "access_token": "opaque",
    "token_type": "Bearer",
    "expires_in": 300,
    "scope": "user/*.read",
    "subject": "cds-client",
}
_OTHER_TESTS = (
    ("2160-0", "Creatinine", "mg/dL", 0.9),
    ("17861-6", "Calcium", "mg/dL", 9.4),
    ("718-7", "Haemoglobin", "g/dL", 13.1),
    ("2885-2", "Total protein", "g/dL", 7.2),
    ("1751-7", "Albumin", "g/dL", 4.1),
    ("2777-1", "Phosphate", "mg/dL", 3.9),
    ("1742-6", "ALT", "U/L", 22),
    ("1920-8", "AST", "U/L", 25),
    ("1975-2", "Bilirubin", "mg/dL", 0.6),
)
_PROBLEMS = (
    ("38341003", "Hypertension"),
    ("44054006", "Diabetes mellitus type 2"),
    ("13645005", "COPD"),
    ("55822004", "Hyperlipidaemia"),
    ("90560007", "Gout"),
    ("195967001", "Asthma"),
)


def now() -> datetime:
    """The clock of every test."""
    return datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC)


def ago(days: int) -> str:
    return str(TODAY - timedelta(days=days))


def result(number: int, code: str, name: str, unit: str, value: float, days: int) -> Json:
    """An Observation of patient p1, drawn so many days ago."""
    category = "http://terminology.hl7.org/CodeSystem/observation-category"
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "category": [{"coding": [{"system": category, "code": "laboratory"}]}],
        "code": {
            "coding": [{"system": "http://loinc.org", "code": code, "display": name}],
            "text": name,
        },
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": f"{ago(days)}T08:00:00Z",
        "valueQuantity": {
            "value": value,
            "unit": unit,
            "system": "http://unitsofmeasure.org",
            "code": unit,
        },
    }


def alp(number: int, value: float, days: int) -> Json:
    return result(number, "6768-6", "Alkaline phosphatase", "U/L", value, days)


def problem(number: int, code: str, name: str) -> Json:
    """An active, confirmed Condition of patient p1."""
    status = "http://terminology.hl7.org/CodeSystem/condition-"
    return {
        "resourceType": "Condition",
        "id": f"c{number}",
        "clinicalStatus": {"coding": [{"system": f"{status}clinical", "code": "active"}]},
        "verificationStatus": {"coding": [{"system": f"{status}ver-status", "code": "confirmed"}]},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": code, "display": name}]},
        "subject": {"reference": "Patient/p1"},
        "recordedDate": ago(900),
    }


def bundle(resources: Sequence[Json]) -> Json:
    entries = [
        {
            "fullUrl": f"{SERVER}/{x['resourceType']}/{x['id']}",
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


def request(values: Sequence[float] = LOW, others: int = 20, problems: int = 6) -> Json:
    """A patient-view request; ALP newest first, 5 days ago and every 40 days before."""
    results = [alp(n, value, 5 + 40 * n) for n, value in enumerate(values)]
    for n in range(others):
        code, name, unit, usual = _OTHER_TESTS[n % len(_OTHER_TESTS)]
        results.append(result(len(values) + n, code, name, unit, usual, 5 + 7 * n))
    listed = [problem(n, *_PROBLEMS[n % len(_PROBLEMS)]) for n in range(problems)]
    return {
        "hook": "patient-view",
        "hookInstance": "0d5c1b8e-9f55-4c6e-8f0c-6a5a3f3f2b10",
        "context": {"userId": "Practitioner/dr1", "patientId": "p1", "encounterId": "e1"},
        "prefetch": {
            "patient": {
                "resourceType": "Patient",
                "id": "p1",
                "gender": "female",
                "birthDate": f"{TODAY.year - 68}-11-01",
                "name": [{"family": "Test", "given": ["Pat"]}],
            },
            "results": bundle(results),
            "conditions": bundle(listed),
        },
    }


SELECT = "/cds-services/antiresorptive-safety-select"
SIGN = "/cds-services/antiresorptive-safety-sign"
EXPLAIN_SELECT = "/explain/antiresorptive-safety-select"
EXPLAIN_SIGN = "/explain/antiresorptive-safety-sign"


def draft(number: int = 1, drug: str = "alendronic acid 70 mg") -> Json:
    """A draft prescription for patient p1."""
    return {
        "resourceType": "MedicationRequest",
        "id": f"d{number}",
        "status": "draft",
        "intent": "order",
        "medicationCodeableConcept": {"text": drug},
        "subject": {"reference": "Patient/p1"},
    }


def drafted(*orders: Json) -> Json:
    """Draft orders as a client sends them."""
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [
            {"fullUrl": f"{SERVER}/{x['resourceType']}/{x['id']}", "resource": x} for x in orders
        ],
    }


def signing(*orders: Json, values: Sequence[float] = LOW) -> Json:
    """An order-sign request for orders, by default for one that a low ALP speaks against."""
    body = request(values, 0, 1)
    orders = orders or (draft(),)
    return {
        **body,
        "hook": "order-sign",
        "context": {**body["context"], "draftOrders": drafted(*orders)},
    }


def selecting(*orders: Json, selections: Sequence[str] = ("MedicationRequest/d1",)) -> Json:
    """The same at order-select, by default with the first order selected."""
    body = signing(*orders)
    return {
        **body,
        "hook": "order-select",
        "context": {**body["context"], "selections": [*selections]},
    }


def calling(hook: str) -> Json:
    """A good request of any hook that is served."""
    calls: dict[str, Callable[[], Json]] = {
        "patient-view": request,
        "order-select": selecting,
        "order-sign": signing,
    }
    return calls[hook]()


# -- changes ---------------------------------------------------------------------------------


def _reach(value: Any, path: str) -> tuple[Any, Any]:
    """The container and the last step of a dotted path; digits are list positions."""
    *steps, last = [int(x) if x.isdigit() else x for x in path.split(".")]
    for step in steps:
        value = value[step]
    return value, last


def put(path: str, new: Any) -> Change:
    """Sets the member at a dotted path."""

    def change(body: Json) -> None:
        container, step = _reach(body, path)
        container[step] = deepcopy(new)

    return change


def drop(path: str) -> Change:
    """Takes the member at a dotted path away."""

    def change(body: Json) -> None:
        container, step = _reach(body, path)
        del container[step]

    return change


def add(path: str, new: Any, at: int | None = None) -> Change:
    """Puts an item into the list at a dotted path, at its end unless told."""

    def change(body: Json) -> None:
        container, step = _reach(body, path)
        items = container[step]
        items.insert(len(items) if at is None else at, deepcopy(new))

    return change


RESULTS = "prefetch.results.entry"


def on_result(number: int, path: str, new: Any) -> Change:
    return put(f"{RESULTS}.{number}.resource.{path}", new)


def on_every_alp(path: str, new: Any) -> list[Change]:
    return [on_result(number, path, new) for number in range(len(LOW))]


def changed(*changes: Change, values: Sequence[float] = LOW) -> Json:
    """A good request with changes made to it."""
    body = request(values)
    for change in changes:
        change(body)
    return body


def as_bytes(body: Json | str | bytes) -> bytes:
    if isinstance(body, dict):
        body = json.dumps(body)
    return body.encode() if isinstance(body, str) else body


def send(
    client: FlaskClient, body: Json | str | bytes, path: str = SERVICE, **headers: str
) -> TestResponse:
    """The answer to a POST of JSON; header names are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=as_bytes(body), headers={"Content-Type": JSON} | named)


JSON = "application/json"


def resolved(endpoint: FhirEndpoint, template: str, patient_id: str) -> Any:
    """What a client finds on its FHIR server under one of discovery's templates."""
    path, _, query = template.replace("{{context.patientId}}", patient_id).partition("?")
    status, body = endpoint.answer("GET", path, query)
    assert status == 200
    return json.loads(body)


# -- whole exchanges -------------------------------------------------------------------------


@dataclass(frozen=True)
class Exchange:
    """A body, the status and cards ("topic indicator") it is owed, and what the explanation names.

    `unusable` are pairs of (reference or place, why).
    """

    name: str
    body: Json | str
    status: int = 200
    cards: tuple[str, ...] = ()
    unusable: tuple[tuple[str, str], ...] = ()


def _long_history(alps: int, others: int, problems: int) -> Json:
    return request([28.0 + 0.1 * (n % 9) for n in range(alps)], others, problems)


def _fires(name: str, *changes: Change, unusable: Sequence[tuple[str, str]] = ()) -> Exchange:
    return Exchange(name, changed(*changes), 200, FIRES, tuple(unusable))


def _silent(
    name: str, values: Sequence[float], *changes: Change, unusable: Sequence[tuple[str, str]] = ()
) -> Exchange:
    return Exchange(name, changed(*changes, values=values), 200, (), tuple(unusable))


def _refused(name: str, status: int, *changes: Change, values: Sequence[float] = LOW) -> Exchange:
    return Exchange(name, changed(*changes, values=values), status)


_WARNING_ENTRY = {
    "resource": {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "warning", "code": "processing"}],
    },
    "search": {"mode": "outcome"},
}
_BELOW_25 = {
    "value": 25,
    "comparator": "<",
    "unit": "U/L",
    "system": "http://unitsofmeasure.org",
    "code": "U/L",
}
_NEXT = [{"relation": "next", "url": f"{SERVER}?page=2"}]
_BAD_NUMBER = (
    '{"hook": "patient-view", "hookInstance": "x", "prefetch": {"n": NaN},'
    ' "context": {"userId": "Practitioner/1", "patientId": "p1"}}'
)
_FOREIGN_LOWS = on_every_alp("subject.reference", "Patient/p2")
_SAME_AGAIN = [add(RESULTS, bundle([alp(0, 28.0, 5)])["entry"][0]) for _ in range(3)]
_ALPS = [f"Observation/o{n}" for n in range(len(LOW))]

EXCHANGES = (
    Exchange("two lows and little else", request(LOW[:2], 0, 1), cards=FIRES),
    Exchange("four lows", request(), cards=FIRES),
    Exchange("a normal ALP", request(NORMAL)),
    Exchange("a large chart", _long_history(20, 180, 40), cards=FIRES),
    Exchange("a very large chart", _long_history(50, 950, 100), cards=FIRES),
    _fires("a FHIR server we do not know", put("fhirServer", SERVER)),
    _fires("a token for it, too", put("fhirServer", SERVER), put("fhirAuthorization", GRANT)),
    _fires(
        "members we do not know",
        put("context.extra", "x"),
        put("futureField", {"a": [1]}),
        put("extension", {"com.example.x": True}),
    ),
    _refused("no prefetch", 412, drop("prefetch")),
    _refused("no patient on record", 412, put("prefetch.patient", None)),
    _fires("no problems on record", put("prefetch.conditions", None)),
    _refused("results that failed", 412, put("prefetch.results", OUTCOME)),
    _fires("problems that failed", put("prefetch.conditions", OUTCOME)),
    _fires(
        "a message among the results",
        add(RESULTS, _WARNING_ENTRY, at=0),
        unusable=[("results.entry[0]", "a message of the server, not data")],
    ),
    _refused("a first page only", 412, put("prefetch.results.link", _NEXT), values=NORMAL),
    _fires("a Bundle of another type", put("prefetch.results.type", "collection")),
    _fires(
        "another test in a unit that is none",
        on_result(5, "valueQuantity.code", "not a unit"),
        on_result(5, "valueQuantity.unit", "not a unit"),
        unusable=[("Observation/o5", "unit not known")],
    ),
    _fires("another test on no day", on_result(7, "effectiveDateTime", "yesterday")),
    _fires("an object where a list belongs", on_result(6, "category", {"text": "laboratory"})),
    _fires("the latest ALP by its month", on_result(0, "effectiveDateTime", ago(5)[:7])),
    _fires(
        "the latest ALP in microkatal",
        on_result(0, "valueQuantity.value", 0.467),
        on_result(0, "valueQuantity.unit", "ukat/L"),
        on_result(0, "valueQuantity.code", "ukat/L"),
    ),
    _fires(
        "every ALP as a double prints it",
        *on_every_alp("valueQuantity.value", 28.429820890253158),
    ),
    _fires("a unit in words only", on_result(0, "valueQuantity", {"value": 28, "unit": "IU/L"})),
    _fires("the latest ALP as a bound", on_result(0, "valueQuantity", _BELOW_25)),
    _silent(
        "every ALP in a unit nobody knows",
        LOW,
        *on_every_alp("valueQuantity.unit", "arb"),
        *on_every_alp("valueQuantity.code", "arb"),
        unusable=[(x, "unit not known") for x in _ALPS],
    ),
    _fires("another code for ALP", *on_every_alp("code.coding.0.code", "1783-0")),
    _silent(
        "somebody else's low ALP",
        LOW,
        *_FOREIGN_LOWS,
        unusable=[(x, "belongs to another patient") for x in _ALPS],
    ),
    _silent("a low ALP entered in error", ONE_LOW, on_result(0, "status", "entered-in-error")),
    _fires("absolute references", *on_every_alp("subject.reference", f"{SERVER}/Patient/p1")),
    _silent("one low ALP sent four times", ONE_LOW, *_SAME_AGAIN),
    _refused("a hook we do not serve", 422, put("hook", "order-sign")),
    _refused("no patient id", 422, drop("context.patientId")),
    Exchange("half a body", '{"hook": "patient-view", ', 400),
    Exchange("a list for a body", "[]", 400),
    Exchange("a number that is none", _BAD_NUMBER, 400),
)
