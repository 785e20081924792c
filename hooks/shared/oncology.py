"""Whether an antiresorptive is given for cancer rather than for osteoporosis (specification 3.9
line 54).
"""

from cds_service.facts import Answer, Draft, Drug, PatientFacts, any_of, question
from hooks.shared.cancer import (
    PLASMA_CELL,
    bone_metastasis,
    plasma_cell_disease,
    solid_cancer_active,
)
from hooks.shared.exposure import ANTIRESORPTIVES, drafted_antiresorptives

ONCOLOGY = "med-antiresorptive-oncology"


@question
def oncology_indication(patient: PatientFacts) -> Answer:
    """Is an antiresorptive given for cancer?"""
    return any_of(
        patient,
        bone_metastasis,
        plasma_cell_disease,
        oncology_dose_recorded,
        oncology_drafted,
        hypercalcaemia_of_cancer,
    )


@question
def oncology_dose_recorded(patient: PatientFacts) -> Answer:
    """An antiresorptive recorded by a product or dose of oncology?"""
    found = {
        id(drug): drug
        for group in ANTIRESORPTIVES
        for drug in patient.drugs(group)
        if _is_of_oncology(patient, drug)
    }
    patient.use(*found.values())
    return patient.settled(found, "drugs")


def _is_of_oncology(patient: PatientFacts, drug: Drug | Draft) -> bool:
    return ONCOLOGY in drug.sets or patient.says(ONCOLOGY, " ".join(drug.routes))


@question
def oncology_drafted(patient: PatientFacts) -> bool:
    """Is one being ordered by a product or dose of oncology, or for bone metastases or myeloma?"""
    reasons = {"cond-bone-metastasis", *PLASMA_CELL.values()}
    found = [
        x
        for x in drafted_antiresorptives(patient)
        if _is_of_oncology(patient, x) or x.reasons & reasons
    ]
    patient.use(*found)
    return bool(found)


@question
def hypercalcaemia_of_cancer(patient: PatientFacts) -> Answer:
    """Hypercalcaemia with a solid cancer active?"""
    hypercalcaemia = any_of(patient, hypercalcaemia_on_record, drafted_for_hypercalcaemia)
    if hypercalcaemia.value is False:
        return hypercalcaemia
    return solid_cancer_active(patient)


@question
def hypercalcaemia_on_record(patient: PatientFacts) -> Answer:
    """Hypercalcaemia on the problem list?"""
    return patient.has("cond-hypercalcaemia", silencing=True)


@question
def drafted_for_hypercalcaemia(patient: PatientFacts) -> bool:
    """Is an antiresorptive being ordered for hypercalcaemia?"""
    found = [x for x in drafted_antiresorptives(patient) if "cond-hypercalcaemia" in x.reasons]
    patient.use(*found)
    return bool(found)
