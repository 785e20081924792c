"""Paget disease of bone: PAG-1 of the clinical specification."""

from collections.abc import Iterator

from cds_service.facts import Answer, PatientFacts, Result, finding, question, surely
from cds_service.quantity import Quantity
from cds_service.rules import Advice
from hooks.shared import definitions as d
from hooks.shared.readings import Reading


@question
def paget_on_the_list(patient: PatientFacts) -> Answer:
    """Paget disease of bone on the problem list?"""
    return patient.has("cond-paget", active=True)


@finding
def last_alp_sent(patient: PatientFacts) -> Result | None:
    """Which is the last dated ALP, readable or not?"""
    dated = [x for x in patient.sent("obs-alp-total") if x.moment is not None and not x.is_absent]
    return max(dated, key=lambda x: x.moment.last if x.moment is not None else 0, default=None)


@question
def none_on_file(patient: PatientFacts) -> bool:
    """No ALP of any status on file?"""
    return not patient.sent("obs-alp-total")


@question
def overdue(patient: PatientFacts) -> bool:
    """Is the last ALP more than a year old, or is there none?"""
    last = last_alp_sent(patient)
    if last is None or last.moment is None:
        return bool(none_on_file(patient))
    patient.use(last)
    return patient.today - last.moment.last > patient.limit.paget_window.days


@finding
def lowest_since_treatment(patient: PatientFacts) -> Reading | None:
    """What is the lowest earlier ALP since the last antiresorptive dose, or ever without one?"""
    latest = d.latest_alp(patient)
    doses = [d.last_dated_dose(patient, drug) for drug in d.antiresorptives(patient)]
    since = max((day for day in doses if day is not None), default=0)
    earlier = [
        x
        for x in d.high_rule_values(patient)
        if latest is not None
        and since <= x.moment.first
        and x.moment.last < latest.moment.first
        and x.measured.has_unit
        and not x.value.comparator
    ]
    return min(earlier, key=lambda x: x.value.value, default=None)


def at_least_times_lowest(patient: PatientFacts, times: Quantity) -> bool:
    """Whether the latest ALP is proven to be at least so many times the lowest."""
    latest, lowest = d.latest_alp(patient), lowest_since_treatment(patient)
    if latest is None or lowest is None:
        return False
    return latest.value.at_least(lowest.value.times(times)) is True


@question
def risen(patient: PatientFacts) -> Answer | bool:
    """Is the ALP of the last year above its limit, and well above its lowest value?"""
    latest, limit = d.latest_alp(patient), patient.limit
    if d.nothing_usable(patient) or d.newer_unreadable(patient, latest) is not None:
        return patient.unusable()
    if latest is None or not latest.moment.surely_within(limit.paget_window.days, patient.today):
        return False
    if not latest.measured.has_unit:
        return patient.unusable()
    patient.use(latest)
    return latest.is_high and at_least_times_lowest(patient, limit.paget_rise)


@question
def treated_lately(patient: PatientFacts) -> Answer:
    """An antiresorptive dose within months?"""
    window = patient.limit.paget_treated_window.days
    found = [
        drug
        for drug in d.antiresorptives(patient)
        if (day := d.last_dated_dose(patient, drug)) is not None and patient.today - day <= window
    ]
    patient.use(*found)
    return patient.settled(found, "drugs")


@question
def recent_bone_pain(patient: PatientFacts) -> Answer:
    """Bone pain dated within months?"""
    return patient.has("cond-bone-pain", active=True, within=patient.limit.paget_pain_window)


def paget_alp_review(patient: PatientFacts) -> Iterator[Advice]:
    """PAG-1: Paget disease of bone whose ALP is overdue, or has risen from its lowest value."""
    if not patient.is_at_least(patient.limit.adult_age):
        return
    if not paget_on_the_list(patient):
        return
    late = overdue(patient)
    if not late and not risen(patient):
        return
    if surely(treated_lately(patient)):
        return
    yield _late(patient) if late else _risen(patient)


def _late(patient: PatientFacts) -> Advice:
    last, latest = last_alp_sent(patient), d.latest_alp(patient)
    if last is None or last.moment is None:
        return Advice("pagetAlpReview", "none-on-file", consider=("alp",))
    return Advice(
        "pagetAlpReview",
        "overdue",
        consider=("alp",),
        values={"date": last.moment.text, "days": patient.today - last.moment.last},
        findings=[x for x in [latest] if x is not None],
    )


def _risen(patient: PatientFacts) -> Advice:
    latest, lowest = d.latest_alp(patient), lowest_since_treatment(patient)
    assert latest is not None and lowest is not None
    in_pain = surely(recent_bone_pain(patient))
    alarm = in_pain and at_least_times_lowest(patient, patient.limit.paget_alarm)
    times = patient.to_one_decimal(latest.value.ratio(lowest.value))
    return Advice(
        "pagetAlpReview",
        "risen-with-pain" if alarm else "risen",
        consider=_source_orders(patient),
        values=patient.shown(latest) | {"x": times, "date": lowest.moment.text},
        findings=[latest, lowest, *(x for x in [d.paired_ggt(patient)] if x is not None)],
    )


def _source_orders(patient: PatientFacts) -> tuple[str, ...]:
    """GGT while there is none; bone ALP once a raised GGT leaves the source open."""
    if d.ggt_missing(patient).value:
        return ("ggt",)
    return ("balp",) if d.ggt_high(patient).value else ()
