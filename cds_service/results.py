"""Results as numbers: what a laboratory sent, in one unit, with the limits it is judged by."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from cds_service.dates import Moment
from cds_service.entries import FINAL, SIMPLY_ABSENT, Entry, codes_of, end_of, first_date, title_of
from cds_service.quantity import Quantity, Units, finite_number
from cds_service.resources import Amount, Observation, ReferenceRange
from cds_service.terminology import spoken

_ABNORMAL = frozenset({"A", "AA", "H", "HH", "L", "LL", "POS"})
_NORMAL = frozenset({"N", "NEG"})
_COMPARATORS = frozenset({"<", "<=", ">", ">="})
PLAIN_NUMBER = "1"  # the unit of a ratio or a count
LONGEST_SPELLING = 6  # of a unit; a number in a longer one is shown in the measure's own unit
_STATUSES = FINAL | SIMPLY_ABSENT | {"preliminary", "unknown"}


class Measured:
    """A result as a number of one measure: value, printed limits, and how they were sent."""

    __slots__ = ("factor", "high", "low", "moment", "result", "shown", "spelling", "value")

    def __init__(
        self,
        result: "Result",
        moment: Moment,
        value: Quantity,
        factor: Decimal,
        spelling: str,
        shown: str,
        limits: tuple[Quantity | None, Quantity | None],
    ) -> None:
        self.result = result
        self.moment = moment
        self.value = value
        self.factor = factor
        self.spelling = spelling
        self.shown = shown
        self.low, self.high = limits

    @property
    def has_unit(self) -> bool:
        """Whether a unit was sent; without one only ratios to the printed range mean anything."""
        return bool(self.value.unit)

    def as_sent(self, quantity: Quantity) -> Decimal:
        """A quantity of this measure in the unit that is shown."""
        return quantity.value / (self.factor if self._is_shown_as_sent else 1)

    @property
    def unit_as_sent(self) -> str:
        """The unit to show: the laboratory's in a spelling we know, never its own words; "" for a
        plain number.
        """
        if self.value.unit == PLAIN_NUMBER:
            return ""
        return self.spelling if self._is_shown_as_sent else self.shown

    @property
    def _is_shown_as_sent(self) -> bool:
        """Whether the laboratory's unit is short enough to show; else the measure's own is."""
        return len(self.spelling) <= LONGEST_SPELLING

    def evidence(self) -> dict[str, str]:
        """The result as the explanation lists it."""
        return self.result.evidence()


class Result(Entry):
    """An Observation."""

    __slots__ = ()

    def __init__(self, resource: Observation, sets: frozenset[str], today: int) -> None:
        moment = first_date(
            today,
            resource.effective_date_time,
            end_of(resource.effective_period),
            resource.effective_instant,
            resource.issued,
        )
        super().__init__(resource, sets, moment)

    @property
    def final(self) -> bool:
        """Whether the laboratory stands by it, with a value rather than a reason for none."""
        return self.resource.status in FINAL and self.resource.data_absent_reason is None

    @property
    def is_absent(self) -> bool:
        """Whether its status says that there is no result: in error, cancelled, or not yet made."""
        return self.resource.status in SIMPLY_ABSENT

    @property
    def texts(self) -> tuple[str, ...]:
        """What the result says in words: never its notes."""
        resource = self.resource
        said = [resource.value_string] if resource.value_string else []
        if resource.value_codeable_concept is not None:
            said += [*spoken(resource.value_codeable_concept)]
        return tuple(said)

    @property
    def specimen(self) -> str:
        """What was drawn, by the name of the specimen or its contained type: never by a note."""
        named = self.resource.specimen
        said = [named.display if named is not None else None]
        said += [title_of(x.type) for x in self.resource.contained]
        return ". ".join(x for x in said if x)

    @property
    def remarks(self) -> str:
        """What the laboratory says of the specimen: its notes, its name and its condition."""
        said = [self.specimen, *(x.text for x in self.resource.note)]
        for specimen in self.resource.contained:
            said += [*(x.text for x in specimen.note), *map(title_of, specimen.condition)]
        return ". ".join(x for x in said if x)

    @property
    def flagged_abnormal(self) -> bool:
        """Whether the laboratory flagged it as outside normal (HL7 v3
        ObservationInterpretation).
        """
        return any(codes_of(x) & _ABNORMAL for x in self.resource.interpretation)

    @property
    def flagged_normal(self) -> bool:
        """Whether the laboratory flagged it as normal or negative."""
        return any(codes_of(x) & _NORMAL for x in self.resource.interpretation)

    @property
    def is_abnormal(self) -> bool:
        """Whether it is flagged abnormal, or its number lies outside its own printed range."""
        return self.flagged_abnormal or self._is_inside is False

    @property
    def is_normal(self) -> bool:
        """Whether it is flagged normal or inside its own printed range, and not abnormal."""
        return not self.is_abnormal and (self.flagged_normal or self._is_inside is True)

    @property
    def _is_inside(self) -> bool | None:
        """Whether the number lies inside its normal range in the same unit, the widest of several;
        None when that is open.
        """
        amount = self.resource.value_quantity
        if amount is None or not self.resource.reference_range:
            return None
        number = finite_number(amount.value)
        if number is None:
            return None
        ranges = [x for x in self.resource.reference_range if _is_normal_range(x)]
        lows = [x for one in ranges if (x := _same_unit(one.low, amount)) is not None]
        highs = [x for one in ranges if (x := _same_unit(one.high, amount)) is not None]
        value = Quantity(number, "", amount.comparator or "")
        low = min(lows, key=lambda x: x.value, default=None)
        high = max(highs, key=lambda x: x.value, default=None)
        if low is None and high is None:
            return None
        below = value.below(low) if low is not None else False
        above = value.above(high) if high is not None else False
        if below or above:
            return False
        return True if below is False and above is False else None

    def measured(self, measure: "MeasureOf", sex: str | None) -> "Measured | str":
        """The result as a number of a measure, or the reason why it is none."""
        return _measure(self, measure, sex)

    def evidence(self) -> dict[str, str]:
        """The result as the explanation lists it."""
        shown = super().evidence()
        amount = self.resource.value_quantity
        if amount is not None and amount.value is not None:
            unit = amount.unit or amount.code or ""
            shown["value"] = f"{amount.comparator or ''}{amount.value} {unit}".strip()
        elif said := next(iter(self.texts), ""):
            shown["value"] = said
        else:
            shown.pop("value", None)
        if amount is not None and (printed := _printed_range(self.resource.reference_range)):
            shown["range"] = printed
        return shown


def _same_unit(limit: Amount | None, value: Amount) -> Quantity | None:
    """A printed limit as a bare number; None when absent or in another unit than the value."""
    number = finite_number(limit.value) if limit is not None else None
    if limit is None or number is None:
        return None
    units = {limit.code, limit.unit} - {None, ""}
    if units and not units & {value.code, value.unit}:
        return None
    return Quantity(number, "")


class MeasureOf:
    """What counts as one measure: its set of codes, its unit and how that is shown, what number is
    plausible, which specimens are not meant.
    """

    __slots__ = (
        *("highest", "name", "not_specimen", "shown", "title", "unit", "units", "value_set"),
    )

    def __init__(self, name: str, title: str, value_set: str, unit: str, units: Units) -> None:
        self.name = name
        self.title = title
        self.value_set = value_set
        self.unit = unit
        self.units = units
        self.shown = unit
        self.highest: Decimal | None = None
        self.not_specimen = ""


def _measure(result: Result, measure: MeasureOf, sex: str | None) -> Measured | str:
    resource: Observation = result.resource
    if resource.status not in FINAL:
        return f"status {resource.status}" if resource.status in _STATUSES else "status not known"
    amount = resource.value_quantity
    number = finite_number(amount.value) if amount is not None else None
    if amount is None or number is None:
        return "no usable number"
    if amount.comparator and amount.comparator not in _COMPARATORS:
        return "comparator not known"
    if result.moment is None:
        return "no usable date"
    unit, factor, spelling = _unit_of(amount, measure)
    if factor is None:
        return "unit not known"
    value = Quantity(number * factor, unit, amount.comparator or "")
    if number <= 0 or (measure.highest is not None and unit and value.value >= measure.highest):
        return "number not plausible"
    limits = _limits(resource.reference_range, measure, unit, factor, sex)
    return Measured(result, result.moment, value, factor, spelling, measure.shown, limits)


def _unit_of(amount: Amount, measure: MeasureOf) -> tuple[str, Decimal | None, str]:
    """The unit converted to, its factor (None when the unit is not known), and the one to show.

    ("", 1, "") when no unit was sent, but for a measure that is a plain number and needs none.
    """
    if not amount.code and not amount.unit:
        return PLAIN_NUMBER if measure.unit == PLAIN_NUMBER else "", Decimal(1), ""
    units, unit = measure.units, measure.unit
    factor = units.factor(unit, amount.code, amount.unit)
    if factor is None:
        return unit, None, ""
    spellings = (amount.unit, amount.code)
    same = [x for x in spellings if x and units.factor(unit, x) == factor]
    return unit, factor, min(("".join(x.split()) for x in same), key=len)


def _limits(
    ranges: Iterable[ReferenceRange],
    measure: MeasureOf,
    unit: str,
    factor: Decimal,
    sex: str | None,
) -> tuple[Quantity | None, Quantity | None]:
    """The printed limits: normal or untyped ranges for this sex, the widest; none when low
    >= high.
    """
    lows: list[Decimal] = []
    highs: list[Decimal] = []
    for printed in ranges:
        if _is_normal_range(printed) and _is_for(printed, sex):
            lows += _limit(printed.low, measure, unit, factor)
            highs += _limit(printed.high, measure, unit, factor)
    low, high = min(lows, default=None), max(highs, default=None)
    if low is not None and high is not None and low >= high:
        return None, None
    return (
        Quantity(low, unit) if low is not None else None,
        Quantity(high, unit) if high is not None else None,
    )


def _limit(amount: Amount | None, measure: MeasureOf, unit: str, factor: Decimal) -> list[Decimal]:
    number = finite_number(amount.value) if amount is not None else None
    if amount is None or number is None:
        return []
    if not amount.code and not amount.unit:
        return [number * factor]  # a range without unit has the value's
    own = measure.units.factor(measure.unit, amount.code, amount.unit) if unit else None
    return [number * own] if own is not None else []


def _is_normal_range(printed: ReferenceRange) -> bool:
    return printed.type is None or not (codes := codes_of(printed.type)) or "normal" in codes


_SEXES = {
    **dict.fromkeys(("female", "f", "248152002", "woman", "women", "females"), "female"),
    **dict.fromkeys(("male", "m", "248153007", "man", "men", "males"), "male"),
}


def _is_for(printed: ReferenceRange, sex: str | None) -> bool:
    named = {
        _SEXES[word.lower()]
        for concept in printed.applies_to
        for word in (*codes_of(concept), *spoken(concept))
        if word.lower() in _SEXES
    }
    return not named or sex is None or sex in named


def _printed_range(ranges: Iterable[ReferenceRange]) -> str:
    printed = next(iter(ranges), None)
    if printed is None:
        return ""
    low = printed.low.value if printed.low is not None else None
    high = printed.high.value if printed.high is not None else None
    if low is None and high is None:
        return ""
    return f"{'' if low is None else low}-{'' if high is None else high}"


@dataclass(slots=True, eq=False)
class Judged:
    """A number with the limits it is judged by, and where they come from ("report",
    "fallback", …).
    """

    measured: Measured
    low: Quantity | None
    high: Quantity | None
    limit_from: str

    @property
    def value(self) -> Quantity:
        """The number in the measure's unit."""
        return self.measured.value

    @property
    def moment(self) -> Moment:
        """When it was drawn."""
        return self.measured.moment

    @property
    def is_high(self) -> bool:
        """Whether it is proven to be above its upper limit."""
        return self.high is not None and self.value.above(self.high) is True

    @property
    def is_low(self) -> bool:
        """Whether it is proven to be below its lower limit."""
        return self.low is not None and self.value.below(self.low) is True

    @property
    def is_not_high(self) -> bool:
        """Whether it is proven to be at or below its upper limit."""
        return self.high is not None and self.value.above(self.high) is False

    @property
    def times_high(self) -> Quantity | None:
        """How many times its upper limit it is; None without one."""
        return self.value.ratio(self.high) if self.high is not None else None

    def evidence(self) -> dict[str, str]:
        """The number as the explanation lists it, with its limits."""
        shown = self.measured.evidence()
        shown["limits"] = f"{_shown(self, self.low)}-{_shown(self, self.high)} ({self.limit_from})"
        return shown


def _shown(judged: Judged, limit: Quantity | None) -> str:
    return "" if limit is None else short(judged.measured.as_sent(limit))


def short(number: Decimal) -> str:
    """A number in at most four significant digits, without trailing zeros."""
    if number == number.to_integral_value():
        return str(int(number))
    rounded = f"{number:.4g}"
    return f"{Decimal(rounded).normalize():f}"
