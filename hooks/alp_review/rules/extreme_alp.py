"""Extreme ALP: X-1 of the clinical specification."""

from collections.abc import Iterator

from cds_service.facts import Answer, PatientFacts, any_of, question, surely
from cds_service.rules import Advice
from hooks.shared import definitions as d


@question
def latest_is_extreme(patient: PatientFacts) -> Answer | bool:
    """Is the latest ALP extreme, and at most two weeks old?"""
    latest, limit = d.latest_alp(patient), patient.limit
    if latest is None:
        return patient.unusable() if d.nothing_usable(patient) else False
    patient.use(latest)
    if not latest.moment.surely_within(limit.extreme_window.days, patient.today):
        return False
    if latest.absolute:
        return latest.value.at_least(limit.extreme_alp) is True
    return d.alp_at_least(patient, limit.extreme_times)


@question
def bone_disease_explains(patient: PatientFacts) -> bool:
    """Paget disease or bone metastases, while neither GGT nor bilirubin is raised?"""
    if not any_of(patient, d.paget_active, d.bone_metastasis):
        return False
    return not any_of(patient, d.ggt_high, d.bilirubin_raised)


def extreme_alp(patient: PatientFacts) -> Iterator[Advice]:
    """X-1: ALP so high that obstruction, infiltration or sepsis comes first."""
    if not patient.is_at_least(patient.limit.adult_age):
        return
    if not latest_is_extreme(patient):
        return
    if surely(d.pregnant_now(patient)):
        return
    if surely(d.liver_source_known(patient)):
        return
    if surely(bone_disease_explains(patient)):
        return
    latest = d.latest_alp(patient)
    assert latest is not None
    beside = (d.paired_ggt(patient), d.paired_bilirubin(patient), d.paired_alt(patient))
    yield Advice(
        "extremeAlp",
        "warning",
        values=patient.shown(latest),
        findings=[latest, *(x for x in beside if x is not None)],
    )
