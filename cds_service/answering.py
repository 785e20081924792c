"""A service call from bytes to answer: the cards, or why there are which."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec

from cds_service.cards import Cards, CardWriter
from cds_service.clients import ANYBODY, Caller
from cds_service.content import Content, Family
from cds_service.content_files import Service
from cds_service.dates import as_text
from cds_service.errors import UnknownService
from cds_service.evaluation import Review, review
from cds_service.explanation import (
    Explanation,
    TopicVerdict,
    about,
    data_of,
    series_of,
    verdicts_of,
)
from cds_service.facts import PatientFacts
from cds_service.hook_request import Call, parse_call
from cds_service.issued import Answered, IssuedCards
from cds_service.modes import switched
from cds_service.overrides import Overrides
from cds_service.prefetch import Fetcher, Unsettled, settle, undeclared_line


@dataclass(frozen=True, slots=True)
class Answering:
    """Answers calls with one content; `now` is the clock, `fetcher` None where nothing may be
    fetched, `public_url` where the pages of the topics lie ("": nobody can tell), `issued` where
    answers are noted and `overrides` what was set aside (None: nothing is remembered).
    """

    content: Content
    fetcher: Fetcher | None
    fetch_seconds: float
    now: Callable[[], datetime]
    public_url: str = ""
    issued: IssuedCards | None = None
    overrides: Overrides | None = None

    def today(self) -> int:
        """Today at the site, as an ordinal."""
        return self.now().astimezone(ZoneInfo(self.content.site.time_zone)).date().toordinal()

    def service(self, service_id: str) -> tuple[Family, Service]:
        """The service of an id; raises UnknownService."""
        found = self.content.find(service_id)
        if found is None:
            raise UnknownService("No such service.")
        return found

    def cards(
        self, service_id: str, body: bytes, caller: Caller = ANYBODY, left: float = inf
    ) -> Cards:
        """The cards of a call; raises CdsError for what cannot be answered. `left` are the seconds
        that are left for an answer.
        """
        family, service = self.service(service_id)
        call = parse_call(body, service.hook)
        facts = self._facts(call, family, caller, left)
        found = self._review(family, service, facts, call, caller)
        cards = self._writer(call).write(found)
        if self.issued is not None:
            content, at = self.content.hash, self.now()
            self.issued.note(Answered(caller, call, service, content, found, cards, at))
        return cards

    def _review(
        self,
        family: Family,
        service: Service,
        facts: PatientFacts,
        call: Call,
        caller: Caller,
        *,
        also_off: bool = False,
    ) -> Review:
        hold_back = None
        if self.overrides is not None:
            hold_back = self.overrides.hold_back(self.content, family, facts, call, caller)
        modes = switched(self.content.modes, caller.modes)
        return review(family, service, facts, modes, also_off=also_off, hold_back=hold_back)

    def _writer(self, call: Call) -> CardWriter:
        return CardWriter(self.content, call.context, public_url=self.public_url)

    def _facts(self, call: Call, family: Family, caller: Caller, left: float) -> PatientFacts:
        names, seconds = self.content.site.prefetch, min(self.fetch_seconds, left)
        chart = settle(call, family.keys, names, self.fetcher, seconds, caller)
        return PatientFacts(chart, family.knowledge, self.today())

    def explain(
        self, service_id: str, body: bytes, caller: Caller = ANYBODY, left: float = inf
    ) -> dict[str, Any]:
        """Every verdict with its evidence, an Explanation as JSON has it; a call that lacks
        required data is explained, not refused.
        """
        return cast("dict[str, Any]", self._explanation(service_id, body, caller, left))

    def _explanation(
        self, service_id: str, body: bytes, caller: Caller, left: float
    ) -> Explanation:
        family, service = self.service(service_id)
        call = parse_call(body, service.hook)
        try:
            facts = self._facts(call, family, caller, left)
        except Unsettled as unsettled:
            return self._explain_unsettled(family, unsettled)
        found = self._review(family, service, facts, call, caller, also_off=True)
        return self._explain(call, found)

    def _explain(self, call: Call, found: Review) -> Explanation:
        cards = self._writer(call).write(found)
        return {
            "status": 200,
            "cards": msgspec.to_builtins(cards.cards),
            "verdicts": verdicts_of(self.content, found),
            "data": data_of(found.facts.chart),
            "content": about(self.content),
            "asOf": as_text(found.facts.today),
            "series": series_of(self.content, found.facts),
        }

    def _explain_unsettled(self, family: Family, unsettled: Unsettled) -> Explanation:
        verdicts: list[TopicVerdict] = [
            {
                "topic": topic.code,
                "verdict": "data-missing",
                "reason": {"code": "required", "text": unsettled.diagnostics},
                "evidence": [],
            }
            for topic in family.topics
        ]
        return {
            "status": 412,
            "cards": [],
            "verdicts": verdicts,
            "data": data_of(unsettled.chart),
            "content": about(self.content),
            "asOf": as_text(self.today()),
            "series": [],
            "hint": [
                undeclared_line(name, key)
                for name in unsettled.undeclared
                for key in unsettled.keys
                if key != "patient"
            ],
        }
