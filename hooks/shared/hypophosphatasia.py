"""Hypophosphatasia: known, unlikely, or with a feature of it on record (specification 3.5 lines 31
to 33).
"""

from collections.abc import Sequence

from cds_service.facts import (
    Answer,
    Judged,
    PatientFacts,
    Problem,
    Report,
    Result,
    any_of,
    question,
    surely,
)
from cds_service.rules import Named
from hooks.shared.exposure import enzyme_replacement_ever, exposed_on
from hooks.shared.low_alp import (
    latest_is_low_for_a_child,
    latest_is_very_low,
    latest_reading_is_very_low,
    needs_an_excuse,
)
from hooks.shared.readings import Reading, is_low, low_rule_readings


@question
def hypophosphatasia_known(patient: PatientFacts) -> Answer:
    """Hypophosphatasia already known?"""
    return any_of(
        patient,
        hypophosphatasia_on_record,
        pathogenic_variant_reported,
        enzyme_replacement_ever,
    )


@question
def hypophosphatasia_on_record(patient: PatientFacts) -> Answer:
    """Hypophosphatasia on the problem list?"""
    return patient.has("cond-hpp", silencing=True)


@question
def pathogenic_variant_reported(patient: PatientFacts) -> Answer:
    """Pathogenic ALPL variant reported?"""
    found = [x for x in _gene_tests(patient) if _is_pathogenic(patient, x)]
    patient.use(*found)
    return patient.settled(found, "obs-alpl-gene")


def _gene_tests(patient: PatientFacts) -> list[Result | Report]:
    """ALPL tests as results or as reports, the newest first."""
    tests: list[Result | Report] = [
        *patient.final("obs-alpl-gene"),
        *patient.reports("obs-alpl-gene"),
    ]
    dated = [x for x in tests if x.moment is not None]
    return sorted(dated, key=lambda x: x.moment.last if x.moment else 0, reverse=True)


def _is_pathogenic(patient: PatientFacts, test: Result | Report) -> bool:
    """Whether it names a pathogenic variant, and no word of it casts doubt on that."""
    return any(patient.says("text-pathogenic", text) for text in test.texts) and not any(
        patient.says("text-doubtful-variant", text) for text in test.texts
    )


def known_by(patient: PatientFacts) -> tuple[str, str]:
    """What makes hypophosphatasia known, and the words of the entry where no code of its own does;
    "" where it is not known.
    """
    problems = patient.problems("cond-hpp", silencing=True)
    if any(patient.is_coded("cond-hpp", x) for x in problems):
        return "problem-list", ""
    if problems:
        said = [x for x in problems[0].texts if patient.says("cond-hpp", x)]
        return "words", next(iter(said), problems[0].title)
    if pathogenic_variant_reported(patient).value:
        return "variant", ""
    return "drug" if enzyme_replacement_ever(patient).value else "", ""


@question
def hypophosphatasia_unlikely(patient: PatientFacts) -> Answer:
    """Does a negative ALPL test, or a normal PLP while ALP was low, speak against
    hypophosphatasia?
    """
    return any_of(patient, alpl_negative, plp_normal_while_low)


@question
def alpl_negative(patient: PatientFacts) -> Answer:
    """Latest ALPL test negative?"""
    latest = next(iter(_gene_tests(patient)), None)
    if latest is None:
        return patient.settled(False, "obs-alpl-gene")
    patient.use(latest)
    negative = any(patient.says("text-no-variant", text) for text in latest.texts)
    is_normal = isinstance(latest, Result) and latest.is_normal
    return patient.settled(negative or is_normal, "obs-alpl-gene")


@question
def plp_normal_while_low(patient: PatientFacts) -> Answer:
    """Latest PLP normal, drawn off antiresorptives within a year of a low ALP?"""
    latest = next(iter(patient.final("obs-plp-measured")), None)
    if latest is None or latest.moment is None:
        return patient.settled(False, "obs-plp-measured")
    patient.use(latest)
    moment, window = latest.moment, patient.limit.plp_near_low_alp
    near_a_low_alp = any(
        abs(reading.moment.first - moment.first) <= window.days
        for reading in low_rule_readings(patient)
        if is_low(patient, reading)
    )
    is_normal = latest.is_normal and not exposed_on(patient, moment)
    return patient.settled(near_a_low_alp and is_normal, "obs-plp-measured")


@question
def hypophosphatasia_feature(patient: PatientFacts) -> Answer:
    """A clinical feature of hypophosphatasia on record?"""
    found = [x.entry for x in features(patient)]
    patient.use(*found)
    return patient.settled(found, "Condition")


def features(patient: PatientFacts) -> list[Named]:
    """What on record is a feature of hypophosphatasia, with the set that it belongs to."""
    found = {name: patient.problems(name) for name in _ALWAYS_A_FEATURE}
    found["cond-stress-fracture"] = _telling_stress_fractures(patient)
    found["cond-chondrocalcinosis"] = _early_chondrocalcinosis(patient)
    found["cond-tooth-loss"] = _early_tooth_loss(patient)
    return [Named(name, x) for name, problems in found.items() for x in problems]


def beside(patient: PatientFacts, low: Sequence[Reading]) -> list[Judged | Named]:
    """The readings of a card, the first of them before the features on record: the newest of each
    kind.
    """
    newest: dict[str, Named] = {}
    for one in features(patient):
        known = newest.get(one.value_set)
        if known is None or _day(one) > _day(known):
            newest[one.value_set] = one
    return [*low[:1], *newest.values(), *low[1:]]


def _day(named: Named) -> int:
    return named.entry.moment.last if named.entry.moment is not None else 0


def telling(patient: PatientFacts, grave: bool) -> str:
    """Which of two makes a low ALP telling, for a card that needs one: how low it is (`grave`), a
    feature on record, or both.
    """
    if not hypophosphatasia_feature(patient).value:
        return "grave"
    return "both" if grave else "feature"


_ALWAYS_A_FEATURE = (
    "cond-aff",
    "cond-pseudofracture",
    "cond-fracture-nonunion",
    "cond-calcific-periarthritis",
    "cond-osteomalacia",
    "cond-nephrocalcinosis",
    "cond-craniosynostosis",
    "cond-b6-responsive-seizure",
    "cond-hpp-family-history",
)


def _telling_stress_fractures(patient: PatientFacts) -> list[Problem]:
    """Stress fractures that are femoral, repeated, on both sides, or past youth."""
    fractures = patient.problems("cond-stress-fracture")
    dates = {x.moment.first for x in fractures if x.moment is not None and not x.moment.is_partial}
    sides = {
        name for name in ("text-left", "text-right") for x in fractures if patient.matches(name, x)
    }
    if len(dates) > 1 or len(sides) > 1:
        return fractures
    age = patient.limit.stress_fracture_age.years
    return [
        x
        for x in fractures
        if patient.matches("text-femoral", x) or _youngest_age(patient, x) > age
    ]


def _youngest_age(patient: PatientFacts, problem: Problem) -> int:
    """The youngest the patient can have been at the problem's date; -1 without either date."""
    ages = patient.ages(problem.moment.first) if problem.moment is not None else None
    return ages[0] if ages is not None else -1


def _oldest_age(patient: PatientFacts, problem: Problem) -> int | None:
    """The oldest the patient can have been at the problem's date, today when undated; None without
    birth date.
    """
    ages = patient.ages(problem.moment.last if problem.moment is not None else patient.today)
    return ages[1] if ages is not None else None


def _before(patient: PatientFacts, problem: Problem, age: int) -> bool:
    oldest = _oldest_age(patient, problem)
    return oldest is not None and oldest < age


def _early_chondrocalcinosis(patient: PatientFacts) -> list[Problem]:
    age = patient.limit.chondrocalcinosis_age.years
    return [x for x in patient.problems("cond-chondrocalcinosis") if _before(patient, x, age)]


def _early_tooth_loss(patient: PatientFacts) -> list[Problem]:
    """Teeth lost young without gum disease; in a child at any recorded date."""
    losses = patient.problems("cond-tooth-loss")
    if patient.is_younger_than(patient.limit.adult_age).value:
        return [x for x in losses if x.moment is not None]
    if not losses or patient.problems("cond-periodontitis"):
        return []
    age = patient.limit.tooth_loss_age.years
    return [x for x in losses if _before(patient, x, age)]


# -- how strongly a low ALP off antiresorptives points to it --------------------------------------


@question
def low_alp_is_a_warning(patient: PatientFacts) -> bool:
    """Very low or with a feature of hypophosphatasia, and no excuse needed?"""
    return surely(strong_low(patient)) and not doubtful_persistence(patient)


@question
def strong_low(patient: PatientFacts) -> Answer:
    """Very low (in a child: clearly below the limit), or a feature of hypophosphatasia?"""
    if patient.is_younger_than(patient.limit.adult_age).value:
        return any_of(patient, latest_is_low_for_a_child, hypophosphatasia_feature)
    return any_of(patient, latest_is_very_low, hypophosphatasia_feature)


@question
def never_deferred(patient: PatientFacts) -> Answer:
    """Latest ALP very low, or a feature of hypophosphatasia: then no acquired cause defers?"""
    return any_of(patient, latest_reading_is_very_low, hypophosphatasia_feature)


@question
def doubtful_persistence(patient: PatientFacts) -> bool:
    """Does persistence rest on an excuse, with no feature of hypophosphatasia?"""
    return needs_an_excuse(patient).value is True and not surely(hypophosphatasia_feature(patient))
