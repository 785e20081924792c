"""Bone pain or a fracture with signs of myeloma: LYT-2 of the clinical specification."""

from collections.abc import Iterator
from dataclasses import dataclass

from cds_service.facts import Answer, Judged, PatientFacts, any_of, finding, question, surely
from cds_service.quantity import Quantity
from cds_service.rules import Advice
from hooks.shared import definitions as d


@question
def lasting_back_pain(patient: PatientFacts) -> Answer:
    """Back pain for weeks?"""
    since = patient.today - patient.limit.lasting_back_pain.days
    found = [
        x
        for x in patient.problems("cond-back-pain")
        if x.active and x.moment is not None and x.moment.last <= since
    ]
    patient.use(*found)
    return patient.settled(found, "Condition")


@question
def vertebral_fracture(patient: PatientFacts) -> Answer:
    """Vertebral fracture within a year?"""
    return patient.has("cond-vertebral-fracture", within=patient.limit.vertebral_window)


_SYMPTOMS = {
    "bone_pain": d.bone_pain,
    "fracture": d.pathological_fracture,
    "vertebra": vertebral_fracture,
    "back_pain": lasting_back_pain,
}


@question
def telling_symptom(patient: PatientFacts) -> Answer:
    """Bone pain, back pain for weeks, or a pathological or vertebral fracture?"""
    return any_of(
        patient, d.bone_pain, d.pathological_fracture, vertebral_fracture, lasting_back_pain
    )


@dataclass(frozen=True, slots=True)
class Sign:
    """A laboratory sign that fits myeloma, and the numbers it rests on."""

    name: str
    numbers: tuple[Judged, ...]


@finding
def laboratory_signs(patient: PatientFacts) -> list[Sign]:
    """Which laboratory signs of myeloma are there?"""
    calcium = _recent(patient, "calcium")
    haemoglobin = _recent(patient, "hemoglobin")
    leukocytes = _recent(patient, "leukocytes")
    signs = []
    if calcium is not None and calcium.is_high:
        signs.append(Sign("calcium", (calcium,)))
    if haemoglobin is not None and _clearly_low(patient, haemoglobin):
        signs.append(Sign("haemoglobin", (haemoglobin,)))
    if egfr := _newly_reduced_egfr(patient):
        signs.append(Sign("egfr", (egfr,)))
    if gap := _protein_gap(patient):
        signs.append(Sign("gap", gap))
    if leukocytes is not None and leukocytes.is_low:
        signs.append(Sign("leukocytes", (leukocytes,)))
    return signs


def _recent(patient: PatientFacts, measure: str) -> Judged | None:
    return patient.latest_within(measure, patient.limit.signs_window)


def _clearly_low(patient: PatientFacts, haemoglobin: Judged) -> bool:
    """Below a fixed limit, or far below its own."""
    limit, low = patient.limit, haemoglobin.low
    if d.is_below(haemoglobin, limit.low_hemoglobin):
        return True
    if low is None or not haemoglobin.measured.has_unit:
        return False
    far = Quantity(low.value - limit.hemoglobin_drop.value, low.unit)
    return haemoglobin.value.at_most(far) is True


def _newly_reduced_egfr(patient: PatientFacts) -> Judged | None:
    """The latest eGFR when it is reduced, was not so months before, and no kidney disease is on
    record.
    """
    limit, latest = patient.limit, _recent(patient, "egfr")
    if latest is None or not d.is_below(latest, limit.reduced_egfr):
        return None
    if surely(patient.has("cond-ckd", silencing=True)):
        return None
    long_reduced = any(
        latest.moment.last - x.moment.first > limit.egfr_newly_reduced.days
        for x in patient.judged("egfr")
        if d.is_below(x, limit.reduced_egfr)
    )
    return None if long_reduced else latest


def _protein_gap(patient: PatientFacts) -> tuple[Judged, ...]:
    """Total protein and albumin of the newest day that has both, when they lie far apart."""
    window, today = patient.limit.signs_window.days, patient.today
    for protein in patient.judged("total_protein"):
        albumin = next((x for x in patient.judged("albumin") if _same_day(x, protein)), None)
        if albumin is not None and protein.moment.surely_within(window, today):
            return (protein, albumin) if _lie_apart(patient, protein, albumin) else ()
    return ()


def _same_day(one: Judged, other: Judged) -> bool:
    return one.moment.first == other.moment.first and not one.moment.is_partial


def _lie_apart(patient: PatientFacts, protein: Judged, albumin: Judged) -> bool:
    numbers = (protein, albumin)
    if not all(x.measured.has_unit and not x.value.comparator for x in numbers):
        return False
    return protein.value.value - albumin.value.value >= patient.limit.protein_gap.value


@question
def enough_signs(patient: PatientFacts) -> Answer:
    """One laboratory sign of myeloma, or two at a younger age?"""
    signs, limit = laboratory_signs(patient), patient.limit
    patient.use(*(x for sign in signs for x in sign.numbers))
    older = patient.is_at_least(limit.pain_screen_older).value
    enough = signs if older or len(signs) >= limit.pain_screen_signs.count else []
    return patient.settled(
        enough,
        "obs-calcium-total",
        "obs-hemoglobin",
        "obs-egfr",
        "obs-total-protein",
        "obs-leukocytes",
    )


def bone_pain_without_myeloma_screen(patient: PatientFacts) -> Iterator[Advice]:
    """LYT-2: bone pain or a fracture with laboratory signs of myeloma, and no screen on file."""
    if not patient.is_at_least(patient.limit.pain_screen_age):
        return
    if not telling_symptom(patient):
        return
    if not enough_signs(patient):
        return
    if not d.latest_not_raised(patient, patient.limit.pain_screen_alp):
        return
    if surely(another_row_or_reason(patient)):
        return
    signs, latest = laboratory_signs(patient), d.latest_alp(patient)
    symptom = next(name for name, ask in _SYMPTOMS.items() if ask(patient).value)
    yield Advice(
        "bonePainWithoutMyelomaScreen",
        "info",
        values={"symptom": symptom, "item": signs[0].name},
        findings=[*(x for sign in signs for x in sign.numbers), *([latest] if latest else [])],
        hinges_on=d.vital_tests(patient),
    )


@question
def another_row_or_reason(patient: PatientFacts) -> Answer:
    """A lytic lesion, a known gammopathy, a cancer of these years, or cytotoxic treatment?"""
    return any_of(
        patient, d.lytic_lesion, d.gammopathy_known, cancer_of_these_years, d.recent_cytotoxic
    )


@question
def cancer_of_these_years(patient: PatientFacts) -> Answer:
    """Any solid cancer active or of the last years?"""
    return d.solid_cancer_active_or_recent(patient, patient.limit.recent_cancer_window)
