"""Low ALP: the latest reading, persistence, and the acquired causes that defer a card
(specification 3.5, 3.6).
"""

from collections.abc import Sequence

from cds_service.facts import (
    Answer,
    Judged,
    PatientFacts,
    Report,
    Result,
    any_of,
    finding,
    question,
)
from cds_service.quantity import Quantity
from hooks.shared.exposure import long_glucocorticoid, recent_cytotoxic, unexposed_readings
from hooks.shared.pregnancy import Span, drawn_in_pregnancy, pregnancies
from hooks.shared.readings import (
    Reading,
    is_low,
    is_low_for_a_child,
    is_very_low,
    low_rule_readings,
    may_be_normal,
    note_newer_unreadable,
    nothing_usable,
)


@finding
def latest_unexposed(patient: PatientFacts) -> Reading | None:
    """What is the latest ALP that no antiresorptive could have lowered?"""
    latest = next(iter(unexposed_readings(patient)), None)
    note_newer_unreadable(patient, latest)
    return latest


@question
def latest_is_low(patient: PatientFacts, window: Quantity) -> Answer | bool:
    """Is the latest ALP (off antiresorptives) low, and at most {} old?"""
    return _is_low_within(patient, latest_unexposed(patient), window)


def _is_low_within(
    patient: PatientFacts, latest: Reading | None, window: Quantity
) -> Answer | bool:
    if latest is None:
        return patient.unusable() if nothing_usable(patient) else False
    patient.use(latest)
    return latest.moment.surely_within(window.days, patient.today) and is_low(patient, latest)


@finding
def latest_reading(patient: PatientFacts) -> Reading | None:
    """What is the latest ALP, on whatever drug?"""
    latest = next(iter(low_rule_readings(patient)), None)
    note_newer_unreadable(patient, latest)
    return latest


@question
def latest_reading_is_low(patient: PatientFacts, window: Quantity) -> Answer | bool:
    """Is the latest ALP, on whatever drug, low, and at most {} old?"""
    return _is_low_within(patient, latest_reading(patient), window)


@question
def latest_reading_ever_is_low(patient: PatientFacts) -> Answer | bool:
    """Is the latest ALP, however old and on whatever drug, low?"""
    latest = latest_reading(patient)
    if latest is None:
        return patient.unusable() if nothing_usable(patient) else False
    patient.use(latest)
    return is_low(patient, latest)


@question
def latest_reading_is_very_low(patient: PatientFacts) -> bool:
    """Is the latest ALP, on whatever drug, very low?"""
    latest = latest_reading(patient)
    return latest is not None and is_very_low(patient, latest)


@question
def latest_is_very_low(patient: PatientFacts) -> bool:
    """Is the latest ALP very low?"""
    latest = latest_unexposed(patient)
    return latest is not None and is_very_low(patient, latest)


@question
def latest_is_low_for_a_child(patient: PatientFacts) -> bool:
    """Is it clearly below a child's limit?"""
    latest = latest_unexposed(patient)
    return latest is not None and is_low_for_a_child(patient, latest)


@question
def persistently_low(patient: PatientFacts) -> Answer | bool:
    """Is the ALP persistently low, off antiresorptives?"""
    if not latest_is_low(patient, patient.limit.latest_low_window):
        return False
    considered = look_back(patient, unexposed_readings(patient))
    low = [x for x in considered if is_low(patient, x)]
    patient.use(*low)
    limit = patient.limit
    if len(low) < limit.fewest_low_readings.count:
        return False
    apart = low[0].moment.first - low[-1].moment.last
    if apart < _days_apart(patient):
        return False
    if len(low) < limit.low_share.value * len(considered):
        return False
    return not any(x not in excused_readings(patient) for x in _clearly_normal(patient, considered))


def low_readings(patient: PatientFacts) -> list[Reading]:
    """The low readings inside the look-back, newest first."""
    return [x for x in look_back(patient, unexposed_readings(patient)) if is_low(patient, x)]


def recent_low_readings(patient: PatientFacts) -> list[Reading]:
    """The low readings of the last years, on whatever drug, newest first."""
    window, today = patient.limit.look_back.days, patient.today
    return [
        x
        for x in low_rule_readings(patient)
        if x.moment.surely_within(window, today) and is_low(patient, x)
    ]


def look_back(patient: PatientFacts, readings: Sequence[Reading]) -> Sequence[Reading]:
    """The readings of the last years; with too few of them, the newest of any age: the disease is
    lifelong.
    """
    limit = patient.limit
    recent = [x for x in readings if x.moment.surely_within(limit.look_back.days, patient.today)]
    if len(recent) >= limit.fewest_low_readings.count:
        return recent
    return readings[: limit.newest_readings.count]


def _days_apart(patient: PatientFacts) -> int:
    limit = patient.limit
    is_infant = (
        patient.born is not None and patient.today - patient.born.first < limit.infant_age.days
    )
    return limit.low_apart_infant.days if is_infant else limit.low_apart.days


def _clearly_normal(patient: PatientFacts, readings: Sequence[Reading]) -> list[Reading]:
    return [x for x in readings if may_be_normal(patient, x)]


@question
def needs_an_excuse(patient: PatientFacts) -> bool:
    """Does persistence rest on explaining away a normal reading?"""
    return bool(_clearly_normal(patient, look_back(patient, unexposed_readings(patient))))


@finding
def excused_readings(patient: PatientFacts) -> frozenset[Reading]:
    """Which normal readings have a reason to be higher (fracture, pregnancy, cholestasis,
    growth)?
    """
    spans = pregnancies(patient)
    considered = look_back(patient, unexposed_readings(patient))
    return frozenset(
        x for x in _clearly_normal(patient, considered) if _is_excused(patient, spans, x)
    )


def unexcused_normal(patient: PatientFacts, readings: Sequence[Reading]) -> list[Reading]:
    """The clearly normal ones of some readings that nothing explains away."""
    spans = pregnancies(patient)
    return [x for x in _clearly_normal(patient, readings) if not _is_excused(patient, spans, x)]


def lie_apart(patient: PatientFacts, readings: Sequence[Reading]) -> bool:
    """Whether there are two readings or more, newest first, and the first and the last are so far
    apart that chance or a passing illness does not explain both.
    """
    limit = patient.limit
    if not readings or len(readings) < limit.fewest_low_readings.count:
        return False
    return readings[0].moment.first - readings[-1].moment.last >= limit.low_apart.days


def _is_excused(patient: PatientFacts, spans: list[Span], reading: Reading) -> bool:
    limit, moment = patient.limit, reading.moment
    after_fracture = any(
        problem.within(limit.excused_after_fracture, moment.first)
        for problem in patient.problems("cond-fracture-recent")
    )
    return (
        after_fracture
        or reading.in_pregnancy
        or drawn_in_pregnancy(patient, spans, moment)
        or any(_high_that_day(patient, measure, reading) for measure in ("ggt", "bilirubin"))
        or _in_growth(patient, reading)
    )


def _high_that_day(patient: PatientFacts, measure: str, reading: Judged) -> bool:
    return any(
        x.is_high and x.moment.first == reading.moment.first for x in patient.judged(measure)
    )


def _in_growth(patient: PatientFacts, reading: Reading) -> bool:
    """Whether an adult of today was still growing when it was drawn."""
    now, then = patient.ages(patient.today), patient.ages(reading.moment.last)
    limit = patient.limit
    if now is None or then is None:
        return False
    return now[0] >= limit.adult_age.years and then[1] < limit.growth_age.years


# -- acquired causes (3.6) ---------------------------------------------------------------------


@question
def acquired_cause(patient: PatientFacts) -> Answer:
    """An acquired cause of low ALP that comes first?"""
    return any_of(
        patient,
        hypothyroid,
        short_of_magnesium_or_zinc,
        severely_malnourished,
        coeliac_disease,
        scurvy,
        cushing_syndrome,
        vitamin_d_intoxication,
        advanced_kidney_disease,
        recent_cytotoxic,
        long_glucocorticoid,
    )


def _measured_within(patient: PatientFacts, measure: str, window: Quantity) -> list[Judged]:
    today = patient.today
    return [
        x
        for x in patient.judged(measure)
        if x.measured.has_unit and x.moment.possibly_within(window.days, today)
    ]


@question
def hypothyroid(patient: PatientFacts) -> Answer:
    """Clearly raised TSH within months?"""
    limit = patient.limit
    recent = _measured_within(patient, "tsh", limit.cause_window)
    return patient.settled(any(x.value.at_least(limit.high_tsh) for x in recent), "obs-tsh")


@question
def short_of_magnesium_or_zinc(patient: PatientFacts) -> Answer:
    """Magnesium or zinc clearly low, or such a deficiency recorded, within months?"""
    limit = patient.limit
    magnesium = _measured_within(patient, "magnesium", limit.cause_window)
    zinc = _measured_within(patient, "zinc", limit.cause_window)
    if any(x.value.below(limit.low_magnesium) for x in magnesium):
        return patient.settled(True)
    if any(x.value.below(limit.low_zinc) for x in zinc):
        return patient.settled(True)
    return patient.has(
        "cond-mg-zn-deficiency", active=True, within=limit.cause_window, silencing=True
    )


@question
def severely_malnourished(patient: PatientFacts) -> Answer:
    """Severe malnutrition?"""
    return patient.has("cond-severe-malnutrition", active=True, silencing=True)


@question
def coeliac_disease(patient: PatientFacts) -> Answer:
    """Coeliac disease found within a year?"""
    limit = patient.limit
    tests: list[Result | Report] = [
        *patient.final("obs-ttg-iga"),
        *patient.reports("obs-ttg-iga"),
    ]
    positive = [
        x
        for x in tests
        if x.within(limit.coeliac_window, patient.today, silencing=True)
        and (
            (isinstance(x, Result) and x.is_abnormal)
            or any(patient.says("text-positive", text) for text in x.texts)
        )
    ]
    patient.use(*positive)
    if positive:
        return patient.settled(True)
    return patient.has("cond-coeliac", within=limit.coeliac_window, silencing=True)


@question
def scurvy(patient: PatientFacts) -> Answer:
    """Scurvy?"""
    return patient.has("cond-scurvy", active=True, silencing=True)


@question
def cushing_syndrome(patient: PatientFacts) -> Answer:
    """Cushing syndrome?"""
    return patient.has("cond-cushing", active=True, silencing=True)


@question
def vitamin_d_intoxication(patient: PatientFacts) -> Answer:
    """Vitamin D intoxication within months?"""
    limit = patient.limit
    recent = _measured_within(patient, "vitamin_d", limit.cause_window)
    if any(x.value.above(limit.toxic_vitamin_d) for x in recent):
        return patient.settled(True)
    return patient.has("cond-vitd-intoxication", within=limit.cause_window, silencing=True)


@question
def advanced_kidney_disease(patient: PatientFacts) -> Answer:
    """Chronic kidney disease stage 4 or 5, or dialysis?"""
    return patient.has("cond-ckd-4-5", active=True, silencing=True)


def cause_name(patient: PatientFacts) -> str:
    """The name of the first acquired cause that holds, "" when none does."""
    for name, ask in _CAUSES.items():
        if ask(patient).value:
            return name
    return ""


_CAUSES = {
    "thyroid": hypothyroid,
    "magnesium_zinc": short_of_magnesium_or_zinc,
    "malnutrition": severely_malnourished,
    "coeliac": coeliac_disease,
    "scurvy": scurvy,
    "cushing": cushing_syndrome,
    "vitamin_d": vitamin_d_intoxication,
    "kidney": advanced_kidney_disease,
    "cytotoxic": recent_cytotoxic,
    "glucocorticoid": long_glucocorticoid,
}
