"""Low ALP before and on an antiresorptive, and hypophosphatasia with one: LOW-3, LOW-4 and ARX-3 of
the clinical specification.
"""

from collections.abc import Iterator, Sequence

from cds_service.facts import Answer, PatientFacts, any_of, finding, question, surely
from cds_service.rules import Advice, Filling
from hooks.shared import definitions as d
from hooks.shared.readings import Reading

# -- LOW-3 -------------------------------------------------------------------------------------


@finding
def readings_before(patient: PatientFacts) -> list[Reading]:
    """Which ALP readings lie on or before the first recorded dose?"""
    first = d.first_antiresorptive(patient)
    if first is None or first.first is None:
        return []
    day = first.first.first
    return [x for x in d.low_rule_readings(patient) if x.moment.last <= day]


@finding
def readings_perhaps_before(patient: PatientFacts) -> list[Reading]:
    """Which do so if a partial date of the first dose means its last day?"""
    first = d.first_antiresorptive(patient)
    if first is None or first.first is None:
        return []
    day = first.first.last
    return [x for x in d.low_rule_readings(patient) if x.moment.first <= day]


@question
def low_before(patient: PatientFacts) -> Answer | bool:
    """Low at least twice, and at least a month apart, before the first recorded antiresorptive?"""
    if d.nothing_usable(patient):
        return patient.unusable()
    low = [x for x in readings_before(patient) if d.is_low(patient, x)]
    patient.use(*low)
    return d.lie_apart(patient, low)


@question
def last_before_is_low(patient: PatientFacts) -> bool:
    """Is the last ALP before it low?"""
    before = readings_perhaps_before(patient)
    return bool(before) and d.is_low(patient, before[0])


@question
def never_normal_before(patient: PatientFacts) -> bool:
    """Was no ALP before it clearly normal, but for those with a reason to be higher?"""
    normal = d.unexcused_normal(patient, readings_perhaps_before(patient))
    patient.use(*normal)
    return not normal


@question
def grave_before(patient: PatientFacts) -> bool:
    """Was one before it below the sure limit (children, other methods: very low)?"""
    return any(_is_grave(patient, x) for x in readings_before(patient))


def _is_grave(patient: PatientFacts, reading: Reading) -> bool:
    if reading.adult and reading.absolute:
        return reading.value.below(patient.limit.surely_low) is True
    return d.is_very_low(patient, reading)


@question
def grave_or_feature(patient: PatientFacts) -> Answer:
    """Clearly low before it, or a feature of hypophosphatasia?"""
    return any_of(patient, grave_before, d.hypophosphatasia_feature)


def _cause(patient: PatientFacts) -> str:
    return d.cause_name(patient) if surely(d.acquired_cause(patient)) else ""


def _held_by(patient: PatientFacts) -> str:
    return "acquired-cause" if _cause(patient) and not surely(d.never_deferred(patient)) else ""


def low_alp_before_antiresorptive(patient: PatientFacts) -> Iterator[Advice]:
    """LOW-3: ALP was low before the first recorded antiresorptive."""
    if not patient.is_of_known_age():
        return
    if not d.on_antiresorptive(patient):
        return
    if not low_before(patient):
        return
    if not last_before_is_low(patient):
        return
    if not never_normal_before(patient):
        return
    if surely(d.hypophosphatasia_known(patient)):
        return
    if surely(d.hypophosphatasia_unlikely(patient)):
        return
    warning = surely(grave_or_feature(patient)) and not surely(d.oncology_indication(patient))
    low = [x for x in readings_before(patient) if d.is_low(patient, x)]
    first = d.first_antiresorptive(patient)
    assert first is not None
    yield Advice(
        "lowAlpBeforeAntiresorptive",
        "warning" if warning else "info",
        values=_said(patient, d.antiresorptive_kind(first))
        | {"n": len(low), "telling": d.telling(patient, grave_before(patient).value is True)},
        findings=d.beside(patient, low),
        held_by=_held_by(patient),
    )


def _said(patient: PatientFacts, drug: str) -> dict[str, Filling]:
    """The drug, what its class asks for, and an acquired cause beside it."""
    acting = [d.antiresorptive_kind(x) for x in d.acting_antiresorptives(patient)]
    plan = "denosumab" if "denosumab" in acting else "bisphosphonate"
    return {"drug": drug, "plan": plan, "cause": _cause(patient)}


# -- LOW-4 -------------------------------------------------------------------------------------


@question
def latest_is_exposed(patient: PatientFacts) -> bool:
    """Was it drawn on an antiresorptive?"""
    return d.latest_reading(patient) in d.exposed_readings(patient)


@finding
def very_low_on_treatment(patient: PatientFacts) -> list[Reading]:
    """Which readings of the last years on an antiresorptive are very low?"""
    window, today = patient.limit.look_back.days, patient.today
    return [
        x
        for x in d.exposed_readings(patient)
        if x.moment.surely_within(window, today) and d.is_very_low(patient, x)
    ]


@question
def twice_very_low(patient: PatientFacts) -> bool:
    """Very low at least twice on it, and at least a month apart?"""
    found = very_low_on_treatment(patient)
    patient.use(*found)
    return d.lie_apart(patient, found)


@question
def fracture_feature(patient: PatientFacts) -> Answer:
    """An atypical femoral, pseudo-, stress or unhealed fracture on record?"""
    found = [x for name in _FRACTURES.values() for x in patient.problems(name)]
    patient.use(*found)
    return patient.settled(found, "Condition")


_FRACTURES = {
    "atypical": "cond-aff",
    "pseudofracture": "cond-pseudofracture",
    "stress": "cond-stress-fracture",
    "nonunion": "cond-fracture-nonunion",
}


@question
def grave_with_fracture(patient: PatientFacts) -> Answer | bool:
    """Latest below the sure limit (children, other methods: very low), with such a fracture?"""
    latest = d.latest_reading(patient)
    if latest is None or not _is_grave(patient, latest):
        return False
    return fracture_feature(patient)


@question
def telling_on_treatment(patient: PatientFacts) -> Answer:
    """Twice very low, or clearly low with such a fracture?"""
    return any_of(patient, twice_very_low, grave_with_fracture)


def low_alp_on_antiresorptive(patient: PatientFacts) -> Iterator[Advice]:
    """LOW-4: ALP very low on an antiresorptive."""
    if not patient.is_of_known_age():
        return
    if not d.on_antiresorptive(patient):
        return
    if not d.latest_reading_is_low(patient, patient.limit.latest_low_window):
        return
    if not latest_is_exposed(patient):
        return
    if not telling_on_treatment(patient):
        return
    if surely(d.hypophosphatasia_known(patient)):
        return
    if surely(d.hypophosphatasia_unlikely(patient)):
        return
    yield _on_treatment(patient)


def _on_treatment(patient: PatientFacts) -> Advice:
    """The gene test is offered with a fracture only."""
    latest, very_low = d.latest_reading(patient), very_low_on_treatment(patient)
    assert latest is not None
    fractures = (name for name, of in _FRACTURES.items() if patient.problems(of))
    feature = next(fractures, "") if surely(fracture_feature(patient)) else ""
    tests = ("plp", "phosphate", "calcium", "25ohd")
    return Advice(
        "lowAlpOnAntiresorptive",
        _on_treatment_variant(patient, feature, very_low),
        consider=(*tests, "alpl") if feature else tests,
        values=patient.shown(latest)
        | _said(patient, d.acting_kind(patient))
        | {"feature": feature, "cut": patient.as_printed(latest, patient.limit.very_low)},
        findings=[latest, *(x for x in very_low if x is not latest)],
        held_by=_held_by(patient),
    )


def _on_treatment_variant(patient: PatientFacts, feature: str, very_low: Sequence[Reading]) -> str:
    if feature:
        return "fracture-oncology" if surely(d.oncology_indication(patient)) else "fracture"
    return "twice" if all(x.adult and x.absolute for x in very_low) else "twice-other-method"


# -- ARX-3 -------------------------------------------------------------------------------------


def antiresorptive_with_hypophosphatasia(patient: PatientFacts) -> Iterator[Advice]:
    """ARX-3: hypophosphatasia and an antiresorptive on record, whatever the ALP."""
    if not d.hypophosphatasia_known(patient):
        return
    if not d.on_antiresorptive(patient):
        return
    how, words = d.known_by(patient)
    yield Advice(
        "antiresorptiveWithHypophosphatasia",
        "on-record",
        values={"drug": d.acting_kind(patient), "known": how},
        quoted=words,
    )
