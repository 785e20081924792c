"""The clinical content as the server holds it: services, topics, words and orders, whole and
checked.
"""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from cds_service.content_files import (
    CardFile,
    ContentFile,
    Hold,
    LimitRow,
    Precedence,
    ReasonRow,
    Repeats,
    Service,
    SharedWords,
    SiteFile,
    SourceRow,
)
from cds_service.facts import Knowledge
from cds_service.modes import Mode
from cds_service.orders import OrderTemplate
from cds_service.prefetch import KeyIndex
from cds_service.results import MeasureOf
from cds_service.rules import Rule


class Topic(Struct, frozen=True):
    """A rule and its card."""

    code: str
    rule: Rule
    card: CardFile
    rank: int


class Override(Struct, frozen=True):
    """One thing a site changed: what, from which shipped value, to which."""

    key: str
    shipped: str
    here: str


class VignetteCodes(Struct, frozen=True):
    """The system and code that the charts of vignettes carry for each name of a result or an
    order, whatever the value sets and orders say.
    """

    results: Mapping[str, tuple[str, str]]
    orders: Mapping[str, tuple[str, str]]


class Family(Struct, frozen=True):
    """One folder of the content: its services and everything they share."""

    name: str
    services: tuple[Service, ...]
    keys: KeyIndex
    topics: tuple[Topic, ...]
    holds: tuple[tuple[Hold, Callable[[Any], Any]], ...]
    precedence: Precedence
    placeholders: Mapping[str, int]
    source: SourceRow
    limits: Mapping[str, LimitRow]
    knowledge: Knowledge
    folder: Path
    news: Callable[[Any], Any] | None
    snooze_questions: Mapping[str, Callable[[Any], Any]]
    repeats: Repeats | None


class LinePlan(Struct, frozen=True):
    """A limit to be drawn: what makes it of a number, and why it is not drawn above the line before
    it on days of other limits.
    """

    title: str
    limit: Callable[[Any, Any], Any]
    note: str


class PanelPlan(Struct, frozen=True):
    """A measure to be drawn: what judges its numbers (None: the report, else age and sex), the
    limits to draw, the days on which other limits hold, and what judges a number of such a day as
    on any other (None for both: there are no such days).
    """

    measure: str
    judged_by: Callable[[Any], Any] | None
    lines: tuple[LinePlan, ...]
    days: Callable[[Any], Any] | None
    outside: Callable[[Any, Any], Any] | None


class LanePlan(Struct, frozen=True):
    """Drugs or problems to be drawn beneath, by their sets, with the titles of these; the day of a
    record's last dose and the last one on which it may act (None: as recorded).
    """

    title: str
    drugs: tuple[str, ...]
    problems: tuple[str, ...]
    set_titles: Mapping[str, str]
    last_dose: Callable[[Any, Any], int | None] | None
    acts_until: Callable[[Any, Any], int | None] | None


class TrendPlan(Struct, frozen=True):
    """What the picture of a patient's results shows."""

    title: str
    panels: tuple[PanelPlan, ...]
    lanes: tuple[LanePlan, ...]


class Content(Struct, frozen=True):
    """All that was loaded, whole: a server that runs has one of these."""

    folder: Path
    about: ContentFile
    hash: str
    families: tuple[Family, ...]
    orders: Mapping[str, OrderTemplate]
    limits: Mapping[str, LimitRow]
    words: SharedWords
    override_reasons: Mapping[str, ReasonRow]
    measures: Mapping[str, MeasureOf]
    site: SiteFile
    overrides: tuple[Override, ...]
    modes: Mapping[str, Mode]
    vignette_codes: VignetteCodes
    trend: TrendPlan | None = None

    def services(self) -> Iterator[tuple[Family, Service]]:
        """Every service, in the order of the folders."""
        for family in self.families:
            for service in family.services:
                yield family, service

    def find(self, service_id: str) -> tuple[Family, Service] | None:
        """The service of an id."""
        return next((x for x in self.services() if x[1].id == service_id), None)

    @property
    def software_version(self) -> str:
        """The version of the server itself."""
        return _installed()

    @property
    def common_reasons(self) -> tuple[str, ...]:
        """The override reasons that every card has."""
        return tuple(name for name, row in self.override_reasons.items() if row.every_card)

    def measure_title(self, sets: frozenset[str]) -> str:
        """What the measure of a result is called, "" when it is none of ours."""
        return next((x.title for x in self.measures.values() if x.value_set in sets), "")

    def topics(self) -> dict[str, Topic]:
        """Every topic by its code."""
        return {topic.code: topic for family in self.families for topic in family.topics}


@cache
def _installed() -> str:
    """As it was at the start: reading it takes as long as a third of a call, and a version that is
    installed beside a running server is not what runs.
    """
    return importlib.metadata.version("cds-service")
