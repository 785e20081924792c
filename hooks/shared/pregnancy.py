"""Pregnancy, now and on the day a value was drawn (specification 3.8)."""

from dataclasses import dataclass

from cds_service.facts import Answer, Moment, PatientFacts, finding, question


@dataclass(frozen=True, slots=True)
class Span:
    """The days on which the patient counts as pregnant, both included."""

    first: int
    last: int


def _can_be_pregnant(patient: PatientFacts, day: int) -> bool:
    if patient.sex == "male":
        return False
    ages = patient.ages(day)
    limit = patient.limit
    return ages is None or (
        ages[1] >= limit.pregnancy_age_from.years and ages[0] <= limit.pregnancy_age_to.years
    )


@finding
def pregnancies(patient: PatientFacts) -> list[Span]:
    """Which days does the chart give as pregnant or just after?"""
    return [
        *_by_problem_list(patient),
        *_by_due_date(patient),
        *_by_status(patient),
    ]


def _by_problem_list(patient: PatientFacts) -> list[Span]:
    limit = patient.limit
    spans = []
    for problem in patient.problems("cond-pregnancy", silencing=True):
        ended = problem.ended(patient.today)
        if ended is not None:
            began = problem.moment or ended
            spans.append(Span(began.first, ended.last + limit.after_pregnancy.days))
        elif problem.active and problem.moment is not None:
            spans.append(
                Span(problem.moment.first, problem.moment.last + limit.pregnancy_entry_window.days)
            )
    return spans


def _by_due_date(patient: PatientFacts) -> list[Span]:
    limit = patient.limit
    return [
        Span(due.first - limit.before_due_date.days, due.last + limit.after_pregnancy.days)
        for result in patient.final("obs-pregnancy-edd")
        if (due := patient.day_said(result)) is not None
    ]


def _by_status(patient: PatientFacts) -> list[Span]:
    limit = patient.limit
    return [
        Span(result.moment.first, result.moment.last + limit.pregnancy_status_window.days)
        for result in patient.final("obs-pregnancy-status")
        if result.moment is not None
        and any(patient.says("text-pregnant", text) for text in result.texts)
    ]


def drawn_in_pregnancy(patient: PatientFacts, spans: list[Span], moment: Moment) -> bool:
    """Whether a value was drawn in one of the pregnancies or within weeks after it."""
    return any(
        span.first <= moment.last and moment.first <= span.last for span in spans
    ) and _can_be_pregnant(patient, moment.first)


def pregnancy_days(patient: PatientFacts) -> list[Span]:
    """The days on which a value counts as drawn in pregnancy; none when the patient cannot be."""
    return [
        span
        for span in pregnancies(patient)
        if _can_be_pregnant(patient, span.first) or _can_be_pregnant(patient, span.last)
    ]


@question
def pregnant_now(patient: PatientFacts) -> Answer | bool:
    """Pregnant, or pregnant within the last weeks?"""
    if not _can_be_pregnant(patient, patient.today):
        return False
    today = patient.today
    found = [span for span in pregnancies(patient) if span.first <= today <= span.last]
    return patient.settled(found, "Condition")
