"""Axes between round numbers: of values, whose limits stay visible however far one lies off, and of
days.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from math import ceil, floor, isclose, log10

_BEYOND = 9  # widths of the limits that an axis may reach past them and still show them
_BETWEEN = 3  # characters between two dates
_OF_DAYS, _OF_MONTHS, _OF_YEARS = (1, 2, 7, 14, 28), (1, 3, 6), (1, 2, 5, 10, 20, 50, 100)

Ends = tuple[float, float]


def value_axis(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> Ends | None:
    """The ends of the axis of all values and limits; None without a value.

    A few values so far off that the limits would shrink to nothing are left beyond its ends.
    """
    if not values:
        return None
    lowest = min(lows) if lows else 0.0
    highest = max(highs) if highs else lowest
    if (reach := _BEYOND * (highest - lowest)) > 0:
        near = [x for x in values if lowest - reach <= x <= highest + reach]
        values = near if 2 * len(near) >= len(values) else values
    everything = [*values, *lows, *highs]
    first, last = min(everything), max(everything)
    if isclose(first, last, rel_tol=1e-6, abs_tol=1e-9):
        margin = abs(first) / 10 if abs(first) > 1e-6 else 1.0
        return _rounded(first - margin, last + margin)
    return _rounded(first, last)


def _rounded(first: float, last: float) -> Ends:
    """Round numbers around both, with a margin; the margin does not take the axis below 0."""
    step = _step((last - first) / 20)
    start = floor(first / step - 0.5) * step
    return (max(start, 0.0) if first >= 0 else start, ceil(last / step + 0.5) * step)


def _step(finest: float) -> float:
    """The smallest of 1, 2, 5, 10, … that is at least so much."""
    power = 10.0 ** floor(log10(finest))
    return next(x * power for x in (1, 2, 5, 10, 20) if x * power >= finest)


def value_ticks(ends: Ends, most: int) -> list[float]:
    """Round values along an axis, at most so many."""
    first, last = ends
    step = _step((last - first) / most)
    return [n * step for n in range(ceil(first / step), floor(last / step) + 1)][:most]


def day_ticks(first: int, last: int, room: int) -> list[tuple[int, str]]:
    """Days along an axis with their dates, as many as `room` characters hold: days, else months,
    else years.
    """
    for days in _OF_DAYS:
        found = [(x, date.fromordinal(x).isoformat()) for x in range(first, last + 1, days)]
        if len(found) > 1 and _fits(found, room):
            return found
    for months in (*_OF_MONTHS, *(12 * x for x in _OF_YEARS)):
        found = [*_starts(first, last, months)]
        if _fits(found, room):
            return found
    return []


def _fits(ticks: Sequence[tuple[int, str]], room: int) -> bool:
    return sum(len(text) + _BETWEEN for _, text in ticks) <= room


def _starts(first: int, last: int, months: int) -> Iterator[tuple[int, str]]:
    """The first days of every so many months; of years by their number alone."""
    begin = date.fromordinal(first)
    for n in range(begin.year * 12 // months, date.fromordinal(last).year * 12 // months + 13):
        year, month = divmod(n * months, 12)
        if not 1 <= year <= date.max.year:
            continue
        day = date(year, month + 1, 1)
        if first <= day.toordinal() <= last:
            yield day.toordinal(), str(year) if months >= 12 else day.isoformat()[:7]
