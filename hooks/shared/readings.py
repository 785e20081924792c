"""ALP values and how each is judged: which count, by which limits, and when one says nothing
(specification 3.3 to 3.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cds_service.facts import Judged, Measured, Moment, PatientFacts, Result, finding
from cds_service.quantity import Quantity
from hooks.shared.pregnancy import Span, drawn_in_pregnancy, pregnancies


@dataclass(slots=True, eq=False)
class Reading(Judged):
    """One ALP value with its limits; `absolute` says whether cut-offs in U/L may be applied
    to it.
    """

    absolute: bool
    adult: bool
    in_pregnancy: bool
    low_limit_replaced: bool

    def is_below(self, share: Quantity) -> bool:
        """Whether it is proven to be below a share of its lower limit."""
        return self.low is not None and self.value.below(self.low.times(share)) is True


@finding
def alp_values(patient: PatientFacts) -> list[Reading]:
    """Which ALP values can be judged?"""
    spans = pregnancies(patient)
    readings = (_reading(patient, spans, number) for number in patient.measured("alp"))
    return [reading for reading in readings if reading is not None]


def _reading(patient: PatientFacts, spans: list[Span], number: Measured) -> Reading | None:
    """The value with its limits; None when neither the report nor the patient's age gives any."""
    adult = _is_adult(patient, number.moment)
    pregnant = drawn_in_pregnancy(patient, spans, number.moment)
    absolute = number.has_unit and adult and _has_usual_range(patient, number)
    if pregnant and number.has_unit:
        limit = patient.limit
        return Reading(
            number,
            limit.pregnancy_low,
            limit.pregnancy_high,
            "pregnancy",
            absolute,
            adult,
            True,
            False,
        )
    low, high, source, wide = _limits(patient, number, adult)
    if low is None and high is None:
        return None
    return Reading(number, low, high, source, absolute, adult, False, wide)


def outside_pregnancy(patient: PatientFacts, reading: Reading) -> Reading | None:
    """The value of a reading that was drawn in pregnancy, with the limits that it would have
    outside one; None for any other reading.
    """
    if not reading.in_pregnancy:
        return None
    number, adult, absolute = reading.measured, reading.adult, reading.absolute
    low, high, source, wide = _limits(patient, number, adult)
    return Reading(number, low, high, source, absolute, adult, False, wide)


def _is_adult(patient: PatientFacts, moment: Moment) -> bool:
    ages = patient.ages(moment.first)
    return ages is None or ages[0] >= patient.limit.adult_age.years


def _has_usual_range(patient: PatientFacts, number: Measured) -> bool:
    """Whether the printed upper limit is absent or one of the usual method's."""
    limit = patient.limit
    return number.high is None or (
        number.high.below(limit.usual_uln_from) is False
        and number.high.above(limit.usual_uln_to) is False
    )


def _limits(
    patient: PatientFacts, number: Measured, adult: bool
) -> tuple[Quantity | None, Quantity | None, str, bool]:
    """Lower and upper limit, their source, and whether a child's range was dropped for its low
    limit alone.
    """
    table_low, table_high = (
        patient.fallback("alp", number.moment.first) if number.has_unit else (None, None)
    )
    low, high = number.low, number.high
    if low is None and high is None:
        return table_low, table_high, "fallback", False
    if adult:
        if number.has_unit and (low is None or low.below(patient.limit.printed_low_floor)):
            low, source = _adult_low(patient, number)
            return low, high or table_high, source, False
        return low, high or table_high, "completed" if high is None else "report", False
    share = patient.limit.child_range_share
    high_too_low = _is_less(high, table_high, share)
    low_too_low = _is_less(low, table_low, share)
    if high_too_low or low_too_low:
        return table_low, table_high, "fallback", low_too_low and not high_too_low
    source = (
        "completed" if (low is None and table_low) or (high is None and table_high) else "report"
    )
    return low or table_low, high or table_high, source, False


def _is_less(printed: Quantity | None, table: Quantity | None, share: Quantity) -> bool:
    return printed is not None and table is not None and bool(printed.below(table.times(share)))


def _adult_low(patient: PatientFacts, number: Measured) -> tuple[Quantity, str]:
    """The patient's newest usable printed adult limit near the value, else the stated one."""
    limit = patient.limit
    for other in patient.measured("alp"):
        if (
            other.low is not None
            and other.factor == number.factor
            and other.has_unit
            and not other.low.below(limit.printed_low_floor)
            and _is_adult(patient, other.moment)
            and abs(other.moment.first - number.moment.first) <= limit.printed_low_window.days
        ):
            return other.low, "neighbour"
    return limit.stated_low, "stated"


def latest_of_each_day(readings: Sequence[Reading], *, prefer_high: bool) -> list[Reading]:
    """One value a day, newest first: the last by the clock, then corrected, then later issued, then
    as preferred.
    """
    days: dict[tuple[int, int], list[Reading]] = {}
    for reading in readings:
        days.setdefault((reading.moment.first, reading.moment.last), []).append(reading)
    return [
        same_day[0] if len(same_day) == 1 else _last_of(same_day, prefer_high)
        for same_day in days.values()
    ]


def _last_of(same_day: list[Reading], prefer_high: bool) -> Reading:
    timed = all(x.moment.clock for x in same_day)

    def standing(reading: Reading) -> tuple[str, bool, str, Quantity]:
        resource = reading.measured.result.resource
        clock = reading.moment.second if timed else ""
        return clock, resource.status != "final", resource.issued or "", reading.value

    def order(reading: Reading) -> tuple[object, ...]:
        clock, corrected, issued, value = standing(reading)
        return clock, corrected, issued, value.value if prefer_high else -value.value

    return max(same_day, key=order)


@finding
def void_readings(patient: PatientFacts) -> frozenset[Reading]:
    """Which ALP values say nothing about a low ALP: spoilt, or drawn in acute illness?"""
    void = {x: reason for x in alp_values(patient) if (reason := _void_reason(patient, x))}
    for reading, reason in void.items():
        patient.set_aside(reading, reason)
    return frozenset(void)


@finding
def spoilt_readings(patient: PatientFacts) -> frozenset[Reading]:
    """Which ALP values come from a spoilt specimen?"""
    spoilt = {x: reason for x in alp_values(patient) if (reason := _spoilt_reason(patient, x))}
    for reading, reason in spoilt.items():
        patient.set_aside(reading, reason)
    return frozenset(spoilt)


def _spoilt_reason(patient: PatientFacts, reading: Reading) -> str:
    """What spoilt the specimen, "" when nothing shows."""
    result = reading.measured.result
    if patient.says("text-spoilt-specimen", result.remarks):
        return "spoilt_specimen"
    return "edta_pattern" if looks_like_edta(patient, result) else ""


def _void_reason(patient: PatientFacts, reading: Reading) -> str:
    """Why a value says nothing about a low ALP, "" when it may."""
    moment = reading.moment
    if reason := _spoilt_reason(patient, reading):
        return reason
    if _has_acute_inflammation(patient, moment):
        return "acute_inflammation"
    if _after_grave_illness(patient, moment):
        return "after_illness"
    if _after(patient, "proc-surgery", patient.limit.void_after_surgery, moment):
        return "after_surgery"
    if _after(patient, "proc-transfusion", patient.limit.void_after_transfusion, moment):
        return "after_transfusion"
    in_intensive_care = patient.encounters_of("text-intensive-care")
    return "intensive_care" if any(x.covers(moment) for x in in_intensive_care) else ""


def _after_grave_illness(patient: PatientFacts, moment: Moment) -> bool:
    window = patient.limit.void_after_illness
    return any(
        problem.within(window, moment.last, silencing=True)
        for name in ("cond-sepsis", "cond-cabg", "cond-major-trauma")
        for problem in patient.problems(name, silencing=True)
    )


def _after(patient: PatientFacts, name: str, window: Quantity, moment: Moment) -> bool:
    return any(act.within(window, moment.last, silencing=True) for act in patient.acts(name))


def looks_like_edta(patient: PatientFacts, result: Result) -> bool:
    """Potassium up and calcium down, or magnesium and calcium down, in the same specimen: EDTA in
    the tube.
    """
    limit = patient.limit
    calcium = _same_specimen(patient, "calcium", result)
    if not calcium:
        return False
    potassium = _same_specimen(patient, "potassium", result)
    magnesium = _same_specimen(patient, "magnesium", result)
    very_low_calcium = any(x.value.below(limit.edta_calcium) for x in calcium)
    return (
        (very_low_calcium and any(x.is_high for x in potassium))
        or (very_low_calcium and any(x.value.below(limit.edta_magnesium) for x in magnesium))
        or (
            any(x.is_low for x in calcium)
            and any(x.value.at_least(limit.edta_potassium) for x in potassium)
        )
    )


def _same_specimen(patient: PatientFacts, measure: str, result: Result) -> list[Judged]:
    return [
        x
        for x in patient.judged_beside(measure, result)
        if x.measured.has_unit and shares_specimen(x.measured.result, result)
    ]


def names_same_specimen(one: Result, other: Result) -> bool | None:
    """Whether two results name one specimen; None when either names none."""
    mine, theirs = (
        x.resource.specimen.reference if x.resource.specimen is not None else None
        for x in (one, other)
    )
    return bool(mine == theirs) if mine and theirs else None


def shares_specimen(one: Result, other: Result) -> bool:
    """Whether two results come from one specimen: the same reference, else the same time, else the
    same day.
    """
    named = names_same_specimen(one, other)
    if named is not None:
        return named
    if one.moment is None or other.moment is None or one.moment.first != other.moment.first:
        return False
    if one.moment.clock and other.moment.clock:
        return one.moment.clock == other.moment.clock
    return True


def _has_acute_inflammation(patient: PatientFacts, moment: Moment) -> bool:
    return any(
        x.value.above(patient.limit.acute_crp)
        for x in patient.measured_on("crp", moment.first)
        if x.has_unit
    )


@finding
def low_rule_readings(patient: PatientFacts) -> list[Reading]:
    """Which ALP values count for a low ALP: one a day, one a hospital stay, none of them void?"""
    void = void_readings(patient)
    valid = [x for x in alp_values(patient) if x not in void]
    daily = latest_of_each_day(valid, prefer_high=True)
    if daily and not (patient.is_answered("Encounter") and patient.is_answered("Procedure")):
        patient.remark("inpatient_unknown")
    return _one_for_each_stay(patient, daily)


def _one_for_each_stay(patient: PatientFacts, readings: list[Reading]) -> list[Reading]:
    """The values of one stay count as one, the highest, with its own date."""
    kept = list(readings)
    for stay in patient.stays():
        inside = [x for x in kept if stay.covers(x.moment)]
        if len(inside) > 1:
            highest = max(inside, key=lambda x: x.value.value)
            kept = [x for x in kept if x is highest or x not in inside]
    return kept


def nothing_usable(patient: PatientFacts) -> bool:
    """Whether there were ALP results and none of them could be read."""
    return not alp_values(patient) and bool(patient.rejected("alp") or patient.measured("alp"))


@finding
def high_rule_values(patient: PatientFacts) -> list[Reading]:
    """Which ALP values count for a raised ALP: one a day?"""
    return latest_of_each_day(alp_values(patient), prefer_high=False)


def newer_unreadable(patient: PatientFacts, latest: Reading | None) -> Moment | None:
    """When the newest result was drawn that is newer than the latest usable one and could not be
    read; None when there is none.
    """
    newer = [
        moment
        for rejected in patient.rejected("alp")
        if not rejected.foreign
        and (moment := rejected.entry.moment) is not None
        and (latest is None or moment.first > latest.moment.first)
    ]
    return max(newer, key=lambda x: x.first, default=None)


def note_newer_unreadable(patient: PatientFacts, latest: Reading | None) -> None:
    """Has the card say that a result newer than the latest usable one could not be read."""
    newer = newer_unreadable(patient, latest)
    if newer is not None:
        patient.remark("newer_unreadable", date=newer.text)


def is_below(judged: Judged, limit: Quantity) -> bool:
    """Whether a number is proven to be below a limit; never so when it came without a unit."""
    return judged.measured.has_unit and judged.value.below(limit) is True


def low_limit(patient: PatientFacts, reading: Reading) -> Quantity | None:
    """Below what a reading is low for this patient on its day; None when no limit is known."""
    limit, low = patient.limit, reading.low
    if low is None:
        return None
    if reading.in_pregnancy:
        return limit.pregnancy_low
    if not reading.adult:
        return low.times(limit.child_low_share) if reading.low_limit_replaced else low
    if not reading.absolute:
        return low
    capped = low if low.below(limit.low_cap) else limit.low_cap
    return capped if capped.above(limit.surely_low) else limit.surely_low


def is_low(patient: PatientFacts, reading: Reading) -> bool:
    """Whether a reading is proven to be low for this patient on its day."""
    limit = low_limit(patient, reading)
    return limit is not None and reading.value.below(limit) is True


def very_low_limit(patient: PatientFacts, reading: Reading) -> Quantity | None:
    """Below what a reading is so low that little but hypophosphatasia explains it; None when no
    limit is known.
    """
    if reading.adult and reading.absolute:
        return patient.limit.very_low
    return reading.low.times(patient.limit.very_low_share) if reading.low is not None else None


def is_very_low(patient: PatientFacts, reading: Reading) -> bool:
    """Whether a reading is so low that little but hypophosphatasia explains it."""
    limit = very_low_limit(patient, reading)
    return limit is not None and reading.value.below(limit) is True


def is_low_for_a_child(patient: PatientFacts, reading: Reading) -> bool:
    """Whether a child's reading is clearly, not marginally, below its limit."""
    return not reading.adult and reading.is_below(patient.limit.child_low_share)


def may_be_normal(patient: PatientFacts, reading: Reading) -> bool:
    """Whether a reading may be clearly normal, which speaks against a persistently low ALP."""
    limit = patient.limit
    if reading.adult and reading.absolute:
        return reading.value.above(limit.clearly_normal) is not False
    if reading.low is None:
        return True
    return reading.value.above(reading.low.times(limit.clearly_normal_share)) is not False
