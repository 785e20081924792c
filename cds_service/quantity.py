"""Numbers with units: a comparison answers yes, no, or None when a bound proves neither."""

from collections.abc import Mapping
from decimal import Context, Decimal, DecimalException

from msgspec import Struct

MOST_DIGITS = 15  # more cannot survive a double, the type most EHRs send from
MOST_EXPONENT = 15
_ROUNDED = Context(prec=MOST_DIGITS)


class UnitMismatch(Exception):
    """Two quantities in different units were compared: a defect of the content, never of
    the data.
    """


class Quantity(Struct, frozen=True):
    """A number in one unit; `comparator` ("<", "<=", ">", ">=") makes it a bound instead of a
    value.
    """

    value: Decimal
    unit: str
    comparator: str = ""

    def _is_of_its_unit(self, other: "Quantity") -> bool:
        """Whether both have the same unit; one without any compares only with its like."""
        if other.unit == self.unit:
            return True
        if not self.unit or not other.unit:
            return False
        raise UnitMismatch(f"{self.unit} compared with {other.unit}")

    def below(self, other: "Quantity") -> bool | None:
        """Whether it is < other; None when a comparator, or a number without a unit, leaves that
        open.
        """
        if not self._is_of_its_unit(other):
            return None
        if not self.comparator and not other.comparator:
            return self.value < other.value
        return _lies_below(self, other)

    def above(self, other: "Quantity") -> bool | None:
        """Whether it is > other; None when a comparator, or a number without a unit, leaves that
        open.
        """
        if not self._is_of_its_unit(other):
            return None
        if not self.comparator and not other.comparator:
            return self.value > other.value
        return _lies_below(other, self)

    def at_least(self, other: "Quantity") -> bool | None:
        """Whether it is >= other; None when a comparator leaves that open."""
        below = self.below(other)
        return None if below is None else not below

    def at_most(self, other: "Quantity") -> bool | None:
        """Whether it is <= other; None when a comparator leaves that open."""
        above = self.above(other)
        return None if above is None else not above

    def times(self, factor: "Quantity") -> "Quantity":
        """The quantity multiplied by a plain number (unit 1)."""
        if factor.unit != "1":
            raise UnitMismatch(f"{self.unit} multiplied by {factor.unit}")
        return Quantity(self.value * factor.value, self.unit, self.comparator)

    def ratio(self, other: "Quantity") -> "Quantity | None":
        """This divided by other as a plain number, a bound when either is one.

        None when other is not above zero, when only one has a unit, or when two bounds leave the
        ratio open on both sides.
        """
        if not self._is_of_its_unit(other) or other.value <= 0:
            return None
        turned = _TURNED[other.comparator]
        if self.comparator and turned and self.comparator[0] != turned[0]:
            return None
        strict = min(x for x in (self.comparator, turned) if x or not (self.comparator or turned))
        return Quantity(self.value / other.value, "1", strict)

    def __str__(self) -> str:
        return f"{self.comparator}{self.value:f} {self.unit}"

    @property
    def days(self) -> int:
        """The whole days of a window; raises UnitMismatch when it is no number of days."""
        if self.unit != "d":
            raise UnitMismatch(f"{self.unit} used as days")
        return int(self.value)

    @property
    def years(self) -> int:
        """The whole years of an age; raises UnitMismatch when it is no number of years."""
        if self.unit != "a":
            raise UnitMismatch(f"{self.unit} used as years")
        return int(self.value)

    @property
    def count(self) -> int:
        """The whole number of a count; raises UnitMismatch when it has a unit."""
        if self.unit != "1":
            raise UnitMismatch(f"{self.unit} used as a count")
        return int(self.value)


_TURNED = {"": "", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _lies_below(one: Quantity, other: Quantity) -> bool | None:
    """Whether all that one can be is < all that other can be, or none of it; else None."""
    highest = one.value if one.comparator[:1] != ">" else None
    lowest_of_other = other.value if other.comparator[:1] != "<" else None
    if highest is not None and lowest_of_other is not None:
        touching = "<" in (one.comparator,) or ">" in (other.comparator,)
        if highest < lowest_of_other or (highest == lowest_of_other and touching):
            return True
    lowest = one.value if one.comparator[:1] != "<" else None
    highest_of_other = other.value if other.comparator[:1] != ">" else None
    if lowest is not None and highest_of_other is not None and lowest >= highest_of_other:
        return False
    return None


def finite_number(raw: int | float | None) -> Decimal | None:
    """The number as sent, to 15 digits; None when absent, a longer whole number, or beyond 10^±15.

    What follows the fifteenth digit is how a double prints, as in 0.30000000000000004.
    """
    if raw is None or (isinstance(raw, int) and abs(raw) >= 10**MOST_DIGITS):
        return None
    try:
        number = Decimal(repr(raw))
    except DecimalException:
        return None
    if not number.is_finite():
        return None
    number = _ROUNDED.plus(number)
    return number if not number or abs(number.adjusted()) <= MOST_EXPONENT else None


class Units:
    """Which spellings mean which unit, and by what factor a number is converted."""

    def __init__(self, tables: Mapping[str, Mapping[str, Decimal]]) -> None:
        """`tables`: unit -> spelling -> factor to that unit, as in `units.toml`."""
        self._factors = {
            unit: {
                name: factor
                for spelling, factor in spellings.items()
                for name in (spelling, self._plain(spelling))
            }
            for unit, spellings in tables.items()
        }

    @staticmethod
    def _plain(spelling: str) -> str:
        return "".join(spelling.split()).lower().replace("µ", "u").replace("μ", "u")

    def with_factors(self, unit: str, more: Mapping[str, Decimal]) -> "Units":
        """These units with further spellings of one unit, as one substance's mass-to-moles factor
        needs.
        """
        merged: dict[str, Mapping[str, Decimal]] = dict(self._factors)
        merged[unit] = {**self._factors.get(unit, {unit: Decimal(1)}), **more}
        return Units(merged)

    def knows(self, unit: str) -> bool:
        """Whether values can be converted to this unit."""
        return unit in self._factors

    def factor(self, unit: str, *spellings: str | None) -> Decimal | None:
        """The factor from the first known spelling to `unit`; None when none of them is known."""
        table = self._factors[unit]
        for spelling in spellings:
            if not spelling:
                continue
            found = table.get(spelling) or table.get(self._plain(spelling))
            if found is not None:
                return found
        return None
