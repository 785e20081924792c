"""FHIR dates as intervals of calendar days: a partial date means every day it can mean."""

import re
from calendar import monthrange
from datetime import date
from functools import lru_cache

from msgspec import Struct

LONGEST_KEPT = 40  # of a text that is kept: what is longer is no date that would come again
_FHIR_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(T\S*)?)?)?\Z")


class Moment(Struct, frozen=True):
    """The days a FHIR date can mean, as proleptic ordinals, with the clock time as printed ("" when
    none).
    """

    first: int
    last: int
    clock: str
    text: str

    @property
    def second(self) -> str:
        """The clock time to the second as printed, without zone; "" when there is none."""
        return self.clock[:8]

    @property
    def is_partial(self) -> bool:
        """Whether the date names more than one day."""
        return self.first != self.last

    def up_to(self, today: int) -> "Moment | None":
        """This moment without its future: one day ahead counts as today; None when it lies further
        ahead.
        """
        if self.last <= today:
            return self
        if self.first > today + 1:
            return None
        return Moment(min(self.first, today), today, self.clock, self.text)

    def surely_within(self, days: int, day: int) -> bool:
        """Whether every day it can mean is 0 to `days` before `day`."""
        return self.last <= day and day - self.first <= days

    def possibly_within(self, days: int, day: int) -> bool:
        """Whether some day it can mean is 0 to `days` before `day`."""
        return self.first <= day and day - self.last <= days


def parse_date(text: str) -> Moment | None:
    """The days a FHIR date, dateTime or instant can mean; None when it is none.

    The day is the one printed: no conversion between time zones (FHIR R4, "dateTime").
    """
    return _known(text) if len(text) <= LONGEST_KEPT else _parse(text)


def _parse(text: str) -> Moment | None:
    found = _FHIR_DATE.match(text)
    if found is None:
        return None
    year, month, day, clock = found.groups()
    try:
        first = date(int(year), int(month or 1), int(day or 1))
        last = first
        if month is None:
            last = date(first.year, 12, 31)
        elif day is None:
            last = date(first.year, first.month, monthrange(first.year, first.month)[1])
    except ValueError:
        return None
    return Moment(first.toordinal(), last.toordinal(), (clock or "")[1:], text[:10])


_known = lru_cache(maxsize=16384)(_parse)  # the same days come again and again


def as_text(day: int) -> str:
    """The calendar day of an ordinal as YYYY-MM-DD."""
    return date.fromordinal(day).isoformat()


@lru_cache(maxsize=4096)  # a chart asks for the same days again and again
def completed_years(born: int, on: int) -> int:
    """Completed years of age on a day, both as ordinals; negative before birth."""
    birth, day = date.fromordinal(born), date.fromordinal(on)
    return day.year - birth.year - ((day.month, day.day) < (birth.month, birth.day))
