"""Reading FHIR resources: an odd element costs that element, and what fits is kept exactly."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_service.quantity import finite_number
from cds_service.resources import (
    NOBODY,
    READ_TYPES,
    CodeableConcept,
    Coding,
    Condition,
    Contained,
    Dosage,
    Encounter,
    MedicationRequest,
    Note,
    Observation,
    Patient,
    Reference,
    Repeat,
    Resource,
    Timing,
    Unread,
    mended,
    read_resource,
)

FIXTURES = sorted((Path(__file__).resolve().parents[1] / "fixtures" / "patients").glob("*.json"))
ABSENT = object()
MARK = "Zyzzogeton"  # a value that no note may repeat
SIMPLE: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {
        "coding": [
            {"system": "http://loinc.org", "code": "6768-6", "display": "ALP"},
            {"system": "https://hospital.example/lab", "code": "ap", "display": "AP"},
        ],
        "text": "Alk phos",
    },
    "subject": {"reference": "Patient/p1"},
    "effectiveDateTime": "2026-01-05T08:00:00Z",
    "valueQuantity": {"value": 28.50, "comparator": "<", "unit": "U/L", "code": "U/L"},
    "interpretation": [{"coding": [{"code": "L"}]}],
    "referenceRange": [{"low": {"value": 35}, "high": {"value": 104}}, {"text": "adults"}],
    "note": [{"text": "haemolysed"}],
}


def sent(found: Any) -> bytes:
    return json.dumps(found).encode()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The simple Observation with one element replaced; a path is like code.coding.0.display."""
    whole: dict[str, Any] = json.loads(json.dumps(SIMPLE))
    *parents, last = path.split(".")
    place: Any = whole
    for part in parents:
        place = place[int(part)] if part.isdigit() else place[part]
    if value is ABSENT:
        del place[int(last) if last.isdigit() else last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return whole


def read(found: Any) -> tuple[Any, list[Note]]:
    return read_resource(sent(found))


ONE_CODING = {"system": "http://loinc.org", "code": "6768-6"}


ODD: dict[str, list[Any]] = {
    "status": [7, ["final"], True, {"value": "final"}],
    "code": ["6768-6", [ONE_CODING], 6768],
    "code.text": [1.5],
    "code.coding.1": ["6768-6", ["6768-6"], None],
    "code.coding.0.display": [{"text": MARK}],
    "effectiveDateTime": [20260105],
    "valueQuantity": [28.5, "28.5 U/L"],
    "valueQuantity.unit": [1],
    "valueQuantity.value": ["28", "28.50", "NaN", "Infinity", "", True, [28.5], {"value": 28.5}],
    "referenceRange.0.low": [35],
    "referenceRange.0.low.value": ["35"],
    "referenceRange.1": ["35-104"],
    "note.0.text": [[MARK]],
}


@pytest.mark.parametrize(("path", "odd"), [(path, odd) for path, row in ODD.items() for odd in row])
def test_an_element_of_the_wrong_shape_is_absent_and_costs_nothing_else(
    path: str, odd: Any
) -> None:
    found, notes = read(changed(path, odd))
    expected, nothing = read(changed(path, ABSENT))
    assert nothing == []
    assert found == expected
    assert [x.where for x in notes] == [re.sub(r"\.(\d+)", r"[\1]", f"Observation.{path}")]
    assert MARK not in repr(notes)


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ("Patient/p1", "Patient/p1"),
        (["Patient/p1"], "Patient/p1"),
        ([{"reference": "Patient/p1"}], "Patient/p1"),
        ([{"reference": "Patient/p1"}, {"reference": "Patient/p2"}], NOBODY),
        ([{"display": "Somebody"}], NOBODY),
        ([], NOBODY),
        (7, NOBODY),
    ],
)
def test_a_subject_of_the_wrong_shape_is_still_somebody(odd: Any, expected: str) -> None:
    found, notes = read(changed("subject", odd))

    assert found.subject.reference == expected
    assert [x.where for x in notes] == ["Observation.subject"]


@pytest.mark.parametrize("path", ["code.coding", "interpretation", "referenceRange", "note"])
def test_an_object_where_a_list_belongs_is_a_list_of_one(path: str) -> None:
    only: Any = SIMPLE
    for part in path.split("."):
        only = only[part]
    found, notes = read(changed(path, only[0]))
    expected, nothing = read(changed(path, [only[0]]))
    assert nothing == [] and found == expected
    assert [note.where for note in notes] == [f"Observation.{path}"]


@pytest.mark.parametrize("odd", ["x", 3, True, [], [[]], [[ONE_CODING]]])
def test_a_list_that_holds_nothing_usable_is_empty(odd: Any) -> None:
    found, _ = read(changed("code.coding", odd))
    assert found.code == CodeableConcept(text="Alk phos")


@pytest.mark.parametrize("name", [x for x in SIMPLE if x != "resourceType"])
def test_null_means_absent_and_is_nothing_odd(name: str) -> None:
    found, notes = read(changed(name, None))
    assert found == read(changed(name, ABSENT))[0]
    assert notes == []


def test_a_resource_of_nulls_is_a_resource_without_elements() -> None:
    for name, kind in READ_TYPES.items():
        elements = [x.encode_name for x in msgspec.structs.fields(kind)]
        found, notes = read({"resourceType": name, **dict.fromkeys(elements)})
        assert (found, notes) == (kind(), [])


@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "9" * 400, "9" * 5000, "-" + "9" * 5000, "1" + "0" * 310]
)
def test_a_number_that_no_double_holds_is_not_usable(number: str) -> None:
    raw = sent(SIMPLE).replace(b"28.5", number.encode())
    found, _ = read_resource(raw)
    assert isinstance(found, Observation) and found.value_quantity is not None
    assert finite_number(found.value_quantity.value) is None
    assert found.value_quantity.unit == "U/L"


@pytest.mark.parametrize(
    ("escaped", "shown"),
    [
        (rb"a\ud800b", "a\ufffdb"),
        (rb"a\udc00b", "a\ufffdb"),
        (rb"\ud800\ud800", "\ufffd\ufffd"),
        (rb"\udfff\ud83d", "\ufffd\ufffd"),
    ],
)
def test_a_lone_surrogate_costs_one_character(escaped: bytes, shown: str) -> None:
    found, _ = read_resource(sent(SIMPLE).replace(b"Alk phos", escaped))
    assert isinstance(found, Observation) and found.code is not None
    assert found.code.text == shown
    assert msgspec.structs.replace(found, code=None) == read(changed("code", ABSENT))[0]
    msgspec.json.encode(found)


def test_a_lone_surrogate_in_lists_of_no_known_shape_can_be_written_again() -> None:
    found, _ = read({"resourceType": "Condition", "abatementAge": ["\ud800", [["x\udc00"]]]})
    assert isinstance(found, Condition)
    assert found.abatement_age == ["\ufffd", [["x\ufffd"]]]
    msgspec.json.encode(found)


def test_a_pair_of_surrogates_is_the_character_it_means() -> None:
    raw = sent(changed("status", 7)).replace(b"Alk phos", rb"\ud83e\uddb4")
    found, _ = read_resource(raw)
    assert isinstance(found, Observation) and found.code is not None
    assert found.code.text == "\U0001f9b4"


@pytest.mark.parametrize("path", ["status", "code", "code.coding", "valueQuantity.value", "note"])
def test_a_deeply_nested_value_costs_its_element(path: str) -> None:
    nested: Any = MARK
    for n in range(150):
        nested = [nested] if n % 2 else {"coding": nested}
    found, notes = read(changed(path, nested))
    assert (found.id, found.effective_date_time) == ("o1", "2026-01-05T08:00:00Z")
    assert MARK not in repr(found) + repr(notes)


def test_elements_that_we_do_not_read_may_hold_anything() -> None:
    found, notes = read({**SIMPLE, "text": {"div": 3}, "category": 1, "_status": [], "": None})
    assert (found, notes) == read(SIMPLE)


def test_of_a_name_given_twice_the_last_one_holds_on_both_paths() -> None:
    twice = b'{"resourceType":"Observation","status":"final","status":"amended"%s}'
    for more in (b"", b',"issued":3'):
        found, _ = read_resource(twice % more)
        assert isinstance(found, Observation) and found.status == "amended"


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ({"resourceType": "AllergyIntolerance"}, "AllergyIntolerance"),
        ({"resourceType": "Bundle", "entry": []}, "Bundle"),
        ({"resourceType": "observation"}, "observation"),
        ({"resourceType": "Observations", "status": 3}, "Observations"),
        ({"resourceType": 7}, ""),
        ({"resourceType": None}, ""),
        ({"resourceType": ["Observation"]}, ""),
        ({"status": "final"}, ""),
        ({}, ""),
        ([], ""),
        ([SIMPLE], ""),
        ("Observation", ""),
        (5, ""),
        (None, ""),
        (True, ""),
    ],
)
def test_what_is_no_resource_that_we_read_is_left_aside_with_its_type(
    found: Any, kind: str
) -> None:
    with pytest.raises(Unread) as left_aside:
        read(found)
    assert left_aside.value.type == kind


@pytest.mark.parametrize(
    ("members", "seen", "expected"),
    [
        ('"resourceType":"Patient","deceasedBoolean":"false","gender":"male"', "gender", "male"),
        ('"resourceType":"Patient","deceasedBoolean":1', "deceased_boolean", None),
        ('"resourceType":"Encounter","class":"IMP","status":"planned"', "status", "planned"),
        ('"resourceType":"Encounter","class":[{"code":"IMP"}]', "class_", None),
        (
            '"resourceType":"MedicationRequest","contained":{"id":"m","code":{"text":"X"}}',
            "contained",
            [Contained(id="m", code=CodeableConcept(text="X"))],
        ),
        (
            '"resourceType":"MedicationRequest","dosageInstruction":[{"text":"daily",'
            '"timing":{"repeat":{"frequency":"2","period":1}}}]',
            "dosage_instruction",
            [Dosage(text="daily", timing=Timing(repeat=Repeat(period=1)))],
        ),
    ],
)
def test_odd_elements_of_other_types_cost_no_more(members: str, seen: str, expected: Any) -> None:
    resource, notes = read_resource(b"{%s}" % members.encode())
    assert getattr(resource, seen) == expected
    assert notes


@pytest.mark.parametrize("more", [{}, {"recordedDate": 3}])
def test_an_abatement_that_is_no_date_is_still_an_abatement(more: dict[str, Any]) -> None:
    age, years = {"value": 52, "unit": "a"}, {"low": {"value": 50, "unit": "a"}}
    whole = {"resourceType": "Condition", "abatementAge": age, "abatementRange": years, **more}
    found, _ = read(whole)
    assert found.abatement_age and found.abatement_range


# -- both ways of reading agree ----------------------------------------------------------------


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_valid_resource_is_read_alike_in_one_pass_and_taken_apart(path: Path) -> None:
    entries = json.loads(path.read_text("utf-8"))["bundle"]["entry"]
    compared = 0
    for entry in entries:
        found = entry["resource"]
        kind = READ_TYPES.get(found["resourceType"])
        if kind is not None:
            compared += 1
            assert read(found) == (mended(found, kind)[0], [])
            assert mended(found, kind)[1] == []
    assert compared > 5


NAMES = sorted(
    {x.encode_name for kind in READ_TYPES.values() for x in msgspec.structs.fields(kind)}
    | {x.encode_name for kind in (Coding, Reference) for x in msgspec.structs.fields(kind)}
    | {"value", "unit", "low", "high", "start", "end", "repeat", "boundsPeriod", "frequency"}
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["final", "2026-01-05", "NaN", "28", "#m", "\ud800"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*READ_TYPES]), st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=6)
)
def test_any_object_of_a_type_that_we_read_is_read(name: str, members: dict[str, Any]) -> None:
    members.pop("resourceType", None)
    found, notes = read({"resourceType": name, **members})
    kind = READ_TYPES[name]
    assert type(found) is kind and isinstance(found, Resource)
    # What was read is itself a resource without anything odd, and reads as itself.
    again, nothing = read_resource(msgspec.json.encode(found))
    assert (again, nothing) == (found, [])
    assert all(note.where.startswith(name) for note in notes)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([Observation, Condition, MedicationRequest, Encounter, Patient]), st.data())
def test_taking_apart_keeps_exactly_what_one_pass_would_have_kept(
    kind: type[Resource], data: st.DataObject
) -> None:
    members = data.draw(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4))
    members = {k: v for k, v in members.items() if k != "resourceType" and "\\ud8" not in repr(v)}
    whole = {**members, "resourceType": kind.__name__}
    found, notes = read(whole)
    if not notes:
        assert mended(whole, kind)[0] == found
