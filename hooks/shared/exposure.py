"""Drugs that change ALP: which, and on which days they still do (specification 3.5 line 30, 3.6,
3.7 line 42).
"""

from collections.abc import Iterator

from cds_service.facts import Answer, Draft, Drug, Moment, PatientFacts, finding, question
from cds_service.quantity import Quantity
from hooks.shared.readings import Reading, low_rule_readings

ANTIRESORPTIVES = ("med-bisphosphonate", "med-denosumab")
NOT_ORAL = ("med-zoledronate", "med-pamidronate", "med-denosumab")


def last_dose(patient: PatientFacts, drug: Drug) -> int | None:
    """The last day a record speaks for: today while it runs, else its end, else the day of the
    dose.

    A single infusion never runs on, whatever its status. None for a record without any date.
    """
    is_single = "med-zoledronate" in drug.sets
    if is_single:
        return drug.first.last if drug.first is not None else None
    if drug.runs:
        return patient.today
    return min(drug.last.last, patient.today) if drug.last is not None else None


def _window(patient: PatientFacts, drug: Drug) -> Quantity:
    if "med-zoledronate" in drug.sets:
        return patient.limit.zoledronate_window
    if "med-denosumab" in drug.sets:
        return patient.limit.denosumab_window
    return patient.limit.bisphosphonate_window


def last_dated_dose(patient: PatientFacts, drug: Drug) -> int | None:
    """The last day of a dose: of what is infused or injected the day it was recorded for, however
    long its order runs; of what is swallowed as `last_dose` has it.
    """
    if drug.runs and _is_not_oral(patient, drug):
        return drug.first.last if drug.first is not None else None
    return last_dose(patient, drug)


def _is_not_oral(patient: PatientFacts, drug: Drug) -> bool:
    by_name = any(name in drug.sets for name in NOT_ORAL)
    return by_name or any(patient.says("text-not-oral", text) for text in drug.routes)


@finding
def antiresorptives(patient: PatientFacts) -> list[Drug]:
    """Which antiresorptives are recorded?"""
    return [drug for name in ANTIRESORPTIVES for drug in patient.drugs(name)]


def exposed_on(patient: PatientFacts, moment: Moment) -> bool:
    """Whether an antiresorptive may still have lowered a value drawn then; the day of the first
    dose is unexposed.
    """
    return any(_covers(patient, drug, moment) for drug in antiresorptives(patient))


def lowered_until(patient: PatientFacts, drug: Drug) -> int | None:
    """The last day on which a record's drug may still lower ALP; None without any date."""
    last = last_dose(patient, drug)
    return None if last is None else last + _window(patient, drug).days


def _covers(patient: PatientFacts, drug: Drug, moment: Moment) -> bool:
    until = lowered_until(patient, drug)
    if drug.first is None or until is None:
        return drug.runs  # an undated record counts on every day while it is active
    return drug.first.first < moment.last and moment.first <= until


@finding
def acting_antiresorptives(patient: PatientFacts) -> list[Drug]:
    """Which antiresorptives still act today, the latest dose first?"""
    acting = [drug for drug in antiresorptives(patient) if _surely_acts(patient, drug)]
    return sorted(acting, key=lambda x: last_dose(patient, x) or patient.today, reverse=True)


def _surely_acts(patient: PatientFacts, drug: Drug) -> bool:
    """Whether it acts today whatever day a partial date means; on the day of the first dose not
    yet.
    """
    today = patient.today
    if drug.first is None or drug.last is None:
        return drug.runs
    if "med-zoledronate" in drug.sets:
        last = drug.first.first
    else:
        last = today if drug.runs else min(drug.last.first, today)
    return drug.first.last < today <= last + _window(patient, drug).days


@question
def on_antiresorptive(patient: PatientFacts) -> Answer:
    """An antiresorptive that still acts today?"""
    acting = acting_antiresorptives(patient)
    patient.use(*acting)
    return patient.settled(acting, "drugs")


@finding
def drafted_antiresorptives(patient: PatientFacts) -> list[Draft]:
    """Which antiresorptives are being ordered?"""
    drafts = [draft for name in ANTIRESORPTIVES for draft in patient.drafts(name)]
    patient.use(*drafts)
    return drafts


@question
def antiresorptive_drafted(patient: PatientFacts) -> bool:
    """Is an antiresorptive being ordered?"""
    return bool(drafted_antiresorptives(patient))


def antiresorptive_kind(drug: Drug | Draft) -> str:
    """Which kind of antiresorptive a record or a draft is of."""
    if "med-denosumab" in drug.sets:
        return "denosumab"
    return "zoledronate" if "med-zoledronate" in drug.sets else "bisphosphonate"


def acting_kind(patient: PatientFacts) -> str:
    """The kind of the antiresorptive that acts today, by the latest dose."""
    return antiresorptive_kind(acting_antiresorptives(patient)[0])


@finding
def first_antiresorptive(patient: PatientFacts) -> Drug | None:
    """Which record of an antiresorptive is the first? None is when one runs without a date."""
    drugs = antiresorptives(patient)
    if any(drug.first is None and drug.runs for drug in drugs):
        return None
    dated = [drug for drug in drugs if drug.first is not None]
    return min(dated, key=lambda x: x.first.first if x.first is not None else 0, default=None)


@finding
def exposed_readings(patient: PatientFacts) -> list[Reading]:
    """Which readings may an antiresorptive have lowered?"""
    unexposed = unexposed_readings(patient)
    return [x for x in low_rule_readings(patient) if x not in unexposed]


@finding
def unexposed_readings(patient: PatientFacts) -> list[Reading]:
    """Which readings were drawn while no antiresorptive could have lowered them?"""
    drugs = antiresorptives(patient)
    if not patient.is_answered("drugs"):
        patient.remark("drugs_unknown")
    readings = low_rule_readings(patient)
    patient.use(*(x for x in drugs if any(_covers(patient, x, one.moment) for one in readings)))
    return [x for x in readings if not any(_covers(patient, drug, x.moment) for drug in drugs)]


@question
def antiresorptive_ever_recorded(patient: PatientFacts) -> Answer:
    """Any antiresorptive on record?"""
    return patient.settled(antiresorptives(patient), "drugs")


def taken_within(patient: PatientFacts, name: str, window: Quantity) -> Answer:
    """Whether a drug of a set was taken within a window before today, or its record runs without a
    date.
    """
    found = [
        drug for drug in patient.drugs(name) if drug.runs or _dosed_within(patient, drug, window)
    ]
    patient.use(*found)
    return patient.settled(found, "drugs")


def _dosed_within(patient: PatientFacts, drug: Drug, window: Quantity) -> bool:
    last = last_dose(patient, drug)
    return last is not None and patient.today - last <= window.days


@question
def on_enzyme_replacement(patient: PatientFacts) -> Answer:
    """Asfotase alfa active or recent, which makes every ALP uninterpretable?"""
    return taken_within(patient, "med-asfotase", patient.limit.asfotase_window)


@question
def enzyme_replacement_ever(patient: PatientFacts) -> Answer:
    """Asfotase alfa ever recorded?"""
    found = patient.drugs("med-asfotase")
    patient.use(*found)
    return patient.settled(found, "drugs")


@question
def recent_growth_factor(patient: PatientFacts) -> Answer:
    """G-CSF within the last weeks?"""
    return taken_within(patient, "med-gcsf", patient.limit.gcsf_window)


def last_growth_factor_day(patient: PatientFacts) -> int | None:
    """The day of the last G-CSF dose; None when none is dated."""
    days = [last_dose(patient, drug) for drug in patient.drugs("med-gcsf")]
    return max((day for day in days if day is not None), default=None)


@question
def recent_anabolic_drug(patient: PatientFacts) -> Answer:
    """A bone-forming drug within the last months?"""
    return taken_within(patient, "med-anabolic-bone", patient.limit.anabolic_window)


@question
def denosumab_rebound(patient: PatientFacts) -> Answer:
    """Denosumab stopped months ago with no other antiresorptive after it?"""
    limit, today = patient.limit, patient.today
    doses = [
        x for drug in patient.drugs("med-denosumab") if (x := last_dose(patient, drug)) is not None
    ]
    last = max(doses, default=None)
    others = [
        day
        for drug in patient.drugs("med-bisphosphonate")
        if (day := last_dose(patient, drug)) is not None
    ]
    found = (
        last is not None
        and limit.rebound_from.days <= today - last <= limit.rebound_to.days
        and not any(day > last for day in others)
    )
    return patient.settled(found, "drugs")


@question
def recent_cytotoxic(patient: PatientFacts) -> Answer:
    """Cytotoxic treatment within the last months?"""
    return taken_within(patient, "med-cytotoxic", patient.limit.cytotoxic_window)


@question
def recent_glucocorticoid(patient: PatientFacts) -> Answer:
    """A systemic glucocorticoid in any dose within the last months?"""
    window = patient.limit.glucocorticoid_window
    found = [
        drug
        for drug in patient.drugs("med-glucocorticoid")
        if not _acts_locally(patient, drug) and (drug.runs or _dosed_within(patient, drug, window))
    ]
    patient.use(*found)
    return patient.settled(found, "drugs")


def _acts_locally(patient: PatientFacts, drug: Drug) -> bool:
    return any(patient.says("text-local-route", text) for text in drug.routes)


@question
def long_glucocorticoid(patient: PatientFacts) -> Answer:
    """A systemic glucocorticoid in more than a replacement dose, for weeks?"""
    found = [x for x in patient.drugs("med-glucocorticoid") if _is_systemic_and_high(patient, x)]
    days = {day for x in found for day in _days_treated(patient, x)}
    patient.use(*found)
    return patient.settled(len(days) >= patient.limit.glucocorticoid_days.days, "drugs")


def _is_systemic_and_high(patient: PatientFacts, drug: Drug) -> bool:
    """Whether it was, or may have been, enough to act: a dose that is not known counts."""
    return not _acts_locally(patient, drug) and _is_high_dose(patient, drug)


def _days_treated(patient: PatientFacts, drug: Drug) -> range:
    """The days of the window on which it was taken; an unknown start or end counts as all of it."""
    today = patient.today
    start, last = today - patient.limit.glucocorticoid_window.days, last_dose(patient, drug)
    if drug.first is None or last is None:
        return range(start, today + 1 if drug.runs else start)
    if last >= start and not drug.runs and not drug.has_end:
        return range(start, today + 1)
    return range(max(drug.first.first, start), last + 1)


def _is_high_dose(patient: PatientFacts, drug: Drug) -> bool:
    dose = drug.daily_milligrams
    if dose is None:
        return True
    for name, factor in _potencies(patient):
        if name in drug.sets:
            return dose * factor.value >= patient.limit.glucocorticoid_dose.value
    return True


def _potencies(patient: PatientFacts) -> Iterator[tuple[str, Quantity]]:
    """Prednisone equivalents of 1 mg, the longer names first."""
    limit = patient.limit
    yield "med-methylprednisolone", limit.potency_methylprednisolone
    yield "med-dexamethasone", limit.potency_dexamethasone
    yield "med-betamethasone", limit.potency_betamethasone
    yield "med-hydrocortisone", limit.potency_hydrocortisone
    yield "med-prednisone", limit.potency_prednisone
