"""Low ALP with a raised PLP: LOW-5 of the clinical specification."""

from collections.abc import Iterator

from cds_service.facts import (
    Answer,
    Drug,
    Judged,
    Moment,
    PatientFacts,
    finding,
    question,
    surely,
)
from cds_service.quantity import Quantity
from cds_service.rules import Advice
from hooks.shared import definitions as d


@finding
def latest_plp(patient: PatientFacts) -> Judged | None:
    """What is the latest PLP, if its number can be read?"""
    latest = next(iter(patient.final("obs-plp-measured")), None)
    return next((x for x in patient.judged("plp") if x.measured.result is latest), None)


@question
def plp_raised(patient: PatientFacts, window: Quantity) -> Answer | bool:
    """Is the latest PLP above its limit, and at most {} old?"""
    results = patient.final("obs-plp-measured")
    if not results or not results[0].within(window, patient.today):
        return patient.settled(False, "obs-plp-measured")
    latest = latest_plp(patient)
    if latest is None:
        return patient.unusable()
    patient.use(latest)
    return latest.is_high


@question
def low_for_a_month(patient: PatientFacts) -> bool:
    """Low at least twice, and at least a month apart?"""
    low = d.recent_low_readings(patient)
    patient.use(*low)
    return d.lie_apart(patient, low)


@question
def vitamin_b6_taken(patient: PatientFacts) -> Answer:
    """Vitamin B6 that may have raised the PLP?"""
    plp = latest_plp(patient)
    assert plp is not None
    found = [x for x in patient.drugs("med-vitamin-b6") if x.runs or _near(patient, x, plp.moment)]
    patient.use(*found)
    return patient.settled(found, "drugs")


def _near(patient: PatientFacts, drug: Drug, moment: Moment) -> bool:
    """Whether a course that has ended reached the days before a moment."""
    last = d.last_dose(patient, drug)
    if drug.first is None or last is None:
        return False
    return drug.first.first <= moment.last and moment.first - last <= (
        patient.limit.vitamin_b6_window.days
    )


def low_alp_raised_plp(patient: PatientFacts) -> Iterator[Advice]:
    """LOW-5: ALP low and PLP raised, and no gene test."""
    limit = patient.limit
    if not patient.is_of_known_age():
        return
    if not d.latest_reading_is_low(patient, limit.latest_low_window):
        return
    if not plp_raised(patient, limit.plp_window):
        return
    if surely(d.hypophosphatasia_known(patient)):
        return
    if surely(patient.done("alpl")):
        return
    if surely(d.pregnant_now(patient)):
        return
    yield _advice(patient)


def _advice(patient: PatientFacts) -> Advice:
    """On vitamin B6 the PLP comes first, once more; the gene test waits for it."""
    latest, plp = d.latest_reading(patient), latest_plp(patient)
    assert latest is not None and plp is not None
    on_b6 = surely(vitamin_b6_taken(patient))
    once = not surely(low_for_a_month(patient))
    rest = ("alpl", "pea", "calcium", "phosphate")
    return Advice(
        "lowAlpRaisedPlp",
        "vitamin-b6" if on_b6 else "once" if once else "repeatedly",
        consider=("plp", *rest) if on_b6 else rest,
        values={"plp": patient.amount(plp), "date": plp.moment.text},
        findings=[latest, plp, *(x for x in d.recent_low_readings(patient) if x is not latest)],
        again=("plp",),
    )
