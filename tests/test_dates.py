"""FHIR dates: partial ones mean every day they can mean, and the day is the one printed."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_service.dates import Moment, as_text, completed_years, parse_date

TODAY = date(2026, 1, 15)


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal()


def moment(text: str) -> Moment:
    found = parse_date(text)
    assert found is not None
    return found


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026", "2026-01-01", "2026-12-31"),
        ("2025-11", "2025-11-01", "2025-11-30"),
        ("2025-12", "2025-12-01", "2025-12-31"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2023-02", "2023-02-01", "2023-02-28"),
        ("1900-02", "1900-02-01", "1900-02-28"),
        ("2000-02", "2000-02-01", "2000-02-29"),
        ("2024-02-29", "2024-02-29", "2024-02-29"),
        ("2026-01-15", "2026-01-15", "2026-01-15"),
        ("0001-01-01", "0001-01-01", "0001-01-01"),
        ("9999", "9999-01-01", "9999-12-31"),
        ("9999-12-31", "9999-12-31", "9999-12-31"),
    ],
)
def test_a_date_means_every_day_it_can_mean(text: str, first: str, last: str) -> None:
    found = moment(text)
    assert (as_text(found.first), as_text(found.last)) == (first, last)
    assert found.is_partial is (first != last)
    assert (found.clock, found.text) == ("", text)


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("2026-01-15T08:30:00Z", "08:30:00Z"),
        ("2026-01-15T23:59:59+14:00", "23:59:59+14:00"),
        ("2026-01-15T00:00:00-12:00", "00:00:00-12:00"),
        ("2026-01-15T08:30:00.123456Z", "08:30:00.123456Z"),
        ("2026-01-15T08:30:00", "08:30:00"),
        ("2026-01-15T08:30", "08:30"),
        ("2026-01-15T", ""),
    ],
)
def test_the_day_is_the_one_printed_whatever_the_zone(text: str, clock: str) -> None:
    found = moment(text)
    assert (as_text(found.first), as_text(found.last)) == ("2026-01-15", "2026-01-15")
    assert (found.clock, found.text) == (clock, "2026-01-15")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "today",
        "2023-02-29",
        "1900-02-29",
        "2026-02-30",
        "2026-04-31",
        "2026-13",
        "2026-00",
        "2026-13-01",
        "2026-01-00",
        "2026-01-32",
        "0000",
        "0000-01-01",
        "20260115",
        "26-01-15",
        "2026-1-5",
        "2026/01/15",
        "15.01.2026",
        "2026-01-15 08:30",
        "2026-01T08:30",
        "2026T08:30",
        " 2026-01-15",
        "2026-01-15 ",
        "2026-01-15\n",
        "-2026-01-15",
        "12026-01-15",
        "2026-01-15-01",
        "2026-01-15T08:30 Z",
        "٢٠٢٦-٠١-١٥",  # noqa: RUF001  # Arabic digits are digits to a careless pattern
        "NaN",
        "2026-01-15" * 1000,
    ],
)
def test_what_is_no_fhir_date_is_no_date(text: str) -> None:
    assert parse_date(text) is None


@given(st.dates())
def test_every_calendar_day_is_read_and_printed_again(some: date) -> None:
    found = moment(some.isoformat())
    assert found.first == found.last == some.toordinal()
    assert as_text(found.first) == some.isoformat()


@given(st.text(max_size=30))
def test_no_text_breaks_the_reader(text: str) -> None:
    found = parse_date(text)
    assert found is None or found.first <= found.last


# -- the future --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-14", ("2026-01-14", "2026-01-14")),
        ("2026-01-15", ("2026-01-15", "2026-01-15")),
        ("2026-01-16", ("2026-01-15", "2026-01-15")),  # a zone ahead of ours
        ("2026-01-16T00:10:00+14:00", ("2026-01-15", "2026-01-15")),
        ("2026-01-17", None),
        ("2026-02", None),
        ("2027", None),
        ("2026-01", ("2026-01-01", "2026-01-15")),
        ("2026", ("2026-01-01", "2026-01-15")),
        ("2025", ("2025-01-01", "2025-12-31")),
    ],
)
def test_one_day_ahead_is_today_and_two_days_ahead_is_nothing(
    text: str, expected: tuple[str, str] | None
) -> None:
    found = moment(text).up_to(TODAY.toordinal())
    assert (found and (as_text(found.first), as_text(found.last))) == expected


def test_a_month_that_begins_tomorrow_may_still_mean_today() -> None:
    found = moment("2026-02").up_to(day("2026-01-31"))
    assert found is not None and (found.first, found.last) == (day("2026-01-31"),) * 2


def test_the_clock_and_the_printed_text_outlive_the_cut() -> None:
    found = moment("2026-01-16T07:05:00+13:00").up_to(TODAY.toordinal())
    assert found is not None
    assert (found.clock, found.text) == ("07:05:00+13:00", "2026-01-16")


# -- windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "days", "surely", "possibly"),
    [
        ("2026-01-15", 0, True, True),
        ("2026-01-14", 0, False, False),
        ("2025-10-17", 90, True, True),
        ("2025-10-16", 90, False, False),
        ("2026-01-16", 90, False, False),  # not before the day
        ("2025-12", 45, True, True),
        ("2025-12", 44, False, True),
        ("2025-12", 15, False, True),
        ("2025-12", 14, False, False),
        ("2026-01", 30, False, True),  # may lie after the day
        ("2025", 379, True, True),
        ("2025", 378, False, True),
        ("2025", 14, False, False),
        ("2026", 0, False, True),
        ("2027", 9999, False, False),
    ],
)
def test_a_partial_date_is_surely_in_a_window_with_every_day_and_possibly_with_any(
    text: str, days: int, surely: bool, possibly: bool
) -> None:
    found = moment(text)
    assert found.surely_within(days, TODAY.toordinal()) is surely
    assert found.possibly_within(days, TODAY.toordinal()) is possibly


@given(
    st.sampled_from(["2025", "2025-12", "2026-01", "2026-01-10", "2026-01-15", "2026-01-16"]),
    st.integers(0, 800),
)
def test_windows_agree_with_counting_the_days_one_by_one(text: str, days: int) -> None:
    found, today = moment(text), TODAY.toordinal()
    inside = [0 <= today - x <= days for x in range(found.first, found.last + 1)]
    assert found.surely_within(days, today) is all(inside)
    assert found.possibly_within(days, today) is any(inside)


# -- ages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("born", "on", "age"),
    [
        ("2008-01-15", "2026-01-14", 17),
        ("2008-01-15", "2026-01-15", 18),
        ("2008-01-15", "2008-01-15", 0),
        ("2008-02-29", "2026-02-28", 17),
        ("2008-02-29", "2026-03-01", 18),
        ("2008-02-29", "2028-02-29", 20),
        ("2008-01-15", "2008-01-14", -1),
    ],
)
def test_an_age_is_in_completed_years(born: str, on: str, age: int) -> None:
    assert completed_years(day(born), day(on)) == age


@given(st.dates(max_value=date(2020, 1, 1)), st.integers(0, 25_000))
def test_an_age_never_falls_as_days_pass(born: date, later: int) -> None:
    on = min(born.toordinal() + later, date.max.toordinal() - 1)
    assert 0 <= completed_years(born.toordinal(), on) <= completed_years(born.toordinal(), on + 1)
    assert completed_years(born.toordinal(), on + 1) <= (timedelta(later + 1).days // 365) + 1
