"""The synthetic patients: valid charts, and charts that move in time as a whole."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cds_service.errors import ContentError
from cds_service.fhir_endpoint import load_patients, moved

FOLDER = Path(__file__).parent.parent / "fixtures" / "patients"
FILES = sorted(FOLDER.glob("*.json"))
TODAY = date(2026, 11, 24)
TYPES = {
    *("Patient", "Observation", "Condition", "MedicationRequest", "MedicationAdministration"),
    *("DiagnosticReport", "ServiceRequest", "Procedure", "Encounter"),
}
CARDS = {
    "lowAlpUnconfirmed info",
    "lowAlpPersistent info",
    "lowAlpPersistent warning",
    "raisedAlpSourceUnknown info",
    "raisedAlpHepatobiliary info",
    "raisedAlpHepatobiliary warning",
    "raisedAlpBoneSource info",
    "lyticLesionWithoutMyelomaScreen warning",
    "raisedAlpWithCancer warning",
    "lowAlpInfant warning",
    "lowAlpBeforeAntiresorptive warning",
    "lowAlpOnAntiresorptive warning",
    "lowAlpRaisedPlp warning",
    "antiresorptiveWithHypophosphatasia info",
    "lyticLesionAbnormalMyelomaScreen warning",
    "raisedAlpInMyeloma info",
    "extremeAlp warning",
    "pagetAlpReview info",
    "raisedAlpBoneSourceUnexplained info",
}
SAID = ("text", "display", "conclusion", "valueString")
# What real charts hold and textbooks leave out; each chart has some of it.
ODDITIES: dict[str, Callable[[str], Any]] = {
    "an absolute reference": re.compile(r'"reference": "https://').search,
    "a versioned reference": re.compile(r'"reference": "[^"]*/_history/').search,
    "a partial date": re.compile(r'Date(Time)?": "\d{4}(-\d\d)?"').search,
    "a unit without a system": re.compile(
        r'"valueQuantity": {"value": \d+, "unit": "[^"]+"}'
    ).search,
    "a withdrawn result": re.compile(
        r'"status": "(cancelled|entered-in-error|preliminary)"'
    ).search,
    "a result with a reason for having none": re.compile(r'"dataAbsentReason"').search,
    "a bound for a number": re.compile(r'"comparator"').search,
    "a contained resource": re.compile(r'"contained"').search,
    "a local code first": re.compile(r'"coding": \[{"system": "https://hospital').search,
    "a code system by OID": re.compile(r'"system": "urn:oid:').search,
    "a period where an instant is usual": re.compile(r'"effectivePeriod"').search,
    "a stay without an end": re.compile(r'"period": {"start": "[^"]+"}').search,
    "a unit nobody prints any more": re.compile(r"ka'U").search,
    "an arbitrary unit": re.compile(r"\[IU\]/L").search,
    "a second name": re.compile(r'"use": "nickname"').search,
    "limits as text": re.compile(r'"referenceRange": \[{"text"').search,
    "two ranges": re.compile(r'"referenceRange": \[{.*"code": "recommended"').search,
    "a number without a unit": re.compile(r'"valueQuantity": {"value": [\d.]+}').search,
    "a drug inside its order": re.compile(r'"medicationReference": {"reference": "#').search,
    "a diagnosis in words": re.compile(r'"problem-list-item"}]}],\s+"code": {"text"').search,
    "a dose that was not given": re.compile(r'"status": "not-done"').search,
}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def charts() -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in FILES]


def resources(path: Path) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in read(path)["bundle"]["entry"]]


def members(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every (element name, scalar) below a JSON value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from members(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from members(item, name)
    else:
        yield name, value


def dates(model: Any, path: str = "") -> Iterator[tuple[str, date | str]]:
    """Every (path, value) that FHIR declares to be a date, a dateTime or an instant."""
    if isinstance(model, BaseModel):
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            if "datetime" in repr(field.annotation) and isinstance(value, date | str):
                yield f"{path}.{name}", value
            else:
                yield from dates(value, f"{path}.{name}")
    elif isinstance(model, list):
        for n, item in enumerate(model):
            yield from dates(item, f"{path}[{n}]")


@pytest.mark.parametrize("path", charts())
def test_a_chart_is_one_valid_fhir_bundle(path: Path) -> None:
    bundle = Bundle.model_validate(read(path)["bundle"])

    assert bundle.type == "collection"
    assert 15 <= len(resources(path)) <= 60


@pytest.mark.parametrize("path", charts())
def test_a_chart_is_of_one_patient_named_like_the_file(path: Path) -> None:
    patients = [x for x in resources(path) if x["resourceType"] == "Patient"]
    others = [x for x in resources(path) if x["resourceType"] != "Patient"]

    assert [x["id"] for x in patients] == [path.stem]
    assert all(f"Patient/{path.stem}" in x["subject"]["reference"] for x in others)


@pytest.mark.parametrize("path", charts())
def test_every_reference_leads_to_a_resource_of_the_same_chart(path: Path) -> None:
    entries = read(path)["bundle"]["entry"]
    contained = [x["id"] for e in entries for x in e["resource"].get("contained", [])]
    urls = {entry["fullUrl"] for entry in entries} | {f"#{name}" for name in contained}
    host = entries[0]["fullUrl"].partition("Patient/")[0]
    references = [value for name, value in members(entries) if name == "reference"]

    assert references
    for reference in references:
        plain = reference.partition("/_history/")[0]
        assert plain in urls or host + plain in urls, reference


@pytest.mark.parametrize("path", charts())
def test_every_full_url_is_that_of_its_resource(path: Path) -> None:
    for entry in read(path)["bundle"]["entry"]:
        resource = entry["resource"]
        assert entry["fullUrl"].endswith(f"/{resource['resourceType']}/{resource['id']}")


@pytest.mark.parametrize("path", charts())
def test_a_chart_owes_known_cards_only(path: Path) -> None:
    assert set(read(path)["expect"]) <= CARDS


ORDERS = [
    pytest.param(path.stem, order, id=f"{path.stem}, {order['hook']}")
    for path in FILES
    for order in read(path).get("orders", ())
]


@pytest.mark.parametrize(("patient", "order"), ORDERS)
def test_what_is_ordered_is_a_valid_draft_for_the_patient(
    patient: str, order: dict[str, Any]
) -> None:
    Bundle.model_validate(order["draftOrders"])
    drafts = [entry["resource"] for entry in order["draftOrders"]["entry"]]

    assert order["says"].endswith(".")
    assert [x["status"] for x in drafts] == ["draft"]
    assert [x["subject"]["reference"] for x in drafts] == [f"Patient/{patient}"]


def test_what_is_ordered_moves_with_the_chart() -> None:
    [patient] = [x for x in load_patients(FOLDER, TODAY) if x.patient["id"] == "cancer-normal-alp"]
    [order] = patient.orders

    [entry] = order.context["draftOrders"]["entry"]
    assert entry["resource"]["authoredOn"] == TODAY.isoformat()


def test_the_orders_are_met_at_both_hooks_with_cards_and_with_silence() -> None:
    orders = [order for path in FILES for order in read(path).get("orders", ())]

    assert {x["hook"] for x in orders} == {"order-select", "order-sign"}
    assert {card for x in orders for card in x["expect"]} == {
        "antiresorptiveWithLowAlp info",
        "antiresorptiveWithPersistentLowAlp warning",
        "antiresorptiveWithHypophosphatasia warning",
    }
    assert [] in [x["expect"] for x in orders]


@pytest.mark.parametrize("path", charts())
def test_a_chart_holds_something_odd(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert [name for name, found in ODDITIES.items() if found(text)]


@pytest.mark.parametrize("path", charts())
def test_no_sentence_of_a_chart_names_a_day(path: Path) -> None:
    sentences = [x for name, x in members(read(path)["bundle"]) if name in SAID]

    assert sentences
    assert not [x for x in sentences if re.search(r"\d{4}-\d\d|\d\d?[./]\d\d?[./]\d\d", x)]


@pytest.mark.parametrize("path", charts())
def test_the_readme_lists_the_chart_with_its_cards(path: Path) -> None:
    cards = ", ".join(f"`{card}`" for card in read(path)["expect"]) or "none"
    rows = (FOLDER.parent / "README.md").read_text(encoding="utf-8")

    assert f"| `{path.stem}` | {cards} |" in rows


def test_no_two_resources_share_an_id() -> None:
    names = [f"{x['resourceType']}/{x['id']}" for path in FILES for x in resources(path)]

    assert len(names) == len(set(names))


def test_the_charts_hold_every_type_that_is_read() -> None:
    assert {x["resourceType"] for path in FILES for x in resources(path)} == TYPES


def test_the_charts_cover_every_card_and_silence() -> None:
    owed = [read(path)["expect"] for path in FILES]

    assert {card for cards in owed for card in cards} == CARDS
    assert [] in owed
    assert any(len(cards) == 2 for cards in owed)


@pytest.mark.parametrize("oddity", ODDITIES)
def test_every_oddity_is_in_some_chart(oddity: str) -> None:
    assert any(ODDITIES[oddity](path.read_text(encoding="utf-8")) for path in FILES)


MOVES = [
    ("birthDate", "1961-05-20", 0, "1961-05-20"),
    ("birthDate", "2024-02-29", 365, "2025-02-28"),
    ("birthDate", "2024-02-29", 366, "2025-03-01"),
    ("birthDate", "2024-02-29", 1461, "2028-02-29"),
    ("birthDate", "2023-03-01", -1, "2023-02-28"),
    ("birthDate", "2024-03-01", -1, "2024-02-29"),
    ("onsetDateTime", "2025-03", 30, "2025-03"),
    ("onsetDateTime", "2025-03", 31, "2025-04"),
    ("onsetDateTime", "2025-03", -1, "2025-02"),
    ("onsetDateTime", "2024-02", 29, "2024-03"),
    ("onsetDateTime", "2015", 364, "2015"),
    ("onsetDateTime", "2015", 365, "2016"),
    ("onsetDateTime", "2015", -1, "2014"),
    ("effectiveDateTime", "2025-12-31T23:59:59.123-05:00", 1, "2026-01-01T23:59:59.123-05:00"),
    ("effectiveInstant", "2025-12-31T23:59:59.5Z", 32, "2026-02-01T23:59:59.5Z"),
    ("issued", "2026-01-15T07:00:00+05:30", 313, "2026-11-24T07:00:00+05:30"),
    ("start", "2026-01-04T15:20:00+10:00", 10, "2026-01-14T15:20:00+10:00"),
    ("end", "2026-01-04", 10, "2026-01-14"),
    ("authoredOn", "2025-06", 365, "2026-06"),
    ("recordedDate", "2025-06-18", 313, "2026-04-27"),
    ("valueDateTime", "2026-03-01", 313, "2027-01-08"),
    ("valueDate", "2026-03-01", 1, "2026-03-02"),
    ("date", "2026-03-01", 1, "2026-03-02"),
    ("time", "2026-03-01T08:00:00Z", 1, "2026-03-02T08:00:00Z"),
    ("lastUpdated", "2026-03-01T00:00:00Z", 1, "2026-03-02T00:00:00Z"),
    ("birthDate", "unknown", 5, "unknown"),
    ("birthDate", "2025-02-30", 5, "2025-02-30"),
    ("birthDate", None, 5, None),
    ("code", "2019", 400, "2019"),
    ("code", "8640", 400, "8640"),
    ("value", "2025-01-01", 400, "2025-01-01"),
    ("display", "2025-01-01", 400, "2025-01-01"),
    ("valueString", "2025-01-01", 400, "2025-01-01"),
    ("endpoint", "2025-01-01", 400, "2025-01-01"),
    ("value", 2025, 400, 2025),
]


@pytest.mark.parametrize(("element", "value", "days", "expected"), MOVES)
def test_a_date_moves_by_days_and_nothing_else_does(
    element: str, value: Any, days: int, expected: Any
) -> None:
    nested = {"entry": [{"resource": {element: value}}], element: [value]}

    assert moved(nested, days) == {
        "entry": [{"resource": {element: expected}}],
        element: [expected],
    }


@pytest.mark.parametrize("days", [0, 1, 28, 313, 366, -500])
@pytest.mark.parametrize("path", charts())
def test_every_date_of_a_chart_moves_by_the_same_days(path: Path, days: int) -> None:
    bundle = read(path)["bundle"]
    before = list(dates(Bundle.model_validate(bundle)))
    after = dict(dates(Bundle.model_validate(moved(bundle, days))))

    assert before
    assert len(after) == len(before)
    for where, value in before:
        assert after[where] == later(value, days), where


def later(value: date | str, days: int) -> date | str:
    if isinstance(value, str):
        first = date(int(value[:4]), int(value[5:] or 1), 1)
        return (first + timedelta(days)).strftime("%Y-%m-%d")[: len(value)]
    return value + timedelta(days)


@pytest.mark.parametrize("path", charts())
def test_moving_by_no_day_changes_nothing(path: Path) -> None:
    bundle = read(path)["bundle"]

    assert moved(bundle, 0) == bundle


FULL_DATES = st.dates(date(1900, 1, 1), date(2100, 1, 1))


@given(FULL_DATES, FULL_DATES, st.integers(-20000, 20000))
def test_an_interval_survives_the_move(start: date, end: date, days: int) -> None:
    period = moved({"start": start.isoformat(), "end": f"{end}T09:00:00Z"}, days)

    found = datetime.fromisoformat(period["end"]).date() - date.fromisoformat(period["start"])
    assert found == end - start


@given(FULL_DATES, st.integers(-20000, 20000))
def test_moving_there_and_back_restores_a_full_date(day: date, days: int) -> None:
    chart = {"birthDate": day.isoformat()}

    assert moved(moved(chart, days), -days) == chart


def test_patients_load_by_file_name_as_of_today() -> None:
    patients = load_patients(FOLDER, TODAY)

    assert [x.patient["id"] for x in patients] == [path.stem for path in FILES]
    assert {x.as_of for x in patients} == {TODAY}
    assert [list(x.expect) for x in patients] == [read(path)["expect"] for path in FILES]
    assert [x.story for x in patients] == [read(path)["story"] for path in FILES]


@pytest.mark.parametrize("path", charts())
def test_a_chart_loaded_on_its_own_day_is_the_chart_of_the_file(path: Path) -> None:
    found = read(path)
    loaded = {x.patient["id"]: x for x in load_patients(FOLDER, date.fromisoformat(found["asOf"]))}

    assert loaded[path.stem].bundle == found["bundle"]


def test_a_birthday_moves_with_the_chart() -> None:
    path = FOLDER / "low-alp-persistent.json"
    as_of = date.fromisoformat(read(path)["asOf"])
    born = date.fromisoformat(next(iter(resources(path)))["birthDate"])
    loaded = next(x for x in load_patients(FOLDER, TODAY) if x.patient["id"] == path.stem)

    assert TODAY - date.fromisoformat(loaded.patient["birthDate"]) == as_of - born


@pytest.mark.parametrize(
    "content",
    [
        b"not JSON",
        b"[]",
        b'{"story": "", "expect": [], "bundle": {}}',
        b'{"asOf": "yesterday", "story": "", "expect": [], "bundle": {}}',
        b'{"asOf": "2026-01-15", "story": "", "expect": "none", "bundle": {}}',
        b'{"asOf": "2026-01-15", "story": "", "expect": [], "bundle": {}, "extra": 1}',
        b'{"asOf": "2026-01-15", "story": "\xff", "expect": [], "bundle": {}}',
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.json").write_bytes(content)

    with pytest.raises(ContentError, match=r"^broken\.json: "):
        load_patients(tmp_path, TODAY)
