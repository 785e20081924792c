"""Low ALP: LOW-1 and LOW-2 of the clinical specification."""

from collections.abc import Iterator

from cds_service.facts import Answer, PatientFacts, any_of, question, surely
from cds_service.rules import Advice, Filling
from hooks.shared import definitions as d


@question
def untreated_osteoporosis(patient: PatientFacts) -> Answer | bool:
    """Osteoporosis, and no antiresorptive ever recorded?"""
    if not patient.has("cond-osteoporosis"):
        return False
    return not d.antiresorptive_ever_recorded(patient)


@question
def still_unconfirmed(patient: PatientFacts) -> bool:
    """Is persistence still open?"""
    return not d.persistently_low(patient)


@question
def worth_repeating(patient: PatientFacts) -> Answer:
    """Is one low value worth a repeat: very low, a child's, or with a feature or osteoporosis?"""
    return any_of(
        patient,
        d.latest_is_very_low,
        d.latest_is_low_for_a_child,
        d.hypophosphatasia_feature,
        untreated_osteoporosis,
    )


def low_alp_unconfirmed(patient: PatientFacts) -> Iterator[Advice]:
    """LOW-1: one low ALP that nobody has confirmed yet."""
    limit = patient.limit
    if not patient.is_of_known_age():
        return
    if not d.latest_is_low(patient, limit.unconfirmed_window):
        return
    if not still_unconfirmed(patient):
        return
    if not worth_repeating(patient):
        return
    if surely(d.hypophosphatasia_known(patient)):
        return
    if surely(d.hypophosphatasia_unlikely(patient)):
        return
    latest = d.latest_unexposed(patient)
    assert latest is not None
    infant = patient.is_younger_than(limit.one_year).value
    yield Advice(
        "lowAlpUnconfirmed",
        "infant" if infant else "older",
        values=patient.shown(latest)
        | {"date": latest.moment.text, "interval": "infant" if infant else "older"},
        findings=[latest],
        held_by="acquired-cause" if surely(d.acquired_cause(patient)) else "",
    )


@question
def very_low_or_feature(patient: PatientFacts) -> Answer:
    """Very low, or a feature of hypophosphatasia: then no acquired cause defers?"""
    return any_of(patient, d.latest_is_very_low, d.hypophosphatasia_feature)


@question
def fully_worked_up(patient: PatientFacts) -> Answer | bool:
    """PLP normal and ALPL negative?"""
    return surely(d.plp_normal_while_low(patient)) and surely(d.alpl_negative(patient))


@question
def pregnant_and_not_low_for_it(patient: PatientFacts) -> Answer | bool:
    """Pregnant, with an ALP that is not low for pregnancy?"""
    latest = d.latest_unexposed(patient)
    if latest is None or not surely(d.pregnant_now(patient)):
        return False
    return not d.is_below(latest, patient.limit.pregnancy_low)


def low_alp_persistent(patient: PatientFacts) -> Iterator[Advice]:
    """LOW-2: ALP low for a while, off antiresorptives, and hypophosphatasia not looked for."""
    if not d.persistently_low(patient):
        return
    if surely(d.hypophosphatasia_known(patient)):
        return
    if surely(patient.has("cond-wilson", silencing=True)):
        return
    if surely(pregnant_and_not_low_for_it(patient)):
        return
    warning = surely(d.low_alp_is_a_warning(patient))
    if warning and surely(fully_worked_up(patient)):
        return
    if not warning and surely(d.hypophosphatasia_unlikely(patient)):
        return
    yield _advice(patient, warning)


def _advice(patient: PatientFacts, warning: bool) -> Advice:
    """Second-step tests once very low or with a feature; only then no acquired cause defers."""
    low = d.low_readings(patient)
    cause = d.cause_name(patient) if surely(d.acquired_cause(patient)) else ""
    second_step = surely(very_low_or_feature(patient))
    step = "second-step" if second_step else "first-step"
    span: dict[str, Filling] = {
        "n": len(low),
        "first": low[-1].moment.text,
        "last": low[0].moment.text,
        "cause": cause,
        "telling": d.telling(patient, d.latest_is_very_low(patient).value is True),
        "drugs": "none" if patient.is_answered("drugs") else "unknown",
        "plp_test": "kidney" if surely(d.advanced_kidney_disease(patient)) else "plp",
    }
    return Advice(
        "lowAlpPersistent",
        f"warning-{step}" if warning else step,
        consider=low_alp_orders(patient, second_step),
        values=span,
        findings=d.beside(patient, low) if second_step else low,
        hinges_on=("plp", "alpl") if warning else ("plp",),
        held_by="acquired-cause" if cause and not second_step else "",
    )


def low_alp_orders(patient: PatientFacts, second_step: bool) -> tuple[str, ...]:
    """First step, or the second with the gene test; no PLP in advanced kidney disease."""
    plp = () if surely(d.advanced_kidney_disease(patient)) else ("plp",)
    gene = ("alpl",) if second_step or _gene_test_instead(patient) else ()
    rest = ("phosphate", "calcium", "magnesium")
    return (*plp, *gene, *rest) if second_step else (*plp, *gene, *rest, "tsh")


def _gene_test_instead(patient: PatientFacts) -> bool:
    """Whether the site has no PLP test and two readings lie below the sure limit."""
    sure = [
        x
        for x in d.low_readings(patient)
        if x.absolute and x.value.below(patient.limit.surely_low) is True
    ]
    return not patient.is_orderable("plp") and len(sure) >= patient.limit.fewest_low_readings.count
