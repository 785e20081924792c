"""Why a card came or did not come: every topic's verdict with the questions, answers and entries
behind it, as JSON.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from cds_service.content import Content
from cds_service.dates import as_text
from cds_service.evaluation import Review
from cds_service.evidence import Record, Rejected, outcome_of, unique
from cds_service.facts import Judged, PatientFacts
from cds_service.prefetch import Chart, Source
from cds_service.results import short
from cds_service.rules import Verdict

MOST_ENTRIES = 50


def verdicts_of(content: Content, review: Review) -> list[dict[str, Any]]:
    """Every topic's verdict, in order of precedence."""
    return [_verdict(content, review, verdict) for verdict in review.verdicts]


def _verdict(content: Content, review: Review, verdict: Verdict) -> dict[str, Any]:
    found: dict[str, Any] = {"topic": verdict.topic, "verdict": verdict.outcome}
    if verdict.by:
        found["by"] = verdict.by
    if verdict.advice is not None:
        found["variant"] = verdict.advice.variant
    found["reason"] = _reason(review, verdict)
    found["evidence"] = [_evidence(content, x) for x in _each_once(verdict.record.because)]
    return found


def _reason(review: Review, verdict: Verdict) -> dict[str, str]:
    last = verdict.record.because[-1] if verdict.record.because else None
    if verdict.outcome == "suppressed":
        return {"code": verdict.by, "text": f"Every condition held; held back by {verdict.by}."}
    if verdict.outcome == "fired":
        return {"code": "fired", "text": "Every condition held."}
    if last is None or (verdict.outcome == "data-missing" and not last.name):
        missing = ", ".join(_titles(review, verdict.unchecked))
        return {"code": "needs", "text": f"Not available: {missing}."}
    text = f"{last.text} {outcome_of(last)}"
    if verdict.outcome == "data-missing":
        text += f" (not available: {', '.join(_titles(review, verdict.unchecked))})"
    if verdict.outcome == "data-unusable":
        text += " (there were results, and none could be used)"
    return {"code": last.name, "text": text}


def _titles(review: Review, keys: Iterable[str]) -> tuple[str, ...]:
    sources = review.facts.chart.sources
    return unique(sources[key].key.title if key in sources else key for key in keys)


def _each_once(records: Sequence[Record]) -> list[Record]:
    return list({id(x): x for x in records}.values())


def _evidence(content: Content, record: Record) -> dict[str, Any]:
    used = _entries(x for entries in record.used for x in entries)
    rejected = {(x.entry.reference, x.why) for entries in record.rejected for x in entries}
    found: dict[str, Any] = {
        "question": record.text or record.name,
        "code": record.name,
        "answer": outcome_of(record),
        "used": used,
        "rejected": [
            {"reference": reference, "why": content.words.set_aside.get(why, why)}
            for reference, why in sorted(rejected)
        ],
    }
    if record.because:
        found["because"] = [_evidence(content, x) for x in _each_once(record.because)]
    return found


def _entries(entries: Iterable[Any]) -> list[dict[str, str]]:
    """The entries as evidence, each once, at most so many: a judged number says more than the bare
    one.
    """
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        shown = entry.evidence()
        key = f"{shown['reference']} {shown.get('date', '')}"
        if key not in found or isinstance(entry, Judged):
            found[key] = shown
    return list(found.values())[:MOST_ENTRIES]


def data_of(chart: Chart) -> list[dict[str, Any]]:
    """What became of every prefetch key, and what was left aside."""
    found = [_source(source) for source in chart.sources.values()]
    aside = [{"where": x.where, "why": x.why} for x in chart.elsewhere]
    aside += [
        {
            "where": f"{type(x).__name__}/{x.id}" if x.id else type(x).__name__,
            "why": "belongs to another patient",
        }
        for x in chart.foreign
    ]
    aside += [
        {"where": kind, "why": f"{count} of a type that is not read"}
        for kind, count in sorted(chart.unread.items())
    ]
    if aside:
        found.append(
            {"key": "*", "state": "answered", "by": "prefetch", "used": 0, "skipped": aside}
        )
    return found


def _source(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {"key": source.key.name, "state": source.state}
    if source.by is not None:
        found["by"] = source.by
    found["used"] = source.used
    found["skipped"] = [{"where": x.where, "why": x.why} for x in source.skipped]
    if source.why:
        found["why"] = source.why
    return found


def series_of(content: Content, facts: PatientFacts) -> list[dict[str, Any]]:
    """The numbers of each measure that was looked at, oldest first, with the limits they were
    judged by.
    """
    found = []
    for name, numbers in facts.judged_in_trace().items():
        measure = content.measures[name]
        each = {x.measured.result.reference: x for x in numbers}
        points = [_point(content, x, facts.asides.get(at, "")) for at, x in each.items()]
        points += [_rejected_point(x) for x in facts.rejected(name) if x.entry.moment is not None]
        if points:
            points.sort(key=lambda x: str(x["date"]))
            unit = measure.unit
            found.append({"measure": name, "title": measure.title, "unit": unit, "points": points})
    return found


def _point(content: Content, judged: Judged, aside: str) -> dict[str, Any]:
    point: dict[str, Any] = {
        "reference": judged.measured.result.reference,
        "date": judged.moment.text,
        "value": float(judged.value.value),
    }
    if judged.value.comparator:
        point["comparator"] = judged.value.comparator
    for side, limit in (("low", judged.low), ("high", judged.high)):
        if limit is not None:
            point[side] = float(limit.value)
    point["limit_from"] = judged.limit_from
    point["used"] = not aside
    if aside:
        point["why"] = content.words.set_aside[aside]
    point["shown"] = (
        f"{short(judged.measured.as_sent(judged.value))} {judged.measured.unit_as_sent}".strip()
    )
    return point


def _rejected_point(rejected: Rejected) -> dict[str, Any]:
    amount = getattr(rejected.entry.resource, "value_quantity", None)
    point: dict[str, Any] = {
        "reference": rejected.entry.reference,
        "date": rejected.entry.moment.text,
        "used": False,
        "why": rejected.why,
    }
    if amount is not None and isinstance(amount.value, int | float):
        unit = amount.unit or amount.code or ""
        point["shown"] = f"{amount.comparator or ''}{amount.value} {unit}".strip()
    return point


def about(content: Content, today: int) -> dict[str, Any]:
    """What the answer was made with, and for which day."""
    return {
        "content": {"version": content.about.version, "hash": content.hash},
        "asOf": as_text(today),
    }
