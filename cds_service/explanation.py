"""Why a card came or did not come: every topic's verdict with the questions, answers and entries
behind it, as JSON.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar, cast

from msgspec import Meta

from cds_service.call_record import KeySettled, TopicOutcome
from cds_service.cards import Card
from cds_service.content import Content
from cds_service.drafts import WHERE as DRAFTS
from cds_service.evaluation import Review
from cds_service.evidence import Record, Rejected, outcome_of, unique
from cds_service.facts import Entry, Judged, Moment, PatientFacts
from cds_service.overrides import OVERRIDDEN, SHOWN_LATELY
from cds_service.prefetch import Chart, Source, State
from cds_service.results import Measured, Result, short
from cds_service.rules import Outcome, Verdict

MOST_ENTRIES = 50  # used, and as many rejected, that are listed of a question
LONGEST_SHOWN = 500  # characters of an id or a name: they are told of many questions
MOST_ASIDE = 1000  # places of a key that were skipped, and are listed
T = TypeVar("T")


class Because(TypedDict):
    """Why a verdict is what it is: `text` is for people and may change, `code` may not."""

    code: str
    text: str


class UsedEntry(TypedDict):
    """An entry of the chart behind an answer; `name` is the test that a result is of, `limits` are
    those a number was judged by, `range` is what the report prints, `by` is what a drug was
    identified by.
    """

    reference: str
    name: NotRequired[str]
    date: NotRequired[str]
    value: NotRequired[str]
    range: NotRequired[str]
    limits: NotRequired[str]
    by: NotRequired[str]


class RejectedEntry(TypedDict):
    """An entry of the chart that could not be used; `name` is the test that a result of this
    patient is of.
    """

    reference: str
    name: NotRequired[str]
    why: str


class AskedQuestion(TypedDict):
    """A question, its answer ("yes", "no", "unknown", or how many were found), and what it rests
    on; `unlisted` is how many further entries were used or rejected.
    """

    question: str
    code: str
    answer: str
    used: list[UsedEntry]
    rejected: list[RejectedEntry]
    unlisted: NotRequired[int]
    because: NotRequired[list["AskedQuestion"]]


class TopicVerdict(TypedDict):
    """What became of a topic; `by` names what held it back, `until` the day on which an override
    ends, `variant` the words it speaks in.
    """

    topic: str
    verdict: Outcome
    by: NotRequired[str]
    until: NotRequired[str]
    variant: NotRequired[str]
    reason: Because
    evidence: list[AskedQuestion]


class LeftAside(TypedDict):
    """A place in what was sent or fetched, and why nothing was read there."""

    where: str
    why: str


class KeyRead(TypedDict):
    """What became of a prefetch key, or of the hook's draft orders; `*` stands for what belongs to
    none. `unlisted` is how many further places were skipped.
    """

    key: str
    state: State
    by: NotRequired[Literal["prefetch", "fetched", "inferred"]]
    used: int
    skipped: list[LeftAside]
    unlisted: NotRequired[int]
    why: NotRequired[str]


class SeriesPoint(TypedDict):
    """A result; one that could not be judged has no `value`, and `shown` is it as the report has
    it.
    """

    reference: str
    date: str
    value: NotRequired[float]
    comparator: NotRequired[str]
    low: NotRequired[float]
    high: NotRequired[float]
    limit_from: NotRequired[str]
    used: bool
    why: NotRequired[str]
    shown: NotRequired[str]


class Series(TypedDict):
    """The results of a measure, oldest first; `unit` is that of `value`, `low` and `high`."""

    measure: str
    title: str
    unit: str
    points: list[SeriesPoint]


class ContentUsed(TypedDict):
    """Which clinical content answers."""

    version: str
    hash: str


class Explanation(TypedDict):
    """Why a call gets which cards; `status` is what the call itself would be answered with, and
    `hint` the lines of the site file that would declare a site's own prefetch keys.
    """

    status: Literal[200, 412]
    cards: list[Card]
    verdicts: list[TopicVerdict]
    data: list[KeyRead]
    content: ContentUsed
    asOf: Annotated[str, Meta(extra_json_schema={"format": "date"})]
    series: list[Series]
    hint: NotRequired[list[str]]


def verdicts_of(content: Content, review: Review) -> list[TopicVerdict]:
    """Every topic's verdict, in order of precedence."""
    return [_verdict(content, review, verdict) for verdict in review.verdicts]


def outcomes_of(content: Content, review: Review) -> Iterator[TopicOutcome]:
    """Every topic's verdict and its reason alone."""
    for verdict in review.verdicts:
        why = _reason(content, review, verdict)
        yield TopicOutcome(verdict.topic, verdict.outcome, verdict.by, why["code"], why["text"])


def keys_of(chart: Chart) -> Iterator[KeySettled]:
    """What became of every prefetch key."""
    for source in chart.sources.values():
        by = source.by or ""
        yield KeySettled(source.key.name, source.state, by, source.used, source.why)


def _verdict(content: Content, review: Review, verdict: Verdict) -> TopicVerdict:
    found: TopicVerdict = {
        "topic": verdict.topic,
        "verdict": verdict.outcome,
        "reason": _reason(content, review, verdict),
        "evidence": [_evidence(content, x) for x in _each_once(verdict.record.because)],
    }
    if verdict.by:
        found["by"] = verdict.by
    if verdict.until:
        found["until"] = verdict.until
    if verdict.advice is not None:
        found["variant"] = verdict.advice.variant
    return found


def _reason(content: Content, review: Review, verdict: Verdict) -> Because:
    last = verdict.record.because[-1] if verdict.record.because else None
    if verdict.by in (OVERRIDDEN, SHOWN_LATELY):
        return held_back(content, verdict)
    if verdict.outcome == "suppressed" and verdict.advice is None:
        return {"code": verdict.by, "text": "Switched off, and not looked at."}
    if verdict.outcome == "suppressed":
        why_silent = "switched off" if verdict.by == "off" else f"held back by {verdict.by}"
        text = f"Every condition held; {why_silent}"
        if verdict.if_on is not None and verdict.if_on.by:
            text += f"; if it were on, by {verdict.if_on.by}"
        return {"code": verdict.by, "text": f"{text}."}
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


def held_back(content: Content, verdict: Verdict) -> Because:
    """Why somebody's override, or having been shown, keeps a card back."""
    until = f"until {verdict.until}" if verdict.until else "until its evidence changes"
    if verdict.by == SHOWN_LATELY:
        return {"code": SHOWN_LATELY, "text": f"Shown to this user lately; silent {until}."}
    reason = content.override_reasons[verdict.held_because].display
    return {"code": OVERRIDDEN, "text": f'Set aside with "{reason}"; silent {until}.'}


def _titles(review: Review, keys: Iterable[str]) -> tuple[str, ...]:
    sources = review.facts.chart.sources
    return unique(sources[key].key.title if key in sources else key for key in keys)


def _each_once(things: Iterable[T]) -> list[T]:
    return list({id(x): x for x in things}.values())


def _evidence(content: Content, record: Record) -> AskedQuestion:
    used = _each_used(record)
    taken = {x.reference for x in map(_bare, used)}
    rejected = {
        (x.entry.reference, x.why): x
        for entries in _each_once(record.rejected)
        for x in entries
        if x.entry.reference not in taken
    }
    found: AskedQuestion = {
        "question": record.text or record.name,
        "code": record.name,
        "answer": outcome_of(record),
        "used": [_used(content, x) for x in used[:MOST_ENTRIES]],
        "rejected": [_rejected(content, rejected[x]) for x in sorted(rejected)[:MOST_ENTRIES]],
    }
    if unlisted := sum(max(0, len(x) - MOST_ENTRIES) for x in (used, rejected)):
        found["unlisted"] = unlisted
    if record.because:
        found["because"] = [_evidence(content, x) for x in _each_once(record.because)]
    return found


def _each_used(record: Record) -> list[Any]:
    """The entries that an answer rests on, each once: a judged number says more than the bare one.

    One list is often named for every entry in it, so that it is gone through once.
    """
    found: dict[tuple[str, Moment | None], Any] = {}
    for entries in _each_once(record.used):
        for entry in entries:
            bare = _bare(entry)
            key = bare.reference, bare.moment
            if key not in found or isinstance(entry, Judged):
                found[key] = entry
    return list(found.values())


def _bare(entry: Any) -> Entry:
    """The entry of the chart that a number was read from, or that it is."""
    number = entry.measured if isinstance(entry, Judged) else entry
    found: Entry = number.result if isinstance(number, Measured) else number
    return found


def _used(content: Content, entry: Any) -> UsedEntry:
    evidence = {name: text[:LONGEST_SHOWN] for name, text in entry.evidence().items()}
    shown = cast("UsedEntry", evidence)
    if name := _test(content, _bare(entry)):
        shown["name"] = name[:LONGEST_SHOWN]
    return shown


def _rejected(content: Content, rejected: Rejected) -> RejectedEntry:
    why = content.words.set_aside.get(rejected.why, rejected.why)
    found: RejectedEntry = {"reference": rejected.entry.reference[:LONGEST_SHOWN], "why": why}
    if not rejected.foreign and (name := _test(content, rejected.entry)):
        found["name"] = name[:LONGEST_SHOWN]
    return found


def _test(content: Content, entry: Entry) -> str:
    """What the test of a result is called by us, else by the chart; "" for anything else."""
    if not isinstance(entry, Result):
        return ""
    return content.measure_title(entry.sets) or entry.title


def data_of(chart: Chart) -> list[KeyRead]:
    """What became of every prefetch key, and what was left aside."""
    found = [_source(source) for source in chart.sources.values()]
    if chart.drafted is not None:
        drafted: KeyRead = {
            "key": DRAFTS,
            "state": "answered",
            "used": len(chart.drafts),
            "skipped": [],
        }
        found.append(_skipping(drafted, ((x.where, x.why) for x in chart.drafted)))
    if aside := [*_left_aside(chart)]:
        nobody: KeyRead = {
            "key": "*",
            "state": "answered",
            "by": "prefetch",
            "used": 0,
            "skipped": [],
        }
        found.append(_skipping(nobody, aside))
    return found


def _left_aside(chart: Chart) -> Iterator[tuple[str, str]]:
    """What belongs to no key, and why."""
    for note in chart.elsewhere:
        yield note.where, note.why
    for x in chart.foreign:
        kind = type(x).__name__
        yield f"{kind}/{x.id}" if x.id else kind, "belongs to another patient"
    for kind, count in sorted(chart.unread.items()):
        yield kind, f"{count} of a type that is not read"
    for kind, count in sorted(chart.unasked.items()):
        yield kind, f"{count} that no key asks for"


def _source(source: Source) -> KeyRead:
    found: KeyRead = {
        "key": source.key.name,
        "state": source.state,
        "used": source.used,
        "skipped": [],
    }
    if source.by is not None:
        found["by"] = source.by
    if source.why:
        found["why"] = source.why
    return _skipping(found, ((x.where, x.why) for x in source.skipped))


def _skipping(found: KeyRead, aside: Iterable[tuple[str, str]]) -> KeyRead:
    """A key with the places where nothing was read: some, and how many others there are."""
    places = [*aside]
    found["skipped"] = [{"where": where, "why": why} for where, why in places[:MOST_ASIDE]]
    if len(places) > MOST_ASIDE:
        found["unlisted"] = len(places) - MOST_ASIDE
    return found


def series_of(content: Content, facts: PatientFacts) -> list[Series]:
    """The numbers of each measure that was looked at, oldest first, with the limits they were
    judged by.
    """
    found: list[Series] = []
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


def _point(content: Content, judged: Judged, aside: str) -> SeriesPoint:
    shown = short(judged.measured.as_sent(judged.value))
    point: SeriesPoint = {
        "reference": judged.measured.result.reference,
        "date": judged.moment.text,
        "value": float(judged.value.value),
        "limit_from": judged.limit_from,
        "used": not aside,
        "shown": f"{shown} {judged.measured.unit_as_sent}".strip(),
    }
    if judged.value.comparator:
        point["comparator"] = judged.value.comparator
    if judged.low is not None:
        point["low"] = float(judged.low.value)
    if judged.high is not None:
        point["high"] = float(judged.high.value)
    if aside:
        point["why"] = content.words.set_aside[aside]
    return point


def _rejected_point(rejected: Rejected) -> SeriesPoint:
    amount = getattr(rejected.entry.resource, "value_quantity", None)
    point: SeriesPoint = {
        "reference": rejected.entry.reference,
        "date": rejected.entry.moment.text,
        "used": False,
        "why": rejected.why,
    }
    if amount is not None and isinstance(amount.value, int | float):
        unit = amount.unit or amount.code or ""
        point["shown"] = f"{amount.comparator or ''}{amount.value} {unit}".strip()
    return point


def about(content: Content) -> ContentUsed:
    """What the answer is made with."""
    return {"version": content.about.version, "hash": content.hash}
