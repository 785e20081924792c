"""Hypothesis strategies for what a client sends: FHIR resources that are odd in any element that we
read, requests of every hook, and feedback.
"""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.exchanges import Json, ago

Strategy = SearchStrategy[Any]

_DATES = (
    *(ago(0), ago(5), ago(45), ago(400), ago(-1), ago(-2), f"{ago(5)}T08:00:00Z", ago(40)[:7]),
    *("2025", "0001-01-01", "9999-12-31", "0000", "2026-02-30", "2026-11-24T25:00:00+99:99", ""),
)
_CODES = (
    *(
        "6768-6",
        "2324-2",
        "62236-5",
        "24351-9",
        "48378-4",
        "2160-0",
        "C50.911",
        "M89.50",
        "M05BA04",
    ),
    *("20756002", "64859006", "laboratory", "final", "IMP", "x", ""),
)
_SYSTEMS = (
    *("http://loinc.org", "http://snomed.info/sct", "http://hl7.org/fhir/sid/icd-10-cm", ""),
    *("http://www.whocc.no/atc", "urn:oid:2.16.840.1.113883.6.1", "http://unitsofmeasure.org"),
)
_WORDS = (
    *("final", "active", "completed", "draft", "order", "confirmed", "entered-in-error", "x", ""),
    *("no lytic lesion of the bone", "Lytic lesion of the femur", "Monoclonal band", "alendronate"),
)
TEXTS = st.one_of(st.sampled_from(_WORDS), st.text(max_size=12))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["resource", "code", "value", "entry", "reference", "coding"]), inner
        ),
    ),
    max_leaves=5,
)


def mostly(usual: Strategy) -> Strategy:
    """What belongs there, or any JSON."""
    return st.one_of(usual, usual, usual, JSON)


def _some(members: Mapping[str, Strategy]) -> Strategy:
    """An object with any of its members, each mostly as it should be."""
    return st.fixed_dictionaries({}, optional={name: mostly(x) for name, x in members.items()})


DATES = st.sampled_from(_DATES)
_CODING = _some({"system": st.sampled_from(_SYSTEMS), "code": st.sampled_from(_CODES)})
_CODING |= _some({"display": TEXTS})
CONCEPTS = _some({"coding": st.lists(mostly(_CODING), max_size=2), "text": TEXTS})
PERIODS = _some({"start": DATES, "end": DATES})
REFERENCES = _some(
    {
        "reference": st.sampled_from(
            ["Patient/p1", "Patient/p2", "#m", "urn:uuid:p1", "Medication/m", ""]
        )
    }
)
QUANTITIES = _some(
    {
        "value": st.one_of(st.floats(0, 2000), st.integers(-5, 40_000)),
        "unit": st.sampled_from(["U/L", "ukat/L", "mg/dL", "[IU]/L", "x", ""]),
        "code": st.sampled_from(["U/L", "ukat/L", "x"]),
        "system": st.sampled_from(_SYSTEMS),
        "comparator": st.sampled_from(["<", ">", "<=", ">=", "ad", ""]),
    }
)
_RANGE = _some({"low": QUANTITIES, "high": QUANTITIES, "type": CONCEPTS, "text": TEXTS})
_DOSAGE = _some({"text": TEXTS, "timing": JSON, "doseAndRate": JSON, "route": CONCEPTS})
_LISTED = st.lists(mostly(CONCEPTS), max_size=2)

# The elements that are read, by type.
ELEMENTS: Mapping[str, Mapping[str, Strategy]] = {
    "Patient": {"birthDate": DATES, "gender": TEXTS, "deceasedBoolean": st.booleans()},
    "Observation": {
        "code": CONCEPTS,
        "category": _LISTED,
        "effectiveDateTime": DATES,
        "effectivePeriod": PERIODS,
        "issued": DATES,
        "valueQuantity": QUANTITIES,
        "valueString": TEXTS,
        "valueCodeableConcept": CONCEPTS,
        "interpretation": _LISTED,
        "referenceRange": st.lists(mostly(_RANGE), max_size=2),
        "note": st.lists(mostly(_some({"text": TEXTS})), max_size=1),
        "specimen": REFERENCES,
        "dataAbsentReason": CONCEPTS,
    },
    "Condition": {
        "code": CONCEPTS,
        "clinicalStatus": CONCEPTS,
        "verificationStatus": CONCEPTS,
        "onsetDateTime": DATES,
        "onsetPeriod": PERIODS,
        "abatementDateTime": DATES,
        "recordedDate": DATES,
    },
    "MedicationRequest": {
        "intent": TEXTS,
        "medicationCodeableConcept": CONCEPTS,
        "medicationReference": REFERENCES,
        "contained": JSON,
        "authoredOn": DATES,
        "dosageInstruction": st.lists(mostly(_DOSAGE), max_size=2),
        "dispenseRequest": _some({"validityPeriod": PERIODS}),
        "reasonCode": _LISTED,
        "reasonReference": st.lists(mostly(REFERENCES), max_size=2),
        "doNotPerform": st.booleans(),
    },
    "MedicationAdministration": {
        "medicationCodeableConcept": CONCEPTS,
        "effectiveDateTime": DATES,
        "effectivePeriod": PERIODS,
        "dosage": _DOSAGE,
    },
    "Procedure": {"code": CONCEPTS, "performedDateTime": DATES, "performedPeriod": PERIODS},
    "Encounter": {"class": _CODING, "type": _LISTED, "period": PERIODS, "location": JSON},
    "DiagnosticReport": {"code": CONCEPTS, "effectiveDateTime": DATES, "conclusion": TEXTS},
    "ServiceRequest": {"code": CONCEPTS, "authoredOn": DATES, "intent": TEXTS, "category": _LISTED},
}


def resources(*types: str) -> Strategy:
    """A resource of one of some types, of any that is read unless told."""
    return st.sampled_from(types or [*ELEMENTS]).flatmap(_resource)


def _resource(kind: str) -> Strategy:
    ids = st.sampled_from(["p1"] if kind == "Patient" else ["a", "b", "c", "x" * 70, ""])
    common: dict[str, Strategy] = {"id": ids, "status": TEXTS}
    common |= {} if kind == "Patient" else {"subject": st.just({"reference": "Patient/p1"})}
    found = _some({**common, **ELEMENTS[kind]})
    return found.map(lambda x: {"resourceType": kind, **x})


def _bundled(found: list[Json]) -> Json:
    entries = [{"resource": x} for x in found]
    return {"resourceType": "Bundle", "type": "searchset", "entry": entries}


BUNDLES = mostly(st.lists(resources(), max_size=5).map(_bundled))
_KEYS = (
    "patient",
    "alp",
    "labs",
    "conditions",
    "medications",
    "reports",
    "orders",
    "theirs",
    "x y",
)
_DRAFTS = ("MedicationRequest", "ServiceRequest")


@st.composite
def requests(draw: st.DrawFn, hook: str, good: Json) -> Json:
    """A request of a hook: a good one with more in its prefetch and some of it replaced, and with
    other draft orders.
    """
    added = draw(st.dictionaries(st.sampled_from(_KEYS), BUNDLES, max_size=3))
    body = {**good, "prefetch": {**good["prefetch"], **added}}
    if hook != "patient-view" and draw(st.booleans()):
        orders = draw(mostly(st.lists(resources(*_DRAFTS), min_size=1, max_size=3).map(_bundled)))
        body["context"] = {**body["context"], "draftOrders": orders}
    if draw(st.integers(0, 9)) == 0:
        body[draw(st.sampled_from([*body]))] = draw(JSON)
    return body


@st.composite
def feedback_items(draw: st.DrawFn, cards: Strategy) -> Json:
    """What became of a card."""
    outcome = draw(st.sampled_from(["accepted", "overridden"]))
    second = draw(st.integers(0, 3))
    item = {"card": draw(cards), "outcome": outcome}
    item["outcomeTimestamp"] = f"2026-11-24T12:00:0{second}Z"
    if outcome == "accepted":
        return {**item, "acceptedSuggestions": [{"id": draw(cards)}]}
    if draw(st.booleans()):
        reason = {"code": draw(st.sampled_from(["later", "not-my-role", "of-their-own"]))}
        item["overrideReason"] = {"reason": reason, "userComment": draw(TEXTS).replace("\0", "")}
    return item
