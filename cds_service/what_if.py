"""What a site file would change: the fixture patients' cards under the content in force, and under
the content that the file's text gives. Nothing is written anywhere.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cds_service.answering import Answering
from cds_service.cards import Card
from cds_service.content import Content
from cds_service.content_files import LimitRow
from cds_service.errors import ContentError
from cds_service.explanation import AskedQuestion, TopicVerdict
from cds_service.fhir_endpoint import load_patients
from cds_service.fixture_calls import FixtureCall, FixtureFetcher, fixture_calls
from cds_service.loading import load_content
from cds_service.modes import MODES as MODE_NAMES
from cds_service.quantity import Quantity
from cds_service.site import Site, SiteText
from cds_service.site_toml import site_toml
from cds_service.topic_reading import in_words

LIMITS, MODES = "limits.", "modes."  # what the names of fields begin with, as keys of a site file
MOST_TYPED = 20  # characters in a field
_FETCH_SECONDS = 10.0
_FAR = 3  # times the shipped value, or a part of it, from which on a limit is far from it
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?\Z", re.ASCII)


class Limit(Struct, frozen=True):
    """One limit that a site may change: its shipped row, and its value in force; `file` is where
    it is shipped.
    """

    name: str
    row: LimitRow
    about: str
    file: str
    here: Quantity

    @property
    def shipped(self) -> Quantity:
        """The value that it is shipped with."""
        return Quantity(self.row.value, self.row.unit)

    def is_far(self, text: str) -> bool:
        """Whether what was typed is a number, and many times the shipped one or a small part."""
        number = _number(text)
        if not isinstance(number, Decimal):
            return False
        shipped = self.row.value
        return number > shipped * _FAR or number * _FAR < shipped


class Change(Struct, frozen=True):
    """One thing that would be otherwise than it is in force, in words."""

    key: str
    says: str
    before: str
    after: str


class Proposal(Struct, frozen=True):
    """The text of a site file and what it changes; `wrong` says by its keys what the loader would
    refuse.
    """

    text: str
    changes: tuple[Change, ...]
    wrong: Mapping[str, str]


class CardLine(Struct, frozen=True):
    """A card in a line."""

    topic: str
    title: str
    indicator: str
    summary: str
    orders: tuple[str, ...]


class Why(Struct, frozen=True):
    """A topic's verdict, with what held it back, the deciding question with its answer, and the
    innermost of those behind it that was answered otherwise ("" for none).
    """

    verdict: str
    text: str
    inner: str


class Moved(Struct, frozen=True):
    """A card that comes, goes or changes; None is no card, and why is told of one that comes or
    goes.
    """

    kind: Literal["comes", "goes", "changes"]
    before: CardLine | None
    after: CardLine | None
    why_before: Why
    why_after: Why


class Compared(Struct, frozen=True):
    """One call, its cards in force and after the changes, and what differs."""

    call: FixtureCall
    before: tuple[CardLine, ...]
    after: tuple[CardLine, ...]
    moved: tuple[Moved, ...]


class WhatIf:
    """Compares contents on the fixture patients of a folder; keeps what it compared last."""

    def __init__(
        self,
        content: Content,
        now: Callable[[], datetime],
        patients: Path,
        most_kept: int = 8,
    ) -> None:
        self.content = content
        self._most_kept = most_kept
        self.limits = {x.name: x for x in _limits(content)}
        self._now = now
        self._folder = patients
        self._patients: _Patients | None = None
        self._kept: OrderedDict[tuple[int, str], tuple[Compared, ...]] = OrderedDict()
        self._turn = Lock()

    # -- what is asked -------------------------------------------------------------------------

    def proposal(self, typed: Mapping[str, str]) -> Proposal:
        """The site file in force with what was typed under its keys; all else stays."""
        limits: dict[str, Any] = {
            x.name: x.here.value for x in self.limits.values() if x.here != x.shipped
        }
        topics = self.content.topics()
        modes: dict[str, Any] = {
            code: mode
            for code, mode in self.content.modes.items()
            if mode != topics[code].card.mode
        }
        for key, text in typed.items():
            if key.startswith(LIMITS):
                name = key.removeprefix(LIMITS)
                known = self.limits.get(name)
                _put(limits, name, _number(text), None if known is None else known.row.value)
            elif key.startswith(MODES):
                name = key.removeprefix(MODES)
                _put(modes, name, text, topics[name].card.mode if name in topics else None)
        site = msgspec.structs.replace(self.content.site, limits=limits, modes=modes)
        text = site_toml(site)
        wrong = self._wrong(text)
        return Proposal(text, () if wrong else tuple(self._changes(limits, modes)), wrong)

    def _wrong(self, text: str) -> dict[str, str]:
        """What the loader would refuse, every limit of it."""
        found: dict[str, str] = {}
        try:
            site = Site(_as_file(text))
        except ContentError as error:
            return {error.key: error.why}
        for limit in self.limits.values():
            try:
                site.limit(limit.name, limit.shipped)
            except ContentError as error:
                found[error.key] = error.why
        for table, names in ((LIMITS, self.limits), (MODES, self.content.modes)):
            try:
                site.check({table.rstrip("."): set(names)}, set(site.file.prefetch.values()))
            except ContentError as error:
                found[error.key] = error.why
        return found

    def _changes(self, limits: Mapping[str, Any], modes: Mapping[str, Any]) -> Iterator[Change]:
        for limit in self.limits.values():
            after = replace(limit.shipped, value=limits.get(limit.name, limit.row.value))
            if after != limit.here:
                key = f"{LIMITS}{limit.name}"
                yield Change(key, limit.row.says, in_words(limit.here), in_words(after))
        for code, topic in self.content.topics().items():
            here, after_mode = self.content.modes[code], modes.get(code, topic.card.mode)
            if here != after_mode:
                title = f"{topic.card.row} {topic.card.title}"
                yield Change(f"{MODES}{code}", title, here, after_mode)

    # -- what comes of it ----------------------------------------------------------------------

    def compared(self, proposal: Proposal) -> tuple[Compared, ...]:
        """Every fixture patient's calls, before and after; raises ContentError for a text that the
        loader refuses.
        """
        with self._turn:
            patients = self._patients_of_today()
            key = patients.day, proposal.text
            if key not in self._kept:
                changed = self.content
                if proposal.changes:
                    changed = load_content(self.content.folder, _as_file(proposal.text))
                self._kept[key] = tuple(patients.compared(changed))
                while len(self._kept) > self._most_kept:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def patients(self) -> tuple[str, ...]:
        """The ids of the fixture patients, those first that tell most."""
        with self._turn:
            return self._patients_of_today().names

    def _patients_of_today(self) -> "_Patients":
        now = self._now()
        day = Answering(self.content, None, 0.0, lambda: now).today()
        if self._patients is None or self._patients.day != day:
            self._patients = _Patients(self.content, now, day, self._folder)
        return self._patients


class _Patients:
    """The fixture patients of one day, and their cards in force."""

    def __init__(self, content: Content, now: datetime, day: int, folder: Path) -> None:
        patients = load_patients(folder, datetime.fromordinal(day).date())
        patients.sort(key=lambda x: (x.rank, str(x.patient["id"])))
        self.day = day
        self.names = tuple(str(x.patient["id"]) for x in patients)
        self._now = now
        self._calls = tuple(fixture_calls(patients, content))
        self._fetcher = FixtureFetcher(patients)
        self._in_force = self._answering(content)

    @cached_property
    def _before(self) -> list[tuple[CardLine, ...]]:
        return [_cards(self._in_force, x) for x in self._calls]

    def _answering(self, content: Content) -> Answering:
        return Answering(content, self._fetcher, _FETCH_SECONDS, lambda: self._now)

    def compared(self, changed: Content) -> Iterator[Compared]:
        """Each call under the content in force and under another."""
        answering = self._answering(changed)
        for call, before in zip(self._calls, self._before, strict=True):
            after = before if changed is self._in_force.content else _cards(answering, call)
            moved: tuple[Moved, ...] = ()
            if before != after:
                verdicts = _verdicts(self._in_force, call), _verdicts(answering, call)
                moved = tuple(_moved(before, after, *verdicts))
            yield Compared(call, before, after, moved)


def _as_file(text: str) -> SiteText:
    return SiteText("site.toml", text.encode())


def _limits(content: Content) -> Iterator[Limit]:
    """The shared limits, then each family's own, with what each group is about."""
    folders: list[tuple[str, str, Mapping[str, LimitRow]]] = [
        ("shared/limits.toml", "", content.limits)
    ]
    for family in content.families:
        titles = " and ".join(x.id for x in family.services)
        folders.append((f"{family.name}/service.toml", f"Only {titles}", family.limits))
    here = {k: x for family in content.families for k, x in family.knowledge.limits.values.items()}
    for file, about, rows in folders:
        for name, row in rows.items():
            about = row.about or about
            if name in here:  # else there is no service that could use it
                yield Limit(name, row, about, file, here[name])


def _number(text: str) -> Decimal | str:
    """The number typed; what is none stays text, which the loader refuses by its key."""
    text = text.strip()
    return Decimal(text) if _NUMBER.match(text) else text[: MOST_TYPED + 1]


def _put(table: dict[str, Any], name: str, value: object, shipped: object) -> None:
    """Sets what differs from what is shipped."""
    table.pop(name, None)
    if shipped is None or value != shipped:
        table[name] = value


def _cards(answering: Answering, call: FixtureCall) -> tuple[CardLine, ...]:
    return tuple(_line(x) for x in answering.cards(call.service, call.body).cards)


def _line(card: Card) -> CardLine:
    topic = card.source.topic
    suggested = card.suggestions or ()
    orders = tuple(x.label for x in suggested)
    return CardLine(topic.code, topic.display, card.indicator, card.summary, orders)


def _verdicts(answering: Answering, call: FixtureCall) -> dict[str, TopicVerdict]:
    found = answering.explain(call.service, call.body)
    return {x["topic"]: x for x in found["verdicts"]}


def _moved(
    before: Sequence[CardLine],
    after: Sequence[CardLine],
    then: Mapping[str, TopicVerdict],
    now: Mapping[str, TopicVerdict],
) -> Iterator[Moved]:
    """What differs, in the order of precedence."""
    cards_before, cards_after = ({x.topic: x for x in cards} for cards in (before, after))
    for topic in then:
        old, new = cards_before.get(topic), cards_after.get(topic)
        if old != new:
            kind: Literal["comes", "goes", "changes"] = "changes"
            if old is None or new is None:
                kind = "comes" if old is None else "goes"
            yield Moved(kind, old, new, *_whys(then[topic], now[topic], silent=new is None))


def _whys(then: TopicVerdict, now: TopicVerdict, *, silent: bool) -> tuple[Why, Why]:
    """Why of both verdicts: the question that decided the one that is silent, now or then."""
    code = (now if silent else then)["reason"]["code"]
    old, new = _asked(then["evidence"], code), _asked(now["evidence"], code)
    if old is None or new is None:
        return _why(then, old, None), _why(now, new, None)
    return _why(then, old, _otherwise(old, new)), _why(now, new, _otherwise(new, old))


def _why(verdict: TopicVerdict, asked: AskedQuestion | None, inner: AskedQuestion | None) -> Why:
    by = verdict.get("by", "")
    by = f" by {by}" if by and by not in MODE_NAMES else ""  # the reason says it of a mode
    text = verdict["reason"]["text"] if asked is None else _answered(asked)
    deeper = "" if inner is None or inner is asked else _answered(inner)
    return Why(f"{verdict['verdict'].replace('-', ' ')}{by}", text, deeper)


def _answered(asked: AskedQuestion) -> str:
    return f"{asked['question']} {asked['answer']}"


def _otherwise(asked: AskedQuestion, other: AskedQuestion) -> AskedQuestion:
    """The innermost question behind one that was answered otherwise in another asking of it."""
    others = {x["code"]: x for x in other.get("because", ())}
    for inner in asked.get("because", ()):
        known = others.get(inner["code"])
        if known is not None and known["answer"] != inner["answer"]:
            return _otherwise(inner, known)
    return asked


def _asked(questions: Sequence[AskedQuestion], code: str) -> AskedQuestion | None:
    """The question of a code, wherever below; None when it was not asked."""
    for question in questions:
        inside = _asked(question.get("because", ()), code)
        found = question if question["code"] == code else inside
        if found is not None:
            return found
    return None
