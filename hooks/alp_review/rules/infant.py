"""Very low ALP in the first year: LOW-0 of the clinical specification.

Illness, intensive care and transfusion void no value here: these infants are in hospital.
"""

from collections.abc import Iterator

from cds_service.facts import Answer, PatientFacts, any_of, finding, gate, question, surely
from cds_service.rules import Advice
from hooks.shared import definitions as d
from hooks.shared.readings import Reading


@gate
def infant(patient: PatientFacts) -> bool:
    """Younger than a year, counted in days?"""
    born, age = patient.born, patient.limit.infant_age
    return born is not None and patient.today - born.first < age.days


@finding
def infant_value(patient: PatientFacts) -> Reading | None:
    """Which recent ALP decides: the latest of a sound specimen, else the latest of all?"""
    spoilt, values = d.spoilt_readings(patient), d.alp_values(patient)
    sound = [x for x in values if x not in spoilt]
    latest = _latest_recent(patient, sound) or _latest_recent(patient, values)
    d.note_newer_unreadable(patient, latest)
    return latest


def _latest_recent(patient: PatientFacts, values: list[Reading]) -> Reading | None:
    latest = next(iter(d.latest_of_each_day(values, prefer_high=True)), None)
    window = patient.limit.infant_alp_window.days
    if latest is None or not latest.moment.surely_within(window, patient.today):
        return None
    return latest


@question
def very_low_for_an_infant(patient: PatientFacts) -> Answer | bool:
    """Is the latest ALP, at most weeks old, below half its limit?"""
    latest = infant_value(patient)
    if latest is None:
        return patient.unusable() if d.nothing_usable(patient) else False
    patient.use(latest)
    return latest.is_below(patient.limit.infant_alp_share)


@question
def recent_seizures(patient: PatientFacts) -> Answer:
    """Seizures within months?"""
    return patient.has("cond-seizure", within=patient.limit.seizure_window)


@question
def recent_high_calcium(patient: PatientFacts) -> Answer:
    """Calcium above its limit within weeks?"""
    calcium = patient.latest_within("calcium", patient.limit.infant_calcium_window)
    return patient.settled(calcium is not None and calcium.is_high, "obs-calcium-total")


@question
def failing_to_thrive(patient: PatientFacts) -> Answer:
    """Failure to thrive?"""
    return patient.has("cond-failure-to-thrive", active=True)


@question
def respiratory_failure(patient: PatientFacts) -> Answer:
    """Respiratory failure or distress?"""
    return patient.has("cond-respiratory-failure", active=True)


@question
def rickets(patient: PatientFacts) -> Answer:
    """Rickets?"""
    return patient.has("cond-osteomalacia", active=True)


@question
def poorly_mineralised(patient: PatientFacts) -> Answer:
    """A problem or a report that speaks of poorly mineralised bone?"""
    name = "text-poor-mineralisation"
    reports = [x for x in patient.reports() if patient.says(name, x.conclusion)]
    found = [*patient.problems(name), *reports]
    patient.use(*found)
    return patient.settled(found, "Condition", "DiagnosticReport")


@question
def infant_feature(patient: PatientFacts) -> Answer:
    """A sign of hypophosphatasia of infancy?"""
    return any_of(
        patient,
        recent_seizures,
        recent_high_calcium,
        failing_to_thrive,
        respiratory_failure,
        rickets,
        poorly_mineralised,
    )


_FEATURES = {
    "seizures": recent_seizures,
    "calcium": recent_high_calcium,
    "thriving": failing_to_thrive,
    "breathing": respiratory_failure,
    "rickets": rickets,
    "mineral": poorly_mineralised,
}


@question
def specimen_spoilt(patient: PatientFacts) -> bool:
    """Was every recent specimen spoilt?"""
    return infant_value(patient) in d.spoilt_readings(patient)


def low_alp_infant(patient: PatientFacts) -> Iterator[Advice]:
    """LOW-0: a very low ALP in an infant with a sign of hypophosphatasia."""
    if not patient.is_of_known_age():
        return
    if not infant(patient):
        return
    if not very_low_for_an_infant(patient):
        return
    if not infant_feature(patient):
        return
    if surely(d.hypophosphatasia_known(patient)):
        return
    if surely(specimen_spoilt(patient)):
        return
    latest = infant_value(patient)
    assert latest is not None
    feature = next(name for name, ask in _FEATURES.items() if ask(patient).value)
    yield Advice(
        "lowAlpInfant",
        "infant",
        values=patient.shown(latest) | {"feature": feature},
        findings=[latest],
    )
