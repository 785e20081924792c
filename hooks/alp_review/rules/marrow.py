"""Low ALP with a malignancy of the marrow: HEM-1 of the clinical specification."""

from collections.abc import Iterator

from cds_service.facts import Answer, PatientFacts, any_of, question, surely
from cds_service.rules import Advice
from hooks.shared import definitions as d


@question
def low_on_antiresorptive(patient: PatientFacts) -> Answer | bool:
    """Low on an antiresorptive within the last years?"""
    window, today = patient.limit.look_back.days, patient.today
    found = [
        x
        for x in d.exposed_readings(patient)
        if x.moment.possibly_within(window, today) and d.is_low(patient, x)
    ]
    patient.use(*found)
    return patient.settled(found, "drugs")


@question
def treatment_explains(patient: PatientFacts) -> Answer:
    """A drug, radiotherapy or transplant that may have lowered it?"""
    return any_of(
        patient,
        low_on_antiresorptive,
        d.recent_cytotoxic,
        d.recent_glucocorticoid,
        recent_radiotherapy_or_transplant,
    )


@question
def recent_radiotherapy_or_transplant(patient: PatientFacts) -> Answer:
    """Radiotherapy or a transplant within months?"""
    window, today = patient.limit.marrow_treatment_window, patient.today
    acts = patient.acts("proc-radiotherapy-transplant")
    found = [x for x in acts if x.within(window, today, silencing=True)]
    patient.use(*found)
    return patient.settled(found, "Procedure")


def low_alp_with_marrow_malignancy(patient: PatientFacts) -> Iterator[Advice]:
    """HEM-1: ALP persistently low with a malignancy of the marrow, not explained by treatment."""
    if not patient.is_of_known_age():
        return
    if not d.marrow_malignancy(patient):
        return
    if not d.persistently_low(patient):
        return
    if surely(d.hypophosphatasia_known(patient)):
        return
    if surely(treatment_explains(patient)):
        return
    if surely(patient.is_inpatient()):
        return
    if surely(d.low_alp_is_a_warning(patient)):
        return
    low = d.low_readings(patient)
    yield Advice(
        "lowAlpWithMarrowMalignancy",
        "on-record",
        values={
            "dx": d.marrow_malignancies(patient)[0],
            "n": len(low),
            "first": low[-1].moment.text,
            "last": low[0].moment.text,
        },
        findings=low,
    )
