"""Advice to card: the only writer of CDS Hooks JSON.

Summaries hold our own words and numbers only; what comes from the chart stands in the detail,
escaped.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal
from unicodedata import category
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from cds_service.content import Content, Family, Topic
from cds_service.content_files import QUOTED, CardFile, Said
from cds_service.evaluation import Review
from cds_service.evidence import unique
from cds_service.facts import Judged, Problem
from cds_service.hook_request import HookContext
from cds_service.loading import SUMMARY_LIMIT
from cds_service.results import short
from cds_service.rules import Indicator, Named, Verdict
from cds_service.terminology import CANONICAL

MOST_SUGGESTIONS = 5
OVERRIDE_REASONS = f"{CANONICAL}/CodeSystem/override-reasons"
# Da Vinci Coverage Requirements Discovery, "Linking cards to requests": local references.
ABOUT_ORDERS = "davinci-associated-resource"
# In an extension: the canonical base, as a name of our own.
_BASE = ".".join(reversed(urlsplit(CANONICAL).netloc.split(".")))
NOT_EVALUATED = f"{_BASE}.not-evaluated"
Uuid = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Url = Annotated[str, Meta(min_length=1, extra_json_schema={"format": "uri"})]
_DRAFT = {
    "required": ["resourceType", "status", "intent", "subject"],
    "properties": {"resourceType": {"const": "ServiceRequest"}, "status": {"const": "draft"}},
}
Draft = Annotated[dict[str, Any], Meta(description="FHIR R4", extra_json_schema=_DRAFT)]


class CardCoding(Struct):
    """A code as CDS Hooks has it."""

    system: Url
    code: Said
    display: Said


class Source(Struct):
    """Where the guidance comes from; `url` is its page, where the server knows its own address."""

    label: Said
    topic: CardCoding
    url: Url | UnsetType = UNSET


class Action(Struct, rename="camel"):
    """One thing to do with the record: here always a draft to create."""

    type: Literal["create"]
    description: Said
    resource: Draft


class Suggestion(Struct, rename="camel"):
    """One choice on a card, which is one order."""

    label: Said
    uuid: Uuid
    actions: Annotated[list[Action], Meta(min_length=1, max_length=1)]


class Card(Struct, rename="camel"):
    """One card (CDS Hooks 2.0, "Card Attributes"); what has no value is left out."""

    uuid: Uuid
    summary: Annotated[str, Meta(min_length=1, max_length=SUMMARY_LIMIT)]
    indicator: Indicator
    detail: Said
    source: Source
    suggestions: (
        Annotated[list[Suggestion], Meta(min_length=1, max_length=MOST_SUGGESTIONS)] | UnsetType
    ) = UNSET
    selection_behavior: Literal["any"] | UnsetType = UNSET
    override_reasons: Annotated[list[CardCoding], Meta(min_length=1)] | UnsetType = UNSET
    extension: dict[str, Annotated[list[str], Meta(min_length=1)]] | UnsetType = UNSET


class NotEvaluated(Struct):
    """That nothing was looked at, and why: the status and the code of the OperationOutcome that any
    other client would have been sent, and what it says.
    """

    status: Annotated[int, Meta(ge=400, le=599)]
    code: Said
    reason: Said


_ONLY: dict[str, Any] = {"propertyNames": {"const": NOT_EVALUATED}}
Extension = Annotated[
    dict[str, NotEvaluated], Meta(min_length=1, max_length=1, extra_json_schema=_ONLY)
]


class Cards(Struct, rename="camel"):
    """The answer to a service call; `cards` is there even when empty. An `extension` is only in the
    answers to a client that is never sent an error, where there would have been one.
    """

    cards: list[Card]
    extension: Extension | UnsetType = UNSET


def not_evaluated(status: int, code: str, text: str, diagnostics: str) -> Cards:
    """An error in the form of an answer that has no cards."""
    reason = f"{text} {diagnostics}".strip()
    return Cards([], {NOT_EVALUATED: NotEvaluated(status, code, reason)})


MOST_FINDINGS = 5
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~>:@-]|(?<=www)\.)", re.IGNORECASE)
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_REFERABLE = re.compile(r"[^/\s?#]+\Z")


def escaped(text: str) -> str:
    """Patient text made harmless in Markdown and in HTML, on one line and of bounded length."""
    seen = "".join(x for x in text if x.isspace() or category(x) not in _UNSEEN)
    line = " ".join(seen.split())[:80]
    line = _MARKDOWN.sub(r"\\\1", line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


class CardWriter(Struct, frozen=True):
    """Writes the cards of one review; `new_id` gives each card and suggestion its uuid, and
    `public_url` is where the pages of the topics lie ("": nobody can tell).
    """

    content: Content
    context: HookContext
    new_id: Callable[[], str] = lambda: str(uuid4())
    public_url: str = ""

    def write(self, review: Review) -> Cards:
        """The cards of the topics that fired, most urgent first."""
        topics = {topic.code: topic for topic in review.family.topics}
        return Cards([self._card(review, topics[x.topic], x) for x in review.fired])

    def _card(self, review: Review, topic: Topic, verdict: Verdict) -> Card:
        words = _Words(self.content, review.family, topic.card, verdict)
        card = Card(
            uuid=self.new_id(),
            summary=words.summary(),
            indicator=verdict.indicator,
            detail=words.detail(review),
            source=Source(
                label=f"{review.family.source.label} {topic.card.row} · evidence {topic.card.tier}",
                topic=CardCoding(f"{CANONICAL}/CodeSystem/topics", topic.code, topic.card.title),
                url=f"{self.public_url}/topics/{topic.code}" if self.public_url else UNSET,
            ),
            suggestions=self._suggestions(review, topic, verdict) or UNSET,
            override_reasons=self._override_reasons(topic.card) or UNSET,
            extension=_extension(verdict) or UNSET,
        )
        if card.suggestions:
            card.selection_behavior = "any"
        return card

    def _suggestions(self, review: Review, topic: Topic, verdict: Verdict) -> list[Suggestion]:
        assert verdict.advice is not None
        starts = topic.card.variant[verdict.advice.variant].starts_after
        facts = review.facts
        suggestions = []
        for name in verdict.orders[:MOST_SUGGESTIONS]:
            template = self.content.orders[name]
            after = facts.limit.values[starts[name]].days if name in starts else None
            draft = template.draft(
                f"{topic.code}-{name}",
                self.context.patient_id,
                self.context.encounter_id,
                facts.today,
                facts.today + after if after is not None else None,
            )
            action = Action("create", template.title, draft)
            suggestions.append(Suggestion(template.title, self.new_id(), [action]))
        return suggestions

    def _override_reasons(self, card: CardFile) -> list[CardCoding]:
        codes = unique((*card.override, *self.content.common_reasons))
        return [
            CardCoding(OVERRIDE_REASONS, x, self.content.override_reasons[x].display) for x in codes
        ]


def _extension(verdict: Verdict) -> dict[str, list[str]]:
    """Which draft orders the card is about; one without id, or with one that no reference can hold,
    cannot be referred to.
    """
    assert verdict.advice is not None
    referable = [x for x in verdict.advice.about if _REFERABLE.match(x.resource.id or "")]
    references = unique(x.reference for x in referable)
    return {ABOUT_ORDERS: [*references]} if references else {}


class _Words:
    """The words of one card, filled."""

    def __init__(self, content: Content, family: Family, card: CardFile, verdict: Verdict) -> None:
        assert verdict.advice is not None
        self._content = content
        self._family = family
        self._card = card
        self._verdict = verdict
        self._advice = verdict.advice
        self._variant = card.variant[verdict.advice.variant]

    def summary(self) -> str:
        """The one line; what has nothing to say leaves no gap."""
        return " ".join(self._fill(self._variant.summary or self._card.summary).split())

    def _fill(self, text: str) -> str:
        """The text with its placeholders filled, each cut to its width."""
        return _PLACEHOLDER.sub(lambda found: self._value(found[1]), text)

    def _value(self, name: str) -> str:
        if name == QUOTED:
            return escaped(self._advice.quoted)
        value = str(self._advice.values.get(name, ""))
        phrases = self._card.phrases.get(name) or self._content.words.phrases.get(name, {})
        return phrases.get(value, value)[: self._family.placeholders[name]]

    def _sentences(self, text: str) -> str:
        """The text filled, without the sentences whose placeholder has nothing to say."""
        parts = re.split(r"(?<=\.) ", text)
        return " ".join(
            self._fill(x) for x in parts if all(map(self._is_said, _PLACEHOLDER.findall(x)))
        )

    def _is_said(self, name: str) -> bool:
        if name == QUOTED:
            return bool(self._advice.quoted.strip())
        return str(self._advice.values.get(name, "")) != ""

    def detail(self, review: Review) -> str:
        frame, card = self._content.words.frame, self._card
        consider = self._variant.consider or card.consider
        blocks = [
            f"**{frame.why}:** {self._sentences(self._variant.why or card.why)}",
            self._findings(),
            self._part(frame.about, self._about()),
            self._part(frame.checked, self._not_checked(review)),
            self._part(frame.consider, f"{self._sentences(consider)}; or {frame.none_of_these}."),
            self._part(frame.left_out, self._left_out()),
            self._part(frame.contrary, card.contrary),
            self._part(frame.limits, card.limits),
            self._part(frame.evidence, f"{card.tier} ({', '.join(card.citations)})."),
            f"{card.row} · content {self._content.about.version}",
        ]
        return "\n\n".join(block for block in blocks if block)

    def _part(self, heading: str, text: str) -> str:
        return f"**{heading}:** {text}" if text else ""

    def _findings(self) -> str:
        shown = self._advice.findings[:MOST_FINDINGS]
        lines = [f"- {self._finding(x)}" for x in shown]
        if (more := len(self._advice.findings) - len(shown)) > 0:
            lines.append("- " + self._content.words.frame.more.format(n=more))
        return "\n".join(lines)

    def _finding(self, found: Judged | Named) -> str:
        return self._named(found) if isinstance(found, Named) else self._number(found)

    def _named(self, named: Named) -> str:
        title = self._family.knowledge.terminology.sets[named.value_set].title
        moment = named.entry.moment
        if moment is None:
            return title
        return f"{title}{', ' if isinstance(named.entry, Problem) else ' on '}{moment.text}"

    def _number(self, judged: Judged) -> str:
        measured = judged.measured
        title = self._content.measure_title(measured.result.sets)
        value = short(measured.as_sent(judged.value))
        limits = " to ".join(
            "" if x is None else short(measured.as_sent(x)) for x in (judged.low, judged.high)
        )
        limits = limits.removesuffix(" to ") if judged.high is None else limits
        limits = f"up to{limits.removeprefix(' to')}" if judged.low is None else limits
        source = self._content.words.limit_from.get(judged.limit_from, judged.limit_from)
        unit = measured.unit_as_sent
        amount = f"{title} {judged.value.comparator}{value} {unit}".replace("<", "&lt;").strip()
        told = f"{amount} on {measured.moment.text}"
        return told if judged.low is None is judged.high else f"{told}, {limits} ({source})"

    def _about(self) -> str:
        """The drafts, in the words of whoever wrote them."""
        names = unique(x.name for x in self._advice.about if x.name.strip())
        return f"{'; '.join(map(escaped, names))}." if names else ""

    def _not_checked(self, review: Review) -> str:
        sources = review.facts.chart.sources
        titles = [sources[x].key.title for x in self._verdict.unchecked if x in sources]
        remarks = self._content.words.remarks
        said = [_filled(remarks[name], values) for name, values in self._verdict.record.remarks]
        if any(x.by == "inferred" and not x.key.is_read for x in sources.values()):
            said.append(remarks["as_sent"])
        listed = ", ".join(unique(titles))
        return " ".join([*([f"{listed}."] if listed else []), *unique(said)])

    def _left_out(self) -> str:
        on_order = self._content.words.frame.on_order
        told = [
            f"{self._content.orders[name].text}, {on_order if day is None else day.text}"
            for name, day in self._verdict.left_out.items()
        ]
        return f"{'; '.join(told)}." if told else ""


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], ""), text)


def encode(answer: Struct | Iterable[object] | dict[str, object]) -> bytes:
    """The JSON bytes of an answer."""
    return msgspec.json.encode(answer)
