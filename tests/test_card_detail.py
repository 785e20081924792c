"""What the detail of a card names beside the numbers, and when that was."""

import json
from functools import cache
from pathlib import Path

import pytest

from cds_service.answering import Answering
from cds_service.loading import load_content
from tests.exchanges import Json, ago, bundle, now, problem, request, result

HOOKS = Path(__file__).resolve().parents[1] / "hooks"


@cache
def answering() -> Answering:
    return Answering(load_content(HOOKS), None, 1.0, now)


def detail(values: tuple[float, ...], *more: Json, of: str = "lowAlpPersistent") -> str:
    """The detail of a topic's card."""
    body = request(values, 3, 1)
    body["prefetch"]["more"] = bundle([{**x, "id": f"m{n}"} for n, x in enumerate(more)])
    cards = answering().cards("alp-review", json.dumps(body).encode()).cards
    [found] = [x for x in cards if x.source.topic.code == of]
    return str(found.detail)


def feature(text: str, days: int | None) -> Json:
    """A diagnosis in words only."""
    found: Json = problem(91, "x", "x") | {"code": {"text": text}}
    found["recordedDate"] = None if days is None else ago(days)
    return found


LOW, VERY_LOW = (28.0, 29.0, 27.0), (21.0, 22.0, 20.0)


@pytest.mark.parametrize(
    ("values", "features", "told"),
    [
        (LOW, (400,), "ALP low on 3 readings, and a feature of hypophosphatasia is on record."),
        (
            VERY_LOW,
            (400,),
            ", the latest very low, and a feature of hypophosphatasia is on record.",
        ),
        (VERY_LOW, (), "ALP low on 3 readings, the latest very low."),
    ],
)
def test_what_makes_a_low_alp_telling_is_said(
    values: tuple[float, ...], features: tuple[int, ...], told: str
) -> None:
    found = detail(values, *(feature("Pseudofracture", x) for x in features))
    assert told in found
    assert ("- Pseudofracture" in found) == bool(features)


@pytest.mark.parametrize(
    ("days", "told"),
    [
        ((400,), [f"- Pseudofracture, {ago(400)}"]),
        ((900, 400, 700), [f"- Pseudofracture, {ago(400)}"]),
        ((None, 400), [f"- Pseudofracture, {ago(400)}"]),
        ((None,), ["- Pseudofracture"]),
    ],
)
def test_a_feature_is_named_once_in_our_words_with_its_newest_day_after_the_first_number(
    days: tuple[int | None, ...], told: list[str]
) -> None:
    lines = detail(LOW, *(feature("Pseudofracture, zyzzogeton", x) for x in days)).split("\n")
    listed = [x for x in lines if x.startswith("- ")]
    assert listed[1 : 1 + len(told)] == told
    assert [x[:6] for x in listed[:1] + listed[1 + len(told) :]] == ["- ALP "] * 3
    assert not any("zyzzogeton" in x for x in lines)


def ordered(code: str) -> Json:
    return {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": "Patient/p1"},
        "authoredOn": ago(3),
    }


def measured(code: str, days: int) -> Json:
    return result(0, code, "x", "mmol/L", 1, days)


PHOSPHATE, PLP = "14879-1", "62236-5"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), ()),
        ((measured(PHOSPHATE, 80),), (f"Phosphate, {ago(80)}",)),
        ((measured(PHOSPHATE, 80), measured(PHOSPHATE, 20)), (f"Phosphate, {ago(20)}",)),
        ((ordered(PHOSPHATE),), ("Phosphate, on order",)),
        ((ordered(PHOSPHATE), measured(PHOSPHATE, 20)), (f"Phosphate, {ago(20)}",)),
        (
            (ordered(PLP), measured(PHOSPHATE, 80)),
            ("Pyridoxal 5'-phosphate (PLP), on order", f"Phosphate, {ago(80)}"),
        ),
    ],
)
def test_a_test_that_is_not_needed_is_named_with_the_day_it_was_done(
    more: tuple[Json, ...], told: tuple[str, ...]
) -> None:
    [line] = [x for x in detail(VERY_LOW, *more).split("\n") if x.startswith("**Done or on order")]
    calcium = f"Calcium, {ago(12)}"  # the chart has one anyway
    assert line == f"**Done or on order:** {'; '.join((*told, calcium))}."


@pytest.mark.parametrize("sent", ["mL/min/{1.73_m2}", "mL/min/1.73m2", "mL/min/1.73 sq m"])
def test_a_unit_that_is_too_long_as_it_was_sent_is_written_as_people_write_it(sent: str) -> None:
    lesion = problem(92, "M89.50", "x")
    lesion["code"]["coding"][0]["system"] = "http://hl7.org/fhir/sid/icd-10-cm"
    reduced = result(0, "98979-8", "eGFR", sent, 45, 9)
    found = detail((70.0,), lesion, reduced, of="lyticLesionWithoutMyelomaScreen")
    assert f"- eGFR 45 mL/min/1.73 m² on {ago(9)}" in found
