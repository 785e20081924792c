"""The myeloma screen: what makes it whole, and which of its tests are abnormal (specification 3.2
lines 11 and 12).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cds_service.facts import (
    Answer,
    Judged,
    Moment,
    PatientFacts,
    Report,
    Result,
    finding,
    question,
    surely,
)
from cds_service.rules import Named
from hooks.shared.readings import is_below

READ_IN_WORDS = {
    "spep": "obs-spep",
    "ife_serum": "obs-ife-serum",
    "upep": "obs-upep",
    "ife_urine": "obs-ife-urine",
}

_TITLES = {"m_protein": "obs-m-protein-serum", "flc_ratio": "obs-sflc-ratio"}


@dataclass(frozen=True, slots=True)
class AbnormalTest:
    """One abnormal result: which test, what it showed in a word or number, and when."""

    test: str
    shown: str
    moment: Moment
    entry: Result | Report
    finding: Judged | Named


@finding
def abnormal_tests(patient: PatientFacts) -> list[AbnormalTest]:
    """Which results of the myeloma screen are abnormal?"""
    found = [*_m_proteins(patient), *_ratios(patient)]
    for test, name in READ_IN_WORDS.items():
        found += _in_words(patient, test, name)
    patient.use(*(x.entry for x in found))
    return sorted(found, key=lambda x: x.moment.first, reverse=True)


def _in_words(patient: PatientFacts, test: str, name: str) -> Iterator[AbnormalTest]:
    """Electrophoresis and immunofixation: flagged, out of range, or abnormal by their words."""
    found: list[Result | Report] = [
        x
        for x in patient.final(name)
        if x.is_abnormal or any(patient.says("text-monoclonal", text) for text in x.texts)
    ]
    found += [x for x in patient.reports(name) if patient.says("text-monoclonal", x.conclusion)]
    for entry in found:
        if entry.moment is not None:
            yield AbnormalTest(test, "abnormal", entry.moment, entry, Named(name, entry))


def _m_proteins(patient: PatientFacts) -> Iterator[AbnormalTest]:
    """M-protein: flagged, or out of its own range."""
    numbers = {id(x.measured.result): x for x in patient.judged("m_protein")}
    for result in patient.final("obs-m-protein-serum"):
        if result.is_abnormal and result.moment is not None:
            yield _number(patient, "m_protein", result, numbers.get(id(result)))


def _number(
    patient: PatientFacts, test: str, result: Result, judged: Judged | None
) -> AbnormalTest:
    """An abnormal number; named only, when it is none that can be read."""
    assert result.moment is not None
    shown = patient.amount(judged) if judged is not None else "abnormal"
    finding = judged or Named(_TITLES[test], result)
    return AbnormalTest(test, shown, result.moment, result, finding)


def _ratios(patient: PatientFacts) -> Iterator[AbnormalTest]:
    """The free light chain ratio, by the limits that hold for this patient; never one chain
    alone.
    """
    numbers = {id(x.measured.result): x for x in patient.judged("flc_ratio")}
    for result in patient.final("obs-sflc-ratio"):
        judged, abnormal = numbers.get(id(result)), result.is_abnormal
        if judged is not None and _limits_do_not_hold(patient, judged):
            low, high = patient.limit.flc_kidney_low, patient.limit.flc_kidney_high
            judged = Judged(judged.measured, low, high, "kidney")
            abnormal = judged.is_high or judged.is_low
        if abnormal and result.moment is not None:
            yield _number(patient, "flc_ratio", result, judged)


def _limits_do_not_hold(patient: PatientFacts, number: Judged) -> bool:
    """Whether the report prints the usual limits while kidney function is reduced."""
    limit = patient.limit
    usual = (limit.flc_usual_low, limit.flc_usual_high)
    return (number.low, number.high) == usual and surely(reduced_filtration(patient))


@question
def reduced_filtration(patient: PatientFacts) -> Answer:
    """Latest eGFR within a year too low for the usual light chain limits?"""
    limit, today = patient.limit, patient.today
    latest = next(
        (
            x
            for x in patient.judged("egfr")
            if x.measured.has_unit and x.moment.surely_within(limit.flc_egfr_window.days, today)
        ),
        None,
    )
    return patient.settled(latest is not None and is_below(latest, limit.flc_egfr), "obs-egfr")


def vital_tests(patient: PatientFacts) -> tuple[str, ...]:
    """The tests that make a screen complete, at a site without free light chains too."""
    if patient.is_orderable("sflc"):
        return ("spep", "ife-serum", "sflc")
    return ("spep", "ife-serum", "upep", "ife-urine")
