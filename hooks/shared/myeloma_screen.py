"""The myeloma screen: what makes it whole, and which of its tests are abnormal (specification 3.2
lines 11 and 12).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cds_service.facts import (
    Answer,
    Judged,
    Measured,
    Moment,
    PatientFacts,
    Report,
    Result,
    finding,
    question,
    surely,
)
from cds_service.rules import Quoted
from hooks.shared.readings import is_below

READ_IN_WORDS = {
    "spep": "obs-spep",
    "ife_serum": "obs-ife-serum",
    "upep": "obs-upep",
    "ife_urine": "obs-ife-urine",
}


@dataclass(frozen=True, slots=True)
class AbnormalTest:
    """One abnormal result: which test, what it showed in a word or number, and when."""

    test: str
    shown: str
    moment: Moment
    entry: Result | Report
    finding: Judged | Quoted


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
            yield AbnormalTest(test, "abnormal", entry.moment, entry, Quoted(name, entry))


def _m_proteins(patient: PatientFacts) -> Iterator[AbnormalTest]:
    """M-protein: flagged, or out of its own range."""
    name = "obs-m-protein-serum"
    numbers = {id(x.result): x for x in patient.measured("m_protein")}
    for result in patient.final(name):
        if result.is_abnormal and result.moment is not None:
            number = numbers.get(id(result))
            shown = patient.amount(_bare(number)) if number is not None else "abnormal"
            yield AbnormalTest("m_protein", shown, result.moment, result, Quoted(name, result))


def _bare(number: Measured) -> Judged:
    return Judged(number, None, None, "report")


def _ratios(patient: PatientFacts) -> Iterator[AbnormalTest]:
    """The free light chain ratio, by the limits that hold for this patient; never one chain
    alone.
    """
    name = "obs-sflc-ratio"
    numbers = {id(x.result): x for x in patient.measured("flc_ratio")}
    for result in patient.final(name):
        number = numbers.get(id(result))
        judged = _judged(patient, number) if number is not None else None
        anew = judged is not None and judged.limit_from == "kidney"
        abnormal = (judged.is_high or judged.is_low) if judged and anew else result.is_abnormal
        if abnormal and result.moment is not None:
            shown = patient.amount(judged) if judged is not None else "abnormal"
            seen = judged or Quoted(name, result)
            yield AbnormalTest("flc_ratio", shown, result.moment, result, seen)


def _judged(patient: PatientFacts, number: Measured) -> Judged:
    """The ratio with its printed limits, or with those for reduced kidney function."""
    limit = patient.limit
    if _limits_do_not_hold(patient, number):
        return Judged(number, limit.flc_kidney_low, limit.flc_kidney_high, "kidney")
    return Judged(number, number.low, number.high, "report")


def _limits_do_not_hold(patient: PatientFacts, number: Measured) -> bool:
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
