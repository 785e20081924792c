"""What keeps cards back whatever the ALP (specification 3.8)."""

from cds_service.facts import Answer, PatientFacts, question


@question
def deceased(patient: PatientFacts) -> bool:
    """Has the patient died?"""
    return patient.is_deceased()


@question
def hospice_care(patient: PatientFacts) -> Answer:
    """Hospice or end-of-life care?"""
    name, window = "cond-hospice", patient.limit.hospice_window
    found = [
        *(x for x in patient.problems(name, silencing=True) if x.active),
        *(x for x in patient.requests(name) if x.resource.status == "active"),
        *(x for x in patient.acts(name) if x.within(window, patient.today, silencing=True)),
        *(x for x in patient.encounters_of(name) if x.resource.status == "in-progress"),
    ]
    patient.use(*found)
    return patient.settled(found, "Condition")


@question
def palliative_care(patient: PatientFacts) -> Answer:
    """Palliative care within the last months?"""
    return patient.has("cond-palliative", within=patient.limit.palliative_window, silencing=True)
