"""What the facts say of whatever was sent, readable or not, and of ratios."""

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from cds_service.facts import PatientFacts
from cds_service.loading import load_content
from cds_service.prefetch import Chart
from cds_service.quantity import Quantity
from cds_service.resources import Observation, Patient
from tests.exchanges import TODAY, Json, alp

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
NAME = "obs-alp-total"


def observation(number: int, **members: object) -> Observation:
    made: Json = {**alp(number, 50, 10), **members}
    return msgspec.json.decode(msgspec.json.encode(made), type=Observation)


def facts(*own: Observation, foreign: tuple[Observation, ...] = ()) -> PatientFacts:
    chart = Chart(resources={Observation: [*own]}, foreign=[*foreign])
    return PatientFacts(chart, load_content(HOOKS).families[0].knowledge, TODAY.toordinal())


@pytest.mark.parametrize("status", ["final", "preliminary", "entered-in-error", "registered"])
def test_a_result_of_any_status_was_sent(status: str) -> None:
    [sent] = facts(observation(1, status=status)).sent(NAME)
    assert sent.is_absent == (status in ("entered-in-error", "registered"))


def test_a_result_that_only_looks_like_it_was_sent_too() -> None:
    named = observation(1, code={"text": "Alkaline phosphatase"})
    assert [x.resource.id for x in facts(named).sent(NAME)] == [named.id]


def test_another_test_and_another_patient_were_not_sent() -> None:
    other = observation(1, code={"text": "Sodium"}, status="cancelled")
    assert facts(other, foreign=(observation(2),)).sent(NAME) == []


@pytest.mark.parametrize(
    ("gender", "highest"),
    [("female", 40), ("male", 60), ("other", 60), ("unknown", 60), ("F", 60), (None, 60)],
)
def test_limits_that_differ_by_sex_are_the_widest_for_any_other_gender(
    gender: str | None, highest: int
) -> None:
    knowledge = load_content(HOOKS).families[0].knowledge
    patient = PatientFacts(Chart(patient=Patient(gender=gender)), knowledge, TODAY.toordinal())
    assert patient.fallback("ggt", patient.today) == (None, Quantity(Decimal(highest), "U/L"))


@pytest.mark.parametrize(
    ("number", "cut", "shown"),
    [
        ("2", False, "2.0"),
        ("3.96", False, "4.0"),
        ("3.96", True, "3.9"),
        ("4", True, "4.0"),
        ("1e30", True, "1" + "0" * 30 + ".0"),
        ("1e-30", True, "0.0"),
    ],
)
def test_a_ratio_is_shown_to_one_decimal_and_when_asked_never_rounded_up(
    number: str, cut: bool, shown: str
) -> None:
    ratio = Quantity(Decimal(number), "1", "<")
    assert facts().to_one_decimal(ratio, cut=cut) == shown


def test_a_ratio_that_is_not_known_is_not_shown() -> None:
    assert facts().to_one_decimal(None) == ""
