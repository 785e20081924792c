"""Whether an antiresorptive is given for cancer rather than for osteoporosis (specification 3.9
line 54).
"""

from cds_service.facts import Answer, PatientFacts, any_of, question
from hooks.shared.cancer import bone_metastasis, plasma_cell_disease, solid_cancer_active


@question
def oncology_indication(patient: PatientFacts) -> Answer:
    """Is an antiresorptive given for cancer?"""
    return any_of(
        patient,
        bone_metastasis,
        plasma_cell_disease,
        oncology_dose_recorded,
        hypercalcaemia_of_cancer,
    )


@question
def oncology_dose_recorded(patient: PatientFacts) -> Answer:
    """An antiresorptive recorded by a product or dose of oncology?"""
    name = "med-antiresorptive-oncology"
    found = {
        id(drug): drug
        for group in ("med-bisphosphonate", "med-denosumab")
        for drug in patient.drugs(group)
        if name in drug.sets or patient.says(name, " ".join(drug.routes))
    }
    patient.use(*found.values())
    return patient.settled(found, "drugs")


@question
def hypercalcaemia_of_cancer(patient: PatientFacts) -> Answer:
    """Hypercalcaemia with a solid cancer active?"""
    hypercalcaemia = patient.has("cond-hypercalcaemia", silencing=True)
    if hypercalcaemia.value is False:
        return hypercalcaemia
    return solid_cancer_active(patient)
