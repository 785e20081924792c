"""The vignettes file: its grammar, and the requests built from it."""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given
from hypothesis import strategies as st

from cds_service.errors import ContentError
from cds_service.vignettes import (
    MeasureCode,
    OrderCode,
    PrefetchKey,
    RequestBuilder,
    Vignette,
    read_as_of,
    read_vignettes,
)

Json = dict[str, Any]

AS_OF = date(2026, 1, 15)
LATER = date(2026, 11, 24)
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
SHIPPED = Path(__file__).parents[1] / "hooks" / "alp_review" / "vignettes.toml"

MEASURES = {
    "alp": MeasureCode(LOINC, "6768-6", "U/L"),
    "ggt": MeasureCode(LOINC, "2324-2", "U/L"),
    "spep": MeasureCode(LOINC, "24351-9", ""),
    "pregnancy_edd": MeasureCode(LOINC, "11778-8", ""),
}
ORDERS = {"ggt": OrderCode(LOINC, "2324-2"), "bone-scan": OrderCode(LOINC, "39818-0")}
KEYS = {
    "patient": PrefetchKey("Patient", None),
    "alp": PrefetchKey("Observation", frozenset({(LOINC, "6768-6")})),
    "labs": PrefetchKey("Observation", frozenset((LOINC, x) for x in ("2324-2", "24351-9"))),
    "longterm": PrefetchKey("Observation", frozenset({(LOINC, "24351-9")})),
    "conditions": PrefetchKey("Condition", None),
    "medications": PrefetchKey("MedicationRequest", None),
    "administrations": PrefetchKey("MedicationAdministration", None),
    "reports": PrefetchKey("DiagnosticReport", None),
    "orders": PrefetchKey("ServiceRequest", None),
    "procedures": PrefetchKey("Procedure", None),
    "encounters": PrefetchKey("Encounter", None),
}


def read(text: str) -> list[Vignette]:
    """The vignettes of a file with this content."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vignettes.toml"
        path.write_text(text, encoding="utf-8")
        return read_vignettes(path)


def vignette(row: str = "", patient: str = "F 52 y") -> Vignette:
    """One row with this patient and these lines."""
    head = f'as_of = 2026-01-15\n[[vignette]]\nid = "A"\nsays = "a"\npatient = "{patient}"\n'
    return read(f"{head}{row}\nexpect = []")[0]


def body(one: Vignette, today: date = AS_OF) -> Json:
    """The request of a row written for 15 January 2026."""
    return RequestBuilder(MEASURES, ORDERS, KEYS).body(one, AS_OF, today)


def answer(one: Vignette, key: str, today: date = AS_OF) -> list[Json]:
    """The resources sent under one prefetch key."""
    bundle = body(one, today)["prefetch"][key]
    return [entry["resource"] for entry in bundle.get("entry", [])]


def only(row: str, key: str, today: date = AS_OF) -> Json:
    """The one resource a row gives one prefetch key."""
    (resource,) = answer(vignette(row), key, today)
    return resource


def holds(part: object, whole: object) -> bool:
    """Whether every member and item of `part` stands in `whole`."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            name in whole and holds(value, whole[name]) for name, value in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and all(map(holds, part, whole)) and len(part) == len(whole)
    return part == whole


SHAPES = [
    (
        'results = ["alp 24 U/L [35-104] 2025-05-10"]',
        "alp",
        {
            "status": "final",
            "code": {"coding": [{"system": LOINC, "code": "6768-6"}]},
            "effectiveDateTime": "2025-05-10",
            "valueQuantity": {"value": 24, "unit": "U/L", "system": UCUM, "code": "U/L"},
            "referenceRange": [
                {
                    "low": {"value": 35, "unit": "U/L", "system": UCUM, "code": "U/L"},
                    "high": {"value": 104, "unit": "U/L", "system": UCUM, "code": "U/L"},
                }
            ],
            "subject": {"reference": "Patient/p1"},
        },
    ),
    (
        'results = ["alp <0.4 ukat/L [-1.74] -26d (corrected)"]',
        "alp",
        {
            "status": "corrected",
            "effectiveDateTime": "2025-12-20",
            "valueQuantity": {"value": 0.4, "unit": "ukat/L", "comparator": "<"},
            "referenceRange": [{"high": {"value": 1.74, "unit": "ukat/L"}}],
        },
    ),
    ('results = ["ggt 14 -1d"]', "labs", {"valueQuantity": {"value": 14, "code": "U/L"}}),
    ("results = [\"spep 'No band' -1d\"]", "longterm", {"valueString": "No band"}),
    (
        'results = [{ measure = "alp", value = 9, unit = "IU/L", unit_code = "[IU]/L", low = 35, '
        'range_unit = "", date = "-1d", time = "08:00:00Z", issued = "-1d", comment = "old", '
        'interpretation = "L", specimen = "Serum", specimen_ref = "Specimen/s7" }]',
        "alp",
        {
            "effectiveDateTime": "2026-01-14T08:00:00Z",
            "issued": "2026-01-14T12:00:00Z",
            "valueQuantity": {"value": 9, "unit": "IU/L", "system": UCUM, "code": "[IU]/L"},
            "referenceRange": [{"low": {"value": 35}}],
            "note": [{"text": "old"}],
            "interpretation": [{"coding": [{"code": "L"}]}],
            "specimen": {"reference": "Specimen/s7", "display": "Serum"},
        },
    ),
    (
        'results = [{ measure = "alp", value = 9, effective = "period", start = "-9d", '
        'date = "-1d", specimen_note = "Haemolysed" }]',
        "alp",
        {
            "effectivePeriod": {"start": "2026-01-06", "end": "2026-01-14"},
            "contained": [{"resourceType": "Specimen", "note": [{"text": "Haemolysed"}]}],
            "specimen": {"reference": "#s1"},
        },
    ),
    (
        'results = [{ measure = "alp", value = 9, effective = "instant", date = "-1d" }]',
        "alp",
        {"effectiveInstant": "2026-01-14T12:00:00Z"},
    ),
    (
        'results = [{ measure = "alp", missing = "not performed", subject = "Patient/p2" }]',
        "alp",
        {
            "dataAbsentReason": {"text": "not performed"},
            "subject": {"reference": "Patient/p2"},
        },
    ),
    (
        'results = [{ measure = "alp", value = 9, ranges = [{ low = 35, type = "normal", '
        'applies_to = "female" }, { high = 9, unit = "" }] }]',
        "alp",
        {
            "referenceRange": [
                {
                    "low": {"value": 35, "code": "U/L"},
                    "type": {"coding": [{"code": "normal"}]},
                    "appliesTo": [{"coding": [{"code": "female"}]}],
                },
                {"high": {"value": 9}},
            ]
        },
    ),
    (
        'results = [{ system = "urn:example:laboratory", code = "X", name = "Score", value = 1, '
        'sent_in = "alp" }]',
        "alp",
        {
            "code": {
                "coding": [{"system": "urn:example:laboratory", "code": "X"}],
                "text": "Score",
            },
            "valueQuantity": {"value": 1},
        },
    ),
    (
        "conditions = [\"icd10cm M84.374A 'Stress fracture' @2025-03 (resolved, provisional)\"]",
        "conditions",
        {
            "code": {
                "coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "M84.374A"}],
                "text": "Stress fracture",
            },
            "onsetDateTime": "2025-03",
            "clinicalStatus": {"coding": [{"code": "resolved"}]},
            "verificationStatus": {"coding": [{"code": "provisional"}]},
        },
    ),
    (
        "conditions = [\"text 'Low back (lumbar) pain'\"]",
        "conditions",
        {
            "code": {"text": "Low back (lumbar) pain"},
            "recordedDate": "2024-12-11",
            "clinicalStatus": {"coding": [{"code": "active"}]},
        },
    ),
    (
        'conditions = [{ system = "urn:oid:2.16.840.1.113883.6.90", code = "C61", '
        'onset_start = "-9d", recorded = "-8d", abatement = "-1d", status = "resolved" }]',
        "conditions",
        {
            "code": {"coding": [{"system": "urn:oid:2.16.840.1.113883.6.90", "code": "C61"}]},
            "onsetPeriod": {"start": "2026-01-06"},
            "recordedDate": "2026-01-07",
            "abatementDateTime": "2026-01-14",
        },
    ),
    (
        "medications = [\"'alendronic acid 70 mg' from 2024-02-01 to -9d\"]",
        "medications",
        {
            "resourceType": "MedicationRequest",
            "status": "completed",
            "intent": "order",
            "authoredOn": "2024-02-01",
            "dispenseRequest": {"validityPeriod": {"end": "2026-01-06"}},
            "medicationCodeableConcept": {"text": "alendronic acid 70 mg"},
        },
    ),
    (
        'medications = [{ rxnorm = "46041", dosage = "70 mg", frequency = 1, period = 1, '
        'period_unit = "wk", do_not_perform = true }]',
        "medications",
        {
            "status": "active",
            "doNotPerform": True,
            "medicationCodeableConcept": {"coding": [{"code": "46041"}]},
            "dosageInstruction": [
                {
                    "text": "70 mg",
                    "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "wk"}},
                }
            ],
        },
    ),
    (
        "medications = [\"'pegfilgrastim' from -9d to -9d (administration)\"]",
        "administrations",
        {"status": "completed", "effectiveDateTime": "2026-01-06"},
    ),
    (
        "medications = [\"'bortezomib' from -9d to -2d (administration, in-progress)\"]",
        "administrations",
        {
            "status": "in-progress",
            "effectivePeriod": {"start": "2026-01-06", "end": "2026-01-13"},
        },
    ),
    (
        'medications = [{ text = "aspirin", kind = "statement", start = "-9d", dosage = "daily", '
        'sent_in = "medications" }]',
        "medications",
        {
            "resourceType": "MedicationStatement",
            "status": "active",
            "effectiveDateTime": "2026-01-06",
            "dosage": [{"text": "daily"}],
        },
    ),
    (
        "procedures = [\"'Hip arthroplasty' @-10d\"]",
        "procedures",
        {"status": "completed", "performedDateTime": "2026-01-05"},
    ),
    (
        'encounters = ["IMP from 2026-01-04"]',
        "encounters",
        {"status": "in-progress", "class": {"code": "IMP"}, "period": {"start": "2026-01-04"}},
    ),
    (
        'encounters = [{ class = "HH", type = "Hospice", location = "Ward 4", end = "-1d" }]',
        "encounters",
        {
            "status": "finished",
            "type": [{"text": "Hospice"}],
            "location": [{"location": {"display": "Ward 4"}}],
            "period": {"end": "2026-01-14"},
        },
    ),
    (
        "reports = [\"'CT abdomen' @-12d: No lesion: none.\"]",
        "reports",
        {
            "status": "final",
            "code": {"text": "CT abdomen"},
            "effectiveDateTime": "2026-01-03",
            "conclusion": "No lesion: none.",
        },
    ),
    (
        'reports = ["bone-scan @-12d (preliminary)"]',
        "reports",
        {"status": "preliminary", "code": {"coding": [{"system": LOINC, "code": "39818-0"}]}},
    ),
    (
        'orders = ["ggt @-10d (on-hold)"]',
        "orders",
        {
            "status": "on-hold",
            "intent": "order",
            "code": {"coding": [{"system": LOINC, "code": "2324-2"}]},
            "authoredOn": "2026-01-05",
        },
    ),
]


@pytest.mark.parametrize(("row", "key", "expected"), SHAPES, ids=[row[:60] for row, _, _ in SHAPES])
def test_an_item_becomes_the_resource_it_describes(row: str, key: str, expected: Json) -> None:
    found = only(row, key)
    assert holds(expected, found), found


@pytest.mark.parametrize(("row", "key"), [shape[:2] for shape in SHAPES], ids=lambda x: x[:60])
def test_what_is_built_is_valid_fhir(row: str, key: str) -> None:
    found = only(row, key)
    get_fhir_model_class(found["resourceType"]).model_validate(found)


@pytest.mark.parametrize(
    ("patient", "expected"),
    [
        ("F 52 y", {"gender": "female", "birthDate": "1973-10-07"}),
        ("M 4 mo", {"gender": "male", "birthDate": "2025-09-15"}),
        ("M 20 d", {"birthDate": "2025-12-26"}),
        ("M born 1974-05-02", {"birthDate": "1974-05-02"}),
        ("M born 1974-05", {"birthDate": "1974-05"}),
        ("M born 1974", {"birthDate": "1974"}),
        ("M born -20d", {"birthDate": "2025-12-26"}),
        ("F 52 y, deceased", {"deceasedBoolean": True}),
    ],
)
def test_a_patient_has_the_sex_and_age_of_the_row(patient: str, expected: Json) -> None:
    found = body(vignette(patient=patient))["prefetch"]["patient"]
    assert holds(expected, found), found
    get_fhir_model_class("Patient").model_validate(found)


@pytest.mark.parametrize(("patient", "lacks"), [("? 52 y", "gender"), ("F", "birthDate")])
def test_what_is_unknown_of_a_patient_is_left_out(patient: str, lacks: str) -> None:
    assert lacks not in body(vignette(patient=patient))["prefetch"]["patient"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("2025-12-20", "2026-10-29"),
        ("-26d", "2026-10-29"),
        ("+1d", "2026-11-25"),
        ("2025-12", "2026-10"),
        ("2025-03", "2026-01"),
        ("2020", "2020"),
    ],
)
def test_dates_keep_their_distance_on_another_day(written: str, sent: str) -> None:
    assert only(f'results = ["alp 9 {written}"]', "alp", LATER)["effectiveDateTime"] == sent


@pytest.mark.parametrize(
    ("patient", "today", "born"),
    [
        ("F 52 y", LATER, "1974-08-16"),
        ("M born 2006-01-15", LATER, "2006-11-24"),
        ("M born 2006-01-16", LATER, "2006-11-25"),
        ("M born 2006-01-15", date(2028, 2, 29), "2008-02-29"),
        ("M born 2005-01-15", date(2028, 2, 29), "2007-02-28"),
        ("M born 1974-05", LATER, "1975-03"),
    ],
)
def test_an_age_stays_the_same_on_another_day(patient: str, today: date, born: str) -> None:
    assert body(vignette(patient=patient), today)["prefetch"]["patient"]["birthDate"] == born


def test_a_condition_without_a_date_was_recorded_400_days_before_unless_it_is_undated() -> None:
    assert only("conditions = [\"sct 1 'x'\"]", "conditions", LATER)["recordedDate"] == "2025-10-20"
    undated = only('conditions = [{ text = "x", undated = true }]', "conditions")
    assert not undated.keys() & {"recordedDate", "onsetDateTime"}


def test_an_entry_made_in_error_has_no_clinical_status() -> None:
    found = only("conditions = [\"text 'x' (entered-in-error)\"]", "conditions")
    assert "clinicalStatus" not in found


def test_a_key_gets_the_results_it_asks_for_and_no_others() -> None:
    one = vignette('results = ["alp 1 -1d", "ggt 2 -1d", "spep -1d", "pregnancy_edd -1d"]')
    codes = {
        key: [found["code"]["coding"][0]["code"] for found in answer(one, key)]
        for key in ("alp", "labs", "longterm")
    }
    assert codes == {"alp": ["6768-6"], "labs": ["2324-2", "24351-9"], "longterm": ["24351-9"]}


def test_a_key_without_resources_is_answered_empty() -> None:
    assert body(vignette())["prefetch"]["orders"] == {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": 0,
    }


def test_absent_keys_are_not_sent() -> None:
    sent = body(vignette('absent = ["labs", "orders"]'))["prefetch"]
    assert sent.keys() == KEYS.keys() - {"labs", "orders"}


def test_failed_keys_are_operation_outcomes() -> None:
    sent = body(vignette('failed = ["conditions"]\nconditions = ["text \'x\'"]'))["prefetch"]
    get_fhir_model_class("OperationOutcome").model_validate(sent["conditions"])
    assert sent["conditions"]["issue"][0]["severity"] == "error"


def test_incomplete_keys_name_a_next_page() -> None:
    bundle = body(vignette('incomplete = ["labs"]\nresults = ["ggt 9 -1d"]'))["prefetch"]["labs"]
    assert [link["relation"] for link in bundle["link"]] == ["next"]
    get_fhir_model_class("Bundle").model_validate(bundle)


def test_a_request_is_the_same_every_time_and_names_its_patient() -> None:
    one = vignette('results = ["alp 9 -1d"]')
    assert body(one) == body(one)
    assert body(one)["context"]["patientId"] == body(one)["prefetch"]["patient"]["id"]
    assert json.loads(json.dumps(body(one))) == body(one)


def test_shipped_modes_are_the_default_and_all_on_means_every_topic() -> None:
    assert vignette().modes == {}
    assert vignette('modes = "all-on"').modes == {"*": "on"}
    assert vignette('modes = { abc = "shadow" }').modes == {"abc": "shadow"}


def test_what_a_row_expects_is_read_in_order() -> None:
    text = (
        'as_of = 2026-01-15\n[[vignette]]\nid = "A"\nsays = "s"\npatient = "F"\n'
        'expect = ["b warning", "a info"]\nverdicts = { c = "suppressed by b" }\n'
        'must_not_say = ["x"]'
    )
    (one,) = read(text)
    assert one.expect == (("b", "warning"), ("a", "info"))
    assert (one.verdicts, one.must_not_say) == ({"c": "suppressed by b"}, ("x",))
    assert (one.id, one.says, one.hook) == ("A", "s", "patient-view")


ERRORS = [
    ('colour = "red"', "key", '"colour" is not one of: id, says'),
    ('hook = "order-dispatch"', "hook", '"order-dispatch" is not one of: patient-view'),
    ("modes = 3", "modes", 'must be "all-on" or a table'),
    ('modes = { a = "maybe" }', "modes", '"maybe" is not one of: on, shadow, off'),
    ('verdicts = { a = "fine" }', "verdicts", '"fine" is not one of: fired'),
    ("verdicts = 3", "verdicts", "must be a table"),
    ("suggests = 3", "suggests", "must be a table"),
    ('suggests = { a = "1" }', "suggests", "must be a list of texts"),
    ('absent = "labs"', "absent", "must be a list of texts"),
    ("must_not_say = [1]", "must_not_say", "must be a list of texts"),
    ("results = 3", "results", "must be a list"),
    ("results = [3]", "results[0]", "must be a text or a table"),
    ('results = ["alp"]', "results[0]", '"alp" cannot be read; write it as "name 14 U/L'),
    ('results = ["alp high -1d"]', "results[0]", "cannot be read"),
    ('results = ["alp 1 -1d", "alp 1 2025-02-30"]', "results[1]", '"2025-02-30" is no date'),
    ('results = ["alp 1 -1d (done)"]', "results[0].status", '"done" is not one of: registered'),
    ('results = [{ colour = "red" }]', "results[0]", '"colour" is not one of: measure'),
    ('results = [{ value = "3" }]', "results[0].value", "must be a number"),
    ("results = [{ value = true }]", "results[0].value", "must be a number"),
    ("results = [{ date = 2025-01-01 }]", "results[0].date", "must be a text"),
    ('results = [{ date = "soon" }]', "results[0]", '"soon" is no date'),
    ('results = [{ time = "8 am" }]', "results[0].time", '"8 am" is no time'),
    ('results = [{ comparator = "~" }]', "results[0].comparator", "is not one of: <, <=, >, >="),
    ("results = [{ ranges = 3 }]", "results[0].ranges", "must be a list of tables"),
    ("results = [{ ranges = [{ a = 1 }] }]", "results[0].ranges", '"a" is not one of: low'),
    ("conditions = [\"icd11 X 'x'\"]", "conditions[0]", "systems: sct, icd10cm"),
    ('conditions = ["icd10cm"]', "conditions[0]", "names no system and code, and no 'text'"),
    ("conditions = [\"text 'x' (gone)\"]", "conditions[0]", '"gone" is not one of: active'),
    ("conditions = [{ undated = 1 }]", "conditions[0].undated", "must be true or false"),
    ('medications = [{ kind = "gift" }]', "medications[0].kind", '"gift" is not one of: request'),
    ('medications = ["aspirin from -1d"]', "medications[0]", "names no system and code"),
    ('encounters = ["IMP since -1d"]', "encounters[0]", "names no system and code"),
    ('orders = ["ggt @soon"]', "orders[0]", "cannot be read"),
]


@pytest.mark.parametrize(("row", "key", "why"), ERRORS, ids=[row[:60] for row, _, _ in ERRORS])
def test_a_wrong_row_is_refused_with_file_key_and_sentence(row: str, key: str, why: str) -> None:
    with pytest.raises(ContentError) as refused:
        vignette(row)
    assert refused.value.file.endswith("/vignettes.toml")
    assert refused.value.key == f"vignette A: {key}"
    assert why in refused.value.why


HEAD = 'as_of = 2026-01-15\n[[vignette]]\nid = "A"\nsays = "a"\npatient = "F"\n'


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("as_of = ", "", "cannot be read as TOML"),
        ("[[vignette]]", "as_of", "must be a day"),
        ('as_of = "2026-01-15"', "as_of", "must be a day"),
        ("as_of = 2026-01-15T08:00:00Z", "as_of", "must be a day"),
        ("as_of = 2026-01-15\nrows = 1", "rows", "is unknown"),
        ("as_of = 2026-01-15", "vignette", "must be a list of tables"),
        ("as_of = 2026-01-15\nvignette = [1]", "vignette", "must be a list of tables"),
        (HEAD, "vignette A: expect", "is missing; silence is expect = []"),
        (f'{HEAD}expect = ["a"]', "vignette A: expect", "topic indicator"),
        (f'{HEAD}expect = ["a loud"]', "vignette A: expect", '"loud" is not one of: info'),
        (f"{HEAD}expect = []\n{HEAD[19:]}expect = []", "vignette A", "the id occurs twice"),
        (HEAD.replace('"F"', '"F 52"') + "expect = []", "vignette A: patient", "cannot be read"),
        (HEAD.replace('"F"', '"X"') + "expect = []", "vignette A: patient", "F 52 y, deceased"),
        (HEAD.replace('says = "a"', 'says = ""') + "expect = []", "vignette A: says", "not empty"),
        (HEAD.replace('id = "A"\n', "") + "expect = []", "vignette 1: id", "must be a text"),
    ],
)
def test_a_wrong_file_is_refused(text: str, key: str, why: str) -> None:
    with pytest.raises(ContentError) as refused:
        read(text)
    assert refused.value.key == key
    assert why in refused.value.why


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="cannot be read"):
        read_vignettes(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('results = ["colour 9 -1d"]', 'measure "colour" is not one of: alp, ggt'),
        ('orders = ["colour @-1d"]', 'order "colour" is not one of: bone-scan, ggt'),
        ('absent = ["colour"]', 'prefetch key "colour" is not one of: administrations'),
        ('failed = ["colour"]', 'prefetch key "colour" is not one of'),
        ('results = [{ measure = "alp", sent_in = "colour" }]', 'prefetch key "colour"'),
    ],
)
def test_a_name_the_service_lacks_is_refused_when_the_request_is_built(row: str, why: str) -> None:
    with pytest.raises(ContentError) as refused:
        body(vignette(row))
    assert refused.value.key == "vignette A"
    assert why in refused.value.why


KINDS = (
    "results",
    "conditions",
    "medications",
    "procedures",
    "encounters",
    "reports",
    "orders",
    "expect",
    "absent",
)
NEAR_GRAMMAR = st.text(alphabet="alpg 0123456789.<>=[]-+d@():',IMPfromtexsct?yF", max_size=40)


@given(key=st.sampled_from((*KINDS, "patient")), text=NEAR_GRAMMAR | st.text(max_size=40))
def test_no_shorthand_raises_anything_but_a_content_error(key: str, text: str) -> None:
    value = json.dumps(text) if key == "patient" else f"[{json.dumps(text)}]"
    rest = "" if key == "patient" else 'patient = "F"\n'
    rest += "" if key == "expect" else "expect = []\n"
    try:
        rows = read(
            f'as_of = 2026-01-15\n[[vignette]]\nid = "A"\nsays = "a"\n{rest}{key} = {value}'
        )
        body(rows[0], LATER)
    except ContentError as refused:
        assert refused.why


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_content_error(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vignettes.toml"
        path.write_bytes(b"as_of = 2026-01-15\n" + content)
        with pytest.raises(ContentError):
            read_vignettes(path)


def shipped() -> tuple[RequestBuilder, list[Vignette]]:
    """The service's own rows, with a code for every measure, order and key that they name."""
    rows = read_vignettes(SHIPPED)
    results = [item for one in rows for item in one.row["results"] if "measure" in item]
    measures = {item["measure"]: MeasureCode(LOINC, item["measure"], "U/L") for item in results}
    named = [item for one in rows for kind in ("orders", "reports") for item in one.row[kind]]
    orders = {item["order"]: OrderCode(LOINC, item["order"]) for item in named if "order" in item}
    every = {"alp": PrefetchKey("Observation", None), "labs": PrefetchKey("Observation", None)}
    return RequestBuilder(measures, orders, KEYS | every), rows


def sent_resources(request: Json) -> Iterator[Json]:
    """Every resource of a request that is not its patient, in its bundles' order."""
    for bundle in request["prefetch"].values():
        for entry in bundle.get("entry", []):
            yield entry["resource"]


def test_every_shipped_row_builds_and_its_resources_have_ids_of_their_own() -> None:
    builder, rows = shipped()
    as_of = read_as_of(SHIPPED)
    for one in rows:
        request: Json = builder.body(one, as_of, LATER)
        by_id: dict[str, Json] = {}
        for resource in sent_resources(request):
            assert by_id.setdefault(resource["id"], resource) == resource, one.id


def test_a_sample_of_the_shipped_rows_builds_valid_fhir() -> None:
    builder, rows = shipped()
    as_of = read_as_of(SHIPPED)
    for one in rows[::25]:
        request: Json = builder.body(one, as_of, LATER)
        for resource in (request["prefetch"].get("patient"), *sent_resources(request)):
            if resource is not None:
                get_fhir_model_class(resource["resourceType"]).model_validate(resource)


def test_every_shipped_id_is_kebab_case_and_every_row_says_one_short_sentence() -> None:
    for one in read_vignettes(SHIPPED):
        assert one.id.replace("-", "").isalnum(), one.id
        assert len(one.says) <= 140 and one.says[-1] == ".", one.says
