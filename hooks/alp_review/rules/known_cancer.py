"""Raised ALP in a patient with a cancer that spreads to bone: TUM-1 of the clinical
specification.
"""

from collections.abc import Iterator

from cds_service.facts import Answer, Judged, PatientFacts, any_of, gate, question, surely
from cds_service.rules import Advice
from hooks.shared import definitions as d
from hooks.shared.cancer import Cancer


@gate
def adult(patient: PatientFacts) -> Answer:
    """An adult?"""
    return patient.is_at_least(patient.limit.adult_age)


@question
def calcium_high(patient: PatientFacts) -> Answer:
    """Calcium above its limit within months?"""
    return patient.settled(_high_calcium(patient), "obs-calcium-total")


def _high_calcium(patient: PatientFacts) -> list[Judged]:
    calcium = patient.latest_within("calcium", patient.limit.signs_window)
    return [calcium] if calcium is not None and calcium.is_high else []


@question
def pain_or_fracture(patient: PatientFacts) -> Answer:
    """Bone pain or a pathological fracture?"""
    return any_of(patient, d.bone_pain, d.pathological_fracture)


@question
def alarm_sign(patient: PatientFacts) -> Answer:
    """Bone pain, a pathological fracture or a high calcium?"""
    return any_of(patient, d.bone_pain, d.pathological_fracture, calcium_high)


@question
def raised_enough(patient: PatientFacts) -> Answer | bool:
    """ALP raised, or above its limit together with an alarm sign?"""
    if not d.latest_above_limit(patient):
        return False
    return any_of(patient, d.raised, alarm_sign)


@question
def bone_is_possible(patient: PatientFacts) -> Answer:
    """GGT missing, normal, or raised far less than ALP; or pain or a fracture?"""
    return any_of(patient, d.ggt_missing, d.ggt_normal, ggt_little, pain_or_fracture)


@question
def ggt_little(patient: PatientFacts) -> bool:
    """GGT raised far less than ALP?"""
    return d.ggt_below_share_of_alp(patient)


@question
def imaging_under_way(patient: PatientFacts) -> Answer:
    """Bone imaging done within months, or on order?"""
    if surely(patient.done("bone-scan")):
        return patient.settled(True)
    return patient.ordered("bone-scan")


@question
def ggt_awaited(patient: PatientFacts) -> bool:
    """GGT missing but on order, and neither pain nor fracture?"""
    if not d.ggt_missing(patient).value or surely(pain_or_fracture(patient)):
        return False
    return surely(patient.ordered("ggt"))


@question
def fracture_explains(patient: PatientFacts) -> bool:
    """An ordinary recent fracture, ALP below twice its limit, no bone pain?"""
    return (
        surely(d.recent_ordinary_fracture(patient))
        and not surely(d.pathological_fracture(patient))
        and not surely(d.bone_pain(patient))
        and not d.alp_at_least(patient, patient.limit.fracture_alp_times)
    )


@question
def silent_for_another_reason(patient: PatientFacts) -> Answer:
    """Bone metastases known, imaging under way, GGT awaited, or something else explains the ALP?"""
    return any_of(
        patient,
        d.bone_metastasis,
        imaging_under_way,
        ggt_awaited,
        d.pregnant_now,
        d.growth_factor_explains,
        fracture_explains,
    )


def raised_alp_with_cancer(patient: PatientFacts) -> Iterator[Advice]:
    """TUM-1: ALP raised in a patient with a cancer that often spreads to bone."""
    if not adult(patient):
        return
    if not d.tum_cancer(patient):
        return
    if not raised_enough(patient):
        return
    if not bone_is_possible(patient):
        return
    if surely(silent_for_another_reason(patient)):
        return
    yield _advice(patient)


def _advice(patient: PatientFacts) -> Advice:
    latest, cancers = d.latest_alp(patient), d.tum_cancers(patient)
    assert latest is not None
    kind = "liver-and-bone" if surely(d.ggt_high(patient)) else "bone"
    wait_for_ggt = surely(d.ggt_missing(patient)) and not surely(pain_or_fracture(patient))
    words = {
        "cancer": cancers[0].kind,
        "pain": _pain(patient),
        "option": "ggt-first" if wait_for_ggt else "imaging",
        "y": patient.times(d.paired_ggt(patient)),
    }
    return Advice(
        "raisedAlpWithCancer",
        f"{kind}-alarm" if surely(alarm_sign(patient)) else kind,
        consider=_orders(patient, cancers, wait_for_ggt),
        values=patient.shown(latest) | words,
        findings=[
            *(x for x in (latest, d.paired_ggt(patient)) if x is not None),
            *_high_calcium(patient),
        ],
    )


def _pain(patient: PatientFacts) -> str:
    if surely(d.bone_pain(patient)):
        return "pain"
    return "fracture" if surely(d.pathological_fracture(patient)) else "none"


def _orders(patient: PatientFacts, cancers: list[Cancer], wait_for_ggt: bool) -> tuple[str, ...]:
    """GGT first when there is none; a bone scan unless only tumours that it tends to miss are on
    record.
    """
    ggt = ("ggt",) if d.paired_ggt(patient) is None else ()
    misses = all(cancer.scan_often_misses for cancer in cancers)
    scan = () if wait_for_ggt or misses else ("bone-scan",)
    psa = ("psa",) if any(cancer.kind == "prostate" for cancer in cancers) else ()
    return (*ggt, *scan, "calcium", *psa)
