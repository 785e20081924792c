"""What is published of each topic, read from the loaded content and from the rule's own source: no
patient, no clock.
"""

import re
from collections.abc import Iterator

from cds_service.content import Content, Family, Topic
from cds_service.content_files import SourceAttributes
from cds_service.evidence import unique
from cds_service.rule_code import Library, what_it_says
from cds_service.topic_reading import TopicReading
from cds_service.topic_shape import (
    Attribute,
    Code,
    ContentVersion,
    Evidence,
    Filling,
    HeldBack,
    ModeHere,
    Reason,
    Situation,
    Standing,
    TopicLine,
    TopicList,
    TopicPage,
)

# 45 CFR 170.315(b)(11)(iv)(A), in its order; citation and dates are not the service's own.
_USES = {
    "race": "Use of race",
    "ethnicity": "Use of ethnicity",
    "language": "Use of language",
    "sexual_orientation": "Use of sexual orientation",
    "gender_identity": "Use of gender identity",
    "sex": "Use of sex",
    "date_of_birth": "Use of date of birth",
    "social_determinants": "Use of social determinants of health",
    "health_status": "Use of health status assessments",
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_REMARKS = {"limits": "Limits of the evidence", "provenance": "Where the topics come from"}


def topic_pages(content: Content) -> dict[str, TopicPage]:
    """What is published of every topic, by its code; where several families have it, the others
    follow the first.
    """
    library = Library(content.folder)
    pages: dict[str, TopicPage] = {}
    for family in content.families:
        for topic in family.topics:
            page = _Writer(content, family, topic, library).page()
            first = pages.setdefault(topic.code, page)
            if first is not page:
                first.elsewhere.append(page)
    return pages


def topic_list(content: Content, pages: dict[str, TopicPage]) -> TopicList:
    """Every topic in a line."""
    lines = [
        TopicLine(
            code=page.code,
            row=page.row,
            title=page.title,
            says=page.says,
            mode=page.mode.here,
            shipped_mode=page.mode.shipped,
            tier=page.evidence.tier,
            services=[x for part in (page, *page.elsewhere) for x in part.services],
            path=f"/topics/{page.code}",
        )
        for page in pages.values()
    ]
    return TopicList(content_version(content), lines)


def content_version(content: Content) -> ContentVersion:
    """Which content it is, and of when."""
    about = content.about
    return ContentVersion(
        version=about.version,
        hash=content.hash,
        released=about.released,
        revised=about.revised,
        next_review=about.next_review,
        publisher=about.publisher,
    )


class _Writer:
    """Writes one topic."""

    def __init__(self, content: Content, family: Family, topic: Topic, library: Library) -> None:
        self.content = content
        self.family = family
        self.topic = topic
        self.card = topic.card
        self.reading = TopicReading(content, family, topic, library)

    def page(self) -> TopicPage:
        card, reading = self.card, self.reading
        attributes = self.family.source.attributes
        return TopicPage(
            code=self.topic.code,
            row=card.row,
            title=card.title,
            says=what_it_says(reading.code.function).removeprefix(f"{card.row}: "),
            services=[x.id for x in self.family.services if not card.hooks or x.hook in card.hooks],
            mode=self._mode(),
            situations=[*self._situations()],
            fillings=[*self._fillings()],
            questions=reading.questions(),
            limits=[*reading.limits()],
            measures=[*reading.measures()],
            value_sets=[*reading.value_sets()],
            orders=[*reading.orders()],
            override_reasons=[*self._reasons()],
            evidence=Evidence(card.tier, card.citations, card.contrary, card.limits),
            standing=self._standing(),
            source_attributes=[*self._attributes(attributes)],
            remarks=[Attribute(x, y, getattr(attributes, x)) for x, y in _REMARKS.items()],
            content=content_version(self.content),
            rule=Code(reading.code.module.file, reading.code.source),
            elsewhere=[],
        )

    def _mode(self) -> ModeHere:
        here, shipped = self.content.modes[self.topic.code], self.card.mode
        by_site = self.content.site.modes.get(self.topic.code)
        set_by = "site" if here == by_site else "content" if here == shipped else "server"
        return ModeHere(here, shipped, set_by, self.card.while_inpatient)

    def _situations(self) -> Iterator[Situation]:
        card = self.card
        for name, variant in card.variant.items():
            yield Situation(
                name=name,
                when=variant.when or name.replace("-", " "),
                indicator=variant.indicator,
                indicator_at=dict(variant.indicator_at),
                summary=variant.summary or card.summary,
                why=variant.why or card.why,
                consider=variant.consider or card.consider,
            )

    def _fillings(self) -> Iterator[Filling]:
        said = [text for x in self._situations() for text in (x.summary, x.why, x.consider)]
        for name in unique(_PLACEHOLDER.findall(" ".join(said))):
            phrases = self.card.phrases.get(name) or self.content.words.phrases.get(name, {})
            if words := [x for x in phrases.values() if x]:
                yield Filling(name, words)

    def _reasons(self) -> Iterator[Reason]:
        for code in unique((*self.card.override, *self.content.common_reasons)):
            yield self._reason(code)

    def _reason(self, code: str) -> Reason:
        row, card = self.content.override_reasons[code], self.card
        days = [x for x in (row.days, card.snooze_days) if x is not None]
        until: str = row.until or ""
        text = ""
        if card.snooze_days == 0:
            until = "value"
        elif code in card.snooze_while:
            until = "question"
            ask = self.family.snooze_questions[card.snooze_while[code]]
            text = " ".join((ask.__doc__ or "").split())
        return Reason(
            code=code,
            display=row.display,
            days=None if until else min(days, default=None),
            until=until,
            text=text,
            user_only=row.user_only,
            every_topic=row.every_topic,
            needs_proof=row.needs_proof,
        )

    # -- standing and source -------------------------------------------------------------------

    def _standing(self) -> Standing:
        precedence, code = self.family.precedence, self.topic.code
        keys = self.family.keys.keys
        indicators = [
            x for v in self.card.variant.values() for x in (v.indicator, *v.indicator_at.values())
        ]
        warns = any(x != "info" for x in indicators)
        return Standing(
            rank=self.topic.rank + 1,
            of=len(self.family.topics),
            most_cards=precedence.most_cards,
            silences=list(precedence.suppresses.get(code, ())),
            silenced_by=[x for x, others in precedence.suppresses.items() if code in others],
            held_back_by=[
                HeldBack(" ".join((ask.__doc__ or "").split()), code in hold.keeps_warnings)
                for hold, ask in self.family.holds
                if code not in hold.keeps
            ],
            needs=[x.title for x in keys if x.required or x.name in self.card.needs],
            capped_without=[x.title for x in keys if x.caps] if self.card.capped and warns else [],
        )

    def _attributes(self, source: SourceAttributes) -> Iterator[Attribute]:
        about = self.content.about
        dates = f"released {about.released}; revised {about.revised}"
        yield Attribute("citation", "Bibliographic citation", "; ".join(self.card.citations))
        yield Attribute("developer", "Developer", source.developer)
        yield Attribute("funding", "Funding source", source.funding)
        yield Attribute("dates", "Release and revision dates", dates)
        for name, title in _USES.items():
            yield Attribute(name, title, getattr(source, name))
