"""What a topic's rule asks and names, with the numbers, sets and orders that the loaded content has
under those names.
"""

import re
from collections.abc import Iterator
from decimal import Decimal

from cds_service.content import Content, Family, Topic
from cds_service.evidence import unique
from cds_service.facts import READ_HERE, Interval
from cds_service.quantity import Quantity
from cds_service.rule_code import Library, RuleCode
from cds_service.rule_questions import Asked, questions_of
from cds_service.topic_shape import (
    IntervalRead,
    LimitRead,
    MeasureRead,
    Number,
    OrderOffered,
    QuestionAsked,
    SetMember,
    SetUsed,
)

_OLDEST = 200  # years: where the last row of a table of ages ends
_UNIT_NAMES = {"d": "day", "a": "year"}
_PLACE = re.compile(r"\{[^}]*\}")


def number(value: Decimal) -> Number:
    """The number as JSON has it: whole where it is."""
    return int(value) if value == value.to_integral_value() else float(value)


def in_words(quantity: Quantity) -> str:
    """A window or an age in words ("30 days"), anything else with its unit ("25 U/L")."""
    unit = _UNIT_NAMES.get(quantity.unit)
    if unit is None:
        unit = "" if quantity.unit == "1" else re.sub(r"[{}]", "", quantity.unit).replace("_", " ")
    elif quantity.value != 1:
        unit += "s"
    return f"{quantity.value:f} {unit}".strip()


class TopicReading:
    """Reads one topic."""

    def __init__(self, content: Content, family: Family, topic: Topic, library: Library) -> None:
        self.content = content
        self.family = family
        self.card = topic.card
        self.library = library
        self.code: RuleCode = library.rule(topic.rule.__module__, topic.rule.__name__)
        self.shipped = {x.key: x.shipped for x in content.overrides}

    def questions(self) -> list[QuestionAsked]:
        """What the rule itself asks, in order."""
        return [self._question(x) for x in questions_of(self.library, self.code)]

    def _question(self, asked: Asked) -> QuestionAsked:
        a_no_is_not_met = asked.ends == "no" and asked.kind == "question"
        verdict = "not-met" if a_no_is_not_met else "not-applicable"
        return QuestionAsked(
            text=self._filled(asked),
            kind=asked.kind,
            ends=asked.ends,
            verdict=verdict if asked.ends else "",
            alone=asked.alone,
            unknown="goes-on" if asked.goes_on else "ends",
            defers=asked.defers,
            behind=[self._question(x) for x in asked.behind],
            numbers=[*self._numbers(asked)],
        )

    def _numbers(self, asked: Asked) -> Iterator[str]:
        """What a question compares with itself; what it hands to those behind it, they say."""
        handed = {name for x in asked.behind for name in (*x.names, *x.limits)}
        rows = {**self.content.limits, **self.family.limits}
        for name in asked.limits:
            if name not in handed and name in rows:
                here = self.family.knowledge.limits.values[name]
                yield f"{rows[name].says}: {in_words(here)}"

    def _filled(self, asked: Asked) -> str:
        """The question with its limits and titles, "…" for what its source does not name."""
        if not _PLACE.search(asked.text):
            return asked.text
        values = [self._named(name) for name in asked.names]
        try:
            return asked.text.format(*values)
        except (IndexError, AttributeError):
            return _PLACE.sub("…", asked.text)

    def _named(self, name: str) -> Quantity | str:
        knowledge = self.family.knowledge
        if name in knowledge.limits.values:
            return knowledge.limits.values[name]
        if name in knowledge.terminology:
            return knowledge.terminology.sets[name].title
        return knowledge.orders[name].title if name in knowledge.orders else name

    def limits(self) -> Iterator[LimitRead]:
        """The row's own numbers first, then the shared ones, each in the order of its file."""
        starts = {x for v in self.card.variant.values() for x in v.starts_after.values()}
        read = {*self.code.limits, *starts, *(READ_HERE if self._order_names() else ())}
        here = self.family.knowledge.limits.values
        for rows in (self.family.limits, self.content.limits):
            about = ""
            for name, row in rows.items():
                about = row.about or about
                if name in read:
                    yield LimitRead(
                        name=name,
                        value=number(here[name].value),
                        unit=row.unit,
                        says=row.says,
                        about=about,
                        shipped=number(row.value) if name in self.content.site.limits else None,
                        own=rows is self.family.limits,
                    )

    def measures(self) -> Iterator[MeasureRead]:
        """The measures asked about, with the limits that hold when a report prints none."""
        for name, measure in self.content.measures.items():
            if name in self.code.asked_about:
                rows = self.family.knowledge.intervals.get(name, ())
                intervals = [_interval(x) for x in rows]
                highest = None if measure.highest is None else number(measure.highest)
                yield MeasureRead(name, measure.title, measure.unit, highest, intervals)

    def value_sets(self) -> Iterator[SetUsed]:
        """The sets that the code names, and those of the measures it asks about, by their ids."""
        measures, asked_about = self.content.measures, self.code.asked_about
        measured = {x.value_set for name, x in measures.items() if name in asked_about}
        sets = self.family.knowledge.terminology.sets
        for name in sorted({*self.code.sets, *measured}):
            one = sets[name]
            yield SetUsed(
                id=name,
                title=one.title,
                codes=len(one.codes),
                groups=len(one.prefixes) + len(one.patterns),
                text_is_read=one.text is not None,
                text=one.text.pattern if one.text is not None else "",
                members=[
                    SetMember(x.kind, x.system, x.code, x.display, x.excluded) for x in one.listed
                ],
                shipped=self.shipped.get(f"codes.{name}", ""),
            )

    def _order_names(self) -> tuple[str, ...]:
        card = self.card
        by_card = [*card.orders, *(x for v in card.variant.values() for x in v.orders or ())]
        return unique(
            x
            for x in (*by_card, *card.kept_alive_by, *self.code.listed)
            if x in self.family.knowledge.orders
        )

    def orders(self) -> Iterator[OrderOffered]:
        """The orders that the card or the code may offer."""
        sets = self.family.knowledge.terminology.sets
        for name in self._order_names():
            template, rule = self.content.orders[name], self.family.knowledge.orders[name]
            keys = (f"orders.{name}", f"labels.{name}")
            yield OrderOffered(
                name=name,
                title=template.title,
                codings=[dict(x) for x in template.codings],
                orderable=rule.orderable,
                done_by=[[sets[x].title for x in row] for row in rule.done_by],
                within_days=rule.window.days if rule.window is not None else None,
                never_done=rule.never_done,
                shipped="; ".join(self.shipped[x] for x in keys if x in self.shipped),
            )


def _interval(interval: Interval) -> IntervalRead:
    return IntervalRead(
        ages=_ages(interval),
        sex=interval.sex or "",
        low=None if interval.low is None else number(interval.low.value),
        high=None if interval.high is None else number(interval.high.value),
    )


def _ages(interval: Interval) -> str:
    to_the_oldest = interval.to_age == Quantity(interval.to_age.value, "a") and (
        interval.to_age.value >= _OLDEST
    )
    if to_the_oldest:
        return "any" if not interval.from_age.value else f"from {in_words(interval.from_age)}"
    return f"{in_words(interval.from_age)} to {in_words(interval.to_age)}"
