"""ALP in known plasma-cell disease: MM-1 and MM-2 of the clinical specification."""

from collections.abc import Iterator
from dataclasses import dataclass

from cds_service.facts import (
    Answer,
    Drug,
    Judged,
    Moment,
    PatientFacts,
    any_of,
    finding,
    question,
    surely,
)
from cds_service.quantity import Quantity
from cds_service.rules import Advice, Filling
from hooks.shared import definitions as d

EFFECTIVE = {"bortezomib": "med-bortezomib", "carfilzomib": "med-carfilzomib"}


# -- MM-1 --------------------------------------------------------------------------------------


@question
def healing_bone(patient: PatientFacts) -> Answer:
    """A fracture or bone surgery within months?"""
    return any_of(patient, d.recent_fracture, bone_surgery)


@question
def bone_surgery(patient: PatientFacts) -> Answer:
    """Joint replacement, fixation or osteotomy within months?"""
    return _operated(patient, "proc-bone-surgery", patient.limit.bone_surgery_window)


@question
def vertebra_filled(patient: PatientFacts) -> Answer:
    """Vertebroplasty or kyphoplasty within months?"""
    return _operated(patient, "proc-vertebroplasty", patient.limit.vertebroplasty_window)


def _operated(patient: PatientFacts, name: str, window: Quantity) -> Answer:
    found = [x for x in patient.acts(name) if x.within(window, patient.today, silencing=True)]
    patient.use(*found)
    return patient.settled(found, "Procedure")


@question
def bone_explains(patient: PatientFacts) -> bool:
    """GGT normal, and a fracture or bone surgery within months?"""
    return surely(d.ggt_normal(patient)) and surely(healing_bone(patient))


def raised_alp_in_myeloma(patient: PatientFacts) -> Iterator[Advice]:
    """MM-1: ALP raised in known plasma-cell disease, which often has another cause."""
    if not patient.is_at_least(patient.limit.adult_age):
        return
    if not d.plasma_cell_disease(patient):
        return
    if not d.raised(patient):
        return
    if surely(d.pregnant_now(patient)):
        return
    if surely(bone_explains(patient)):
        return
    if surely(vertebra_filled(patient)):
        return
    yield _advice(patient)


def _advice(patient: PatientFacts) -> Advice:
    latest, limit = d.latest_alp(patient), patient.limit
    assert latest is not None
    grave = d.alp_at_least(patient, limit.grave_alp_times) or d.bilirubin_above(
        patient, limit.grave_bilirubin_times
    )
    kind: dict[str, Filling] = {"pcd": d.plasma_cell_kind(patient)}
    before = [x for x in _baseline(patient) if x is not latest]
    return Advice(
        "raisedAlpInMyeloma",
        "warning" if grave else "info",
        consider=_orders(patient),
        values=patient.shown(latest) | kind | _treatment(patient),
        findings=[latest, *_liver_tests(patient), *before],
    )


def _orders(patient: PatientFacts) -> tuple[str, ...]:
    """GGT unless there is one; bone ALP where it is normal; ultrasound where it or bilirubin is
    raised.
    """
    bilirubin = d.paired_bilirubin(patient)
    jaundice = bilirubin is not None and bilirubin.is_high
    ggt = ("ggt",) if d.paired_ggt(patient) is None else ()
    balp = ("balp",) if surely(d.ggt_normal(patient)) else ()
    ultrasound = ("us-abdomen",) if jaundice or surely(d.ggt_high(patient)) else ()
    return (*ggt, "liver-panel", "25ohd", *balp, *ultrasound)


def _liver_tests(patient: PatientFacts) -> list[Judged]:
    return [x for x in (d.paired_ggt(patient), d.paired_bilirubin(patient)) if x is not None]


def _treatment(patient: PatientFacts) -> dict[str, Filling]:
    """Which proteasome inhibitor was first recorded when; nothing when none was."""
    first = first_dose(patient)
    return {"drug": first.drug, "first": first.moment.text} if first is not None else {}


# -- MM-2 --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FirstDose:
    """The first recorded dose of bortezomib or carfilzomib."""

    drug: str
    moment: Moment


@finding
def first_dose(patient: PatientFacts) -> FirstDose | None:
    """What is the first recorded dose of bortezomib or carfilzomib?"""
    dated = [
        FirstDose(kind, drug.first)
        for kind, name in EFFECTIVE.items()
        for drug in patient.drugs(name)
        if drug.first is not None
    ]
    return min(dated, key=lambda x: x.moment.first, default=None)


def _effective_drugs(patient: PatientFacts) -> list[Drug]:
    return [drug for name in EFFECTIVE.values() for drug in patient.drugs(name)]


@question
def treatable_myeloma(patient: PatientFacts) -> Answer:
    """Myeloma on record: active, in remission or smouldering?"""
    return any_of(patient, _active, _remission, _smouldering)


@question
def _active(patient: PatientFacts) -> Answer:
    """Multiple myeloma on record?"""
    return patient.has("cond-myeloma-active")


@question
def _remission(patient: PatientFacts) -> Answer:
    """Myeloma in remission on record?"""
    return patient.has("cond-myeloma-remission")


@question
def _smouldering(patient: PatientFacts) -> Answer:
    """Smouldering myeloma on record?"""
    return patient.has("cond-myeloma-smouldering")


@question
def other_inhibitor_only(patient: PatientFacts) -> Answer:
    """Only a proteasome inhibitor other than bortezomib and carfilzomib?"""
    others = [] if _effective_drugs(patient) else patient.drugs("med-proteasome-inhibitor")
    patient.use(*others)
    return patient.settled(others, "drugs")


@question
def recently_started(patient: PatientFacts) -> Answer:
    """First dose of bortezomib or carfilzomib weeks ago, not months?"""
    limit, today, first = patient.limit, patient.today, first_dose(patient)
    if first is None and _effective_drugs(patient):
        return patient.unusable()
    found = (
        first is not None
        and today - first.moment.last >= limit.proteasome_from.days
        and today - first.moment.first <= limit.proteasome_to.days
    )
    return patient.settled(found, "drugs")


@question
def still_treated(patient: PatientFacts) -> Answer:
    """Its last dose within weeks, or running?"""
    found = [x for x in _effective_drugs(patient) if x.runs or _ended_recently(patient, x)]
    patient.use(*found)
    return patient.settled(found, "drugs")


def _ended_recently(patient: PatientFacts, drug: Drug) -> bool:
    window = patient.limit.proteasome_last.days
    return drug.last is not None and patient.today - drug.last.first <= window


@question
def newest_alp_read(patient: PatientFacts) -> Answer | bool:
    """Could the newest ALP be read?"""
    unreadable = d.newer_unreadable(patient, d.latest_alp(patient))
    return patient.unusable() if unreadable is not None else True


def _baseline(patient: PatientFacts) -> list[Judged]:
    """The last ALP in the weeks before the first dose, if any; never a mere bound."""
    first, window = first_dose(patient), patient.limit.baseline_window.days
    if first is None:
        return []
    found = (
        x
        for x in d.high_rule_values(patient)
        if x.measured.has_unit
        and not x.value.comparator
        and x.moment.last <= first.moment.first
        and first.moment.last - x.moment.first <= window
    )
    return [x for x in [next(found, None)] if x is not None]


@question
def risen_since_start(patient: PatientFacts) -> Answer | bool:
    """ALP above its limit, but not twice it, and clearly higher than before the first dose?"""
    latest, first, limit = d.latest_alp(patient), first_dose(patient), patient.limit
    baseline = _baseline(patient)
    if latest is None or first is None or not baseline:
        return False
    if not latest.measured.has_unit:
        return patient.unusable()
    patient.use(latest, *baseline)
    risen = latest.value.at_least(baseline[0].value.times(limit.rise_times)) is True
    return (
        latest.moment.first > first.moment.last
        and latest.is_high
        and risen
        and d.alp_below(patient, limit.rise_below_times)
    )


@question
def liver_tests_normal(patient: PatientFacts) -> Answer | bool:
    """GGT and bilirubin measured with it, and normal?"""
    if not d.ggt_normal(patient):
        return False
    bilirubin = d.paired_bilirubin(patient)
    return patient.settled(bilirubin is not None and bilirubin.is_not_high, "obs-bilirubin-total")


@question
def new_pain_or_fracture(patient: PatientFacts) -> Answer:
    """Bone pain or a fracture since the first dose?"""
    first = first_dose(patient)
    pains = [x for x in patient.problems("cond-bone-pain", silencing=True) if x.active]
    fractures = [
        x
        for name in ("cond-fracture-recent", "cond-path-fracture", "cond-vertebral-fracture")
        for x in patient.problems(name, silencing=True)
    ]
    found = [
        x
        for x in (*pains, *fractures)
        if first is not None and x.moment is not None and x.moment.last > first.moment.first
    ]
    patient.use(*found)
    return patient.settled(found, "Condition")


def alp_rise_on_proteasome_inhibitor(patient: PatientFacts) -> Iterator[Advice]:
    """MM-2: ALP a little raised since bortezomib or carfilzomib began, with normal liver tests."""
    if not patient.is_at_least(patient.limit.adult_age):
        return
    if not treatable_myeloma(patient):
        return
    if surely(other_inhibitor_only(patient)):
        return
    if not recently_started(patient):
        return
    if not still_treated(patient):
        return
    if not newest_alp_read(patient):
        return
    if not risen_since_start(patient):
        return
    if not liver_tests_normal(patient):
        return
    if surely(new_pain_or_fracture(patient)):
        return
    latest = d.latest_alp(patient)
    assert latest is not None
    yield Advice(
        "alpRiseOnProteasomeInhibitor",
        "info",
        values=patient.shown(latest) | _treatment(patient),
        findings=[latest, *_baseline(patient), *_liver_tests(patient)],
        since=patient.today - patient.limit.response_tests_window.days,
    )
