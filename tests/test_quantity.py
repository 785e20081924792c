"""Numbers with units: what a bound proves, which numbers are usable, what a unit is worth."""

import math
import operator
import tomllib
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_service.content import Content
from cds_service.loading import load_content
from cds_service.quantity import Quantity, UnitMismatch, Units, finite_number

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
U_PER_L = "U/L"


@cache
def content() -> Content:
    return load_content(HOOKS)


@cache
def units() -> Units:
    tables = tomllib.loads(
        (HOOKS / "shared" / "units.toml").read_text("utf-8"), parse_float=Decimal
    )
    return Units(
        {unit: {x: Decimal(y) for x, y in spellings.items()} for unit, spellings in tables.items()}
    )


def amount(value: str, comparator: str = "", unit: str = U_PER_L) -> Quantity:
    return Quantity(Decimal(value), unit, comparator)


# -- what a bound proves -----------------------------------------------------------------------

# For 29, 30 and 31 compared with 30: T proves it, F disproves it, ? is open.
PROVEN = {
    "below": {"": "TFF", "<": "TT?", "<=": "T??", ">": "?FF", ">=": "?FF"},
    "above": {"": "FFT", "<": "FF?", "<=": "FF?", ">": "?TT", ">=": "??T"},
    "at_least": {"": "FTT", "<": "FF?", "<=": "F??", ">": "?TT", ">=": "?TT"},
    "at_most": {"": "TTF", "<": "TT?", "<=": "TT?", ">": "?FF", ">=": "??F"},
}
ANSWER = {"T": True, "F": False, "?": None}


@pytest.mark.parametrize(
    ("question", "comparator", "value", "expected"),
    [
        (question, comparator, value, ANSWER[answer])
        for question, rows in PROVEN.items()
        for comparator, answers in rows.items()
        for value, answer in zip(("29", "30", "31"), answers, strict=True)
    ],
)
def test_a_comparison_is_yes_or_no_only_when_the_number_proves_it(
    question: str, comparator: str, value: str, expected: bool | None
) -> None:
    assert getattr(amount(value, comparator), question)(amount("30")) is expected


MEANS: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ASKS: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "below": operator.lt,
    "above": operator.gt,
    "at_least": operator.ge,
    "at_most": operator.le,
}


@given(
    st.integers(-20, 20), st.integers(-20, 20), st.sampled_from([*MEANS]), st.sampled_from([*ASKS])
)
def test_an_answer_holds_for_every_number_that_a_bound_can_mean(
    value: int, limit: int, comparator: str, question: str
) -> None:
    # Half steps far past both numbers stand for all numbers: only the order matters.
    grid = [Decimal(n) / 2 for n in range(-100, 101)]
    possible = [x for x in grid if MEANS[comparator](x, Decimal(value))]
    answers = {ASKS[question](x, Decimal(limit)) for x in possible}
    expected = answers.pop() if len(answers) == 1 else None
    found = getattr(amount(str(value), comparator), question)(amount(str(limit)))
    assert found is expected


@pytest.mark.parametrize(
    ("value", "limit", "expected"),
    [
        (amount("29"), amount("30", ">"), True),
        (amount("29"), amount("30", "<"), None),
        (amount("31"), amount("30", ">"), None),
        (amount("31"), amount("30", "<"), False),
        (amount("20", "<"), amount("30", ">"), True),
        (amount("20", ">"), amount("30", ">"), None),
    ],
)
def test_a_comparison_with_a_bound_is_open_unless_the_bound_proves_it(
    value: Quantity, limit: Quantity, expected: bool | None
) -> None:
    assert value.below(limit) is expected


def test_a_number_times_a_plain_number_keeps_its_unit_and_its_bound() -> None:
    assert amount("20", ">").times(amount("1.5", unit="1")) == amount("30.0", ">")


@pytest.mark.parametrize(
    ("over", "under", "expected"),
    [
        (amount("60"), amount("40"), amount("1.5", unit="1")),
        (amount("60", ">"), amount("40"), amount("1.5", ">", "1")),
        (amount("60", "<="), amount("40"), amount("1.5", "<=", "1")),
        (amount("60"), amount("0.5"), amount("120", unit="1")),
        (amount("60"), amount("1"), amount("60", unit="1")),
        (amount("60"), amount("0"), None),
        (amount("60"), amount("-1"), None),
    ],
)
def test_a_ratio_keeps_the_bound_of_what_is_divided(
    over: Quantity, under: Quantity, expected: Quantity | None
) -> None:
    assert over.ratio(under) == expected


def _proves_below_two(ratio: Quantity | None) -> bool | None:
    return None if ratio is None else ratio.below(amount("2", unit="1"))


@pytest.mark.parametrize(
    ("over", "under", "expected"),
    [
        (amount("60"), amount("40", ">"), True),  # less than 1.5
        (amount("60"), amount("40", "<"), None),  # more than 1.5
        (amount("60", ">"), amount("40", ">"), None),  # anything
        (amount("90"), amount("40", "<"), False),  # more than 2.25
        (amount("90"), amount("40", ">"), None),
    ],
)
def test_a_ratio_to_a_bound_claims_no_more_than_the_bound_proves(
    over: Quantity, under: Quantity, expected: bool | None
) -> None:
    assert _proves_below_two(over.ratio(under)) is expected


@pytest.mark.parametrize("question", ["below", "above", "at_least", "at_most", "ratio"])
def test_quantities_in_different_units_are_never_compared(question: str) -> None:
    with pytest.raises(UnitMismatch):
        getattr(amount("1", unit="U/L"), question)(amount("1", unit="ukat/L"))


@pytest.mark.parametrize("question", ["below", "above", "at_least", "at_most"])
def test_a_number_without_a_unit_proves_nothing_beside_one_that_has_one(question: str) -> None:
    for one, other in ((amount("1", unit=""), amount("2")), (amount("1"), amount("2", unit=""))):
        assert getattr(one, question)(other) is None


def test_only_a_plain_number_multiplies() -> None:
    with pytest.raises(UnitMismatch):
        amount("2").times(amount("2"))


@pytest.mark.parametrize(("name", "unit"), [("days", "d"), ("years", "a"), ("count", "1")])
def test_a_window_an_age_and_a_count_are_read_in_their_own_unit_only(name: str, unit: str) -> None:
    assert getattr(amount("90", unit=unit), name) == 90
    with pytest.raises(UnitMismatch):
        getattr(amount("90", unit="U/L"), name)


# -- usable numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (28, "28"),
        (28.50, "28.5"),
        (0, "0"),
        (-3.5, "-3.5"),
        (0.1, "0.1"),
        (123456789012345, "123456789012345"),
        (0.123456789012345, "0.123456789012345"),
        (-999999999999999, "-999999999999999"),
        (1e15, "1E+15"),
        (1e-15, "1E-15"),
    ],
)
def test_a_number_of_up_to_fifteen_digits_is_kept_exactly(raw: float, expected: str) -> None:
    assert finite_number(raw) == Decimal(expected)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        1234567890123456,
        1000000000000000,
        -1000000000000000,
        1e16,
        1e-16,
        5e-324,
        1.7976931348623157e308,
        10**400,
        math.inf,
        -math.inf,
        math.nan,
    ],
)
def test_a_whole_number_beyond_fifteen_digits_or_one_without_an_end_is_unusable(
    raw: float | None,
) -> None:
    assert finite_number(raw) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (0.30000000000000004, "0.3"),
        (112.28862015135657, "112.288620151357"),
        (-0.1234567890123456, "-0.123456789012346"),
        (999999999.9999999, "1000000000"),
    ],
)
def test_what_a_double_prints_after_the_fifteenth_digit_is_rounded_away(
    raw: float, expected: str
) -> None:
    assert finite_number(raw) == Decimal(expected)


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(-15, 0))
def test_every_decimal_within_the_limits_survives_the_double_it_came_in(
    digits: int, exponent: int
) -> None:
    sent = Decimal(digits).scaleb(exponent)
    if sent and abs(sent.adjusted()) > 15:
        return
    assert finite_number(float(sent) if exponent else digits) == sent


# -- units -------------------------------------------------------------------------------------

# How catalytic activity is written, and what one of it is in U/L.
ACTIVITY = {
    "1": """U/L|[IU]/L|[iU]/L|IU/L|iu/l|U/l|units/L|UI/L|E/L|mU/mL|m[IU]/mL|u/L|IU/l|Units/L
        |unit/L|enzyme unit per liter|Enzyme Unit Per Liter|U / L|u/L""",
    "1000": "U/mL|[IU]/mL|kU/L|IU/mL",
    "0.001": "mU/L|m[IU]/L|uU/mL|u[IU]/mL|µU/mL",
    "10": "U/dL|[IU]/dL",
    "60": "ukat/L|µkat/L|μkat/L|mckat/L|µKat/l|µkat / L|ukat/l|nkat/mL",
    "0.06": "nkat/L|nKat/L",
    "60000": "mkat/L",
    "60000000": "kat/L",
}


@pytest.mark.parametrize(
    ("spelling", "factor"),
    [(x.strip(), factor) for factor, row in ACTIVITY.items() for x in row.split("|")],
)
def test_every_way_to_write_a_catalytic_activity_has_its_factor(spelling: str, factor: str) -> None:
    assert units().factor(U_PER_L, spelling) == Decimal(factor)


@pytest.mark.parametrize(
    "spelling",
    [
        "[bdsk'U]/dL",
        "[ka'U]/dL",
        "King-Armstrong units/dL",
        "Bodansky units/dL",
        "KA units",
        "ug/L",
        "mg/dL",
        "mmol/L",
        "%",
        "U",
        "/L",
        "U/L/min",
        "U/g",
        " ",
        "",
        None,
    ],
)
def test_a_unit_of_another_assay_or_another_kind_has_no_factor(spelling: str | None) -> None:
    assert units().factor(U_PER_L, spelling) is None


def test_the_first_spelling_that_is_known_decides() -> None:
    assert units().factor(U_PER_L, "local-7", "µkat/L") == 60
    assert units().factor(U_PER_L, "U/L", "µkat/L") == 1
    assert units().factor(U_PER_L, None, None) is None


def test_a_katal_is_worth_sixty_million_units_by_every_prefix() -> None:
    factors = {x: units().factor(U_PER_L, f"{x}kat/L") for x in ("", "m", "u", "n")}
    assert [factors[x] for x in ("", "m", "u", "n")] == [
        Decimal(60_000_000) / 1000**n for n in range(4)
    ]


# Measure, molar unit, mass unit as sent, and how many of one are one of the other.
PER_MOLE = [  # mass for one molar unit
    ("calcium", "mmol/L", "mg/dL", "4.008"),
    ("phosphate", "mmol/L", "mg/dL", "3.097"),
    ("magnesium", "mmol/L", "mg/dL", "2.431"),
    ("zinc", "umol/L", "ug/dL", "6.54"),
    ("zinc", "umol/L", "µg/dL", "6.54"),
    ("zinc", "umol/L", "mcg/dL", "6.54"),
]
PER_MASS = [  # molar units for one of mass
    ("bilirubin", "umol/L", "mg/dL", "17.104"),
    ("bilirubin", "µmol/L", "mg/dL", "17.104"),
    ("vitamin_d", "nmol/L", "ng/mL", "2.496"),
    ("vitamin_d", "nmol/L", "µg/L", "2.496"),
    ("plp", "nmol/L", "ug/L", "4.046"),
    ("plp", "nmol/L", "ng/mL", "4.046"),
]


@pytest.mark.parametrize(
    ("measure", "molar", "mass", "expected"),
    [(m, u, s, 1 / float(f)) for m, u, s, f in PER_MOLE]
    + [(m, u, s, float(f)) for m, u, s, f in PER_MASS],
)
def test_mass_is_converted_to_moles_by_the_substance_s_own_factor(
    measure: str, molar: str, mass: str, expected: float
) -> None:
    found = content().measures[measure]
    of_mass, of_moles = (found.units.factor(found.unit, x) for x in (mass, molar))
    assert of_mass is not None and of_moles is not None
    assert float(of_mass / of_moles) == pytest.approx(expected, rel=1e-5)


def test_one_substance_s_factor_is_no_other_substance_s() -> None:
    found = content().measures
    assert found["potassium"].units.factor("mmol/L", "mg/dL") is None
    factors = {
        found[x].units.factor("mmol/L", "mg/dL") for x in ("calcium", "magnesium", "phosphate")
    }
    assert len(factors) == 3 and units().factor("mmol/L", "mg/dL") is None


def test_every_measure_is_compared_in_a_unit_that_can_be_converted_to_itself() -> None:
    for measure in content().measures.values():
        assert measure.units.knows(measure.unit), measure.name
        assert measure.units.factor(measure.unit, measure.unit) == 1, measure.name
